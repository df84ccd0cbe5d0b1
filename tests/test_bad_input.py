"""Wrong calls of every public function: each is refused in an error of our own.

The catalogue is `data/bad_calls.txt`; what a line of it can't say stands below.
"""

import re
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import optax_lrmult as olm

PACKAGE = Path(olm.__file__).parent
CATALOGUE = Path(__file__).parent / "data" / "bad_calls.txt"
PARAMS = {
    "stem": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.ones((2, 2))},
}


def step(tx: Any, params: Any = PARAMS) -> Any:
    return tx.update(params, tx.init(params), params)


INJECTED = olm.scale_by_name_multiplier({"stem": 0.5}, inject=True).init(PARAMS)
NAMESPACE = {
    **{name: getattr(olm, name) for name in dir(olm) if name[0] != "_"},
    **{"jax": jax, "jnp": jnp, "np": np, "optax": optax, "re": re, "step": step},
    "PARAMS": PARAMS,
    "NAMES": ["embed/w", "block_0/w", "block_1/w", "head/w"],
    "INJECTED": INJECTED,
    "STACKED": INJECTED._replace(multipliers={"stem": jnp.ones(3)}),
    "ORDER": ["stem/kernel", "stem/bias", "head/kernel"],
    "MOMENTS": [np.ones((3, 2)), np.ones(2), np.ones((2, 2))] * 2,
    "LONG": "x" * 10_000,
    "NASTY": "a\nb\x1b[31m",
}


class Row(NamedTuple):
    call: str
    error: str
    words: list[str]


def read_catalogue() -> list[Row]:
    rows = []
    for line in CATALOGUE.read_text(encoding="utf-8").splitlines()[1:]:
        if line and not line.startswith("## "):
            call, _, expected = line.rpartition(" -> ")
            error, *words = expected.split(" | ")
            rows.append(Row(call, error, words))
    return rows


ROWS = read_catalogue()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.call)
def test_a_wrong_call_is_refused_by_name(row: Row) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(row.call, dict(NAMESPACE))
    error, message = caught.value, str(caught.value)
    assert type(error).__name__ == row.error, message
    for word in row.words:
        assert word in message
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    assert Path(innermost.filename).is_relative_to(PACKAGE), innermost
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert len(message) < 3000
    assert message.replace("\n", "").isprintable()


def test_the_catalogue_is_large_and_has_every_function() -> None:
    calls = [row.call for row in ROWS]
    assert len(set(calls)) == len(calls) >= 150
    values = "path_labels Assignment Preview AssignmentDiff GroupRules non_negative "
    values += "ScaleByNameMultiplierState"
    for name in set(NAMESPACE) & set(dir(olm)) - set(values.split()):
        assert any(re.search(rf"\b{name}\(", call) for call in calls), name


def test_a_tree_of_thousands_of_levels_does_no_harm() -> None:
    code = (
        "import jax.numpy as jnp, optax_lrmult as olm\n"
        "tree = 1.0\n"
        "for _ in range(5000): tree = {'a': tree}\n"
        "try: print(len(olm.assign(tree, {})), 'parameter')\n"
        "except ValueError as error: print(error)"
    )  # In a process of its own: JAX does not recover from it.
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    allowed = (
        "The pytree is nested too deeply",
        "1 parameter",
    )  # As Python's stack is.
    assert out.stdout.startswith(allowed), out.stderr


def raises(*_: Any) -> Any:
    raise KeyError("the user's own")


@pytest.mark.parametrize(
    "call",
    [
        lambda: olm.assign(PARAMS, raises),
        lambda: step(olm.constrain_by_name({"stem/bias": raises})),
        lambda: step(olm.scale_by_name_multiplier({"stem/bias": raises})),
    ],
    ids=["function of the name", "constraint", "schedule"],
)
def test_an_error_of_the_users_function_says_for_which_parameter(call: Any) -> None:
    with pytest.raises(KeyError, match="the user's own") as caught:
        call()
    (note,) = caught.value.__notes__
    assert "head/kernel" in note or "'stem/bias'" in note


BACKTRACK = r"""
(a+)+$
(a*)*b
(a|a)*b
(a|aa)+$
(\w+\s?)*!
(.*a)*b
(.*/)*x
(?:a?b?)*c
(a*b*)*c
((a+)b?)+c
(?:\w+/?)*x
([a-z]+)*\d
(x+x+)+y
((?:a+)){10,}b
^(([a-z])+.)+[A-Z]$
(?:.|a)*b
(?i:(a|A)+)$
(a{1,30}){1,30}b
(?P<n>\d+)+x
(?=(a+)+b)x
(ab|a|b)+c
([^/]|x)*b
(?#note)(?:\x61+)+b
(?x)(a+ [ ]?)+b
""".split("\n")[1:-1]
DO_NOT = r"""
(?:[^/]*/)*x
(?:block_\d+/)*kernel
(?:/\w+)*x
(a|b)*c
(?:\w+\.)*\w+
(a+)?b
(?:.*/)?w
(ab|ac)*d
(?:layer_(?:0|1|2)/)+w
.*.*.*x
(a+){2}
(?:encoder|decoder)+/.*
(\d)+
(?>a+)+b
(?:[^/]+/)*(?:kernel|bias)
(a++)+b
(?:(?:a)*)?b
\(a+\)+
[(a+)]+
(?:x(?:_\d+)*/)*k
(a+)\1+
(?:a$)*b
(?x)(?:[^/]* /)*w # (a+)+
""".split("\n")[1:-1]


@pytest.mark.parametrize("regex", BACKTRACK)
def test_an_expression_that_backtracks_without_end_is_refused(regex: str) -> None:
    with pytest.raises(ValueError, match="can backtrack without end"):
        olm.Rule(re.compile(regex), 1.0)


@pytest.mark.parametrize("regex", DO_NOT)
def test_a_harmless_repeat_of_a_repeat_is_allowed(regex: str) -> None:
    olm.Rule(re.compile(regex), 1.0)


def test_a_long_expression_is_not_read() -> None:
    branches = "|".join(f"layer_{number}/" for number in range(100))
    olm.Rule(re.compile(f"(?:{branches})+w"), 1.0)


def plain_regex(pattern: str) -> str:
    """What a glob means, piece by piece, with all the ways to match it."""
    stars = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*|\*|.", pattern)
    text = "".join(stars.get(token) or re.escape(token) for token in tokens)
    return re.sub(r"(?:(?<=/)|\A)\.\*/", "(?:.*/)?", text)


@given(st.text("ab/*?", max_size=9), st.text("ab/", max_size=9))
def test_a_glob_matches_what_its_pieces_say(pattern: str, name: str) -> None:
    if "***" not in pattern:
        expected = bool(re.fullmatch(plain_regex(pattern), name))
        assert bool(olm.glob(pattern).fullmatch(name)) is expected


@pytest.mark.parametrize("pattern", ["**a" * 12 + "b", "*a" * 12 + "b", "**/a" * 9])
def test_a_glob_of_many_stars_gives_up_soon(pattern: str) -> None:
    # With all the ways to match it, this takes longer than the tests may.
    assert not olm.glob(pattern).fullmatch("a" * 2000 + "/a" * 200 + "c")


def test_text_of_a_config_is_never_run() -> None:
    code = "__import__('sys').exit(3)"
    rows = [{"contains": code, "multiplier": 1}, {"glob": code, "multiplier": 1}]
    table = olm.rules_from_config(rows)
    assert table[0].pattern == code
    config = olm.AdamLRMultConfig.from_keras({"multipliers": {code: 0.5}})
    assert config.to_keras()["multipliers"] == {code: 0.5}
    with pytest.raises(TypeError, match="multiplier"):
        olm.rules_from_config([{"contains": "a", "multiplier": code}])


def test_nothing_in_the_library_can_run_text() -> None:
    running = re.compile(
        r"\b(eval|exec|__import__)\(|"
        r"\bimport (pickle|marshal|shelve|yaml)|(?<![.\w])compile\("
    )
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not running.search(text), path
        if "import_module" in text:  # By a name that the library wrote.
            assert path.name == "_headers.py"
        assert not re.search(r"(?<!def )\bneeded\((?!\")", text), path


def test_names_that_break_lines_do_not_break_tables() -> None:
    params = {"a\nb\x1b[31m": jnp.ones(1), "y" * 10_000: jnp.ones(1)}
    texts = [
        str(olm.preview(params, {})),
        str(olm.assignment_diff([], olm.assign(params, {}))),
    ]
    for text in texts:
        assert text.replace("\n", "").isprintable()
        assert "a\\nb\\x1b[31m" in text
        assert max(map(len, text.splitlines())) < 400
