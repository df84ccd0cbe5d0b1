"""Ways to write patterns: globs and whole-segment prefixes."""

import re
from collections.abc import Iterable, Mapping, Set
from typing import Any

from optax_lrmult._notation import regex_of_glob, regex_of_prefix
from optax_lrmult._rules import Rules
from optax_lrmult._values import shown


def glob(pattern: str) -> re.Pattern[str]:
    """A regular expression from a glob, for use as the pattern of a rule.

    `*` is any run of characters within a segment, `?` one of them, `**` any run at all,
    a segment `**/` any number of segments, and `[a-c]` or `[!a-c]` one character of a
    set, but never a `/`.

    Args:
      pattern: the glob; it must match a name in full.

    Returns:
      The compiled expression.

    Raises:
      TypeError: `pattern` is not a `str`.
      ValueError: a set is empty or out of order, as in `[]` and `[z-a]`.

    Example:
      >>> blocks = glob("block_*/kernel")
      >>> [bool(blocks.fullmatch(n)) for n in ("block_0/kernel", "block_0/attn/kernel")]
      [True, False]
      >>> bool(glob("**/kernel").fullmatch("block_0/attn/kernel"))
      True
    """
    if not isinstance(pattern, str):
        raise TypeError(
            f"glob takes a str, not {shown(pattern)} ({type(pattern).__name__})."
        )
    try:
        return re.compile(regex_of_glob(pattern), re.DOTALL)
    except re.error as error:
        raise ValueError(f"The glob {shown(pattern)} is none: {error}.") from None


def by_prefix(multipliers: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Rules:
    """A table of whole-segment prefixes, in which the longest one wins.

    `layer_1` takes `layer_1/kernel`, but neither `layer_10/kernel` nor `x/layer_1/w`.

    Args:
      multipliers: multiplier for each prefix, as a mapping or as pairs; `""` takes all.

    Returns:
      The rules, the longest prefix first.

    Raises:
      TypeError: the table is no mapping and no pairs, a prefix is not a `str`, or a
        multiplier is of a wrong type.
      ValueError: a multiplier is not finite.

    Example:
      >>> table = by_prefix({"enc": 0.1, "enc/norm": 1, "layer_1": 0.5})
      >>> names = "enc/w", "enc/norm/scale", "layer_1/w", "layer_10/w"
      >>> [table.find(name)[1] for name in names]
      [0.1, 1.0, 0.5, 1.0]
    """
    rows = [(_checked_prefix(p), multiplier) for p, multiplier in _pairs(multipliers)]
    rows.sort(key=lambda row: len(row[0]), reverse=True)
    return Rules([(_pattern(prefix), multiplier) for prefix, multiplier in rows])


def _pairs(multipliers: Any) -> list[Any]:
    if isinstance(multipliers, Mapping):
        return list(multipliers.items())
    unfit = isinstance(multipliers, str | bytes | Set)
    rows = [None] if unfit or not isinstance(multipliers, Iterable) else multipliers
    pairs = list(rows)
    if not all(isinstance(row, list | tuple) and len(row) == 2 for row in pairs):
        raise TypeError(
            "by_prefix takes a mapping {prefix: multiplier} or a list of such pairs, "
            f"not {shown(multipliers)} ({type(multipliers).__name__})."
        )
    return pairs


def _checked_prefix(prefix: Any) -> str:
    if not isinstance(prefix, str):
        raise TypeError(f"by_prefix takes prefixes that are str, not {shown(prefix)}.")
    return prefix.rstrip("/")


def _pattern(prefix: str) -> re.Pattern[str]:
    return re.compile(regex_of_prefix(prefix), re.DOTALL)
