"""The preview as text, in colour where a terminal can show it."""

import os
import shutil
from collections.abc import Sequence
from typing import TextIO

from optax_lrmult._rows import Section, Tone, cut_rule

_GAP = "  "
_NARROWEST = {"rule": 20, "name": 16, "multiplier": 24}  # In the order of giving way.
_COLOURS: dict[Tone, str] = {
    "frozen": "2",  # Faint: it stands still.
    "slower": "36",
    "plain": "",
    "faster": "33",
    "negative": "31",
    "varying": "35",
}
_HEADER, _NOTE = "1", "33"


def as_text(
    sections: Sequence[Section],
    notes: Sequence[str],
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Aligned tables with an empty line between them, and the notes.

    Args:
      sections: the tables.
      notes: sentences; they are not cut.
      width: the most columns of a line, so that longer cells are cut in the middle; by
        default nothing is cut.
      colour: with ANSI codes for the colour of each multiplier.
    """
    parts = [_aligned(section, width, colour) for section in sections]
    lines = [_painted(f"note: {note}", _NOTE, colour) for note in notes]
    return "\n\n".join([*parts, "\n".join(lines)] if lines else parts)


def takes_colour(file: TextIO) -> bool:
    """True for a terminal with colours; https://no-color.org and FORCE_COLOR count."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return file.isatty() and os.environ.get("TERM") != "dumb"


def columns_of(file: TextIO) -> int | None:
    """The width of a terminal; a pipe or a file has none."""
    return shutil.get_terminal_size().columns if file.isatty() else None


def _aligned(section: Section, width: int | None, colour: bool) -> str:
    lines = [section.header, *(row.cells for row in section.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if width is not None:
        widths = _narrowed(section.header, widths, width)
    codes = [_HEADER, *(_COLOURS[row.tone] if row.tone else "" for row in section.rows)]
    return "\n".join(
        _painted(_line(section, cells, widths), code, colour)
        for cells, code in zip(lines, codes, strict=True)
    )


def _line(section: Section, cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = zip(section.header, cells, section.alignment, widths, strict=True)
    return _GAP.join(
        f"{(cut_rule if name == 'rule' else cut)(cell, width):{how}{width}}"
        for name, cell, how, width in columns
    ).rstrip()


def _narrowed(header: Sequence[str], widths: Sequence[int], width: int) -> list[int]:
    """Widths that fit, or nearly: the rule gives way first, the multiplier last."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    result = list(widths)
    for name, narrowest in _NARROWEST.items():
        if name in header:
            column = header.index(name)
            less = min(max(excess, 0), max(0, result[column] - narrowest))
            result[column] -= less
            excess -= less
    return result


def cut(text: str, width: int) -> str:
    """The text without its middle: the first segment of a name, and its end."""
    if len(text) <= width:
        return text
    segment = text.find("/") + 1
    head = segment if 0 < segment <= width - 10 else (width - 3) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if colour and code else text
