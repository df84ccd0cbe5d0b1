"""A parameter's inputs and outputs: which axes they are, and by how much they grow."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from optax_lrmult._recipes._arguments import as_patterns, matches
from optax_lrmult._recipes._named import Shape
from optax_lrmult._rules import Pattern
from optax_lrmult._values import shown

Axes = int | tuple[int, ...]
"""An axis, or several of a kernel whose inputs or outputs have several."""

_VECTOR = r"(.*/)?([^/]*_)?(bias|scale)"
_HINT = "Say what its axes are by axes={pattern: (fan_in, fan_out)}."


class Growth(NamedTuple):
    """How many times their size in the base network fan-in and fan-out are."""

    fan_in: float
    fan_out: float


@dataclasses.dataclass(frozen=True)
class Fans:
    """Which axes of each parameter are its fan-in, and which its fan-out.

    Attributes:
      default: the axes of both, where nothing else tells them.
      axes: the axes of both, for each pattern.
      transposed: patterns for which the default changes places.
    """

    default: tuple[Axes, Axes]
    axes: Mapping[Pattern, tuple[Axes, Axes]]
    transposed: tuple[Pattern, ...]

    @classmethod
    def read(cls, fan_in: Any, fan_out: Any, axes: Any, transposed: Any) -> "Fans":
        """Checks the arguments of a recipe."""
        if axes is not None and not isinstance(axes, Mapping):
            raise TypeError(
                "axes must be a mapping {pattern: (fan_in, fan_out)}, not "
                f"{shown(axes)} ({type(axes).__name__})."
            )
        _check_axes("fan_in", fan_in)
        _check_axes("fan_out", fan_out)
        for pattern, pair in (axes or {}).items():
            _check_pair(pattern, pair)
        as_patterns(list(axes or {}))
        return cls((fan_in, fan_out), dict(axes or {}), as_patterns(transposed))

    def check_patterns(self, names: Iterable[str]) -> None:
        """Raises if a pattern matches none of the names."""
        names = list(names)
        for pattern in (*self.axes, *self.transposed):
            if not any(matches(pattern, name) for name in names):
                argument = "axes" if pattern in self.axes else "transposed"
                raise ValueError(
                    f"The pattern {shown(pattern)} of {argument} matches none of the "
                    f"{len(names)} parameters, the first of which are {names[:3]}."
                )

    def growth(self, name: str, shape: Shape, base: Shape) -> Growth:
        """How much a parameter's fans have grown from its shape in the base network."""
        fan_in, fan_out = (_from_front(name, shape, a) for a in self._of(name, shape))
        if fan_in & fan_out:
            raise ValueError(
                f"The parameter {shown(name)} of shape {shape} has an axis that is in "
                f"its fan-in {sorted(fan_in)} and in its fan-out {sorted(fan_out)}."
            )
        ratios = [n / base_n for n, base_n in zip(shape, base, strict=True)]
        for axis, ratio in enumerate(ratios):
            if ratio != 1.0 and axis not in fan_in | fan_out:
                raise ValueError(
                    f"The parameter {shown(name)} of shape {shape} has the shape "
                    f"{base} in the base network, and its axis {axis} is neither in "
                    f"its fan-in {sorted(fan_in)} nor in its fan-out "
                    f"{sorted(fan_out)}. {_HINT}"
                )
        return Growth(*(math.prod(ratios[a] for a in fan) for fan in (fan_in, fan_out)))

    def _of(self, name: str, shape: Shape) -> tuple[Axes, Axes]:
        for pattern, pair in self.axes.items():
            if matches(pattern, name):
                return pair
        if len(shape) < 2 or re.fullmatch(_VECTOR, name):
            return (), tuple(range(len(shape)))
        if any(matches(pattern, name) for pattern in self.transposed):
            return self.default[1], self.default[0]
        return self.default


def _from_front(name: str, shape: Shape, axes: Axes) -> set[int]:
    several = (axes,) if isinstance(axes, int) else axes
    for axis in several:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(
                f"The parameter {shown(name)} of shape {shape} has no axis {axis}. "
                f"{_HINT}"
            )
    return {axis % len(shape) for axis in several}


def _check_pair(pattern: Any, pair: Any) -> None:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(
            f"axes must have a pair (fan_in, fan_out) for {shown(pattern)}, as in "
            f"(0, (1, 2)), not {shown(pair)}."
        )
    for part in pair:
        _check_axes(f"axes[{pattern!r}]", part)


def _check_axes(owner: str, axes: Any) -> None:
    several = axes if isinstance(axes, tuple) else (axes,)
    if not all(
        isinstance(axis, int) and not isinstance(axis, bool) for axis in several
    ):
        raise TypeError(
            f"{owner} must be an axis (an int) or a tuple of axes, not {shown(axes)} "
            f"({type(axes).__name__})."
        )
