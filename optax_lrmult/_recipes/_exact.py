"""Patterns that tell groups of names apart, by their shortest leading segments."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from optax_lrmult._notation import BEHIND_PREFIX
from optax_lrmult._recipes._roles import Path


class Group(NamedTuple):
    """Names that get one pattern, with so many leading segments at least."""

    names: Sequence[str]
    cut: int = 1


def exact_patterns(groups: Sequence[Group]) -> list[re.Pattern[str]]:
    """For each group a pattern that takes its names, and none of the other groups'.

    Args:
      groups: disjoint groups of names.

    Example:
      >>> groups = [Group(["a/b/w", "a/b/v"]), Group(["a/c/w", "a/d/w", "e/w"])]
      >>> for pattern in exact_patterns(groups):
      ...     print(pattern.pattern)
      a/b(?:/.*)?
      (?:a/c|a/d|e)(?:/.*)?
    """
    owners: dict[Path, set[int]] = {}
    for number, group in enumerate(groups):
        for name in group.names:
            for prefix in _prefixes(name):
                owners.setdefault(prefix, set()).add(number)
    pure = {prefix for prefix, numbers in owners.items() if len(numbers) == 1}
    return [_pattern(group, pure) for group in groups]


def _prefixes(name: str) -> list[Path]:
    path = tuple(name.split("/"))
    return [path[:length] for length in range(1, len(path) + 1)]


def _pattern(group: Group, pure: set[Path]) -> re.Pattern[str]:
    prefixes: dict[Path, None] = {}
    whole_names: list[str] = []
    for name in group.names:
        candidates = _prefixes(name)
        candidates = candidates[min(group.cut, len(candidates)) - 1 :]
        prefix = next((p for p in candidates if p in pure), None)
        if prefix is None:  # Another group has names below this one.
            whole_names.append(re.escape(name))
        else:
            prefixes[prefix] = None
    alternatives = [_prefix_regex(list(prefixes))] if prefixes else []
    return re.compile("|".join(alternatives + whole_names), re.DOTALL)


def _prefix_regex(prefixes: list[Path]) -> str:
    """`img/(?:cls|embedding)(?:/.*)?`, with what all prefixes share in front."""
    shared = common_length(*(prefix[:-1] for prefix in prefixes))
    tails = [re.escape("/".join(prefix[shared:])) for prefix in prefixes]
    lead = "".join(f"{re.escape(segment)}/" for segment in prefixes[0][:shared])
    tail = tails[0] if len(tails) == 1 else f"(?:{'|'.join(tails)})"
    return f"{lead}{tail}{BEHIND_PREFIX}"


def common_length(*paths: Path) -> int:
    """How many leading segments all paths share."""
    length = 0
    for segments in zip(*paths, strict=False):
        if len(set(segments)) > 1:
            break
        length += 1
    return length
