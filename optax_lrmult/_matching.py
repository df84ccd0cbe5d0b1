"""Which rule each of many names gets, without asking every rule about every name."""

import functools
import re
from collections.abc import Iterable, Sequence

from optax_lrmult._rules import Rule, Rules
from optax_lrmult._values import Multiplier

_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}|.", re.DOTALL)
_NO_LITERALS = tuple("().^$")
_REPEATS = tuple("*+?")
# Escapes of several characters, and comments: no literals are read beside them.
_UNREAD = re.compile(r"\\(?![AbBdDsSwWZ])[a-zA-Z0-9]|\(\?#")


def first_matches(
    rules: Rules, names: Sequence[str]
) -> list[tuple[Rule | None, Multiplier]]:
    """What `rules.find(name)` returns for each of the names, in their order.

    A rule is asked only about names that hold the text which its pattern needs.
    """
    found: list[tuple[Rule, Multiplier] | None] = [None] * len(names)
    segments = _Segments(names)
    for rule in rules:
        for place in segments.holding(literals_of(rule)):
            if found[place] is None:
                multiplier = rule.multiplier_of(names[place])
                if multiplier is not None:
                    found[place] = rule, multiplier
    return [pair or (None, 1.0) for pair in found]


class _Segments:
    """The names by their segments: models have far fewer of these than of names."""

    def __init__(self, names: Sequence[str]) -> None:
        self._all = range(len(names))
        self._places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            for segment in set(name.split("/")):
                self._places.setdefault(segment, []).append(place)
        self._holding = functools.lru_cache(maxsize=64)(self._with_segment_around)

    def holding(self, literals: Iterable[str]) -> Sequence[int]:
        """The places of names that may hold all the literals, and of some others."""
        pieces = [piece for text in literals for piece in text.split("/") if piece]
        return min(map(self._holding, pieces), key=len, default=self._all)

    def _with_segment_around(self, piece: str) -> list[int]:
        # A piece has no slash, so where a name holds it, one of its segments does.
        holders = [places for s, places in self._places.items() if piece in s]
        return list(set().union(*holders))


def literals_of(rule: Rule) -> list[str]:
    """Texts that every name which the rule matches must hold; none if in doubt."""
    if isinstance(rule.pattern, str):
        return [rule.pattern]
    if not isinstance(rule.pattern, re.Pattern):
        return []
    text, flags = rule.pattern.pattern, rule.pattern.flags
    if flags & (re.IGNORECASE | re.VERBOSE) or _UNREAD.search(text):
        return []
    return _literals(_TOKENS.findall(text))


def _literals(tokens: Sequence[str]) -> list[str]:
    """The runs of plain characters outside all groups and repeats."""
    runs, depth = [""], 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if depth or token in _NO_LITERALS or token.startswith("["):
            runs.append("")
        elif token == "|":
            return []
        elif token in _REPEATS or (token[0] == "{" and token != "{"):
            runs[-1] = runs[-1][:-1]
            runs.append("")
        elif token[0] == "\\" and token[1].isalnum():
            runs.append("")
        else:
            runs[-1] += token[-1]
    return [run for run in runs if run]
