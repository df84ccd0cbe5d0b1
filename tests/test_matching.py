"""Many names at once get what each of them gets alone."""

import contextlib
import re
import string
import warnings
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from optax_lrmult import Rule, Rules, by_prefix, glob
from optax_lrmult._matching import first_matches, literals_of

SEGMENTS = ["block_1", "block_10", "kernel", "a.b", "", "[x]", "Kernel", "1", "é\n"]
names = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map("/".join)
REGEXES = r"""
block_\d+/kernel  .*kernel  (?:.*/)?block_1(?:/.*)?  block_1|kernel  (block_1/)+kernel
(?i:KERNEL)|1  (?i)kernel  ker(?=nel).*  blo*ck_1.*  block_1{1}0?/.*  [block_1]+  a\.b
.*\x6bernel  (?x)kernel  (?#(/)kernel  [^]/]*/kernel  \[x\]  .*1$  ^block.*  x{0}kernel
.*/(?:block_1|kernel)  [/\]]*kernel  k{,2}ernel  .*\bkernel\b  \Ablock_1\Z  .*[é\n]+
""".split()
patterns = st.one_of(
    st.sampled_from([*SEGMENTS, "lock_1/", "/", "1/kern", "zzz"]),
    st.sampled_from([re.compile(text) for text in REGEXES]),
    st.sampled_from([re.compile("block_1.*\n?", re.DOTALL), glob("**/kernel")]),
    st.sampled_from([glob("block_*/ker?el"), glob("[!x]*"), by_prefix({"1": 1})[0]]),
)
tables = st.lists(patterns, max_size=6).map(
    lambda rows: Rules(
        [
            row if isinstance(row, Rule) else Rule(row, index / 8)
            for index, row in enumerate(rows)
        ]
    )
)


@settings(max_examples=400)
@given(tables, st.lists(names, max_size=8))
def test_many_names_get_what_each_gets_alone(rules: Rules, many: list[str]) -> None:
    assert first_matches(rules, many) == [rules.find(name) for name in many]


def test_a_function_is_a_rule_like_others() -> None:
    rules = Rules([Rule("stem", 0.5), Rule(lambda name: 2 if "x" in name else None)])
    many = ["stem/x", "x", "y"]
    assert first_matches(rules, many) == [rules.find(name) for name in many]
    assert [multiplier for _, multiplier in first_matches(rules, many)] == [0.5, 2, 1]


characters = st.sampled_from(string.ascii_lowercase[:4] + r"()[]{}\.*+?|^$,/-1:=!#iPxA")


@settings(max_examples=600)
@given(st.text(characters, max_size=12), st.text("abcd/1", max_size=6))
@example("a{1,2}b", "aab")
@example("ab?c", "ac")
@example(r"a\.b", "a.b")
def test_a_matching_name_holds_the_literals(text: str, name: str) -> None:
    pattern: Any = text
    with warnings.catch_warnings(), contextlib.suppress(re.error, OverflowError):
        warnings.simplefilter("ignore")  # Python's, on sets that look nested.
        pattern = re.compile(text)
    rule = Rule(pattern, 1)
    if rule.multiplier_of(name) is not None:
        assert all(literal in name for literal in literals_of(rule))


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [
        ("block_1/kernel", ["block_1/kernel"]),
        (by_prefix({"block_1.x": 1})[0].pattern, ["block_1.x"]),
        (glob("**/block_*/kernel"), ["block_", "/kernel"]),
        (re.compile(r"layers_\d+/mlp/.*"), ["layers_", "/mlp/"]),
        (re.compile("a+bc{2}d"), ["b", "d"]),
        (re.compile("a|b"), []),
        (re.compile(r"a\db[.]c\.d"), ["a", "b", "c.d"]),
        (re.compile("a-b,c"), ["a-b,c"]),
        (re.compile("kernel", re.IGNORECASE), []),
        (re.compile("ker nel", re.VERBOSE), []),
    ],
)
def test_the_literals_are_found(pattern: Any, literals: list[str]) -> None:
    """Without them every rule would be asked about every name."""
    assert literals_of(Rule(pattern, 1)) == literals


def test_a_rule_is_asked_about_few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = Rule.multiplier_of

    def counting(rule: Rule, name: str) -> Any:
        asked.append(name)
        return original(rule, name)

    monkeypatch.setattr(Rule, "multiplier_of", counting)
    many = [f"blocks/{i}/attn/{leaf}" for i in range(500) for leaf in "wb"]
    table = Rules({f"blocks/{i}/": 0.5 for i in range(100)})
    table += by_prefix({f"blocks/{i}/attn/w": 2 for i in range(100, 200)})
    found = first_matches(table, many)
    assert sum(rule is not None for rule, _ in found) == 300
    assert len(asked) < 10_000  # Of 200 rules x 1 000 names.
