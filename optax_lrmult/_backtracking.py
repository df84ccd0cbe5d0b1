"""Which regular expressions backtrack without end: those of an ambiguous repeat.

`(a+)+b` can split `aaaa` into repeats in eight ways, each `a` more doubles them, and a
name without `b` is refused after all of them were tried. A loop is ambiguous if two
ways lead from a place in the expression back to it over the same text; that is read off
the automaton of the expression's characters.
"""

import functools
import itertools
import math
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from optax_lrmult._expressions import tokens_of
from optax_lrmult._values import shortened

# Texts, compiled when first used: an import is to be quick.
_LOOP = r"\)([*+]|\{\d*,?\d*\})"
_UNREAD = r"\(\?>|\(\?P=|\(\?\(|\\[1-9]|[*+?}]\+"
_SPACE = r"(\\.|\[(?:\\.|[^\]\\])*\])|\s|#[^\n]*"
_IGNORES_CASE = r"\(\?[a-z]*i"
_LONGEST_READ = 300
_ENDLESS = 10  # A counted repeat of as many is as slow as an endless one.
_SAMPLE = [chr(code) for code in range(128)] + ["é", "ß", "Ω", "٣", "\u2028"]

_Edge = tuple[int, int]


def check_backtracking(pattern: re.Pattern[str]) -> None:
    """Raises a `ValueError` if the expression can backtrack without end."""
    if _is_ambiguous(pattern):
        raise ValueError(
            f"The regular expression {shortened(repr(pattern.pattern))} can backtrack "
            "without end: a part of it that is repeated can match one text in several "
            "ways, as in '(a+)+'. Repeat a part that ends in what it can't hold, as in "
            "'(?:[^/]*/)*', or write a substring or a glob."
        )


@functools.lru_cache(maxsize=1024)
def _is_ambiguous(pattern: re.Pattern[str]) -> bool:
    # Without a repeated group no loop has two ways; groups that give back nothing, and
    # references to groups, are not read: their author knows what backtracking is.
    text, flags = pattern.pattern, pattern.flags
    if flags & re.VERBOSE:
        text = re.sub(_SPACE, r"\1", text)
    if not re.search(_LOOP, text) or re.search(_UNREAD, text):
        return False
    if re.search(_IGNORES_CASE, text):
        flags |= re.IGNORECASE
    automaton = _Automaton(text, flags & ~re.VERBOSE)
    if len(automaton.classes) > _LONGEST_READ:
        return False
    return _has_two_ways(automaton.edges, automaton.classes)


class _Part(NamedTuple):
    """A part of an expression: the characters that it begins and ends with."""

    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    may_be_empty: bool = True


class _Automaton:
    """The characters of an expression, and which can follow which, in how many ways.

    Attributes:
      classes: for each character of the expression, those of the sample it matches.
      edges: how many parts of the expression say that a character follows another.
    """

    def __init__(self, text: str, flags: int) -> None:
        self.classes: list[frozenset[str]] = []
        self.edges: Counter[_Edge] = Counter()
        self._flags = flags
        self._left = deque(tokens_of(text))
        self._alternatives()

    def _alternatives(self) -> _Part:
        """Reads up to the bracket that closes a group, or to the end."""
        branches = [_Part()]
        while self._left:
            kind, token = self._left.popleft()
            if kind == "close":
                break
            if kind == "or":
                branches.append(_Part())
            else:
                part = self._repeated(self._part(kind, token))
                branches[-1] = self._joined(branches[-1], part)
        return _Part(
            tuple(place for branch in branches for place in branch.first),
            tuple(place for branch in branches for place in branch.last),
            any(branch.may_be_empty for branch in branches),
        )

    def _part(self, kind: str, token: str) -> _Part:
        if kind == "open":
            inside = self._alternatives()
            return _Part() if token[-1] in "=!" else inside  # Looks, and takes nothing.
        if kind == "anchor":
            return _Part()
        place = (len(self.classes),)
        self.classes.append(_matched(token, self._flags))
        return _Part(place, place, may_be_empty=False)

    def _repeated(self, part: _Part) -> _Part:
        while self._left and self._left[0][0] == "repeat":
            least, most = _counts(self._left.popleft()[1])
            if most >= _ENDLESS:
                self.edges.update(itertools.product(part.last, part.first))
            part = part._replace(may_be_empty=part.may_be_empty or least == 0)
        return part

    def _joined(self, a: _Part, b: _Part) -> _Part:
        self.edges.update(itertools.product(a.last, b.first))
        return _Part(
            a.first + (b.first if a.may_be_empty else ()),
            b.last + (a.last if b.may_be_empty else ()),
            a.may_be_empty and b.may_be_empty,
        )


def _counts(repeat: str) -> tuple[float, float]:
    """The least and the greatest number of repeats."""
    if repeat[0] != "{":
        return {"*": (0, math.inf), "+": (1, math.inf), "?": (0, 1)}[repeat[0]]
    least, comma, most = repeat.strip("{}?").partition(",")
    return int(least or 0), float(most or (math.inf if comma else least))


def _matched(token: str, flags: int) -> frozenset[str]:
    matches = re.compile(token, flags).fullmatch
    return frozenset(filter(matches, _SAMPLE)) or frozenset([token])


def _has_two_ways(
    edges: Mapping[_Edge, int], classes: Sequence[frozenset[str]]
) -> bool:
    """True if a character is reached again, over the same text, by two ways."""
    after = _grouped(edges)
    reached = {place: _reachable([place], after) for place in after}
    loops = {(p, q): ways for (p, q), ways in edges.items() if p in reached.get(q, ())}
    if any(ways > 1 for ways in loops.values()):
        return True
    # Two ways run side by side: from one place, over two places at once, to one place.
    after = _grouped(loops)
    left = [(place, place) for place in after]
    found, backwards = set(left), []
    while left:
        p, q = left.pop()
        for pair in itertools.product(after[p], after[q]):
            if not classes[pair[0]].isdisjoint(classes[pair[1]]):
                backwards.append((pair, (p, q)))
                if pair not in found:
                    found.add(pair)
                    left.append(pair)
    together = ((place, place) for place in after)
    return any(p != q for p, q in _reachable(together, _grouped(backwards)))


def _grouped(edges: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    ends: dict[Any, list[Any]] = {}
    for start, end in edges:
        ends.setdefault(start, []).append(end)
    return ends


def _reachable(starts: Iterable[Any], after: Mapping[Any, list[Any]]) -> set[Any]:
    """What can be reached from any of the starts, in one step or more."""
    found: set[Any] = set()
    left = list(starts)
    while left:
        new = set(after.get(left.pop(), ())) - found
        found |= new
        left += new
    return found
