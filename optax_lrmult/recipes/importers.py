"""Tables from those of other libraries."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optax_lrmult.core.assignment import assign
from optax_lrmult.core.columns import column
from optax_lrmult.core.expect import expect, nearest
from optax_lrmult.core.names import ParamLabels, PyTree, named_leaves
from optax_lrmult.core.patterns import Pattern, exactly
from optax_lrmult.core.rules import Rules

_READ = "params param_names name lr initial_lr max_lr lr_scale weight_decay betas eps"
# How a step is computed, not what it is; and what schedulers note down.
_WITHOUT_EFFECT = "fused foreach capturable differentiable min_lr"


def from_torch_param_groups(
    groups: Iterable[Mapping[str, Any]],
    base_lr: float,
    base_weight_decay: float | None = None,
    *,
    params: PyTree = None,
    separator: str | None = ".",
    param_labels: ParamLabels = None,
) -> dict[str, Any]:
    r"""The tables that parameter groups of PyTorch say, by exact names.

    $$m = \mathrm{lr} \cdot \mathrm{lr\_scale} / \mathrm{lr}_0, \qquad
      \lambda = \mathrm{weight\_decay}$$

    They are arguments of an optimizer: `adamw(base_lr, **tables)`. As in PyTorch, a
    parameter in no group is not trained, and neither is one that requires no gradient:
    both have the multiplier 0.

    Args:
      groups: the groups as PyTorch (2.6 or later) takes them, `params` being names or
        `(name, tensor)` pairs; or `optimizer.param_groups`, or the `param_groups` of a
        `state_dict()`, with `param_names`. Of a tensor only `requires_grad` is read. A
        scheduler changes `lr`, to 0 when a warm-up begins: its note `initial_lr` is
        read instead, or the peak `max_lr`, which OneCycleLR notes (it changes the
        betas, too: read are those of the moment). The schedulers of MAE and BEiT, which
        know groups by `lr_scale`, leave no note: beside it `base_lr` stands for `lr`.
      base_lr: the optimizer's learning rate $\mathrm{lr}_0$, which is given to the
        optimizer here.
      base_weight_decay: the decay of groups that set none.
      params: a pytree, whose names all the names in the groups must be among. Without
        it the optimizer's `init` tells what is not, and there is a rule for each name.
      separator: what joins names there; it becomes `/`. `None` leaves them as they are.
      param_labels: the names in `params`, if not those of `path_labels`.

    Returns:
      A dictionary with a table of `multipliers` and, if they are set, of
      `weight_decay`, `b1`, `b2` and `eps`.

    Raises:
      TypeError: a parameter has no name.
      ValueError: a parameter is in two groups, or not in `params`; a group has no decay
        and there is no base; or groups differ in another option, such as `momentum`.

    Source: https://docs.pytorch.org/docs/stable/optim.html#per-parameter-options

    Example:
      >>> groups = [{"params": ["stem.kernel", "stem.bias"], "lr": 1e-4},
      ...           {"params": ["head.kernel"], "weight_decay": 0.0}]
      >>> tables = from_torch_param_groups(groups, 1e-3, base_weight_decay=0.01)
      >>> for name in "stem/kernel", "head/kernel", "head/bias":
      ...     print(name, *(table.find(name)[1] for table in tables.values()))
      stem/kernel 0.1 0.01
      head/kernel 1.0 0.0
      head/bias 0.0 0.0
    """
    groups = list(groups)
    _check_options(groups)
    members = [_members(group, i, separator) for i, group in enumerate(groups)]
    _check_names(members, params, param_labels)
    rows: list[tuple[Pattern, dict[str, float | None]]] = []
    for i, (group, names) in enumerate(zip(groups, members, strict=True)):
        patterns = [exactly(name) for name in names]
        if params is not None and names:
            patterns = [exactly(*names, words=str(group.get("name", f"group {i}")))]
        settings = _settings(group, base_lr, base_weight_decay)
        rows += [(pattern, settings) for pattern in patterns]
    still = [name for names in members for name in names if not names[name]]
    frozen = [(exactly(*still, words="without gradients"), 0.0)] if still else []
    tables: dict[str, Rules] = {}
    for key in ("multipliers", "weight_decay", "b1", "b2", "eps"):
        found = [(p, settings[key]) for p, settings in rows]
        found = [(pattern, value) for pattern, value in found if value is not None]
        if key == "multipliers":
            found = [*frozen, *found, ("", 0.0)]
        elif found and key == "weight_decay":
            owner, wanted = "base_weight_decay", "given: not every group has a decay"
            expect(len(found) == len(rows), owner, wanted, base_weight_decay)
            found = [*found, ("", 0.0)]
        if found:
            tables[key] = column(key, found).rules
    return tables


def from_big_vision(
    lr_mults: Iterable[tuple[str, float | None]],
    params: PyTree = None,
    *,
    weight_decay: float = 0.0,
    wd_mults: Iterable[tuple[str, float]] = ((".*/kernel$", 1.0),),
    param_labels: ParamLabels = None,
) -> dict[str, Any]:
    r"""The tables that big_vision's `config.lr_mults` and `config.wd_mults` say.

    As there, a regular expression must match a name in full, and the first one that
    does wins. A name without a row has the multiplier 1, and does not decay. In
    big_vision the multipliers $m$ do not scale the decay, as they do in
    `adamw(config.lr, **tables)`, so here decays are divided by them:

    $$\lambda = \mathrm{weight\_decay} \cdot \mathrm{wd\_mult} / m$$

    Args:
      lr_mults: the pairs `(regular expression, multiplier)`, in their order. Frozen
        parameters are rows `(regular expression, None)` of `config.schedule` there: put
        these in front.
      params: the parameters, or their shapes; needed for a `weight_decay`.
      weight_decay: `config.wd / config.lr`, since there the rate does not scale the
        decay either; 0 as there, if there is no `wd`.
      wd_mults: the pairs `(regular expression, factor of the decay)`.
      param_labels: the names, if not those of `path_labels`.

    Returns:
      A dictionary with the tables `multipliers` and `weight_decay`.

    Source: `make` in https://github.com/google-research/big_vision, big_vision/optax.py

    Example:
      >>> params = {"encoder": {"kernel": 1.0, "bias": 1.0}}
      >>> from_big_vision([("encoder/.*", 0.1)], params, weight_decay=0.5)
      {'multipliers': Rules([(/encoder/.*/, 0.1)]),
       'weight_decay': Rules([(/.*/kernel$/ and /encoder/.*/, 5.0), ('', 0.0)])}
    """
    rates = Rules([(re.compile(text), m or 0.0) for text, m in lr_mults])
    factors = Rules([(re.compile(text), factor) for text, factor in wd_mults])
    wanted = "given, since decays go by name"
    expect(params is not None or not weight_decay, "params", wanted, params, TypeError)
    names: dict[tuple[str, float], list[str]] = {}
    for row in assign(params, rates, param_labels=param_labels):
        rule, factor = factors.find(row.name)
        multiplier = row.value_or(1.0)
        if weight_decay and factor and multiplier:
            words = f"{rule} and {row.rule}" if row.rule else str(rule)
            decay = weight_decay * factor / multiplier
            names.setdefault((words, decay), []).append(row.name)
    decays = [(exactly(*n, words=w), decay) for (w, decay), n in names.items()]
    return {
        "multipliers": column("multipliers", rates).rules,
        "weight_decay": column("weight_decay", [*decays, ("", 0.0)]).rules,
    }


def _members(
    group: Mapping[str, Any], index: int, separator: str | None
) -> dict[str, bool]:
    """The names in a group, and whether each is trained."""
    given = group["params"]
    given = [given] if isinstance(given, str) else list(given)
    wanted = "a name or a (name, tensor) pair, as of named_parameters()"
    members: dict[str, bool] = {}
    for name, tensor in zip(group.get("param_names", given), given, strict=True):
        name, tensor = name if isinstance(name, tuple) else (name, tensor)
        owner, is_name = f"A parameter of group {index}", isinstance(name, str)
        expect(is_name, owner, wanted, name, TypeError)
        name = name.replace(separator, "/") if separator else name
        members[name] = getattr(tensor, "requires_grad", True)
    return members


def _settings(
    group: Mapping[str, Any], base_lr: float, base_weight_decay: float | None
) -> dict[str, float | None]:
    """What a group has in each column; `None` for what it does not set."""
    scale = group.get("lr_scale")
    lr = group.get("lr", base_lr) if scale is None else base_lr
    # OneCycleLR's initial_lr is that of its first step, far below the peak.
    peak = float(group.get("max_lr", group.get("initial_lr", lr)))
    b1, b2 = map(float, group["betas"]) if "betas" in group else (None, None)
    return {
        "multipliers": peak / base_lr * (1.0 if scale is None else scale),
        "weight_decay": group.get("weight_decay", base_weight_decay),
        "b1": b1,
        "b2": b2,
        "eps": group.get("eps"),
    }


def _check_options(groups: Sequence[Mapping[str, Any]]) -> None:
    keys = {key for group in groups for key in group}
    for key in sorted(keys - {*_READ.split(), *_WITHOUT_EFFECT.split()}):
        values = [group.get(key) for group in groups]
        if any(value != values[0] for value in values):
            raise ValueError(
                f"The groups differ in {key!r}: {values}. A table says multipliers, "
                "decays, betas and epsilons. Take the key out, or give these groups "
                "optimizers of their own by optax.partition."
            )


def _check_names(
    members: Sequence[Mapping[str, bool]], params: PyTree, param_labels: ParamLabels
) -> None:
    """Raises if a name is in two groups, or is not among those of the parameters."""
    group_of: dict[str, int] = {}
    for index, names in enumerate(members):
        for name in names:
            first = group_of.setdefault(name, index)
            found = f"in groups {first} and {index}"
            expect(first == index, f"The parameter {name!r}", "in one group", found)
    if params is None:
        return
    known = {name for name, _ in named_leaves(params, param_labels)}
    for name in sorted(group_of.keys() - known):
        in_flax = {name.removesuffix("weight") + w for w in ("kernel", "scale")}
        near = sorted(in_flax & known) or nearest(name, known)
        wanted = f"one of params (near: {near}); rename it in the groups first"
        expect(False, "A name in the groups", wanted, name)
