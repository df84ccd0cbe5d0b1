"""The parameter groups of PyTorch, with names."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optax_lrmult._converters._tables import GroupRules, exactly
from optax_lrmult._names import ParamLabels, PyTree, names_of
from optax_lrmult._rules import Rules
from optax_lrmult._values import as_scalar, is_number, shown

_READ = ("params", "param_names", "lr", "weight_decay")
_NOTES = ("name", "initial_lr", "max_lr", "min_lr")
_MISSING = object()


def from_torch_param_groups(
    groups: Iterable[Mapping[str, Any]],
    base_lr: float,
    base_weight_decay: float | None = None,
    *,
    params: PyTree = None,
    separator: str | None = ".",
    param_labels: ParamLabels = None,
) -> GroupRules:
    r"""The two tables that parameter groups of PyTorch say, by exact name.

    $$m = \mathrm{lr} / \mathrm{lr}_0, \qquad d = \lambda / \lambda_0$$

    where a group has $\mathrm{lr}$ and $\lambda$ (`weight_decay`); what it does not set
    is the optimizer's own, and 1 here. As in PyTorch, a parameter in two groups is an
    error, and one in no group is not trained: with `params` it gets 0 in both tables
    (without, it is not known here, and has 1).

    Args:
      groups: the groups as PyTorch (2.6 or later) takes them, `params` being names or
        `(name, tensor)` pairs; or `optimizer.param_groups`, or the `param_groups` of a
        `state_dict()`, with `param_names`. Tensors are not read.
      base_lr: the optimizer's learning rate $\mathrm{lr}_0$, which is given to the
        optimizer here.
      base_weight_decay: the optimizer's weight decay $\lambda_0$, likewise.
      params: a pytree, whose names all the names in the groups must be among.
      separator: what joins names there; it becomes `/`. `None` leaves them as they are.
      param_labels: the names in `params`, if not those of `path_labels`.

    Returns:
      The tables, with a rule for each parameter whose group sets the value.

    Raises:
      TypeError: a group is no mapping, or a parameter has no name.
      ValueError: a parameter is in two groups or not in `params`; a rate or a decay is
        negative, or has nothing to be divided by; or groups differ in another option,
        such as `betas`, which no table can say.

    Source: https://docs.pytorch.org/docs/stable/optim.html#per-parameter-options and
      `Optimizer.add_param_group`

    Example:
      >>> groups = [{"params": ["stem.weight", "stem.bias"], "lr": 1e-4},
      ...           {"params": ["head.weight"], "weight_decay": 0.0}]
      >>> for group in groups:  # Flax has other names for some parameters.
      ...     group["params"] = [n.replace("weight", "kernel") for n in group["params"]]
      >>> tables = from_torch_param_groups(groups, 1e-3, base_weight_decay=0.01)
      >>> for name in "stem/kernel", "stem/bias", "head/kernel":
      ...     rate, decay = (table.find(name)[1] for table in tables)
      ...     print(name, rate, decay)
      stem/kernel 0.1 1.0
      stem/bias 0.1 1.0
      head/kernel 1.0 0.0
    """
    if isinstance(groups, str | Mapping) or not isinstance(groups, Iterable):
        raise TypeError(
            "from_torch_param_groups takes the list of groups, not "
            f"{shown(groups)} ({type(groups).__name__})."
        )
    if not isinstance(separator, str | None):
        raise TypeError(f"separator must be a str or None, not {shown(separator)}.")
    groups = list(groups)
    named = [_names(group, f"groups[{i}]", separator) for i, group in enumerate(groups)]
    _check_options(groups)
    _check_disjoint(named)
    rates = _ratios(groups, "lr", base_lr, "base_lr")
    decays = _ratios(groups, "weight_decay", base_weight_decay, "base_weight_decay")
    rest = [] if params is None else _untrained(named, names_of(params, param_labels))
    return GroupRules(_table(named, rates, rest), _table(named, decays, rest))


def _names(group: Any, where: str, separator: str | None) -> list[str]:
    if not isinstance(group, Mapping) or "params" not in group:
        raise TypeError(
            f"{where} must be as in {{'params': ['stem.weight'], 'lr': 1e-4}}, not "
            f"{shown(group)} ({type(group).__name__})."
        )
    members = group.get("param_names", group["params"])
    if isinstance(members, set | frozenset):
        raise TypeError(f"The parameters of {where} must have an order; use a list.")
    if not isinstance(members, Iterable):
        raise TypeError(
            f"The parameters of {where} must be a list of names, not {shown(members)}."
        )
    members = [members] if isinstance(members, str) else list(members)
    return [_name(member, where, separator) for member in members]


def _name(member: Any, where: str, separator: str | None) -> str:
    name = member[0] if isinstance(member, tuple) and member else member
    if not isinstance(name, str):
        raise TypeError(
            f"A parameter of {where} has no name, but is a {type(name).__name__}. Give "
            "names or (name, tensor) pairs, as model.named_parameters() does."
        )
    return name.replace(separator, "/") if separator else name


def _check_options(groups: Sequence[Mapping[str, Any]]) -> None:
    for index, group in enumerate(groups):
        for key in group:
            if key in _READ + _NOTES:
                continue
            if any(other.get(key, _MISSING) != group[key] for other in groups):
                raise ValueError(
                    f"groups[{index}] sets {shown(key)} to {shown(group[key])}, and "
                    "another group does not. A table of rules says learning rates and "
                    "weight decays only: take the key out, or give that group an "
                    "optimizer of its own by optax.partition."
                )


def _check_disjoint(named: Sequence[Sequence[str]]) -> None:
    group_of: dict[str, int] = {}
    for index, names in enumerate(named):
        for name in names:
            if group_of.setdefault(name, index) != index:
                raise ValueError(
                    f"The parameter {shown(name)} is in groups[{group_of[name]}] and "
                    f"in groups[{index}]. PyTorch allows one group for each parameter."
                )


def _untrained(named: Sequence[Sequence[str]], known: Sequence[str]) -> list[str]:
    """The parameters in no group; raises if a group has one that is not known."""
    trained = {name for names in named for name in names}
    for name in sorted(trained.difference(known)):
        raise ValueError(
            f"The groups have a parameter {shown(name)}, and params has none of this "
            f"name.{_hint(name, known)}"
        )
    return [name for name in known if name not in trained]


def _hint(name: str, known: Sequence[str]) -> str:
    for word in ("kernel", "scale", "embedding"):
        in_flax = name.removesuffix("weight") + word
        if in_flax in known:
            return f" Flax calls it {shown(in_flax)}: rename it in the groups first."
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f" Did you mean {near[0]!r}?" if near else ""


def _ratios(
    groups: Sequence[Mapping[str, Any]], key: str, base: Any, base_name: str
) -> list[float | None]:
    """The value of each group in units of the base; `None` if it sets none."""
    unit = 0.0 if base is None else _not_negative(base, base_name)
    ratios: list[float | None] = []
    for index, group in enumerate(groups):
        value = group.get(key)
        if value is not None:
            value = _not_negative(value, f"{shown(key)} of groups[{index}]")
            if value and not unit:
                raise ValueError(
                    f"groups[{index}] has {key}={value:g}, which can't be said as a "
                    f"multiple of {base_name}={base}. Pass a positive {base_name}, "
                    f"and give each group its own {key} if the optimizer's is 0."
                )
            value = value / unit if value else 0.0
        ratios.append(value)
    return ratios


def _not_negative(value: Any, owner: str) -> float:
    number = as_scalar(value, owner)
    if not is_number(number) or number < 0:
        raise ValueError(
            f"The value of {owner} must be a number and not negative, not "
            f"{shown(value)}."
        )
    return number


def _table(
    named: Sequence[Sequence[str]],
    ratios: Sequence[float | None],
    untrained: Sequence[str],
) -> Rules:
    ratio_of: dict[str, float] = {}
    for names, ratio in zip(named, ratios, strict=True):
        if ratio is not None:
            ratio_of |= dict.fromkeys(names, ratio)
    ratio_of |= dict.fromkeys(untrained, 0.0)
    return Rules([(exactly(name), ratio) for name, ratio in ratio_of.items()])
