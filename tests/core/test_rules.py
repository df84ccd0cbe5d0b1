"""Tables: their order, how they add up, and plain data in and out."""

import dataclasses
import json
import re
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import pytest

import optax_lrmult as olm
from optax_lrmult.core.rules import NO_VALUE

NAMES = ["stem/kernel", "stem/bias", "head/kernel"]


def values(table: Any) -> list[Any]:
    rules = olm.Rules(table)
    return [rules.find(name)[1] for name in NAMES]


@pytest.mark.parametrize(
    "table",
    [
        {"bias": 2, "stem": 0.1},
        MappingProxyType({"bias": 2, "stem": 0.1}),
        [("bias", 2), ["stem", 0.1]],
        (olm.Rule("bias", 2), olm.Rule("stem", 0.1)),
        iter([("bias", 2), ("stem", 0.1)]),
        olm.Rules({"bias": 2, "stem": 0.1}),
        lambda name: 2 if "bias" in name else 0.1 if "stem" in name else None,
    ],
)
def test_the_first_rule_that_takes_a_name_gives_its_value(table: Any) -> None:
    assert values(table) == [0.1, 2, None]


def test_the_order_is_that_of_writing() -> None:
    assert values({"stem": 0.1, "bias": 2}) == [0.1, 0.1, None]
    assert values({"z": 1, "": 3, "stem": 0.1}) == [3, 3, 3]


def test_find_returns_the_rule_and_its_value() -> None:
    table = olm.Rules({"bias": 2})
    rule, value = table.find("stem/bias")
    assert rule is next(iter(table))
    assert value == 2
    assert table.find("stem/kernel") == (None, None)
    assert olm.Rules().find("a") == olm.Rules(None).find("a") == (None, None)


def test_a_rule_without_a_value_keeps_its_names_from_later_rules() -> None:
    table = olm.Rules([("bias", NO_VALUE), ("", 2)])
    assert table.find("stem/bias") == (None, None)
    assert repr(table) == "Rules([('bias', no value), ('', 2)])"


def test_a_sum_puts_the_left_table_in_front() -> None:
    assert values(olm.Rules({"bias": 2}) + {"stem": 0.1}) == [0.1, 2, None]
    assert values({"stem": 0.1} + olm.Rules({"bias": 2})) == [0.1, 0.1, None]
    pairs = [("stem", 0.1)]
    assert values(pairs + olm.Rules({"": 7})) == [0.1, 0.1, 7]
    assert len(olm.Rules({"a": 1}) + None) == 1


def test_a_function_leaves_to_later_rules_what_it_has_no_value_for() -> None:
    table = olm.Rules(lambda name: 5 if name.endswith("bias") else None)
    assert values(table + {"stem": 0.1}) == [0.1, 5, None]
    assert values({"stem": 0.1} + table) == [0.1, 0.1, None]


def test_later_changes_of_what_was_given_have_no_effect() -> None:
    given = {"stem": 0.1}
    table = olm.Rules(given)
    given["stem"] = 0.5
    assert values(table) == [0.1, 0.1, None]
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.rules = ()
    assert not isinstance(table, tuple)


def test_equal_tables_are_equal() -> None:
    assert olm.Rules({"a": 1}) == olm.Rules([("a", 1)]) != olm.Rules({"a": 2})


@pytest.mark.parametrize("table", ["stem", 3, {"stem"}, jnp.ones(2), b"stem"])
def test_what_is_no_table_is_refused(table: Any) -> None:
    with pytest.raises(TypeError, match="table of rules must be a mapping"):
        olm.Rules(table)


@pytest.mark.parametrize("row", [("stem",), "ab", 3, ("stem", 1, 2)])
def test_what_is_no_row_is_refused(row: Any) -> None:
    with pytest.raises(TypeError, match=r"row of a table must be a \(pattern, value\)"):
        olm.Rules([row])


@pytest.mark.parametrize(
    "use",
    [
        lambda fn: olm.Rules() + fn,
        lambda fn: olm.assign({"a": 1.0}, fn),
        lambda fn: olm.scale_by_name_multiplier(fn),
        lambda fn: olm.adamw(1e-3, multipliers=fn),
        lambda fn: olm.by_name(fn),
        lambda fn: olm.groups(fn),
        lambda fn: olm.preview({"a": 1.0}, fn),
    ],
)
def test_a_bare_function_in_place_of_a_table_is_told_how_to_be_written(
    use: Any,
) -> None:
    with pytest.raises(TypeError, match=r"write a function of the name as Rules\("):
        use(lambda name: 1.0)


CONFIG = [
    {"contains": "stem/", "value": 0.1},
    {"contains": ["@", "#"], "value": 2},
    {"glob": "**/bias", "value": {"per_layer": [0.0, 0.5], "axis": -1}},
    {"prefix": ["x", "y/z"], "value": True},
    {"name": "head/kernel", "value": None},
    {"regex": "(?i)w.*", "value": "muon"},
    {"contains": "a", "value": {"name": "taken for a pattern"}},
    {"contains": "b", "value": {}},
    {"contains": "", "multipliers": 1, "b2": 0.9},
]


def test_plain_data_comes_back_as_it_was() -> None:
    table = olm.Rules.from_config(CONFIG)
    assert table == olm.Rules(CONFIG)
    assert table.to_config() == CONFIG
    assert table.find("q/bias")[1] == olm.per_layer([0, 0.5], axis=-1)
    assert table.find("WW")[1] == "muon"


def test_rows_of_plain_data_stand_wherever_a_table_does() -> None:
    rows = json.loads(
        '[{"glob": "**/bias", "value": 0.5}, {"contains": "", "value": 0}]'
    )
    params = {"stem": {"kernel": jnp.ones(1), "bias": jnp.ones(1)}}
    tables = {"multipliers": rows, "weight_decay": rows, "b1": rows, "b2": rows}
    tx = olm.adamw(1.0, eps=rows, **tables)
    updates, _ = tx.update(params, tx.init(params), params)
    assert float(updates["stem"]["kernel"][0]) == 0
    assert float(updates["stem"]["bias"][0]) == pytest.approx(-0.5 * (1 / 1.5 + 0.5))
    assert olm.by_name(rows)({"bias": 1.0}) == {"bias": 0.5}
    shown = olm.preview(params, **tables).to_dict()["parameters"]
    assert [row["b2"] for row in shown] == [0.5, 0]


def test_whole_names_are_taken_as_they_are_and_may_print_in_other_words() -> None:
    row = {"name": ["stem/kernel", "w"], "words": "the stem", "value": 2}
    table = olm.Rules.from_config([row])
    assert values(table) == [2, None, None]
    assert table.find("stem/kernel/w") == (None, None)
    assert [str(rule) for rule in table] == ["the stem"]
    assert table.to_config() == [row]


def test_an_expression_keeps_its_flags() -> None:
    table = olm.Rules({re.compile("STEM", re.IGNORECASE): 1})
    assert table.to_config() == [{"regex": "(?i)STEM", "value": 1}]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"contain": "a", "value": 1}, "'contain'.*Near.*contains"),
        ({"contain": "a", "b1": 1}, "'contain'.*Near.*contains"),
        ({"contains": "a", "vaule": 1}, "'vaule'.*Near.*value"),
        ({"contains": "a", "value": 1, "b1": 1}, "unknown key 'b1'"),
        ({"contains": "a"}, "one of .* and a value"),
        ({"value": 1}, "one of .* and a value"),
        ({"contains": "a", "glob": "b", "value": 1}, "one of .* and a value"),
        ({"regex": "(", "value": 1}, "The expression '.' can't be read"),
    ],
)
def test_rows_of_a_config_that_say_nothing_are_refused(
    row: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        olm.Rules.from_config([row])


@pytest.mark.parametrize(
    "table", [{"a": lambda step: 1.0}, olm.Rules(lambda name: 1.0), {"a": jnp.ones(2)}]
)
def test_what_is_no_plain_data_is_not_written(table: Any) -> None:
    with pytest.raises(ValueError, match="config"):
        olm.Rules(table).to_config()
