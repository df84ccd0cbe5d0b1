"""Tables as plain data: every kind of row, the round trip, and what is refused."""

import json
import re
import tomllib
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import optax
import pytest

import optax_lrmult as olm
from optax_lrmult._config import rules_from_config, rules_to_config

ROWS = [
    {"contains": "bias", "multiplier": 2},
    {"regex": "enc.*kernel", "multiplier": 0.5},
    {"glob": "block_*/kernel", "multiplier": 0.25},
    {"prefix": "layer_1", "multiplier": 0},
    {"contains": "stack", "multiplier": [1, 0.5], "axis": 1},
    {"regex": "HEAD/W", "flags": "i", "multiplier": -1.5},
]
RULES = olm.Rules(
    [
        ("bias", 2.0),
        (re.compile("enc.*kernel"), 0.5),
        (olm.glob("block_*/kernel"), 0.25),
        *olm.by_prefix({"layer_1": 0.0}),
        ("stack", olm.per_layer([1.0, 0.5], axis=1)),
        (re.compile("HEAD/W", re.IGNORECASE), -1.5),
    ]
)
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=4
)
REGEXES = TEXTS.map(re.escape) | st.sampled_from(
    ["a|b", "(?i)x.*", "", "[/a]+$", "é#b"]
)
FLAGS = st.sets(st.sampled_from([re.A, re.I, re.M, re.S, re.X])).map(sum)
PATTERNS = TEXTS | st.builds(re.compile, REGEXES, FLAGS)
NUMBERS = st.floats(-3e38, 3e38)
PER_LAYER = st.builds(
    olm.per_layer, st.lists(NUMBERS, min_size=1, max_size=3), st.integers(-3, 3)
)
TABLES = st.lists(st.tuples(PATTERNS, NUMBERS | PER_LAYER), max_size=4).map(olm.Rules)


def as_toml(config: dict[str, list[dict[str, Any]]]) -> str:
    lines = []
    for row in config["rules"]:
        lines.append("[[rules]]")
        lines += [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in row.items()]
    return "\n".join(lines)


class TestReading:
    def test_every_kind_of_row(self) -> None:
        assert rules_from_config({"rules": ROWS}) == RULES
        assert rules_from_config(ROWS) == RULES
        assert rules_from_config([]) == olm.Rules()

    def test_a_prefix_is_whole_segments_and_a_regex_matches_in_full(self) -> None:
        names = (
            "layer_1/w",
            "layer_10/w",
            "encoder/kernel",
            "x/encoder/kernel",
            "head/w",
        )
        found = [rules_from_config(ROWS).find(name)[1] for name in names]
        assert found == [0, 1, 0.5, 1, -1.5]

    def test_the_order_is_kept_and_the_first_row_wins(self) -> None:
        rows = [{"prefix": "a", "multiplier": 2}, {"prefix": "a/b", "multiplier": 3}]
        assert rules_from_config(rows).find("a/b/c")[1] == 2
        assert rules_from_config(rows[::-1]).find("a/b/c")[1] == 3

    def test_the_axis_is_zero_if_missing(self) -> None:
        (rule,) = rules_from_config([{"contains": "a", "multiplier": [1, 2]}])
        assert rule.multiplier == olm.per_layer([1, 2], axis=0)

    def test_from_files(self) -> None:
        toml = """
            [[rules]]
            glob = "block_*/kernel"
            multiplier = 0.25
            [[rules]]
            contains = "stack"
            multiplier = [1, 0.5]
            axis = 1
        """
        assert rules_from_config(tomllib.loads(toml)) == olm.Rules([RULES[2], RULES[4]])
        assert rules_from_config(json.loads(json.dumps({"rules": ROWS}))) == RULES

    def test_nothing_in_a_config_is_run(self) -> None:
        called = []
        rows = [
            {"contains": "__import__('os').abort()", "multiplier": 1},
            {"regex": r"!!python/object\(os\.abort\)", "multiplier": 2},
        ]
        assert rules_from_config(rows)[0].pattern == rows[0]["contains"]
        for key in ("contains", "multiplier"):
            row = {"contains": "a", "multiplier": 1, key: lambda *a: called.append(a)}
            with pytest.raises(TypeError, match=rf"rules\[0\].*{key}.*function"):
                rules_from_config([row])
        assert called == []


class TestRoundTrip:
    @hypothesis.given(TABLES)
    def test_json_gives_an_equal_table(self, rules: olm.Rules) -> None:
        text = json.dumps(rules_to_config(rules), allow_nan=False)
        assert rules_from_config(json.loads(text)) == rules

    @hypothesis.given(TABLES)
    def test_toml_gives_an_equal_table(self, rules: olm.Rules) -> None:
        if rules:
            config = tomllib.loads(as_toml(rules_to_config(rules)))
            assert rules_from_config(config) == rules

    @hypothesis.given(st.sampled_from(["contains", "glob", "prefix"]), TEXTS, NUMBERS)
    def test_a_row_comes_back_as_an_equal_table(
        self, kind: str, text: str, multiplier: float
    ) -> None:
        rules = rules_from_config([{kind: text, "multiplier": multiplier}])
        assert rules_from_config(rules_to_config(rules)) == rules

    def test_flags_survive(self) -> None:
        for text in (r".*/\w|a", r"(?:a|b)(?:/.*)?"):
            (row,) = rules_to_config([(re.compile(text, re.DOTALL), 2)])["rules"]
            assert row["flags"] == "s"
            assert rules_from_config([row])[0].multiplier_of("a/\n/w") == 2

    def test_is_plain_data(self) -> None:
        assert rules_to_config(RULES) == {
            "rules": [
                {"contains": "bias", "multiplier": 2.0},
                {"regex": "enc.*kernel", "multiplier": 0.5},
                {"glob": "block_*/kernel", "multiplier": 0.25},
                {"prefix": "layer_1", "multiplier": 0.0},
                {"contains": "stack", "multiplier": [1.0, 0.5], "axis": 1},
                {"regex": "HEAD/W", "flags": "i", "multiplier": -1.5},
            ]
        }

    def test_a_concrete_jax_number_is_a_number(self) -> None:
        config = rules_to_config({"a": jnp.float32(0.5)})
        assert config["rules"] == [{"contains": "a", "multiplier": 0.5}]
        assert type(config["rules"][0]["multiplier"]) is float


ROW = {"contains": "a", "multiplier": 1.0}


class TestRefusals:
    @pytest.mark.parametrize(
        ("config", "error", "match"),
        [
            ("rules.toml", TypeError, "A config is {'rules'.*not 'rules.toml' .str"),
            (None, TypeError, "A config is"),
            ({"rules": {"a": 1}}, TypeError, "A config is"),
            ({}, ValueError, "no key 'rules'"),
            ({"rulse": []}, ValueError, "'rulse' of the config.*Did you mean 'rules'"),
            ([ROW, ["a", 1]], TypeError, r"rules\[1\]: A row is a mapping.*\['a', 1\]"),
            (
                [ROW, {"contain": "a", "multiplier": 1}],
                ValueError,
                r"rules\[1\]: The key 'contain' of the row.*Did you mean 'contains'\?",
            ),
            (
                [{"multiplier": 1}],
                ValueError,
                r"rules\[0\]: .*exactly one of the keys .*glob.*; this one has none",
            ),
            ([ROW | {"glob": "b"}], ValueError, "this one has 'contains', 'glob'"),
            (
                [{"glob": "b"}],
                ValueError,
                r"rules\[0\]: The key 'multiplier' is missing",
            ),
            ([ROW | {"flags": "i"}], ValueError, "'flags' belongs to a 'regex'"),
            ([ROW | {"axis": 0}], ValueError, "'axis' belongs to a list"),
            ([ROW | {"multiplier": [1], "axis": 0.5}], TypeError, r"rules\[0\].*axis"),
            (
                [{"prefix": 3, "multiplier": 1}],
                TypeError,
                "'prefix' must be text, not 3",
            ),
            (
                [ROW | {"multiplier": None}],
                TypeError,
                r"'multiplier' must be .* not None",
            ),
            ([ROW | {"multiplier": True}], TypeError, "not True"),
            ([ROW | {"multiplier": "1e-3"}], TypeError, "YAML reads .* write 1.0e-3"),
            ([ROW | {"multiplier": "fast"}], TypeError, r"not 'fast' \(str\)\.$"),
            ([ROW | {"multiplier": ["1"]}], TypeError, r"rules\[0\].*not '1'"),
            ([ROW | {"multiplier": []}], ValueError, r"rules\[0\].*at least one"),
            (
                [ROW, ROW | {"multiplier": float("nan")}],
                ValueError,
                r"rules\[1\].*finite",
            ),
            (
                [{"regex": "a", "flags": "q", "multiplier": 1}],
                ValueError,
                "letters 'aimsx', not 'q'",
            ),
            (
                [ROW, {"regex": "a(b", "multiplier": 1}],
                ValueError,
                r"rules\[1\]: The regex 'a\(b' does not compile: missing \), untermina",
            ),
            (
                [{"regex": "a{9" + "9" * 20 + "}", "multiplier": 1}],
                ValueError,
                "compile",
            ),
            ([{"glob": "[z-a]", "multiplier": 1}], ValueError, "glob.*bad character"),
        ],
    )
    def test_reading(self, config: Any, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            rules_from_config(config)

    def test_a_schedule_is_refused_by_name(self) -> None:
        schedule = optax.linear_schedule(1, 0, 10)
        text = f"rule 'stem' is a schedule, {schedule!r}.*in the code, in front"
        with pytest.raises(ValueError, match=text):
            rules_to_config({"bias": 2, "stem": schedule})
        with pytest.raises(ValueError, match=r"rule /st\.\*/ is a schedule, per_layer"):
            rules_to_config({re.compile("st.*"): olm.per_layer([1, schedule])})

    def test_a_traced_value_is_refused(self) -> None:
        def traced(value: jax.Array) -> jax.Array:
            for multiplier in (value, olm.per_layer([1.0, value])):
                with pytest.raises(ValueError, match="rule 'stem' is a traced value"):
                    rules_to_config({"stem": multiplier})
            return value

        jax.jit(traced)(1.0)

    def test_a_function_is_refused(self) -> None:
        def rate(name: str) -> float:
            raise AssertionError(name)

        with pytest.raises(
            ValueError, match=r"function .*rate can't stand in a config"
        ):
            rules_to_config(rate)
