"""Texts that differ in a number only, as one: `block_{0..11}/attn/kernel`."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

_FEWEST = 3  # Two rows are shown sooner than explained.


class Folded(NamedTuple):
    """A text for one item, or for several in a row.

    Attributes:
      pieces: the text, split at its numbers; a range such as `{0..11}` is a number too.
      items: what the text stands for, in the order of the numbers.
    """

    pieces: tuple[str, ...]
    items: Sequence[Any]

    @property
    def text(self) -> str:
        """The pieces joined."""
        return "".join(self.pieces)


Continues = Callable[[Folded | None, Folded, Folded], bool]
"""Whether a row may stand behind two others, of which the first one may be missing."""


def unfolded(named: Iterable[tuple[str, Any]]) -> list[Folded]:
    """Each text for its one item."""
    return [Folded(tuple(re.split(r"(\d+)", text)), (item,)) for text, item in named]


def folded(
    rows: Sequence[Folded],
    kind: Callable[[Any], Hashable],
    continuations: Sequence[Continues],
) -> list[Folded]:
    """The rows, with runs of three or more consecutive numbers made one.

    Args:
      rows: what `unfolded` returned.
      kind: of an item; rows of different kinds do not fold.
      continuations: each is tried in turn, at each number of the text.

    Returns:
      Fewer rows, each where its first item was.
    """
    result = list(rows)
    for position in range(1, max((len(row.pieces) for row in rows), default=0), 2):
        for continues in continuations:
            result = _folded_at(position, result, kind, continues)
    return result


def folded_text(texts: Iterable[str]) -> str | None:
    """One text for several that count up in one place, or `None`."""
    rows = unfolded((text, None) for text in texts)
    one = folded(rows, lambda item: None, [lambda *rows: True])
    return one[0].text if len(one) == 1 else None


def _folded_at(
    position: int,
    rows: Sequence[Folded],
    kind: Callable[[Any], Hashable],
    continues: Continues,
) -> list[Folded]:
    runs: list[list[int]] = []
    run_of: dict[Hashable, list[int]] = {}
    for index, row in enumerate(rows):
        before, behind = row.pieces[:position], row.pieces[position + 1 :]
        family = before, behind, len(row.pieces) > position, kind(row.items[0])
        run = run_of.get(family)
        if (
            run
            and _counts_up(rows[run[-1]], row, position)
            and continues(rows[run[-2]] if run[1:] else None, rows[run[-1]], row)
        ):
            run.append(index)
        else:
            run_of[family] = [index]
            runs.append(run_of[family])
    placed = [pair for run in runs for pair in _joined(run, rows, position)]
    return [row for _, row in sorted(placed, key=lambda pair: pair[0])]


def _counts_up(last: Folded, row: Folded, position: int) -> bool:
    """True for 9 and 10, and for 09 and 10; a range does not count on."""
    if position >= len(row.pieces) or not last.pieces[position].isdecimal():
        return False
    number = last.pieces[position]
    return row.pieces[position] == str(int(number) + 1).zfill(len(number))


def _joined(
    run: Sequence[int], rows: Sequence[Folded], position: int
) -> list[tuple[int, Folded]]:
    """The run as one row, at the place of its first one, if it is long enough."""
    if len(run) < _FEWEST:
        return [(index, rows[index]) for index in run]
    first, last = rows[run[0]].pieces, rows[run[-1]].pieces
    numbers = f"{{{first[position]}..{last[position]}}}"
    pieces = (*first[:position], numbers, *first[position + 1 :])
    items = tuple(item for index in run for item in rows[index].items)
    return [(run[0], Folded(pieces, items))]
