"""µP: learning rates that stay right when a network gets wider."""

from collections.abc import Mapping
from typing import Literal

from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._recipes._arguments import Patterns, as_flag
from optax_lrmult._recipes._fans import Axes, Fans, Growth
from optax_lrmult._recipes._named import Shape, rules_by_name, shapes_by_name
from optax_lrmult._rules import Pattern, Rules
from optax_lrmult._values import shown


def mup(
    params: PyTree,
    base_params: PyTree,
    optimizer: Literal["adam", "sgd"] = "adam",
    *,
    fan_in: Axes = -2,
    fan_out: Axes = -1,
    axes: Mapping[Pattern, tuple[Axes, Axes]] | None = None,
    transposed: Patterns = (),
    readout: Literal["scaled", "plain"] = "scaled",
    decay: bool = False,
    param_labels: ParamLabels = None,
) -> Rules:
    r"""µP's multipliers, from the shapes of a network and of the one it was tuned on.

    $$\text{Adam: } m = \frac{1}{r_\mathrm{in}}, \quad
      \text{SGD: } m = \frac{r_\mathrm{out}}{r_\mathrm{in}}$$

    with $r$ the ratio of a parameter's fan-in or fan-out to that in the base network,
    and $r_\mathrm{in} = 1$ for biases and all vectors. Output weights have 1 (Adam) and
    $r_\mathrm{in}$ (SGD) instead, if the network divides its output by $r_\mathrm{in}$.

    | parameter | Adam | SGD |
    | --- | --- | --- |
    | input weight, bias, norm: fan-out grows | 1 | r |
    | hidden weight: both grow | 1 / r_in | r_out / r_in |
    | output weight: fan-in grows, `"scaled"` | 1 | r |
    | output weight, `"plain"` | 1 / r | 1 / r |
    | the same shape in both | 1 | 1 |

    The rates are half of µP: initialise as its tables say, too.

    Args:
      params: the network's parameters, or their shapes from `jax.eval_shape`.
      base_params: those of the base network: the same names, other widths.
      optimizer: `"adam"` for all that divide by the gradient's size; `"sgd"`.
      fan_in: axis of a parameter's inputs, or a tuple of axes. The default is that of
        Flax's kernels, `[in, out]` and `[height, width, in, out]`.
      fan_out: axis of its outputs, or a tuple of axes.
      axes: other axes, as a pair (fan-in, fan-out) for each pattern of a rule. Flax's
        attention has `{"query/kernel": (0, (1, 2)), "out/kernel": ((0, 1), 2)}`.
      transposed: patterns of parameters that are stored `[out, in]`.
      readout: `"scaled"` if the network divides its output by its width ratio, as
        `mup.MuReadout` does (table 8); `"plain"` if it does not (table 3).
      decay: write the multipliers 1 / m for weight decay instead, which keep the
        product of rate and decay, as `mup.MuAdamW` does. For
        `add_decayed_weights_by_name` in front of `scale_by_name_multiplier`.
      param_labels: the names, if not those of `path_labels`.

    Returns:
      The rules, with the names as patterns. A parameter of multiplier 1 has none.

    Raises:
      TypeError: an argument is of a wrong type.
      ValueError: the networks differ in names or in numbers of axes; an axis of other
        size is no fan; a pattern matches nothing; an option is unknown.

    Source: Yang et al. 2022, https://arxiv.org/abs/2203.03466, tables 3 and 8;
    https://github.com/microsoft/mup

    Example:
      >>> import jax
      >>> def network(width):
      ...     sizes = {"in": (64, width), "hid": (width, width), "out": (width, 10)}
      ...     return {k: jax.ShapeDtypeStruct(v, "float32") for k, v in sizes.items()}
      >>> mup(network(1024), network(128))
      Rules([(re.compile('hid'), 0.125)])
      >>> mup(network(1024), network(128), "sgd")
      Rules([(re.compile('in'), 8.0), (re.compile('out'), 8.0)])
    """
    _check_options(optimizer, readout)
    fans = Fans.read(fan_in, fan_out, axes, transposed)
    power = -1 if as_flag(decay, "decay") else 1
    shapes = shapes_by_name(params, param_labels)
    base_shapes = shapes_by_name(base_params, param_labels)
    _check_comparable(shapes, base_shapes)
    fans.check_patterns(shapes)
    rates = {
        name: _rate(fans.growth(name, shape, base_shapes[name]), optimizer, readout)
        for name, shape in shapes.items()
    }
    rules = {rate: rate**power for rate in sorted(set(rates.values())) if rate != 1.0}
    return rules_by_name(rates, rules)


def _rate(growth: Growth, optimizer: str, readout: str) -> float:
    if growth.fan_out == 1.0 and readout == "scaled":
        return 1.0 if optimizer == "adam" else growth.fan_in
    return (1.0 if optimizer == "adam" else growth.fan_out) / growth.fan_in


def _check_options(optimizer: str, readout: str) -> None:
    if optimizer not in ("adam", "sgd"):
        raise ValueError(f"optimizer must be 'adam' or 'sgd', not {shown(optimizer)}.")
    if readout not in ("scaled", "plain"):
        raise ValueError(f"readout must be 'scaled' or 'plain', not {shown(readout)}.")


def _check_comparable(
    shapes: Mapping[str, Shape], base_shapes: Mapping[str, Shape]
) -> None:
    for name in {**shapes, **base_shapes}:
        if name not in shapes or name not in base_shapes:
            where = "base_params" if name in base_shapes else "params"
            raise ValueError(
                f"The parameter {shown(name)} is in {where} only. The base network "
                "must have the same parameters, in other widths."
            )
        shape, base = shapes[name], base_shapes[name]
        if len(shape) != len(base) or 0 in (*shape, *base):
            raise ValueError(
                f"The parameter {shown(name)} has the shape {shape}, and {base} in the "
                "base network: they must have the same number of axes, none of length "
                "0."
            )
