"""The learning rate of each rule at a step, for a metrics logger."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_lrmult._multipliers import Assignment, assign
from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._rules import Rule, Rules, RulesLike
from optax_lrmult._scaling import at_step
from optax_lrmult._values import (
    Multiplier,
    PerLayer,
    as_scalar,
    check_takes_one,
    is_number,
    is_schedule,
    shown,
)

NO_RULE = "(no rule)"


def learning_rates(
    params: PyTree,
    multipliers: RulesLike,
    learning_rate: optax.ScalarOrSchedule,
    step: Any,
    *,
    param_labels: ParamLabels = None,
) -> dict[str, jax.Array]:
    r"""The effective learning rate of each rule at a step, as a flat dictionary.

    $$\eta_r = m_r(t) \, \eta(t)$$

    for each rule $r$ that a parameter gets; rules that no parameter gets are left out.
    May be called under `jit`, with `step` and `learning_rate` traced: only shapes of
    `params` are read.

    | key | rate of |
    | --- | --- |
    | the pattern's text as it was written, `''` if it is empty | the rule |
    | `stack[0]`, `stack[1]`, ... | each layer of a `per_layer` rule |
    | `rate[0.5]` | the parameters to which the function `rate` gives the number 0.5 |
    | `rate[stem/kernel]` | the one to which it gives something else, a traced value |
    | `(no rule)` | the parameters without a rule |

    A key that is taken by an earlier rule gets `#2`, `#3`, ... at its end.

    Args:
      params: a pytree of arrays, or of `jax.ShapeDtypeStruct`.
      multipliers: a table of rules; see `Rules`.
      learning_rate: a real number, a schedule or a traced scalar.
      step: the number of steps taken before the one that is logged, an integer or an
        int32 scalar; read by schedules only.
      param_labels: the names, if not those of `path_labels`.

    Returns:
      The rates by key, floating-point scalars, in the order of the rules.

    Raises:
      TypeError: a leaf is not an array, or a rule, the rate or the step is of a wrong
        type.
      ValueError: a number is not finite, `step` is negative, a schedule returns no
        scalar, or what `assign` raises.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_lrmult import per_layer
      >>> params = {"stem": jnp.ones(3), "stack": jnp.ones((2, 3)), "head": jnp.ones(3)}
      >>> table = {"stem": 0, "stack": per_layer([0.25, 0.5])}
      >>> rates = learning_rates(params, table, optax.linear_schedule(1, 0, 10), step=5)
      >>> {key: float(rate) for key, rate in rates.items()}
      {'stem': 0.0, 'stack[0]': 0.125, 'stack[1]': 0.25, '(no rule)': 0.5}
    """
    rules = Rules(multipliers)
    assignments = assign(params, rules, param_labels=param_labels)
    if not is_schedule(learning_rate):
        learning_rate = as_scalar(learning_rate, "learning_rate")
    else:
        check_takes_one(learning_rate, "The schedule learning_rate", "the step")
    _check_step(step)
    rate = at_step(learning_rate, step)
    entries = entries_of(rules, assignments)
    return {entry.key: at_step(entry.multiplier, step) * rate for entry in entries}


class Entry(NamedTuple):
    """A rate to log: its key, the text of its rule, and a multiplier for one array."""

    key: str
    rule: str
    multiplier: Multiplier


def entries_of(rules: Rules, assignments: Sequence[Assignment]) -> list[Entry]:
    """What `learning_rates` has a key for, in its order."""
    entries: dict[str, Entry] = {}
    for rule, key, multiplier in _by_rule(rules, assignments):
        for index, value in slices_of(multiplier):
            unused = _unused(f"{key}{index}", entries)
            entries[unused] = Entry(unused, rule, value)
    return list(entries.values())


def slices_of(multiplier: Multiplier) -> Iterator[tuple[str, Multiplier]]:
    """The multipliers of a `per_layer` with `[0]`, `[1]`, ...; any other one alone."""
    if isinstance(multiplier, PerLayer):
        for index, value in enumerate(multiplier.values):
            yield f"[{index}]", value
    else:
        yield "", multiplier


def _by_rule(
    rules: Rules, assignments: Sequence[Assignment]
) -> Iterator[tuple[str, str, Multiplier]]:
    for rule in {id(rule): rule for rule in rules}.values():
        rows = [row for row in assignments if row.rule is rule]
        if callable(rule.pattern):
            values = {_key_of_value(rule, row): row.multiplier for row in rows}
            yield from ((rule.text, *pair) for pair in values.items())
        elif rows:
            key = key_of(rule)
            yield key, key, rule.multiplier
    if any(row.rule is None for row in assignments):
        yield NO_RULE, NO_RULE, 1.0


def key_of(rule: Rule | None) -> str:
    """The text of a rule, as keys and legends have it."""
    return (rule.text or str(rule)) if rule else NO_RULE


def _key_of_value(rule: Rule, row: Assignment) -> str:
    """A function's equal numbers share a key; any other value has its own."""
    value = repr(row.multiplier) if is_number(row.multiplier) else row.name
    return f"{rule.text}[{value}]"


def _unused(key: str, taken: dict[str, Any]) -> str:
    numbered = (f"{key}#{count}" for count in itertools.count(2))
    return next(k for k in itertools.chain([key], numbered) if k not in taken)


def _check_step(step: Any) -> None:
    dtype = getattr(step, "dtype", type(step))
    is_int = dtype is int or (jnp.issubdtype(dtype, jnp.integer) and dtype is not bool)
    if not is_int or jnp.shape(step) != ():
        raise TypeError(
            f"step must be an int, the number of steps taken, not {shown(step)} "
            f"({type(step).__name__})."
        )
    if isinstance(step, int) and step < 0:
        raise ValueError(f"step must not be negative, but is {shown(step)}.")
