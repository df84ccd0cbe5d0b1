"""Tables from those of other libraries."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optax_lrmult.core.columns import column
from optax_lrmult.core.expect import expect, nearest
from optax_lrmult.core.names import ParamLabels, PyTree, named_leaves
from optax_lrmult.core.patterns import exactly
from optax_lrmult.core.rules import Rules

# How a step is computed, and not what it is; and what schedulers note down.
_NO_MATTER = ("fused", "foreach", "capturable", "differentiable", "name", "lr_scale")
_NO_MATTER += ("initial_lr", "max_lr", "min_lr", "param_names", "params")
_READ = ("lr", "weight_decay", "betas", "eps")
_Named = list[tuple[str, bool]]
"""The names of a group, and whether each is trained."""


def from_torch_param_groups(
    groups: Iterable[Mapping[str, Any]],
    base_lr: float,
    base_weight_decay: float | None = None,
    *,
    params: PyTree = None,
    separator: str | None = ".",
    param_labels: ParamLabels = None,
) -> dict[str, Rules]:
    r"""The tables that parameter groups of PyTorch say, by exact names.

    $$m = \mathrm{lr} \cdot \mathrm{lr\_scale} / \mathrm{lr}_0, \qquad
      \lambda = \mathrm{weight\_decay}$$

    They are the arguments of an optimizer: `adamw(base_lr, **tables)`. The rate of a
    group is its `initial_lr`, if a scheduler has noted one, since `lr` itself is 0 in a
    warm-up. A parameter that requires no gradient, or with `params` one in no group,
    has the multiplier 0.

    Args:
      groups: the groups as PyTorch (2.6 or later) takes them, `params` being names or
        `(name, tensor)` pairs; or `optimizer.param_groups`, or the `param_groups` of a
        `state_dict()`, with `param_names`. Of tensors only `requires_grad` is read.
      base_lr: the optimizer's learning rate $\mathrm{lr}_0$, which is given to the
        optimizer here.
      base_weight_decay: the decay of groups that set none.
      params: a pytree, whose names all the names in the groups must be among.
      separator: what joins names there; it becomes `/`. `None` leaves them as they are.
      param_labels: the names in `params`, if not those of `path_labels`.

    Returns:
      A dictionary with a table of `multipliers` and, as far as the groups set them, of
      `weight_decay`, `b1`, `b2` and `eps`, as `groups` returns it.

    Raises:
      TypeError: a parameter has no name.
      ValueError: a parameter is in two groups, or not in `params`; a group has no decay
        and there is no base; or groups differ in another option, such as `momentum`.

    Source: https://docs.pytorch.org/docs/stable/optim.html#per-parameter-options

    Example:
      >>> groups = [{"params": ["stem.kernel", "stem.bias"], "lr": 1e-4},
      ...           {"params": ["head.kernel"], "weight_decay": 0.0}]
      >>> tables = from_torch_param_groups(groups, 1e-3, base_weight_decay=0.01)
      >>> for name in "stem/kernel", "head/kernel":
      ...     print(name, *(table.find(name)[1] for table in tables.values()))
      stem/kernel 0.1 0.01
      head/kernel 1.0 0.0
    """
    groups = list(groups)
    named = [_named(group, i, separator) for i, group in enumerate(groups)]
    _check_disjoint(named)
    _check_options(groups)
    rows: dict[str, list[Any]] = {key: [] for key in ("multipliers", *_READ[1:])}
    for i, (group, names) in enumerate(zip(groups, named, strict=True)):
        words = f"group {i}"
        rate = group.get("initial_lr", group.get("lr", base_lr))
        multiplier = rate * group.get("lr_scale", 1.0) / base_lr
        everyone = [name for name, _ in names]
        trained = [name for name, is_trained in names if is_trained]
        still = [name for name, is_trained in names if not is_trained]
        if still:
            pattern = exactly(*still, words=f"{words}, without gradients")
            rows["multipliers"].append((pattern, 0.0))
        if trained:
            rows["multipliers"].append((exactly(*trained, words=words), multiplier))
        for key in _READ[1:]:
            value = group.get(key)
            value = (
                base_weight_decay if (key, value) == ("weight_decay", None) else value
            )
            if value is not None and everyone:
                rows[key].append((exactly(*everyone, words=words), value))
    if params is not None:
        rows["multipliers"] += _untrained(named, params, param_labels)
    decays = rows["weight_decay"]
    if decays:
        has_all = len(decays) == sum(map(bool, named))
        wanted = "given, or in every group"
        expect(has_all, "The decay of a group", wanted, base_weight_decay)
        decays.append(("", base_weight_decay or 0.0))
    betas = rows.pop("betas")
    rows["b1"] = [(pattern, pair[0]) for pattern, pair in betas]
    rows["b2"] = [(pattern, pair[1]) for pattern, pair in betas]
    order = ("multipliers", "weight_decay", "b1", "b2", "eps")
    return {key: column(key, rows[key]).rules for key in order if rows[key]}


def from_big_vision(
    lr_mults: Iterable[tuple[str, float | None]],
    wd_mults: Iterable[tuple[str, float]] = (),
    *,
    weight_decay: float | None = None,
) -> dict[str, Rules]:
    """The tables that big_vision's `lr_mults` and `wd_mults` say.

    As there, a regular expression must match the name in full, the first one that does
    wins, a name without a row of `lr_mults` has the multiplier 1, and one without a row
    of `wd_mults` does not decay. What is frozen there is a row `(pattern, None)` of
    `config.schedule`; such rows may stand among the others here.

    In big_vision's chain the multipliers stand in front of weight decay, which they do
    not multiply: `optax.chain(core, scale_by_name_multiplier(t["multipliers"]),
    add_decayed_weights_by_name(t["weight_decay"]), optax.scale_by_learning_rate(lr))`.

    Args:
      lr_mults: the pairs `(regular expression, multiplier)`, in their order.
      wd_mults: pairs of the same form.
      weight_decay: the decay that they multiply.

    Returns:
      A dictionary with a table of `multipliers`, and with `weight_decay` one of decays.

    Source: `make` in https://github.com/google-research/big_vision, big_vision/optax.py

    Example:
      >>> from_big_vision([("encoder/.*", 0.1), (".*/frozen", None)])
      {'multipliers': Rules([(/encoder/.*/, 0.1), (/.*/frozen/, 0.0)])}
    """
    rates = [(re.compile(text), m if m is not None else 0.0) for text, m in lr_mults]
    tables = {"multipliers": column("multipliers", rates).rules}
    decays, wanted = list(wd_mults), "given with wd_mults, and only then"
    fits = bool(decays) == (weight_decay is not None)
    expect(fits, "weight_decay", wanted, weight_decay)
    if weight_decay is not None:
        rows = [(re.compile(text), w * weight_decay) for text, w in decays]
        tables["weight_decay"] = column("weight_decay", [*rows, ("", 0.0)]).rules
    return tables


def _named(group: Mapping[str, Any], index: int, separator: str | None) -> _Named:
    members = group["params"]
    members = [members] if isinstance(members, str) else list(members)
    names = group.get("param_names", members)
    found: _Named = []
    for name, member in zip(names, members, strict=True):
        pair = name if isinstance(name, tuple) else (name, member)
        is_named = isinstance(pair[0], str)
        owner, wanted = f"A parameter of group {index}", "a name or a (name, tensor)"
        expect(is_named, owner, f"{wanted} pair", pair[0], TypeError)
        text = pair[0].replace(separator, "/") if separator else pair[0]
        found.append((text, getattr(pair[1], "requires_grad", True)))
    return found


def _check_options(groups: Sequence[Mapping[str, Any]]) -> None:
    for key in {key for group in groups for key in group} - {*_READ, *_NO_MATTER}:
        values = [group.get(key) for group in groups]
        if any(value != values[0] for value in values):
            raise ValueError(
                f"The groups differ in {key!r}: {values}. A table says multipliers, "
                "decays, betas and epsilons. Take the key out, or give these groups "
                "optimizers of their own by optax.partition."
            )


def _check_disjoint(named: Sequence[_Named]) -> None:
    group_of: dict[str, int] = {}
    for index, names in enumerate(named):
        for name, _ in names:
            first = group_of.setdefault(name, index)
            owner, wanted = f"The parameter {name!r}", "in one group"
            expect(first == index, owner, wanted, f"in groups {first} and {index}")


def _untrained(
    named: Sequence[_Named], params: PyTree, param_labels: ParamLabels
) -> list[Any]:
    """The row of the parameters in no group; an error if a group has an unknown one."""
    known = [name for name, _ in named_leaves(params, param_labels)]
    trained = {name for names in named for name, _ in names}
    for name in sorted(trained.difference(known)):
        in_flax = [name.removesuffix("weight") + w for w in ("kernel", "scale")]
        near = [n for n in in_flax if n in known] or nearest(name, known)
        raise ValueError(
            f"The groups have a parameter {name!r}, and params has none of this name. "
            f"Near: {near}. Rename it in the groups first."
        )
    rest = [name for name in known if name not in trained]
    return [(exactly(*rest, words="in no group"), 0.0)] if rest else []
