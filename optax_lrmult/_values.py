"""What a multiplier may be: a number, a schedule, a traced scalar, one per layer."""

import dataclasses
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, TypeGuard

Schedule = Callable[[Any], Any]
"""`step -> scalar`, with steps counted from 0, as in `optax.scale_by_schedule`."""

_LARGEST_FLOAT32 = 3.4028234663852886e38
_LONGEST_SHOWN = 200
_REAL_DTYPES = ("float", "bfloat", "int", "uint")
_KINDS = (
    "a real number, a schedule (a function of the step), a traced or 0-d JAX scalar, "
    "or per_layer(values)"
)


@dataclasses.dataclass(frozen=True)
class PerLayer:
    """One multiplier for each slice of a stacked parameter; see `per_layer`."""

    values: Any
    axis: int = 0

    def __repr__(self) -> str:
        axis = f", axis={self.axis}" if self.axis else ""
        values = self.values
        if isinstance(values, tuple):
            values = (
                f"[{', '.join(f'{v:g}' if is_number(v) else repr(v) for v in values)}]"
            )
        return f"per_layer({values}{axis})"


Multiplier = Any
"""A float, a `Schedule`, a `PerLayer`, or a traced scalar."""


def per_layer(values: Iterable[Any], axis: int = 0) -> PerLayer:
    r"""One multiplier for each slice along an axis of a stacked parameter.

    Slice $i$ of the update becomes $m_i u_i$. For the stacked parameters that
    `nn.scan`, `nn.vmap` and `nnx.vmap` make: one array holds all the layers.

    Args:
      values: one multiplier for each slice: numbers, traced scalars or schedules.
      axis: the axis along which the layers are stacked, without unit; may be negative.

    Returns:
      A multiplier, for use in a table of rules. Its length is checked against the
      parameters' shapes when names meet rules.

    Raises:
      TypeError: `values` is a single number, a string or without order, one of them is
        no multiplier, or `axis` is no int.
      ValueError: `values` is empty, or one of them is not finite.

    Example:
      >>> per_layer([0.25, 0.5, 1])
      per_layer([0.25, 0.5, 1])
    """
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise TypeError(f"per_layer: axis must be an integer, not {shown(axis)}.")
    if not _is_row(values):
        raise TypeError(
            "per_layer takes one multiplier for each layer, as in per_layer([0.25, "
            f"0.5, 1.0]), not {shown(values)} ({type(values).__name__})."
        )
    checked = tuple(
        _one_layers(value, f"layer {index} of per_layer")
        for index, value in enumerate(values)
    )
    if not checked:
        raise ValueError("per_layer needs at least one multiplier; values is empty.")
    return PerLayer(checked, axis)


def _is_row(values: Any) -> bool:
    """True for what has an order and a length: no text, set, mapping or 0-d array."""
    unfit = isinstance(values, str | bytes | Mapping | Set)
    is_point = getattr(values, "shape", None) == ()
    return isinstance(values, Iterable) and not unfit and not is_point


def _one_layers(value: Any, owner: str) -> Multiplier:
    if isinstance(value, PerLayer):
        raise TypeError(f"The value of {owner} is a per_layer; they do not nest.")
    return as_multiplier(value, owner)


def as_multiplier(value: Any, owner: str) -> Multiplier:
    """The multiplier that `value` says: a float if it is a concrete number.

    A NumPy or JAX scalar would promote bfloat16 updates to float32; a float does not.

    Args:
      value: what the user wrote.
      owner: whose multiplier it is, for the error's text.
    """
    if isinstance(value, PerLayer):
        return value
    if is_schedule(value):
        check_takes_one(value, f"The schedule of {owner}", "the step")
        return value
    shape = tuple(getattr(value, "shape", ()))
    if _dtype_name(value) and shape:
        raise TypeError(
            f"The value of {owner} is an array of shape {shape}. For one multiplier "
            "per slice of a stacked parameter write per_layer(values)."
        )
    return _as_number(value, owner, _KINDS)


def as_scalar(value: Any, owner: str) -> Any:
    """A number or a traced scalar, where nothing else can stand."""
    if isinstance(value, PerLayer) or is_schedule(value) or getattr(value, "shape", ()):
        raise TypeError(f"The value of {owner} must be a number, not {shown(value)}.")
    return _as_number(value, owner, "a real number")


def _as_number(value: Any, owner: str, kinds: str) -> Any:
    dtype = _dtype_name(value)
    if not (dtype.startswith(_REAL_DTYPES) if dtype else _is_real(value)):
        raise TypeError(
            f"The value of {owner} must be {kinds}, not {shown(value)} "
            f"({type(value).__name__}).{_hint(value, kinds)}"
        )
    return _as_float(value, owner, kinds)


def _hint(value: Any, kinds: str) -> str:
    if isinstance(value, bool):
        return " Write 1.0 or 0.0."
    if not isinstance(value, Mapping):
        return ""
    if any(hasattr(leaf, "shape") for leaf in value.values()):
        return " These are parameters, which come first: preview(params, multipliers)."
    if kinds == _KINDS:
        return " Tables do not nest: write one pattern, 'a/b'."
    return " A table is given by its name: multipliers={'stem': 0.1}."


def _as_float(value: Any, owner: str, kinds: str) -> Any:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except TypeError:
        if hasattr(value, "aval"):  # A JAX tracer has a type, but no value yet.
            return value
        raise TypeError(
            f"The value of {owner} must be {kinds}, not {shown(value)}."
        ) from None
    if not abs(number) <= _LARGEST_FLOAT32:
        raise ValueError(
            f"The value of {owner} must be finite in float32, not {shown(value)}."
        )
    return number


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _dtype_name(value: Any) -> str:
    dtype = getattr(value, "dtype", "")
    return str(getattr(dtype, "name", dtype)).rpartition(".")[2]


def check_takes_one(function: Callable[..., Any], owner: str, what: str) -> None:
    """Raises if a function can't be called with one argument.

    Args:
      function: what the user gave.
      owner: whose function it is, at the beginning of the error's text.
      what: the argument.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # Some of C have none.
        return
    try:
        signature.bind(None)
    except TypeError:
        raise TypeError(
            f"{owner} is called with one argument, {what}, which {shown(function)} "
            f"with the arguments {signature} does not take."
        ) from None


def shown(value: Any) -> str:
    """A value in an error's text: its ends, since it may be a whole model."""
    return shortened(repr(value))


def shortened(text: str) -> str:
    """The text, or both ends of a long one."""
    if len(text) <= _LONGEST_SHOWN:
        return text
    half = _LONGEST_SHOWN // 2
    return f"{text[:half]}...{text[-half:]}"


def printable(text: str) -> str:
    """The text with an escape for each character that a terminal would act on."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def as_cell(name: str) -> str:
    """A name as it stands in a table: on one line, and not too long."""
    return shortened(printable(name))


def is_number(multiplier: Multiplier) -> TypeGuard[float]:
    """True for a multiplier that is known before tracing."""
    return isinstance(multiplier, float)


def is_schedule(multiplier: Multiplier) -> TypeGuard[Schedule]:
    """True for a function of the step."""
    return callable(multiplier) and not isinstance(multiplier, type)


def needs_step(multiplier: Multiplier) -> bool:
    """True for a schedule, and for a `per_layer` that holds one."""
    if isinstance(multiplier, PerLayer) and isinstance(multiplier.values, tuple):
        return any(map(is_schedule, multiplier.values))
    return is_schedule(multiplier)


def is_static(multiplier: Multiplier) -> bool:
    """True for what holds no tracer: numbers and schedules, also one per layer."""
    if isinstance(multiplier, PerLayer):
        return all(map(is_static, multiplier.values))
    return is_number(multiplier) or is_schedule(multiplier)


def is_frozen(multiplier: Multiplier) -> bool:
    """True for a static 0, and for a `per_layer` of nothing else."""
    if isinstance(multiplier, PerLayer) and isinstance(multiplier.values, tuple):
        return all(map(is_frozen, multiplier.values))
    return is_number(multiplier) and multiplier == 0.0
