"""Numbered blocks in parameter names: which stack a name is in, and how far up."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from optax_lrmult._backtracking import check_backtracking
from optax_lrmult._recipes._roles import (
    Path,
    belongs_to_stem_or_head,
    role_of_segment,
)
from optax_lrmult._values import shown


class Stack(NamedTuple):
    """Blocks that follow each other: `Transformer/encoderblock_0`, `..._1`, ...

    Attributes:
      word: the text in front of the number.
      path: the segments in front of the numbered one, or of the scanned module.
      cut: the number of segments up to the one with the number.
      distances: how far each parameter is from the head, which is at 0: the last block
        is at 1. For arrays that hold all the layers, the distance of the first slice.
      stem_distance: how far the stem is from the head.
      axis: along which an array holds all the layers, or `None`.
    """

    word: str
    path: Path
    cut: int
    distances: dict[str, int]
    stem_distance: int
    axis: int | None = None


class _Place(NamedTuple):
    """Where one name stands; `inner` is the number right behind the outer one."""

    word: str
    path: Path
    cut: int
    outer: int
    inner_word: str = ""
    inner: int | None = None


def find_stacks(
    names: Iterable[str], blocks: str | re.Pattern[str] | None = None
) -> list[Stack]:
    """The stacks of numbered blocks, in the order of their first names.

    Args:
      names: of all parameters.
      blocks: a regular expression whose first group is a block's number, and the second
        one, if there is one, the number within it; by default numbers behind words such
        as `block` and `layer`.
    """
    if blocks is None:
        stacks = _grouped(_places_by_word(names))
        return [s for s in stacks if not _is_stem_or_head(s)] or stacks
    pattern = _compiled(blocks)
    matches = ((name, pattern.search(name)) for name in names)
    return _grouped({name: _place_of_match(m) for name, m in matches if m})


_WORD = r"(?:.*(?:block|layer|stage|group|cell)s?|h)"
_NUMBERED_WORD = rf"(?is:({_WORD})_?(\d{{1,9}}))"
_BARE_WORD = rf"(?is:{_WORD})"


def _places_by_word(names: Iterable[str]) -> dict[str, _Place]:
    paths = {name: tuple(name.split("/")) for name in names}
    prefixes = {
        path[:end] for path in paths.values() for end in range(1, len(path) + 1)
    }
    places = {name: _place(path, prefixes) for name, path in paths.items()}
    return {name: place for name, place in places.items() if place}


def _place(path: Path, prefixes: set[Path]) -> _Place | None:
    for start in range(len(path)):
        outer = _numbered(path, start, prefixes)
        if outer:
            word, number, end = outer
            text = "/".join((*path[:start], word))
            inner = _numbered(path, _behind_tilde(path, end), prefixes)
            inner_word, inner_number = inner[:2] if inner else ("", None)
            return _Place(text, path[:start], end, number, inner_word, inner_number)
    return None


def _numbered(
    path: Path, start: int, prefixes: set[Path]
) -> tuple[str, int, int] | None:
    """The word, the number and the end of a numbered block that starts a segment."""
    segment = path[start] if start < len(path) else ""
    match = re.fullmatch(_NUMBERED_WORD, segment)
    if match:
        return match[1], int(match[2]), start + 1
    if not re.fullmatch(_BARE_WORD, segment):
        return None
    if start + 1 < len(path) and path[start + 1].isdecimal():
        return segment, int(path[start + 1]), start + 2
    # Haiku counts block, block_1, block_2: the first one has no number.
    zeroth, first = ((*path[:start], f"{segment}_{number}") for number in (0, 1))
    if first in prefixes and zeroth not in prefixes:
        return segment, 0, start + 1
    return None


def _behind_tilde(path: Path, start: int) -> int:
    return start + 1 if path[start : start + 1] == ("~",) else start


def _compiled(blocks: str | re.Pattern[str]) -> re.Pattern[str]:
    text = getattr(blocks, "pattern", blocks)
    if not isinstance(text, str):
        raise TypeError(f"blocks must be a regular expression, not {shown(blocks)}.")
    try:
        pattern = re.compile(blocks)
    except re.error as error:
        raise ValueError(
            f"blocks={shown(blocks)} is no regular expression: {error}."
        ) from None
    check_backtracking(pattern)
    if pattern.groups not in (1, 2):
        raise ValueError(
            f"blocks={shown(blocks)} must have one group, the number of the block, or "
            f"a second one for the number within it; it has {pattern.groups}."
        )
    return pattern


def _place_of_match(match: re.Match[str]) -> _Place:
    outer, inner = (*match.groups(), None)[:2]
    if outer is None or not (outer + (inner or "")).isdecimal():
        raise ValueError(
            f"The groups of blocks= must take numbers, but r{shown(match.re.pattern)} "
            f"takes {shown(match.groups())} from {shown(match.string)}."
        )
    before = match.string[: match.start(1)]
    path = tuple(before.split("/")[:-1])
    inner_number = None if inner is None else int(inner)
    return _Place(before, path, len(path) + 1, int(outer), before, inner_number)


def _grouped(places: dict[str, _Place]) -> list[Stack]:
    members: dict[str, dict[str, _Place]] = {}
    for name, place in places.items():
        members.setdefault(place.word, {})[name] = place
    return [_stack(places) for places in members.values()]


def _stack(places: dict[str, _Place]) -> Stack:
    word, path, *_ = next(iter(places.values()))
    cut = min(place.cut for place in places.values())
    inner_words = _nested_words(places)
    measure = _by_rank(places, inner_words) if inner_words else _by_number(places)
    return Stack(word, path, cut, *measure)


def _by_number(places: dict[str, _Place]) -> tuple[dict[str, int], int]:
    """Distances that a hidden block does not shift."""
    numbers = {place.outer for place in places.values()}
    last, first = max(numbers), 1 if min(numbers) == 1 else 0
    distances = {name: last - place.outer + 1 for name, place in places.items()}
    return distances, last - first + 2


def _nested_words(places: dict[str, _Place]) -> set[str]:
    """Inner words that count blocks; `encoderblock_0/MlpBlock_3` has always a 3."""
    numbers: dict[str, set[int]] = {}
    for place in places.values():
        if place.inner is not None and not _is_part(place):
            numbers.setdefault(place.inner_word, set()).add(place.inner)
    return {word for word, found in numbers.items() if len(found) > 1}


def _is_part(place: _Place) -> bool:
    """True for a layer in a block, as in T5: `block/0/layer/1`."""
    block = re.search(r"blocks?$", place.word, re.IGNORECASE)
    layer = re.search(r"layers?$", place.inner_word, re.IGNORECASE)
    return bool(block and layer)


def _by_rank(
    places: dict[str, _Place], inner_words: set[str]
) -> tuple[dict[str, int], int]:
    """Distances of (outer, inner) pairs; without an inner number, the last of them."""
    inner = {
        name: place.inner
        for name, place in places.items()
        if place.inner is not None and place.inner_word in inner_words
    }
    last_inner: dict[int, int] = {}
    for name, number in inner.items():
        outer = places[name].outer
        last_inner[outer] = max(number, last_inner.get(outer, number))
    pairs = {
        name: (place.outer, inner.get(name, last_inner.get(place.outer, 0)))
        for name, place in places.items()
    }
    from_top = sorted(set(pairs.values()), reverse=True)
    rank = {pair: distance for distance, pair in enumerate(from_top, 1)}
    return {name: rank[pair] for name, pair in pairs.items()}, len(rank) + 1


def _is_stem_or_head(stack: Stack) -> bool:
    """True for `head/layers/0`, and for a lone `EmbeddingLayer_0`."""
    lone_word = role_of_segment(stack.word.split("/")[-1]) in ("stem", "head")
    is_lone = set(stack.distances.values()) == {1}
    return belongs_to_stem_or_head(stack.path) or (is_lone and lone_word)
