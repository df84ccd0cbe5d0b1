"""µP: learning rates that stay right when a network gets wider."""

import math
import re
from collections.abc import Iterable
from typing import Any, Literal, overload

from optax_lrmult.core.assignment import Assignment, assign
from optax_lrmult.core.expect import expect
from optax_lrmult.core.names import ParamLabels, PyTree
from optax_lrmult.core.patterns import exactly
from optax_lrmult.core.rules import Rules, RulesLike

_Shape = tuple[int, ...]
_Optimizer = Literal["adam", "sgd"]
_Readout = Literal["scaled", "plain"]

_VECTOR = r"(.*/)?([^/]*_)?(bias|scale)"


@overload
def mup(
    params: PyTree,
    base_params: PyTree,
    optimizer: _Optimizer = "adam",
    *,
    readout: _Readout,
    weight_decay: None = None,
    axes: RulesLike = None,
    param_labels: ParamLabels = None,
) -> Rules: ...


@overload
def mup(
    params: PyTree,
    base_params: PyTree,
    optimizer: _Optimizer = "adam",
    *,
    readout: _Readout,
    weight_decay: float,
    axes: RulesLike = None,
    param_labels: ParamLabels = None,
) -> dict[str, Any]: ...


def mup(
    params: PyTree,
    base_params: PyTree,
    optimizer: _Optimizer = "adam",
    *,
    readout: _Readout,
    weight_decay: float | None = None,
    axes: RulesLike = None,
    param_labels: ParamLabels = None,
) -> Rules | dict[str, Any]:
    r"""µP's multipliers, from the shapes of a network and of the one it was tuned on.

    $$\text{Adam: } m = \frac{1}{r_\mathrm{in}}, \quad
      \text{SGD: } m = \frac{r_\mathrm{out}}{r_\mathrm{in}}$$

    with $r$ the ratio of a parameter's fan-in or fan-out to that in the base network,
    and $r_\mathrm{in} = 1$ for biases and all vectors. The output weights of a network
    that divides its output by $r$ are an exception.

    | parameter | Adam | SGD | variance at initialisation |
    | --- | --- | --- | --- |
    | input weight, bias, norm: fan-out grows | 1 | r_out | the base network's |
    | hidden weight: both grow | 1 / r_in | r_out / r_in | the same / r_in |
    | output weight: fan-in grows, `"scaled"` | 1 | r_in | the base network's |
    | output weight, `"plain"` | 1 / r_in | 1 / r_in | the same / r_in^2 |

    These rates are half of µP. The other half is the initialisation in the last column,
    which is up to the network: without it the best rate moves with the width. With
    AdamW, most of the effect is the embedding's rate (Kalra and Barkeshli 2026), which
    is one rule without this recipe: `{"embed": width / base_width}`.

    CompleteP keeps rates right in deeper networks too, whose residual branches it
    scales. Its rates and decays are these tables with `weight_decay`, without decay for
    vectors: `no_decay(params) + tables["weight_decay"]`. It divides Adam's epsilon by
    the ratio of widths and by that of depths.

    Args:
      params: the network's parameters, or their shapes from `jax.eval_shape`.
      base_params: those of the base network: the same names, other widths.
      optimizer: `"adam"` for all that divide by the gradient's size; `"sgd"`.
      readout: `"scaled"` if the network divides its output by its width ratio, as
        `mup.MuReadout` does (table 8); `"plain"` if it does not (table 3). There is no
        default, since a network trains with the wrong one, too, but not as in µP.
      weight_decay: the decay of a parameter of multiplier 1. Others get
        `weight_decay / m`, which keeps the product of rate and decay, as `mup.MuAdamW`
        does.
      axes: the axes of fan-in and fan-out, as a pair for each pattern of a table. The
        default is `(-2, -1)`, as in Flax's kernels `[in, out]` and `[height, width, in,
        out]`. Matrices of Equinox and PyTorch have `{"weight": (-1, -2)}`, Flax's
        attention `{"query/kernel": (0, (1, 2)), "out/kernel": ((0, 1), 2)}`.
      param_labels: the names, if not those of `path_labels`.

    Returns:
      The multipliers, by exact names; a parameter of multiplier 1 has no rule. With
      `weight_decay` a dictionary of two tables, `multipliers` and `weight_decay`, which
      belong together: `adamw(learning_rate, **tables)`.

    Raises:
      ValueError: the networks differ in names or in numbers of axes; an axis that has
        grown is no fan; or a pattern matches nothing.

    Source: Yang et al. 2022, https://arxiv.org/abs/2203.03466, tables 3 and 8;
    https://github.com/microsoft/mup; Dey et al. 2025 (CompleteP),
    https://arxiv.org/abs/2505.01618; Kalra and Barkeshli 2026,
    https://arxiv.org/abs/2605.21486

    Example:
      >>> import jax
      >>> def network(width):
      ...     sizes = {"in": (64, width), "hid": (width, width), "out": (width, 10)}
      ...     return {k: jax.ShapeDtypeStruct(v, "float32") for k, v in sizes.items()}
      >>> mup(network(1024), network(128), readout="scaled")
      Rules([(hidden weights, 0.125)])
      >>> mup(network(1024), network(128), readout="scaled", weight_decay=0.1)
      {'multipliers': Rules([(hidden weights, 0.125)]),
       'weight_decay': Rules([(hidden weights, 0.8), ('', 0.1)])}
    """
    expect(optimizer in ("adam", "sgd"), "optimizer", "'adam' or 'sgd'", optimizer)
    known = ("scaled", "plain")
    expect(readout in known, "readout", "'scaled' or 'plain'", readout)
    names: Any = {"param_labels": param_labels}
    rows = assign(
        params, axes, on_unmatched="error", argument="axes", advice="", **names
    )
    base = {row.name: row.shape for row in assign(base_params, None, **names)}
    _check_same_names([row.name for row in rows], base)
    names_at: dict[tuple[float, str], list[str]] = {}
    for row in rows:
        r_in, r_out = _growth(row, base[row.name])
        rate = (1.0 if optimizer == "adam" else r_out) / r_in
        if r_out == 1.0 and readout == "scaled":
            rate *= r_in if optimizer == "adam" else r_in**2
        kind = "input weights and vectors" if r_in == 1.0 else "hidden weights"
        kind = "output weights" if r_out == 1.0 else kind
        if rate != 1.0:
            names_at.setdefault((rate, kind), []).append(row.name)
    found = [
        (exactly(*names_at[key], words=key[1]), key[0]) for key in sorted(names_at)
    ]
    if weight_decay is None:
        return Rules(found)
    decays = Rules([(pattern, weight_decay / rate) for pattern, rate in found])
    return {"multipliers": Rules(found), "weight_decay": decays + {"": weight_decay}}


def _check_same_names(names: Iterable[str], base: Iterable[str]) -> None:
    for name in {*names} ^ {*base}:
        where = "base_params" if name in base else "params"
        raise ValueError(
            f"The parameter {name!r} is in {where} only. The base network must have "
            "the same parameters, in other widths."
        )


def _growth(row: Assignment, base: _Shape) -> tuple[float, float]:
    """How many times as large as in the base network a parameter's two fans are."""
    is_alike = len(row.shape) == len(base) and 0 not in (*row.shape, *base)
    owner = f"The shape of {row.name!r} in base_params"
    expect(is_alike, owner, f"like {row.shape} in its number of axes", base)
    ratios = [n / base_n for n, base_n in zip(row.shape, base, strict=True)]
    fan_in, fan_out = _fans(row)
    for axis, ratio in enumerate(ratios):
        if ratio != 1.0 and axis not in fan_in | fan_out:
            raise ValueError(
                f"The parameter {row.name!r} has the shape {row.shape}, and {base} in "
                f"the base network. Axis {axis} has grown, and is neither of its "
                f"fan-in {sorted(fan_in)} nor of its fan-out {sorted(fan_out)}. Say "
                f"what its axes are: axes={{{row.name!r}: (fan_in, fan_out)}}."
            )
    return math.prod(ratios[a] for a in fan_in), math.prod(ratios[a] for a in fan_out)


def _fans(row: Assignment) -> tuple[set[int], set[int]]:
    """A parameter's axes of inputs and of outputs, counted from the front."""
    ndim = len(row.shape)
    if ndim < 2 or (row.rule is None and re.fullmatch(_VECTOR, row.name)):
        return set(), set(range(ndim))
    fans = []
    for axes in row.value_or((-2, -1)):
        several = (axes,) if isinstance(axes, int) else axes
        for axis in several:
            owner, wanted = f"An axis of {row.name!r}", f"one of the shape {row.shape}"
            expect(-ndim <= axis < ndim, owner, wanted, axis)
        fans.append({axis % ndim for axis in several})
    fan_in, fan_out = fans
    owner, wanted = f"The fan-in of {row.name!r}", "apart from its fan-out"
    expect(not fan_in & fan_out, owner, wanted, fans)
    return fan_in, fan_out
