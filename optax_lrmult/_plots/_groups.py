"""Parameters with the same multiplier as one bar, in the order of the network."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from optax_lrmult._multipliers import Assignment
from optax_lrmult._names import natural_order
from optax_lrmult._rates import key_of, slices_of
from optax_lrmult._recipes._blocks import find_stacks
from optax_lrmult._recipes._roles import role_of, role_of_segment
from optax_lrmult._values import Multiplier, is_number

_MOST_BARS = 24
_FLOOR = {"stem": 0, None: 1, "norm": 2, "head": 3}


class Group(NamedTuple):
    """One bar.

    Attributes:
      name: what the parameters have in common: `block_0/attn`, or `stack[3]`.
      rule: the text of their rule.
      multiplier: what each of them gets; never a tuple of values.
    """

    name: str
    rule: str
    multiplier: Multiplier


def groups_of(assignments: Sequence[Assignment]) -> list[Group]:
    """Groups from the stem to the head, by as many segments as leave a few bars."""
    names = [row.name for row in assignments]
    shared = _shared_segments(names)
    stacked = {name for stack in find_stacks(names) for name in stack.distances}
    ordered = sorted(
        assignments,
        key=lambda row: (_floor(row.name, shared, stacked), natural_order(row.name)),
    )
    deepest = max((name.count("/") + 1 - shared for name in names), default=1)
    for depth in range(deepest, 1, -1):
        groups = _grouped(ordered, shared, depth)
        if len(groups) <= _MOST_BARS:
            return groups
    return _grouped(ordered, shared, 1)


def _shared_segments(names: Sequence[str]) -> int:
    """How many segments all names begin with, such as `params`."""
    columns = zip(*(name.split("/")[:-1] for name in names), strict=False)
    same = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    return sum(1 for _ in same) if len(names) > 1 else 0


def _floor(name: str, shared: int, stacked: set[str]) -> int:
    """0 for the stem, 1 for the blocks and what is not known, then norm and head."""
    path = tuple(name.split("/")[shared:])
    if name in stacked:
        return _FLOOR[None]
    if stacked:
        return _FLOOR[role_of(path)]
    return _FLOOR[next(filter(None, map(role_of_segment, path)), None)]


def _grouped(rows: Sequence[Assignment], shared: int, depth: int) -> list[Group]:
    groups: dict[tuple[Any, ...], Group] = {}
    for row in rows:
        name = "/".join(row.name.split("/")[shared : shared + depth])
        rule = key_of(row.rule)
        for index, multiplier in slices_of(row.multiplier):
            value = multiplier if is_number(multiplier) else id(multiplier)
            group = Group(f"{name}{index}", rule, multiplier)
            groups.setdefault((group.name, rule, value), group)
    return list(groups.values())
