"""Parameter tables by whole rows, and what the values of each column mean."""

import json
import re
import tomllib
from typing import Any

import jax.numpy as jnp
import pytest

import optax_lrmult as olm

NAMES = ["embed/w", "block/w", "block/bias", "head/w"]


def found(columns: dict[str, Any]) -> dict[str, list[Any]]:
    return {key: [t.find(name)[1] for name in NAMES] for key, t in columns.items()}


def test_the_first_row_wins_whole_and_lacks_what_the_last_row_has() -> None:
    rows = {
        "embed": {"multipliers": 0.3, "b2": 0.95},
        "bias": {"weight_decay": 0},
        "block": {"multipliers": 0.1, "weight_decay": 0.2},
        "": {"multipliers": 1, "b2": 0.999, "weight_decay": 0.1},
    }
    assert found(olm.groups(rows)) == {
        "multipliers": [0.3, 0.1, 1, 1],
        "b2": [0.95, 0.999, 0.999, 0.999],
        "weight_decay": [0.1, 0.2, 0, 0.1],
    }


def test_a_key_may_stand_in_every_row_instead_of_the_last() -> None:
    rows = {"embed": {"b1": 0.8}, "": {"b1": 0.9}}
    assert found(olm.groups(rows)) == {"b1": [0.8, 0.9, 0.9, 0.9]}
    assert found(olm.groups({"embed": {"b1": 0.8}})) == {"b1": [0.8, None, None, None]}
    with pytest.raises(ValueError, match=r"Row 'head' lacks b1.*the last row, ''"):
        olm.groups({"embed": {"b1": 0.8}, "head": {"multipliers": 2}})


class TestLabels:
    ROWS = {
        "embed": {"labels": "adam", "multipliers": 0.2, "b2": 0.995},
        "block": {"labels": "muon", "multipliers": 0.02},
        "": {"labels": "adam", "multipliers": 0.1, "b2": 0.96},
    }

    def test_keys_are_complete_within_each_label(self) -> None:
        assert found(olm.groups(self.ROWS)) == {
            "labels": ["adam", "muon", "muon", "adam"],
            "multipliers": [0.2, 0.02, 0.02, 0.1],
            "b2": [0.995, None, None, 0.96],
        }

    def test_the_last_row_fills_the_rows_of_its_own_label(self) -> None:
        rows = {"embed": {"multipliers": 0.2}, "block": {"labels": "muon"}}
        rows |= {"": {"labels": "adam", "multipliers": 1.0, "b2": 0.96}}
        assert found(olm.groups(rows)) == {
            "labels": ["adam", "muon", "muon", "adam"],
            "multipliers": [0.2, None, None, 1],
            "b2": [0.96, None, None, 0.96],
        }

    def test_a_row_lacks_what_another_of_its_label_has(self) -> None:
        rows = {"head": {"labels": "adam", "multipliers": 1}} | self.ROWS
        rows |= {"": {"labels": "muon", "multipliers": 1}}
        with pytest.raises(ValueError, match="Row 'head' lacks b2"):
            olm.groups(rows)

    def test_every_row_needs_one_if_one_has(self) -> None:
        with pytest.raises(ValueError, match="Row 'block' lacks labels"):
            olm.groups({"embed": {"labels": "adam"}, "block": {"multipliers": 1}})

    def test_names_of_another_label_have_the_default(self) -> None:
        columns = olm.groups(self.ROWS)
        columns.pop("labels")
        columns.pop("multipliers")
        params = {name: jnp.ones(1) for name in ("embed", "block", "head")}
        tx = olm.scale_by_adam(**columns)
        _, state = tx.update(params, tx.init(params))
        nu = {name: float(1 - moment[0]) for name, moment in state.nu.items()}
        assert nu == pytest.approx({"embed": 0.995, "block": 0.999, "head": 0.96})


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ({"a": 0.1}, TypeError, "must be a mapping"),
        ({"a": {"wd": 0.1}}, ValueError, "one of .*not 'wd'"),
        ({"a": {"weightdecay": 0.1}}, ValueError, "near: .'weight_decay'."),
        ({"a": {"learning_rate": 1}}, ValueError, "learning_rate / base rate"),
        ({"a": {"lr": 1}}, ValueError, "multipliers = lr / base rate"),
        ({"A": {"wd": 0.1}}, ValueError, "A key of row 'A'"),
        ({"": {"b1": 0.9}, "a": {"b1": 0.8}}, ValueError, "put it last"),
        (olm.Rules(lambda name: {"b1": 0.9}), TypeError, "must be a mapping"),
        ({"a": {"multipliers": True}}, TypeError, "multipliers of rule 'a'"),
        ({"a": {"b2": olm.per_layer([0.9, 1])}}, ValueError, r"b2 .* in \[0, 1\)"),
        ({"a": {"b2": 1.0}}, ValueError, r"b2 of rule 'a' must be in \[0, 1\)"),
        ({"a": {"b1": -0.1}}, ValueError, r"b1 of rule 'a' must be in \[0, 1\)"),
        ({"a": {"eps": -1}}, ValueError, "eps of rule 'a' must be at least 0"),
        ({"a": {"eps": "1e-8"}}, TypeError, "eps .* real number.* not '1e-8' .str"),
        ({"a": {"weight_decay": -1}}, ValueError, "must be at least 0"),
        ({"a": {"b1": lambda step: 0.9}}, TypeError, "a number, and no schedule"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(
    rows: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        olm.groups(rows)


def test_a_function_may_leave_names_to_the_default_and_its_values_are_checked() -> None:
    params = {"stem": jnp.ones(1), "head": jnp.ones(1)}
    table = olm.Rules(lambda name: 2 if name == "stem" else None)
    tx = olm.scale_by_name_multiplier(table)
    updates, _ = tx.update(params, tx.init(params))
    assert updates == {"stem": 2, "head": 1}
    with pytest.raises(TypeError, match="multipliers of rule"):
        olm.scale_by_name_multiplier(olm.Rules(lambda name: True)).init(params)


def test_a_function_of_the_name_returns_no_schedule() -> None:
    table = olm.Rules(lambda name: lambda step: 1.0)
    tx = olm.scale_by_name_multiplier(table)
    with pytest.raises(TypeError, match="a number, and no schedule"):
        tx.init({"a": jnp.ones(1)})


TOML = """
[by_text."embed"]
multipliers = 0.3
b2 = 0.95
[by_text.""]
multipliers = 1.0
b2 = 0.999

[[rows]]
contains = "embed"
multipliers = 0.3
b2 = 0.95
[[rows]]
contains = ""
multipliers = 1.0
b2 = 0.999
"""


def test_a_table_is_plain_data() -> None:
    """By patterns as keys, or by rows that name their kind of pattern; and back."""
    config = tomllib.loads(TOML)
    rows, by_text = config["rows"], config["by_text"]
    assert olm.groups(rows) == olm.groups(by_text)
    assert olm.Rules(by_text).to_config() == rows
    assert olm.groups(json.loads(json.dumps(rows))) == olm.groups(rows)
    nested = [{"contains": key, "value": row} for key, row in by_text.items()]
    assert olm.groups(nested) == olm.groups(rows)


def test_every_kind_of_pattern_and_value_goes_into_a_file_and_back() -> None:
    layers = olm.per_layer([0.5, 1], axis=1)
    table = olm.Rules(
        {
            olm.glob("**/bias"): {"weight_decay": 0, "labels": "adam"},
            olm.prefix("h", "wte"): {"multipliers": layers, "labels": "adam"},
            re.compile(".*w"): {"multipliers": 0.02, "labels": "muon"},
            "": {"multipliers": 1, "weight_decay": 0.1, "labels": "adam"},
        }
    )
    assert olm.groups(json.loads(json.dumps(table.to_config()))) == olm.groups(table)


def test_that_each_parameter_has_a_row_can_be_asserted() -> None:
    params = {"embed": 1.0, "head": 1.0}
    rows = {"embed": {"b1": 0.8, "weight_decay": 0.1}}
    lacking = [row.name for row in olm.assign(params, rows) if not row.rule]
    assert lacking == ["head"]
    assert all(row.rule for row in olm.assign(params, rows | {"head": {}}))
    # Decays and labels assert it themselves.
    with pytest.raises(ValueError, match="No rule of weight_decay takes 'head'"):
        olm.adamw(0.1, **olm.groups(rows)).init(params)


def test_columns_take_per_layer_and_schedules_where_they_mean_something() -> None:
    rows = {"": {"b2": olm.per_layer([0.9, 0.99]), "weight_decay": lambda step: 0.1}}
    assert set(olm.groups(rows)) == {"b2", "weight_decay"}


def test_betas_of_0_and_decays_of_0_are_numbers_like_others() -> None:
    row = {"b1": 0, "b2": 0, "eps": 0, "weight_decay": 0, "multipliers": -1}
    assert found(olm.groups({"": row})) == {key: [v] * 4 for key, v in row.items()}


def test_a_table_of_labels_alone_is_for_by_name() -> None:
    columns = olm.groups({"embed": {"labels": "a"}, "": {"labels": "b"}})
    assert list(columns) == ["labels"]
    tree = {"embed": 1.0, "head": 2.0}
    assert olm.by_name(columns["labels"])(tree) == {"embed": "a", "head": "b"}
