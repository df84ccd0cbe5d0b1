"""Groups of layers that are frozen, learn at different rates, or begin one by one."""

import dataclasses
import operator
import re
from collections.abc import Iterable, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp

from optax_lrmult.core.expect import expect
from optax_lrmult.core.patterns import Pattern, as_pattern
from optax_lrmult.core.rules import Rule, Rules
from optax_lrmult.core.values import (
    Schedule,
    as_scalar,
    describe,
    is_number,
    is_schedule,
)


def freeze(*patterns: str | re.Pattern[str] | Pattern) -> Rules:
    """Rules that freeze: the multiplier 0 for each pattern.

    $$m = 0$$

    Behind another table, `freeze("")` freezes all that this table has no rule for.

    Args:
      *patterns: patterns of rules, at least one.

    Example:
      >>> Rules({"head": 1}) + freeze("stem", "block_0/")
      Rules([('head', 1), ('stem', 0.0), ('block_0/', 0.0)])
    """
    wanted = "given a pattern; freeze('') freezes everything"
    expect(len(patterns) > 0, "freeze", wanted, patterns)
    return Rules([(pattern, 0.0) for pattern in patterns])


def discriminative(groups: Iterable[Any], lo: Any, hi: Any = 1.0) -> Rules:
    r"""Multipliers in geometric steps, from the lowest group of layers to the top one.

    $$m_i = \mathrm{lo} \, (\mathrm{hi} / \mathrm{lo})^{i / (k - 1)},
      \quad i = 0, \dots, k - 1$$

    ULMFiT trains each layer 2.6 times as slowly as the one above it, which is
    `lo=2.6**-(k - 1)` for k groups.

    Args:
      groups: the groups, the lowest (nearest to the input) first. Each is a pattern of
        a rule, or a list of patterns.
      lo: multiplier of the lowest group, a positive number without unit.
      hi: multiplier of the top group, and the only one if there is one group.

    Returns:
      The rules, the top group first. Since the first rule that takes a name wins, a
      lowest group `""` takes what the others leave.

    Source: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146

    Example:
      >>> discriminative(["stem", ["block_1", "norm_1"], "head"], lo=0.01)
      Rules([('head', 1.0), ('block_1', 0.1), ('norm_1', 0.1), ('stem', 0.01)])
    """
    rows = _groups(groups)
    lo, hi = _positive(lo, "lo"), _positive(hi, "hi")
    last = max(len(rows) - 1, 1)
    heights = [1 - below / last for below in range(len(rows))]
    return Rules(
        [
            # Both ends are exact in this form.
            (pattern, hi**height * lo ** (1 - height))
            for group, height in zip(reversed(rows), heights, strict=True)
            for pattern in group
        ]
    )


def unfreeze_at(step: int, multiplier: Any = 1.0) -> Schedule:
    r"""A schedule that is exactly 0 before a step, and the multiplier from it on.

    $$m(t) = 0 \text{ for } t < \mathrm{step}, \text{ otherwise the multiplier}$$

    As the multiplier of a parameter, it keeps the parameter still, while the moments go
    on counting its gradients.

    Args:
      step: the first step that moves the parameter, counted from 0.
      multiplier: a number without unit, a traced scalar, or a schedule, whose steps are
        counted from 0, too, and not from `step`.

    Returns:
      The schedule, which prints as it is written.

    Example:
      >>> schedule = unfreeze_at(100, 0.5)
      >>> schedule
      unfreeze_at(100, 0.5)
      >>> [float(schedule(step)) for step in (0, 99, 100)]
      [0.0, 0.0, 0.5]
    """
    step = operator.index(step)
    expect(step >= 0, "The step of unfreeze_at", "at least 0", step)
    return _UnfreezeAt(step, as_scalar(multiplier, "The multiplier of unfreeze_at"))


@dataclasses.dataclass(frozen=True)
class _UnfreezeAt:
    step: int
    multiplier: Any

    def __call__(self, step: Any) -> jax.Array:
        later = self.multiplier
        later = later(step) if is_schedule(later) else later
        return jnp.where(jnp.asarray(step) < self.step, 0.0, later)

    def __repr__(self) -> str:
        is_one = is_number(self.multiplier) and self.multiplier == 1.0
        later = "" if is_one else f", {describe(self.multiplier)}"
        return f"unfreeze_at({self.step}{later})"


def unfreeze_from_top(
    groups: Iterable[Any],
    every: int,
    *,
    multipliers: Rules | Iterable[Any] | None = None,
    start: int = 0,
) -> Rules:
    r"""Unfreezes one group after the other, from the top one down.

    $$m_i(t) = 0 \text{ for } t < \mathrm{start} + (k - 1 - i) \, \mathrm{every},
      \text{ then } m_i, \quad i = 0, \dots, k - 1$$

    Parameters in no group train from the first step. To freeze them, add `freeze("")`
    behind the table.

    Args:
      groups: the groups, the lowest (nearest to the input) first. Each is a pattern of
        a rule, or a list of patterns.
      every: the number of steps from one group to the next; ULMFiT takes an epoch's.
      multipliers: a number or a schedule for each group, the lowest first; or what
        `discriminative` has written for the same groups; 1 if `None`.
      start: the first step that moves the top group.

    Returns:
      The rules, the top group first, as in `discriminative`.

    Source: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146

    Example:
      >>> unfreeze_from_top(["stem", "block", "head"], every=100)
      Rules([('head', 1.0), ('block', unfreeze_at(100)), ('stem', unfreeze_at(200))])
    """
    rows = _groups(groups)[::-1]
    first, every = operator.index(start), operator.index(every)
    expect(every > 0, "every", "at least one step", every)
    pairs = [(pattern, i) for i, group in enumerate(rows) for pattern in group]
    if isinstance(multipliers, Rules):
        written = {r.pattern: r.value for r in multipliers if isinstance(r, Rule)}
        is_same = list(written) == [pattern for pattern, _ in pairs]
        expect(is_same, "multipliers", "a table of the same groups", multipliers)
        values = list(written.values())
    else:
        given = [1.0] * len(rows) if multipliers is None else list(multipliers)[::-1]
        wanted = f"one for each of the {len(rows)} groups"
        expect(len(given) == len(rows), "multipliers", wanted, multipliers)
        values = [given[i] for _, i in pairs]
    steps = [first + i * every for _, i in pairs]
    return Rules(
        [
            (pattern, unfreeze_at(step, value) if step else value)
            for (pattern, _), step, value in zip(pairs, steps, values, strict=True)
        ]
    )


def _positive(value: Any, owner: str) -> Any:
    """A positive number as a float, or a traced scalar."""
    scalar = as_scalar(value, owner)
    fits = not is_schedule(scalar) and (not is_number(scalar) or scalar > 0)
    expect(fits, owner, "a positive number", value)
    return scalar


def _groups(groups: Iterable[Any]) -> list[list[Pattern]]:
    wanted = "a list of groups, the lowest first, each a pattern or a list of patterns"
    # The groups of a mapping or a set would be in no order, or in the wrong one.
    is_ordered = not isinstance(groups, str | Mapping | Set)
    expect(is_ordered, "groups", wanted, groups, TypeError)
    listed = [g if isinstance(g, list | tuple) else [g] for g in groups]
    expect(len(listed) > 0 and all(listed), "groups", wanted, groups)
    return [[as_pattern(pattern) for pattern in group] for group in listed]
