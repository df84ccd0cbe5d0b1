"""Globs, prefixes and kinds are shown as they were written, and all else as it is."""

import re
from typing import Any

import hypothesis.strategies as st
import jax.numpy as jnp
import pytest
from hypothesis import given, settings

import optax_lrmult as olm
from optax_lrmult._notation import notation_of, regex_of_glob, regex_of_prefix

globs = st.lists(
    st.sampled_from([*"ab/*?.|)(", "**", "**/", "[a-c]", "[!b]", "[/]", "[*^]", "é"]),
    max_size=8,
).map("".join)


@settings(max_examples=500)
@given(globs)
def test_a_glob_is_found_again(text: str) -> None:
    pattern = olm.glob(text)
    kind, found = notation_of(pattern)
    assert kind in ("glob", "prefix")
    regex = regex_of_glob(found) if kind == "glob" else regex_of_prefix(found)
    assert regex == pattern.pattern


@given(st.text("ab/.|()?:*", min_size=1, max_size=9).filter(lambda t: t[-1] != "/"))
def test_a_prefix_is_found_again(text: str) -> None:
    ((pattern, _),) = [(r.pattern, r.multiplier) for r in olm.by_prefix({text: 1})]
    assert notation_of(pattern) == ("prefix", text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("stem", "'stem'"),
        (olm.glob("**/bias"), "glob '**/bias'"),
        (olm.glob("b_[!0-3]/?/*"), "glob 'b_[!0-3]/?/*'"),
        (olm.by_prefix({"a.b/c": 1})[0].pattern, "prefix 'a.b/c'"),
        (re.compile("(?:a|b)(?:/.*)?", re.DOTALL), "prefix 'a|b'"),
        (re.compile("t/(?:a|b)(?:/.*)?", re.DOTALL), "prefix 't/(a|b)'"),
        (olm.by_kind(bias=2)[0].pattern, "kind 'bias'"),
        (olm.no_decay()[0].pattern, "kind 'norm|bias'"),
        (re.compile("(?#a kind)b"), "/(?#a kind)b/"),
        (re.compile("a(?:/.*)?"), "/a(?:/.*)?/"),
        (re.compile(".*bias"), "/.*bias/"),
        (re.compile("(?:a.|b)(?:/.*)?", re.DOTALL), "/(?:a.|b)(?:/.*)?/"),
        (re.compile("(?:a|b)c(?:/.*)?", re.DOTALL), "/(?:a|b)c(?:/.*)?/"),
        (re.compile("(?i:a)", re.DOTALL), "/(?i:a)/"),
        (re.compile(r"a\d", re.DOTALL), r"/a\d/"),
    ],
)
def test_a_rule_prints_its_pattern_as_it_was_written(pattern: Any, text: str) -> None:
    assert str(olm.Rule(pattern, 1)) == text


@pytest.mark.parametrize("key", ["*/w", olm.glob("*/w")])
def test_an_injected_multiplier_is_set_by_it(key: Any) -> None:
    params = {"a": {"w": jnp.ones(2)}}
    tx = olm.scale_by_name_multiplier({olm.glob("*/w"): 0.5}, inject=True)
    state = olm.set_multipliers(tx.init(params), {key: 0.25})
    assert tx.update(params, state)[0]["a"]["w"][0] == 0.25
