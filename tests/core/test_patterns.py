"""Which names a pattern takes, how it prints, and that it comes back from a config."""

import itertools
import json
import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

import optax_lrmult as olm


def takes(pattern: Any, name: str) -> bool:
    return olm.Rule(pattern, 1).takes(name)


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("block_1", ["block_1/w", "a/block_10/w"], ["Block_1", "block/1"]),
        ("", ["", "anything"], []),
        (".*", [".*"], ["w"]),
        (re.compile("block_."), ["block_1"], ["block_10", "a/block_1"]),
        (re.compile("(?i)STEM/.*"), ["stem/w"], ["stem"]),
        (re.compile("a b", re.X), ["ab"], ["a b"]),
        (olm.glob("*/kernel"), ["a/kernel"], ["kernel", "a/b/kernel", "a/kernel/b"]),
        (olm.glob("**/kernel"), ["kernel", "a/kernel", "a/b/kernel"], ["akernel"]),
        (olm.glob("a/**"), ["a/b", "a/b/c"], ["a", "ab"]),
        (olm.glob("**"), ["", "a/b", "a\nb"], []),
        (olm.glob("a**c"), ["ac", "a/b/c"], ["ab"]),
        (olm.glob("a**/c"), ["a/c", "ab/c", "a/b/c"], ["ac"]),
        (olm.glob("block_?"), ["block_1"], ["block_10", "block_/"]),
        (olm.glob("b[0-2]"), ["b0", "b2"], ["b3", "b"]),
        (olm.glob("b[!0-2]"), ["b3"], ["b0", "b/"]),
        (olm.glob("b[]x]"), ["b]", "bx"], ["b"]),
        (olm.glob("a.b"), ["a.b"], ["axb"]),
        (olm.glob("[^a]"), ["^", "a"], ["b"]),
        (olm.glob("stem", "head"), ["stem", "head"], ["stem/w"]),
        (olm.prefix("layer_1"), ["layer_1", "layer_1/w"], ["layer_10/w", "a/layer_1"]),
        (olm.prefix("a/b/"), ["a/b", "a/b/c"], ["a/bc"]),
        (olm.prefix(""), ["", "a"], []),
        (olm.prefix("a"), ["a/b\nc"], ["a\n"]),
        (olm.prefix("a", "b"), ["a/w", "b"], ["c"]),
    ],
)
def test_takes_these_names_and_leaves_those(
    pattern: Any, taken: list[str], left: list[str]
) -> None:
    assert [takes(pattern, name) for name in taken] == [True] * len(taken)
    assert [takes(pattern, name) for name in left] == [False] * len(left)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("stem/", "'stem/'"),
        (re.compile(r"block_\d+/.*"), r"/block_\d+/.*/"),
        (olm.glob("**/bias"), "glob '**/bias'"),
        (olm.prefix("stem", "head"), "prefix 'stem', 'head'"),
    ],
)
def test_prints_as_it_was_written(pattern: Any, text: str) -> None:
    assert str(olm.Rule(pattern, 1)) == text


PIECES = st.sampled_from(
    ["a", "b1", "*", "**", "?", "[ab]", "[!b]", ".", "/", "(", "A"]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=4).map("".join)
FLAGS = st.sampled_from([0, re.I, re.X, re.S, re.I | re.X, re.A | re.M])
EXPRESSIONS = st.builds(
    lambda front, text, flags: re.compile(front + text, flags),
    st.sampled_from(["", "(?i)", "(?x)"]),
    st.sampled_from(
        ["a b", "A.*", "b1|a", "[ab]/?", "a#b", "^b1$", "\n.a", "(?-i:A).*"]
    )
    | st.sampled_from([r"(?P<x>a|b1)/(?P=x)", r".*(?<=b)1", r"(?!A).+/(a)\1"]),
    FLAGS,
)
PATTERNS = (
    TEXTS
    | EXPRESSIONS
    | st.lists(TEXTS, min_size=1, max_size=2).map(lambda texts: olm.glob(*texts))
    | st.lists(TEXTS, min_size=1, max_size=2).map(lambda texts: olm.prefix(*texts))
)
NAMES = st.lists(st.sampled_from(["a", "b1", "A", "ab", "b1a", " ", "\n", "(", "a b"]))


@hypothesis.example(re.compile("a.*", re.S), "a\nb")
@hypothesis.example(re.compile("^a$.*b", re.M | re.S), "a\nb")
@hypothesis.example(re.compile(r"\w", re.A), "é")
@hypothesis.example(re.compile("a b # c", re.X), "ab")
@hypothesis.example(re.compile("(?x) a b", re.I), "AB")
@hypothesis.given(PATTERNS, NAMES.map("/".join))
def test_what_is_read_back_takes_the_same_names(pattern: Any, name: str) -> None:
    table = olm.Rules([(pattern, 1)])
    again = olm.Rules.from_config(json.loads(json.dumps(table.to_config())))
    assert again.find(name)[1] == table.find(name)[1]
    assert again.to_config() == table.to_config()


@pytest.mark.parametrize("text", ["[z-a]", "[]"])
def test_a_glob_that_cannot_be_read_is_shown_as_it_was_written(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        olm.glob(text)


@pytest.mark.parametrize("pattern", [3, None, b"stem", re.compile(b"stem"), ["stem"]])
def test_what_is_no_pattern_is_refused(pattern: Any) -> None:
    with pytest.raises(TypeError, match="pattern of a rule must be a str"):
        olm.Rule(pattern, 1)


def test_a_pattern_needs_a_text() -> None:
    for make in olm.glob, olm.prefix:
        with pytest.raises(ValueError, match="given a text"):
            make()


SEGMENTS = st.lists(st.sampled_from(["a", "b1", "a.b", "x[", ""]), max_size=4)


def glob_by_hand(tokens: list[str], name: str) -> bool:
    """What a list of marks and characters matches in full, one by one."""
    if not tokens:
        return name == ""
    first, rest = tokens[0], tokens[1:]
    if first in ("*", "**"):
        run = name if first == "**" else name.split("/")[0]
        return any(glob_by_hand(rest, name[i:]) for i in range(len(run) + 1))
    if first == "**/":
        ends = [0, *(i + 1 for i, c in enumerate(name) if c == "/")]
        return any(glob_by_hand(rest, name[i:]) for i in ends)
    sets = {"?": name[:1] != "/", "[ab]": name[:1] in ("a", "b")}
    sets |= {"[!b]": name[:1] not in ("b", "/"), "[+-9]": name[:1] in (".", "1")}
    return (
        name != ""
        and sets.get(first, name[0] == first)
        and glob_by_hand(rest, name[1:])
    )


MARKS = st.sampled_from(["*", "**", "?", "[ab]", "[!b]", "[+-9]", "a", "b", "1", "."])


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.lists(st.lists(MARKS, max_size=3), max_size=3), SEGMENTS)
def test_a_glob_takes_what_a_walk_over_it_takes(
    marks: list[list[str]], segments: list[str]
) -> None:
    tokens: list[str] = []
    for segment in marks:
        # Of a whole segment, `**/` is any number of segments.
        tokens += ["**/"] if segment == ["**"] else [*segment, "/"]
    tokens.append("a")
    # Two stars side by side are another mark.
    hypothesis.assume("***" not in "".join(tokens))
    hypothesis.assume(("*", "*") not in itertools.pairwise(tokens))
    name = "/".join(segments)
    assert takes(olm.glob("".join(tokens)), name) is glob_by_hand(tokens, name)


@hypothesis.given(SEGMENTS, SEGMENTS)
def test_a_prefix_is_compared_segment_by_segment(
    front: list[str], segments: list[str]
) -> None:
    text = "/".join(front).rstrip("/")
    whole = text.split("/") if text else []
    expected = "/".join(segments).split("/")[: len(whole)] == whole
    assert takes(olm.prefix(text), "/".join(segments)) is expected


@hypothesis.given(st.text("a.*[](|+$", min_size=1, max_size=3), NAMES.map("/".join))
def test_a_str_is_no_expression(text: str, name: str) -> None:
    assert takes(text, name) is (name.find(text) >= 0)
