"""The `paramwise_cfg` of mmengine."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from optax_lrmult._config import check_keys
from optax_lrmult._converters._tables import GroupRules, exactly
from optax_lrmult._multipliers import Assignment, assign
from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._rules import Pattern, Rules
from optax_lrmult._values import as_scalar, check_takes_one, shown

_KEYS = (
    "custom_keys",
    "bias_lr_mult",
    "bias_decay_mult",
    "norm_decay_mult",
    "flat_decay_mult",
    "dwconv_decay_mult",
    "dcn_offset_lr_mult",
    "bypass_duplicate",
)


def from_mmengine(
    paramwise_cfg: Mapping[str, Any] | None,
    params: PyTree,
    *,
    separator: str | None = ".",
    is_norm: Callable[[str], bool] | None = None,
    param_labels: ParamLabels = None,
) -> GroupRules:
    """The two tables that `DefaultOptimWrapperConstructor` makes of `paramwise_cfg`.

    The same as there: a custom key takes the names that contain it; the longest one
    wins, and among equally long ones the first in the alphabet; what it does not set is
    1. For the parameters it takes, all other settings are off. The others get

    - rate: `dcn_offset_lr_mult` in a layer `conv_offset`, else `bias_lr_mult` if it is
      called `bias` and is in no normalization layer;
    - decay: the first of `norm_decay_mult`, `bias_decay_mult` (not in `conv_offset`),
      `dwconv_decay_mult` and `flat_decay_mult` (one axis, not in `conv_offset`) that is
      set and applies. So without `norm_decay_mult` a normalization layer's `bias` gets
      `bias_decay_mult`; the code of mmengine does this, its text says otherwise.

    The decay of a parameter is `weight_decay * decay_mult` there, without `lr_mult`;
    the optimizer then multiplies both by the rate (see `GroupRules`).

    Modules have no class here. One is a normalization layer if it has a parameter
    `scale` or `gamma`, or a `weight` with one axis; a depthwise convolution if its
    `kernel` is of shape `(h, w, 1, n)` or its `weight` of `(n, 1, h, w)`.

    Args:
      paramwise_cfg: the settings; `bypass_duplicate` has no meaning here.
      params: a pytree of arrays, or of `jax.ShapeDtypeStruct`.
      separator: what joins names there; in custom keys it becomes `/`. `None` leaves
        them as they are, for names with dots, as in `{"stem.weight": ...}`.
      is_norm: says by a module's name, such as `stem/bn`, if it is a normalization
        layer.
      param_labels: the names, if not those of `path_labels`.

    Returns:
      The tables: the custom keys, then a rule by exact name for each other parameter
      that a setting takes. A custom key that takes nothing stays in them, and is an
      error in `init` (there it is none): it is likely misspelt.

    Raises:
      TypeError: a setting or a multiplier is of a wrong type.
      ValueError: a key is not known here, or a multiplier is not finite.

    Source: https://github.com/open-mmlab/mmengine,
      mmengine/optim/optimizer/default_constructor.py

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
      ...           "stem": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
      >>> keys = {"stem": {"lr_mult": 0.1}}
      >>> from_mmengine({"custom_keys": keys, "bias_decay_mult": 0.0}, params)
      GroupRules(learning_rate=Rules([('stem', 0.1)]),
                 weight_decay=Rules([('stem', 1.0), (re.compile('head/bias'), 0.0)]))
    """
    config = _checked(paramwise_cfg)
    if not isinstance(separator, str | None):
        raise TypeError(f"separator must be a str or None, not {shown(separator)}.")
    if is_norm is not None:
        if not callable(is_norm):
            raise TypeError(f"is_norm must be a function, not {shown(is_norm)}.")
        check_takes_one(is_norm, "The function is_norm", "a module's name")
    custom = _custom_rules(config.get("custom_keys", {}), separator)
    rows = assign(params, custom.learning_rate, param_labels=param_labels)
    others = [
        parameter
        for row, parameter in zip(rows, _described(rows, is_norm), strict=True)
        if row.rule is None
    ]
    return GroupRules(
        custom.learning_rate + _by_name(others, _rate_settings, config),
        custom.weight_decay + _by_name(others, _decay_settings, config),
    )


def _checked(paramwise_cfg: Mapping[str, Any] | None) -> Mapping[str, Any]:
    config = {} if paramwise_cfg is None else paramwise_cfg
    if not isinstance(config, Mapping):
        raise TypeError(
            f"paramwise_cfg must be a dictionary, not {shown(config)} "
            f"({type(config).__name__})."
        )
    check_keys(config, _KEYS, "paramwise_cfg")
    for key, value in config.items():
        if key.endswith("_mult") and value is not None:
            as_scalar(value, key)
    custom_keys = config.get("custom_keys", {})
    rows = custom_keys.items() if isinstance(custom_keys, Mapping) else [custom_keys]
    if not all(map(_is_custom_row, rows)):
        raise TypeError(
            "custom_keys must be as in "
            "{'stem': {'lr_mult': 0.1, 'decay_mult': 0.0}}, not "
            f"{shown(custom_keys)}."
        )
    for key, settings in custom_keys.items():
        check_keys(settings, ["lr_mult", "decay_mult"], f"the custom key {shown(key)}")
    return config


def _is_custom_row(row: Any) -> bool:
    is_pair = isinstance(row, tuple) and len(row) == 2
    return is_pair and isinstance(row[0], str) and isinstance(row[1], Mapping)


def _custom_rules(
    custom_keys: Mapping[str, Mapping[str, Any]], separator: str | None
) -> GroupRules:
    keys = sorted(sorted(custom_keys), key=len, reverse=True)
    patterns = [_custom_pattern(key, separator) for key in keys]
    rates = [custom_keys[key].get("lr_mult", 1.0) for key in keys]
    decays = [custom_keys[key].get("decay_mult", 1.0) for key in keys]
    return GroupRules(
        Rules(zip(patterns, rates, strict=True)),
        Rules(zip(patterns, decays, strict=True)),
    )


def _custom_pattern(key: str, separator: str | None) -> Pattern:
    """The key as a substring; mmengine puts a dot in front of a name at the root."""
    joint = "/" if separator else "."
    key = key.replace(separator, joint) if separator else key
    root = key.removeprefix(joint)
    if root == key or joint in root:
        return key
    anywhere = f".*{re.escape(key)}.*"
    return re.compile(f"{anywhere}|{re.escape(root)}[^{joint}]*", re.DOTALL)


class _Parameter(NamedTuple):
    name: str
    is_bias: bool
    is_flat: bool
    in_norm: bool
    in_offset: bool
    in_depthwise: bool


def _described(
    rows: Sequence[Assignment], is_norm: Callable[[str], bool] | None
) -> list[_Parameter]:
    places = [(*_module_and_key(row.name), row) for row in rows]
    norms = {module for module, key, row in places if _tells_norm(key, row.shape)}
    depthwise = {m for m, key, row in places if _tells_depthwise(key, row.shape)}
    return [
        _Parameter(
            name=row.name,
            is_bias=key == "bias",
            is_flat=len(row.shape) == 1,
            in_norm=is_norm(module) if is_norm else module in norms,
            in_offset="conv_offset" in module,
            in_depthwise=module in depthwise,
        )
        for module, key, row in places
    ]


def _module_and_key(name: str) -> tuple[str, str]:
    cut = max(name.rfind("/"), name.rfind("."))
    return name[: max(cut, 0)], name[cut + 1 :]


def _tells_norm(key: str, shape: tuple[int, ...]) -> bool:
    if key == "weight":
        return len(shape) == 1
    return key in ("scale", "gamma") and len(shape) >= 1


def _tells_depthwise(key: str, shape: tuple[int, ...]) -> bool:
    axis = {"kernel": 2, "weight": 1}.get(key)
    return axis is not None and len(shape) == 4 and shape[axis] == 1


def _rate_settings(parameter: _Parameter) -> dict[str, bool]:
    """The settings in their order, and which of them apply."""
    bias = parameter.is_bias and not parameter.in_norm
    return {
        "dcn_offset_lr_mult": parameter.in_offset,
        "bias_lr_mult": bias and not parameter.in_offset,
    }


def _decay_settings(parameter: _Parameter) -> dict[str, bool]:
    return {
        "norm_decay_mult": parameter.in_norm,
        "bias_decay_mult": parameter.is_bias and not parameter.in_offset,
        "dwconv_decay_mult": parameter.in_depthwise,
        "flat_decay_mult": parameter.is_flat and not parameter.in_offset,
    }


def _by_name(
    parameters: Sequence[_Parameter],
    settings: Callable[[_Parameter], dict[str, bool]],
    config: Mapping[str, Any],
) -> Rules:
    """A rule for each parameter to which a setting applies that is set: the first."""
    rows = []
    for parameter in parameters:
        applies = settings(parameter)
        values = [config.get(key) for key in applies if applies[key]]
        value = next((value for value in values if value is not None), None)
        if value is not None:
            rows.append((exactly(parameter.name), value))
    return Rules(rows)
