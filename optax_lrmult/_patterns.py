"""Ways to write patterns: globs and whole-segment prefixes."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from optax_lrmult._rules import Rules


def glob(pattern: str) -> re.Pattern[str]:
    """A regular expression from a glob, for use as the pattern of a rule.

    `*` is any run of characters within a segment, `?` one of them, `**` any run at all,
    `**/` any number of whole segments, and `[a-c]` or `[!a-c]` one character of a set.

    Args:
      pattern: the glob; it must match a name in full.

    Returns:
      The compiled expression.

    Raises:
      TypeError: `pattern` is not a `str`.

    Example:
      >>> blocks = glob("block_*/kernel")
      >>> [bool(blocks.fullmatch(n)) for n in ("block_0/kernel", "block_0/attn/kernel")]
      [True, False]
      >>> bool(glob("**/kernel").fullmatch("block_0/attn/kernel"))
      True
    """
    if not isinstance(pattern, str):
        raise TypeError(
            f"glob takes a str, not {pattern!r} ({type(pattern).__name__})."
        )
    return re.compile(
        "".join(map(_glob_token, _GLOB_TOKENS.findall(pattern))), re.DOTALL
    )


_GLOB_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_GLOB_REGEX = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _glob_token(token: str) -> str:
    if token in _GLOB_REGEX:
        return _GLOB_REGEX[token]
    if len(token) == 1:
        return re.escape(token)
    negated = token.startswith("[!")
    members = re.escape(token[2 if negated else 1 : -1]).replace(r"\-", "-")
    return f"[{'^' if negated else ''}{members}]"


def by_prefix(multipliers: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Rules:
    """A table of whole-segment prefixes, in which the longest one wins.

    `layer_1` takes `layer_1/kernel`, but neither `layer_10/kernel` nor `x/layer_1/w`.

    Args:
      multipliers: multiplier for each prefix, as a mapping or as pairs; `""` takes all.

    Returns:
      The rules, the longest prefix first.

    Raises:
      TypeError: a prefix is not a `str`, or a multiplier is of a wrong type.

    Example:
      >>> table = by_prefix({"enc": 0.1, "enc/norm": 1, "layer_1": 0.5})
      >>> names = "enc/w", "enc/norm/scale", "layer_1/w", "layer_10/w"
      >>> [table.find(name)[1] for name in names]
      [0.1, 1.0, 0.5, 1.0]
    """
    pairs = multipliers.items() if isinstance(multipliers, Mapping) else multipliers
    rows = [(_checked_prefix(prefix), multiplier) for prefix, multiplier in pairs]
    rows.sort(key=lambda row: len(row[0]), reverse=True)
    return Rules([(_prefix_regex(prefix), multiplier) for prefix, multiplier in rows])


def _checked_prefix(prefix: Any) -> str:
    if not isinstance(prefix, str):
        raise TypeError(f"by_prefix takes prefixes that are str, not {prefix!r}.")
    return prefix.rstrip("/")


def _prefix_regex(prefix: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(prefix)}(?:/.*)?" if prefix else ".*", re.DOTALL)
