"""The ways to say which names a rule takes."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from optax_lrmult.core.expect import expect, few


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Takes the names that hold a text, are it, or that an expression matches in full.

    Attributes:
      kind: how it is written: `contains`, `glob`, `prefix`, `name` or `regex`.
      texts: what stands behind that word; of several any will do.
      regex: the expression; `None` for `contains` and `name`.
      words: what a recipe calls the names that it has found, shown in place of them.
    """

    kind: str
    texts: tuple[str, ...]
    regex: re.Pattern[str] | None = None
    words: str = ""

    def __post_init__(self) -> None:
        expect(len(self.texts) > 0, f"A {self.kind} pattern", "given a text", ())

    def matches(self, name: str) -> bool:
        """True if a rule with this pattern takes the name."""
        if self.regex is not None:
            return self.regex.fullmatch(name) is not None
        if self.kind == "name":
            return name in self.texts
        found = False  # In a loop, at a third of the time of any(): it is asked often.
        for text in self.texts:
            found = found or text in name
        return found

    def __str__(self) -> str:
        """As it was written: `'stem'`, `/block_.*/`, or `glob '**/bias'`."""
        if self.words:
            return self.words
        texts = ", ".join(map(repr, self.texts))
        if self.kind == "regex":
            return f"/{self.texts[0]}/"
        return texts if self.kind == "contains" else f"{self.kind} {texts}"

    def to_config(self) -> dict[str, Any]:
        """Plain data, such as `{"prefix": ["stem", "head"]}`."""
        texts = list(self.texts)
        if self.regex is not None and self.kind == "regex":
            texts = [_with_flags(self.regex)]
        config = {self.kind: texts[0] if len(texts) == 1 else texts}
        return {**config, "words": self.words} if self.words else config


def as_pattern(written: str | re.Pattern[str] | Pattern) -> Pattern:
    """A `str` takes the names that hold it, an expression those it matches in full."""
    if isinstance(written, Pattern):
        return written
    if isinstance(written, str):
        return contains(written)
    expect(
        isinstance(written, re.Pattern) and isinstance(written.pattern, str),
        "The pattern of a rule",
        "a str, a compiled expression of str, or what glob() and prefix() return",
        written,
        TypeError,
    )
    return Pattern("regex", (written.pattern,), written)


def contains(*texts: str) -> Pattern:
    """Takes the names that hold a text, in its letter case."""
    return Pattern("contains", texts)


def exactly(*names: str, words: str = "") -> Pattern:
    """Takes these names and no others; `words` says what they have in common."""
    return Pattern("name", names, words=words)


def glob(*texts: str) -> Pattern:
    """Takes the names that a glob matches in full.

    `*` is any run of characters within a segment, `?` one of them, `**` any run at all,
    a segment `**/` any number of segments, and `[a-c]` or `[!a-c]` one character of a
    set, but never a `/`.

    Args:
      *texts: one glob, or several of which any will do.

    Example:
      >>> blocks = glob("block_*/kernel")
      >>> [blocks.matches(name) for name in ("block_0/kernel", "block_0/attn/kernel")]
      [True, False]
      >>> glob("**/kernel").matches("block_0/attn/kernel")
      True
    """
    regexes = ["".join(map(_of_token, _TOKENS.findall(text))) for text in texts]
    return Pattern("glob", texts, _compiled("The glob", texts, regexes))


def prefix(*texts: str) -> Pattern:
    """Takes the names that begin with a text, as whole segments.

    Args:
      *texts: one prefix, or several of which any will do; `""` takes all names.

    Example:
      >>> [prefix("layer_1").matches(name) for name in ("layer_1/w", "layer_10/w")]
      [True, False]
    """
    texts = tuple(text.rstrip("/") for text in texts)
    regexes = [f"{re.escape(text)}(?:/.*)?" if text else ".*" for text in texts]
    return Pattern("prefix", texts, _compiled("The prefix", texts, regexes))


def regex(text: str) -> Pattern:
    """Takes the names that an expression matches in full."""
    return as_pattern(_compiled("The expression", (text,), [text], flags=0))


KINDS: dict[str, Callable[..., Pattern]] = {
    "contains": contains,
    "glob": glob,
    "prefix": prefix,
    "name": exactly,
    "regex": regex,
}
"""Each kind of pattern, by the word that a config has for it."""


def _compiled(
    owner: str, texts: tuple[str, ...], regexes: list[str], flags: int = re.DOTALL
) -> re.Pattern[str]:
    try:
        return re.compile("|".join(regexes), flags)
    except re.error as error:  # Tell what was written, not what it has become.
        raise ValueError(f"{owner} {few(texts)} can't be read: {error.msg}.") from None


def _with_flags(regex: re.Pattern[str]) -> str:
    """An expression with its flags in front, as its own syntax writes them: `(?i)`."""
    flags = {"a": re.A, "i": re.I, "m": re.M, "s": re.S, "x": re.X}
    letters = "".join(letter for letter, flag in flags.items() if regex.flags & flag)
    text = re.sub(r"\A\(\?[aimsux]+\)", "", regex.pattern)  # It may have some already.
    return f"(?{letters}){text}" if letters else text


_TOKENS = re.compile(r"(?:(?<=/)|\A)\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|(?s:.)")
_REGEX_OF = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _of_token(token: str) -> str:
    if token in _REGEX_OF:
        return _REGEX_OF[token]
    if len(token) == 1:
        return re.escape(token)
    negated = token.startswith("[!")
    members = re.escape(token[2 if negated else 1 : -1]).replace(r"\-", "-")
    return f"(?!/)[{'^' if negated else ''}{members}]"
