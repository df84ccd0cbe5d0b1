"""µP: learning rates that stay right when a network gets wider."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from optax_lrmult.core.assignment import assign
from optax_lrmult.core.expect import expect, few
from optax_lrmult.core.names import ParamLabels, PyTree
from optax_lrmult.core.patterns import Pattern, as_pattern, exactly
from optax_lrmult.core.rules import Rules

Axes = int | tuple[int, ...]
"""An axis, or several of a kernel whose inputs or outputs have several."""
Shape = tuple[int, ...]

_VECTOR = r"(.*/)?([^/]*_)?(bias|scale)"


def mup(
    params: PyTree,
    base_params: PyTree,
    optimizer: Literal["adam", "sgd"] = "adam",
    *,
    readout: Literal["scaled", "plain"],
    fan_in: Axes = -2,
    fan_out: Axes = -1,
    axes: Mapping[Any, tuple[Axes, Axes]] | None = None,
    transposed: Iterable[Any] = (),
    weight_decay: float | None = None,
    param_labels: ParamLabels = None,
) -> Rules:
    r"""µP's multipliers, from the shapes of a network and of the one it was tuned on.

    $$\text{Adam: } m = \frac{1}{r_\mathrm{in}}, \quad
      \text{SGD: } m = \frac{r_\mathrm{out}}{r_\mathrm{in}}$$

    with $r$ the ratio of a parameter's fan-in or fan-out to that in the base network,
    and $r_\mathrm{in} = 1$ for biases and all vectors.

    | parameter | Adam | SGD | initialised with a variance |
    | --- | --- | --- | --- |
    | input weight, bias, norm: fan-out grows | 1 | r | as in the base network |
    | hidden weight: both grow | 1 / r_in | r_out / r_in | divided by r_in |
    | output weight: fan-in grows, `"scaled"` | 1 | r | as in the base network |
    | output weight, `"plain"` | 1 / r | 1 / r | divided by r^2 |

    The rates are half of µP. The other half is the initialisation in the last column,
    which the network does itself; without it, the best rate moves with the width.

    Args:
      params: the network's parameters, or their shapes from `jax.eval_shape`.
      base_params: those of the base network: the same names, other widths.
      optimizer: `"adam"` for all that divide by the gradient's size; `"sgd"`.
      readout: `"scaled"` if the network divides its output by its width ratio, as
        `mup.MuReadout` does (table 8); `"plain"` if it does not (table 3). There is no
        default, since the wrong one trains, and is silently another parametrisation.
      fan_in: axis of a parameter's inputs, or a tuple of axes. The default is that of
        Flax's kernels, `[in, out]` and `[height, width, in, out]`.
      fan_out: axis of its outputs, or a tuple of axes.
      axes: other axes, as a pair (fan-in, fan-out) for each pattern of a rule. Flax's
        attention has `{"query/kernel": (0, (1, 2)), "out/kernel": ((0, 1), 2)}`.
      transposed: patterns of parameters that are stored `[out, in]`.
      weight_decay: write decays instead, `weight_decay / m` for every name, which keep
        the product of rate and decay, as `mup.MuAdamW` does.
      param_labels: the names, if not those of `path_labels`.

    Returns:
      The rules, by exact names. A parameter of multiplier 1 has none; in a table of
      decays the row `""` has it.

    Raises:
      ValueError: the networks differ in names or in numbers of axes; an axis that has
        grown is no fan; or a pattern matches nothing.

    Source: Yang et al. 2022, https://arxiv.org/abs/2203.03466, tables 3 and 8;
    https://github.com/microsoft/mup

    Example:
      >>> import jax
      >>> def network(width):
      ...     sizes = {"in": (64, width), "hid": (width, width), "out": (width, 10)}
      ...     return {k: jax.ShapeDtypeStruct(v, "float32") for k, v in sizes.items()}
      >>> mup(network(1024), network(128), readout="scaled")
      Rules([(name 'hid', 0.125)])
      >>> mup(network(1024), network(128), readout="scaled", weight_decay=0.1)
      Rules([(name 'hid', 0.8), ('', 0.1)])
    """
    expect(optimizer in ("adam", "sgd"), "optimizer", "'adam' or 'sgd'", optimizer)
    known = ("scaled", "plain")
    expect(readout in known, "readout", "'scaled' or 'plain'", readout)
    shapes, base = (_shapes(tree, param_labels) for tree in (params, base_params))
    _check_comparable(shapes, base)
    swapped = dict.fromkeys(_listed(transposed), (fan_out, fan_in))
    table = [(as_pattern(p), pair) for p, pair in ({**(axes or {}), **swapped}).items()]
    for pattern, _ in table:
        is_alive = any(map(pattern.matches, shapes))
        wanted = f"in one of the names, such as {few(list(shapes))}"
        expect(is_alive, "A pattern of axes= or transposed=", wanted, str(pattern))
    names_at: dict[float, list[str]] = {}
    for name, shape in shapes.items():
        fans = _fans_of(name, shape, table, (fan_in, fan_out))
        r_in, r_out = (_growth(name, shape, base[name], fan, fans) for fan in fans)
        if r_out == 1.0 and readout == "scaled":
            rate = 1.0 if optimizer == "adam" else r_in
        else:
            rate = (1.0 if optimizer == "adam" else r_out) / r_in
        if rate != 1.0:
            names_at.setdefault(rate, []).append(name)
    found = [(exactly(*names_at[rate]), rate) for rate in sorted(names_at)]
    if weight_decay is None:
        return Rules(found)
    decays = [(pattern, weight_decay / rate) for pattern, rate in found]
    return Rules([*decays, ("", weight_decay)])


def _shapes(params: PyTree, param_labels: ParamLabels) -> dict[str, Shape]:
    rows = assign(params, None, param_labels=param_labels)
    return {row.name: row.shape for row in rows}


def _listed(patterns: Any) -> list[Any]:
    return [*patterns] if isinstance(patterns, list | tuple) else [patterns]


def _check_comparable(shapes: Mapping[str, Shape], base: Mapping[str, Shape]) -> None:
    for name in {**shapes, **base}:
        if name not in shapes or name not in base:
            where = "base_params" if name in base else "params"
            raise ValueError(
                f"The parameter {name!r} is in {where} only. The base network must "
                "have the same parameters, in other widths."
            )
        is_alike = len(shapes[name]) == len(base[name]) and 0 not in base[name]
        owner, wanted = f"The shape of {name!r} in base_params", f"like {shapes[name]}"
        expect(is_alike, owner, f"{wanted} in its number of axes", base[name])


def _fans_of(
    name: str,
    shape: Shape,
    table: list[tuple[Pattern, tuple[Axes, Axes]]],
    default: tuple[Axes, Axes],
) -> tuple[set[int], set[int]]:
    """The axes of a parameter's inputs and of its outputs, counted from the front."""
    pair = next((pair for pattern, pair in table if pattern.matches(name)), None)
    if pair is None and (len(shape) < 2 or re.fullmatch(_VECTOR, name)):
        return set(), set(range(len(shape)))
    fans: list[set[int]] = []
    for axes in pair or default:
        several = (axes,) if isinstance(axes, int) else axes
        for axis in several:
            owner, wanted = f"An axis of {name!r}", f"one of the shape {shape}"
            expect(-len(shape) <= axis < len(shape), owner, wanted, axis)
        fans.append({axis % len(shape) for axis in several})
    is_apart = not fans[0] & fans[1]
    expect(is_apart, f"The fan-in of {name!r}", "apart from its fan-out", fans)
    return fans[0], fans[1]


def _growth(
    name: str, shape: Shape, base: Shape, fan: set[int], fans: tuple[set[int], set[int]]
) -> float:
    """How many times the size in the base network the axes of a fan have."""
    ratios = [n / base_n for n, base_n in zip(shape, base, strict=True)]
    for axis, ratio in enumerate(ratios):
        if ratio != 1.0 and axis not in fans[0] | fans[1]:
            raise ValueError(
                f"The parameter {name!r} has the shape {shape}, and {base} in the base "
                f"network. Axis {axis} has grown, but is neither in its fan-in "
                f"{sorted(fans[0])} nor in its fan-out {sorted(fans[1])}. Say what its "
                f"axes are: axes={{{name!r}: (fan_in, fan_out)}}."
            )
    return math.prod(ratios[axis] for axis in fan)
