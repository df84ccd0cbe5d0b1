"""The rows of a preview: what each parameter gets, and the total of each rule."""

import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, NamedTuple

from optax_lrmult._diagnosis import describe
from optax_lrmult._folding import Folded, folded, folded_text, unfolded
from optax_lrmult._multipliers import Assignment
from optax_lrmult._values import (
    Multiplier,
    PerLayer,
    as_cell,
    is_frozen,
    is_number,
    is_static,
)

NO_RULE = "-"
_WIDEST = 40
_LONGEST_LISTED = 4

Tone = Literal["frozen", "slower", "plain", "faster", "negative", "varying"]


class Row(NamedTuple):
    """One line of a table, and the tone of its multiplier; `None` for a sum."""

    cells: tuple[str, ...]
    tone: Tone | None


class Section(NamedTuple):
    """A table: its header, how each column is aligned (`<` or `>`), and its rows."""

    header: tuple[str, ...]
    alignment: str
    rows: list[Row]


def parameter_section(assignments: Sequence[Assignment], *, full: bool) -> Section:
    """Name, shape, rule and multiplier of each parameter.

    Args:
      assignments: in the order of the rows.
      full: shows every parameter and every value. By default three or more parameters
        whose names count up share a row if they have one rule and one multiplier, or
        if each of them has a rule of its own and their multipliers rise or fall.
    """
    found = unfolded((row.name, row) for row in assignments)
    if not full:
        found = folded(found, _kind, [_goes_on, _climbs])
    header = "name", "shape", "rule", "multiplier"
    return Section(header, "<<<>", [_parameter_row(row, full) for row in found])


def total_section(assignments: Sequence[Assignment], *, full: bool) -> Section:
    """The number of parameters of each rule, of all, and of those that are frozen."""
    groups: dict[tuple[str, str], list[Assignment]] = {}
    for row in assignments:
        key = rule_text(row), multiplier_text(row.multiplier, full)
        groups.setdefault(key, []).append(row)
    found = unfolded((rule, (value, rows)) for (rule, value), rows in groups.items())
    if not full:
        found = folded(found, lambda item: item[0], [lambda *rows: True])
    total = sum(map(size, assignments))
    rows = [_total_row(row, total) for row in found]
    rows.append(_sum_row("all", total, total))
    rows.append(_sum_row("frozen", sum(map(frozen_size, assignments)), total))
    return Section(("rule", "multiplier", "parameters", "share"), "<>>>", rows)


def rule_text(row: Assignment) -> str:
    """The rule's pattern as Python writes it, or `-`."""
    return NO_RULE if row.rule is None else str(row.rule)


def multiplier_text(multiplier: Multiplier, full: bool = True) -> str:
    """A multiplier in a few characters; values that rise or fall by their ends."""
    if full or not isinstance(multiplier, PerLayer):
        return describe(multiplier)
    values = multiplier.values
    if not isinstance(values, tuple) or len(values) <= _LONGEST_LISTED:
        return describe(multiplier)
    steps = {_direction(a, b) for a, b in itertools.pairwise(values)}
    if len(steps) > 1 or None in steps:
        return describe(multiplier)
    axis = f", axis={multiplier.axis}" if multiplier.axis else ""
    return f"per_layer([{describe(values[0])} .. {describe(values[-1])}]{axis})"


def cut_rule(rule: str, width: int = _WIDEST) -> str:
    """A long rule without its middle, or it would push all columns apart."""
    if len(rule) <= width:
        return rule
    tail = width // 3
    return f"{rule[: width - 3 - tail]}...{rule[-tail:]}"


def tone_of(multipliers: Iterable[Multiplier]) -> Tone:
    """What the multipliers do to the rate, if they all do the same."""
    tones: set[Tone] = {_tone(multiplier) for multiplier in multipliers}
    return tones.pop() if len(tones) == 1 else "varying"


def size(row: Assignment) -> int:
    """The number of elements."""
    return math.prod(row.shape)


def frozen_size(row: Assignment) -> int:
    """The number of elements with a static 0."""
    if isinstance(row.multiplier, PerLayer) and isinstance(
        row.multiplier.values, tuple
    ):
        still = sum(map(is_frozen, row.multiplier.values))
        return size(row) * still // len(row.multiplier.values)
    return size(row) if is_frozen(row.multiplier) else 0


def share(part: int, whole: int) -> float:
    """A fraction; of nothing, 0."""
    return part / whole if whole else 0.0


def _parameter_row(row: Folded, full: bool) -> Row:
    members: Sequence[Assignment] = row.items
    multipliers = [member.multiplier for member in members]
    ends = [multiplier_text(multipliers[i], full) for i in (0, -1)]
    value = ends[0] if ends[0] == ends[1] else " .. ".join(ends)
    cells = as_cell(row.text), str(members[0].shape), _rules_text(members), value
    return Row(cells, tone_of(multipliers))


def _rules_text(members: Sequence[Assignment]) -> str:
    texts = list(dict.fromkeys(map(rule_text, members)))
    together = texts[0] if len(texts) == 1 else folded_text(texts)
    return cut_rule(together or f"{len(texts)} rules")


def _total_row(row: Folded, total: int) -> Row:
    members = [member for _, members in row.items for member in members]
    part = sum(map(size, members))
    cells = cut_rule(row.text), row.items[0][0], f"{part:,}", _percent(part, total)
    return Row(cells, tone_of(member.multiplier for member in members))


def _sum_row(label: str, part: int, total: int) -> Row:
    return Row((label, "", f"{part:,}", _percent(part, total)), None)


def _percent(part: int, whole: int) -> str:
    return f"{share(part, whole):.1%}"


def _kind(row: Assignment) -> Hashable:
    return row.shape, str(row.dtype)


def _gets(row: Folded) -> set[Hashable]:
    """Rules and multipliers."""
    return {(id(member.rule), _value(member.multiplier)) for member in row.items}


def _value(multiplier: Multiplier) -> Hashable:
    """What equal numbers and schedules have in common; a tracer is equal to none."""
    is_known = is_static(multiplier) and isinstance(multiplier, Hashable)
    return multiplier if is_known else id(multiplier)


def _goes_on(_: Folded | None, last: Folded, row: Folded) -> bool:
    return _gets(last) == _gets(row)


def _climbs(before: Folded | None, last: Folded, row: Folded) -> bool:
    """True if each row has a rule and a number of its own, in one direction."""
    steps = [_step(last, row)]
    if before:
        steps.append(_step(before, last))
    return None not in steps and len(set(steps)) == 1


def _step(last: Folded, row: Folded) -> tuple[bool, int] | None:
    """Whether the rule stays, and where the multiplier goes; `None` if it can't."""
    if len(last.items) > 1 or len(row.items) > 1:
        return None
    a: Assignment = last.items[-1]
    b: Assignment = row.items[-1]
    direction = _direction(a.multiplier, b.multiplier)
    if direction is None or a.rule is None or b.rule is None:
        return None
    return a.rule is b.rule, direction


def _direction(a: Multiplier, b: Multiplier) -> int | None:
    """1, 0 or -1 for numbers of one sign; nothing frozen hides among others."""
    if _value(a) == _value(b):
        return 0
    if not (is_number(a) and is_number(b)) or _sign(a) != _sign(b):
        return None
    return _sign(b - a)


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _tone(multiplier: Multiplier) -> Tone:
    if isinstance(multiplier, PerLayer) and isinstance(multiplier.values, tuple):
        return tone_of(multiplier.values)
    if not is_number(multiplier):
        return "varying"
    if multiplier <= 0:
        return "negative" if multiplier else "frozen"
    return "plain" if multiplier == 1 else "slower" if multiplier < 1 else "faster"
