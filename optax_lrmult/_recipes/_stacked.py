"""Arrays that hold all the layers of a stack, as `nn.scan` makes them."""

import re
from collections.abc import Mapping
from typing import Any

from optax_lrmult._names import ParamLabels
from optax_lrmult._recipes._blocks import Stack
from optax_lrmult._recipes._exact import common_length
from optax_lrmult._recipes._named import shapes_by_name
from optax_lrmult._rules import Pattern, Rule
from optax_lrmult._values import shown

Shapes = Mapping[str, tuple[int, ...] | None]
"""The shape of each parameter; `None` if only its name is known."""


def shapes_of(params_or_names: Any, param_labels: ParamLabels) -> Shapes:
    """Sorted by name, so that the order of leaves means nothing."""
    if isinstance(params_or_names, list | tuple) and all(
        isinstance(name, str) for name in params_or_names
    ):
        if param_labels is not None:
            raise TypeError("param_labels renames parameters, but these are names.")
        return dict.fromkeys(sorted(params_or_names))
    return dict(sorted(shapes_by_name(params_or_names, param_labels).items()))


def stacked_layers(
    stacked: Mapping[Pattern, int] | None, shapes: Shapes
) -> list[Stack]:
    """For each pattern a stack, as high as the arrays that it matches are long."""
    if not isinstance(stacked or {}, Mapping):
        raise TypeError(
            "stacked must be a mapping from a pattern to the axis of the layers, as in "
            f"{{'encoderblock': 0}}, not {shown(stacked)} ({type(stacked).__name__})."
        )
    left = dict(shapes)
    stacks = []
    for pattern, axis in (stacked or {}).items():
        rule = Rule(pattern, 1.0)
        found = {n: left.pop(n) for n in shapes if n in left and rule.multiplier_of(n)}
        if not found:
            raise ValueError(
                f"The pattern {rule} of stacked= matches none of the parameters, which "
                f"are {listed(left)}."
            )
        stacks.append(_stack(rule, axis, found))
    return stacks


def _stack(rule: Rule, axis: int, shapes: Shapes) -> Stack:
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise TypeError(
            f"The axis of {rule} in stacked= must be an int, not {shown(axis)}."
        )
    lengths = {name: _length(name, shape, axis) for name, shape in shapes.items()}
    (first, length), *others = lengths.items()
    for name, other in others:
        if other != length:
            raise ValueError(
                f"The pattern {rule} of stacked= takes parameters of different numbers "
                f"of layers along axis {axis}: {shown(first)} has {length}, "
                f"{shown(name)} has {other}. Write one pattern for each stack."
            )
    paths = [tuple(name.split("/")[:-1]) for name in shapes]
    path = paths[0][: common_length(*paths)]
    top = rule.text.split("/")[0]
    if isinstance(rule.pattern, str) and top not in "/".join(path):
        below = {p[len(path)] for p in paths if len(p) > len(path)}
        _check_are_no_blocks(rule, below)
    distances = dict.fromkeys(shapes, length)
    return Stack(rule.text, path, max(1, len(path)), distances, length + 1, axis)


def _check_are_no_blocks(rule: Rule, segments: set[str]) -> None:
    """Raises for modules that differ in their number only, as `block_0`, `block_1`."""
    kinds = {re.sub(r"\d+", "", segment) for segment in segments}
    if len(segments) > len(kinds) == 1:
        raise ValueError(
            f"The pattern {rule} of stacked= takes numbered modules, "
            f"{listed(sorted(segments))}. Write one pattern for each stack; blocks "
            "that are not stacked are found without stacked=."
        )


def _length(name: str, shape: tuple[int, ...] | None, axis: Any) -> int:
    if shape is None:
        raise ValueError(
            "stacked= reads the number of layers from the shapes. Pass the parameters, "
            "or their jax.eval_shape, not their names."
        )
    if not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"stacked= says that {shown(name)} holds its layers along axis {axis}, but "
            f"its shape is {shape}."
        )
    return shape[axis]


def listed(names: Any) -> str:
    """The first few names, for an error's text."""
    texts = [*map(shown, names)]
    more = f" and {len(texts) - 4} more" if len(texts) > 4 else ""
    return (", ".join(texts[:4]) or "none") + more
