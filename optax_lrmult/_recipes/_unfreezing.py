"""Gradual unfreezing: groups that start to train one after the other."""

import dataclasses
from collections.abc import Iterable, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp

from optax_lrmult._recipes._arguments import Patterns, as_groups, as_steps
from optax_lrmult._rules import Pattern, Rules
from optax_lrmult._values import (
    Multiplier,
    PerLayer,
    Schedule,
    as_multiplier,
    is_number,
    is_schedule,
    shown,
)


def unfreeze_at(step: int, multiplier: Any = 1.0) -> Schedule:
    r"""A schedule that is exactly 0 before a step, and the multiplier from it on.

    $$m(t) = 0 \text{ for } t < \mathrm{step}, \text{ otherwise the multiplier}$$

    For use in a table of rules, after the core and after weight decay, where a frozen
    parameter neither moves nor decays. Its moments go on counting its gradients.

    Args:
      step: the first step that moves the parameter, an int, counted from 0.
      multiplier: a real number without unit, a traced scalar, or a schedule, whose
        steps are counted from 0, too, and not from `step`.

    Returns:
      The schedule, which compares and prints as it is written.

    Raises:
      TypeError: `step` is no int, or `multiplier` is no number and no schedule.
      ValueError: `step` is negative, or `multiplier` is not finite.

    Example:
      >>> schedule = unfreeze_at(100, 0.5)
      >>> schedule
      unfreeze_at(100, 0.5)
      >>> [float(schedule(step)) for step in (0, 99, 100)]
      [0.0, 0.0, 0.5]
    """
    multiplier = as_multiplier(multiplier, "unfreeze_at")
    if isinstance(multiplier, PerLayer):
        raise TypeError(
            "unfreeze_at takes one multiplier, not per_layer(...). Write the schedules "
            "inside: per_layer([unfreeze_at(100, 0.5), unfreeze_at(0)])."
        )
    return _UnfreezeAt(as_steps(step, "step"), multiplier)


@dataclasses.dataclass(frozen=True)
class _UnfreezeAt:
    step: int
    multiplier: Multiplier

    def __call__(self, step: Any) -> jax.Array:
        later = self.multiplier
        later = later(step) if is_schedule(later) else later
        return jnp.where(jnp.asarray(step) < self.step, 0.0, later)

    def __repr__(self) -> str:
        is_one = is_number(self.multiplier) and self.multiplier == 1.0
        later = "" if is_one else f", {self.multiplier!r}"
        return f"unfreeze_at({self.step}{later})"


def unfreeze_from_top(
    groups: Iterable[Patterns],
    every: int,
    *,
    multipliers: Any = None,
    start: int = 0,
) -> Rules:
    r"""Unfreezes one group after the other, from the top one down.

    $$m_i(t) = 0 \text{ for } t < \mathrm{start} + (k - 1 - i) \, \mathrm{every},
      \text{ then } m_i, \quad i = 0, \dots, k - 1$$

    A group that is frozen is exactly still. Parameters in no group train from the
    first step; to freeze them, add `freeze("")` behind the table, or make `""` the
    lowest group.

    Args:
      groups: the groups, the lowest (nearest to the input) first. Each is a pattern of
        a rule, or a list of patterns.
      every: steps from one group to the next, an int; ULMFiT takes an epoch's.
      multipliers: what each group gets when it trains: one real number or schedule for
        each group, the lowest first, or a table with the same patterns, such as
        `discriminative` writes. 1 for all if `None`.
      start: the first step that moves the top group.

    Returns:
      The rules, the top group first, as in `discriminative`.

    Raises:
      TypeError: an argument is of a wrong type.
      ValueError: there are no groups, not as many multipliers as groups, or steps out
        of range.

    Source: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146

    Example:
      >>> unfreeze_from_top(["stem", "block", "head"], every=100)
      Rules([('head', 1.0), ('block', unfreeze_at(100)), ('stem', unfreeze_at(200))])
    """
    rows = as_groups(groups)
    every, start = as_steps(every, "every", least=1), as_steps(start, "start")
    by_group = _one_for_each_pattern(rows, multipliers)
    first_steps = range(start, start + every * len(rows), every)
    return Rules(
        [
            (pattern, unfreeze_at(step, multiplier) if step else multiplier)
            for step, group in zip(first_steps, reversed(by_group), strict=True)
            for pattern, multiplier in group
        ]
    )


def _one_for_each_pattern(
    groups: list[tuple[Pattern, ...]], multipliers: Any
) -> list[list[tuple[Pattern, Any]]]:
    if isinstance(multipliers, Rules):
        table = {rule.pattern: rule.multiplier for rule in multipliers}
        return [[(p, _looked_up(table, p)) for p in group] for group in groups]
    values = [1.0] * len(groups) if multipliers is None else _as_list(multipliers)
    if len(values) != len(groups):
        raise ValueError(
            f"multipliers must hold one for each group: there are {len(groups)} groups "
            f"and {len(values)} multipliers."
        )
    return [[(p, m) for p in group] for group, m in zip(groups, values, strict=True)]


def _as_list(multipliers: Any) -> list[Any]:
    unordered = isinstance(multipliers, str | Mapping | Set)
    if unordered or not isinstance(multipliers, Iterable):
        raise TypeError(
            "multipliers must be a list, one for each group and the lowest first, or "
            f"Rules, not {shown(multipliers)} ({type(multipliers).__name__})."
        )
    return list(multipliers)


def _looked_up(table: Mapping[Any, Any], pattern: Pattern) -> Any:
    if pattern not in table:
        raise ValueError(
            f"multipliers has no rule with the pattern {shown(pattern)} of groups; it "
            f"has {list(table)}."
        )
    return table[pattern]
