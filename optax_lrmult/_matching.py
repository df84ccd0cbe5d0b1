"""Which rule each of many names gets, without asking every rule about every name."""

import functools
import re
from collections.abc import Iterable, Sequence

from optax_lrmult._expressions import tokens_of
from optax_lrmult._rules import Rule, Rules
from optax_lrmult._values import Multiplier


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
    if flags & re.IGNORECASE or flags & re.VERBOSE:
        return []
    return _literals(tokens_of(text))


def _literals(tokens: Iterable[tuple[str, str]]) -> list[str]:
    """The runs of plain characters outside all groups and repeats."""
    runs, depth = [""], 0
    for kind, token in tokens:
        depth += (kind == "open") - (kind == "close")
        if kind == "or" and not depth:
            return []
        if kind == "repeat":
            runs[-1] = runs[-1][:-1]
        if kind == "character" and not depth and _stands_for_itself(token):
            runs[-1] += token[-1]
        else:
            runs.append("")
    return [run for run in runs if run]


def _stands_for_itself(token: str) -> bool:
    if len(token) == 1:
        return token != "."
    return len(token) == 2 and not token[1].isalnum()  # An escaped one.
