"""Globs, prefixes and kinds as regular expressions, and the way back, to show them."""

import functools
import re
from collections.abc import Container, Mapping, Sequence
from typing import Literal, NamedTuple

BEHIND_PREFIX = "(?:/.*)?"
_KINDS = r"\(\?#kind ([a-z|]+)\)"


class Notation(NamedTuple):
    """A compiled pattern as it was written.

    Attributes:
      kind: what wrote it; `"regex"` if neither a glob, prefixes nor kinds did.
      text: the glob, the regular expression, the prefix or the kind; several are one,
        as in `embed|img/(cls|pos)` and `norm|bias`.
    """

    kind: Literal["glob", "prefix", "kind", "regex"]
    text: str


@functools.lru_cache(maxsize=4096)
def notation_of(pattern: re.Pattern[str]) -> Notation:
    """The glob or the prefix from which an expression was made, or the expression."""
    text = pattern.pattern
    if pattern.flags == re.UNICODE | re.DOTALL:
        prefix = _prefix_of(text)
        if prefix is not None:
            return Notation("prefix", prefix)
        glob = re.sub(_WRITTEN_BY_GLOB, _as_glob, text)
        if regex_of_glob(glob) == text:
            return Notation("glob", glob)
    kinds = re.match(_KINDS, text)
    return Notation("kind", kinds[1]) if kinds else Notation("regex", text)


def regex_of_prefix(prefix: str) -> str:
    """Matches the prefix by itself, and with a slash and anything behind it."""
    return f"{re.escape(prefix)}{BEHIND_PREFIX}" if prefix else ".*"


def _prefix_of(text: str) -> str | None:
    if not text.endswith(BEHIND_PREFIX):
        return None
    shared, bracket, tails = text.removesuffix(BEHIND_PREFIX).partition("(?:")
    parts = [shared, *(tails.removesuffix(")").split("|") if bracket else [])]
    plain = [_unescaped(part) for part in parts]
    if [re.escape(part) for part in plain] != parts:
        return None
    several = "|".join(plain[1:])
    return f"{plain[0]}({several})" if plain[0] and several else plain[0] + several


def _unescaped(text: str) -> str:
    return re.sub(r"(?s)\\(.)", r"\1", text)


def regex_of_kinds(regexes: Mapping[str, str]) -> str:
    """Matches what one of the expressions does, and says in a comment what it is."""
    return f"(?#kind {'|'.join(regexes)}){'|'.join(regexes.values())}"


def regex_of_glob(pattern: str) -> str:
    """In linear pieces: a name of any length is matched or not without trying all ways.

    Of `**a**b` the first `a` will do, since whatever follows it may stand before the
    `b`; only the piece behind the last star has to reach the end of the name.
    """
    tokens = re.findall(_GLOB_TOKENS, pattern)
    *early, (star, last) = _split(tokens, ("**", "**/"))
    pieces = [_first_match(star, _run(run, True)) for star, run in early]
    return "".join([*pieces, _GREEDY[star], _run(last, False)])


def _run(tokens: Sequence[str], is_early: bool) -> str:
    """What stands between two `**`, with its own stars."""
    (_, first), *rest = _split(tokens, ("*",))
    texts = ["".join(map(_glob_token, piece)) for _, piece in rest]
    last = [] if is_early or not texts else [_GREEDY["*"] + texts.pop()]
    lazy = [_first_match("*", text) for text in texts]
    return "".join([*map(_glob_token, first), *lazy, *last])


def _first_match(star: str, text: str) -> str:
    return f"(?>{_LAZY[star]}{text})" if star else text


def _split(tokens: Sequence[str], stars: Container[str]) -> list[tuple[str, list[str]]]:
    """The tokens between stars, each with the star in front of it."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for token in tokens:
        if token in stars:
            parts.append((token, []))
        else:
            parts[-1][1].append(token)
    return parts


_GLOB_TOKENS = r"(?:(?<=/)|\A)\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|(?s:.)"
_GREEDY = {"": "", "*": "[^/]*", "**": ".*", "**/": "(?:.*/)?"}
_LAZY = {"*": "[^/]*?", "**": ".*?", "**/": "(?:.*?/)??"}


def _glob_token(token: str) -> str:
    if len(token) == 1:
        return "[^/]" if token == "?" else re.escape(token)
    negated = token.startswith("[!")
    members = re.escape(token[2 if negated else 1 : -1]).replace(r"\-", "-")
    characters = f"[{'^' if negated else ''}{members}]"
    return f"(?!/){characters}" if re.match(characters, "/") else characters


_GLOB_OF = {
    **{"(?:.*/)?": "**/", "(?:.*?/)??": "**/"},
    **{"[^/]*?": "*", "[^/]*": "*", ".*?": "**", ".*": "**", "[^/]": "?"},
    **{"(?>": "", ")": "", "(?!/)": ""},
}
_WRITTEN_BY_GLOB = "|".join([*map(re.escape, _GLOB_OF), r"\[(?:\\.|[^]\\])*]", r"\\."])


def _as_glob(match: re.Match[str]) -> str:
    token = match[0]
    if token in _GLOB_OF:
        return _GLOB_OF[token]
    return _unescaped(f"[!{token[2:]}" if token.startswith("[^") else token)
