"""Arguments that several recipes take: groups of patterns, positive numbers, steps."""

import operator
from collections.abc import Iterable, Mapping, Set
from typing import Any

from optax_lrmult._hyperparameters import check_flag
from optax_lrmult._rules import Pattern, Rule
from optax_lrmult._values import as_scalar, is_number, shown

Patterns = Pattern | Iterable[Pattern]
"""A pattern, or several in a list or a tuple."""


def as_groups(groups: Any) -> list[tuple[Pattern, ...]]:
    """Ordered groups of parameters, each as a tuple of its patterns."""
    if isinstance(groups, str | Mapping | Set) or not isinstance(groups, Iterable):
        raise TypeError(
            "groups must be a list of groups, lowest first, and each of them a pattern "
            f"or a list of patterns, not {shown(groups)} ({type(groups).__name__})."
        )
    checked = [as_patterns(group) for group in groups]
    if not checked:
        raise ValueError("groups must hold at least one group; it is empty.")
    if () in checked:
        raise ValueError(f"Group {checked.index(())} of groups has no pattern.")
    return checked


def as_patterns(patterns: Any) -> tuple[Pattern, ...]:
    """One pattern or several, as a tuple, of which each is checked."""
    several = patterns if isinstance(patterns, list | tuple) else [patterns]
    for pattern in several:
        Rule(pattern, 1.0)
    return tuple(several)


def matches(pattern: Pattern, name: str) -> bool:
    """True if a rule with this pattern takes the name."""
    return Rule(pattern, 1.0).multiplier_of(name) is not None


def positive(value: Any, owner: str) -> Any:
    """A positive number as a float, or a traced scalar."""
    scalar = as_scalar(value, owner)
    if is_number(scalar) and scalar <= 0:
        raise ValueError(f"The value of {owner} must be positive, not {shown(value)}.")
    return scalar


def as_steps(value: Any, owner: str, least: int = 0) -> int:
    """A number of steps, as an int of at least `least`."""
    try:
        steps = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        steps = None
    if steps is None:
        raise TypeError(
            f"{owner} must be an int, a number of optimizer steps, not {shown(value)} "
            f"({type(value).__name__})."
        )
    if steps >= 2**31:
        raise ValueError(f"{owner} must fit in 32 bits, unlike {shown(value)}.")
    if steps < least:
        raise ValueError(f"{owner} must be at least {least}, not {shown(value)}.")
    return steps


def as_flag(value: Any, owner: str) -> bool:
    """True or False, and nothing else."""
    check_flag(value, owner)
    return value
