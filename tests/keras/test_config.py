"""The original's configuration, from Keras and back."""

import dataclasses
import json
import re
from typing import Any

import pytest

import optax_lrmult as olm
from tests.keras.recorded import cases

Config = olm.keras.AdamLRMultConfig
SAVED = cases("keras")["some_layers"].config | {"epsilon": 1e-7, "lr": 0.25}


def test_goes_from_keras_and_back() -> None:
    saved = SAVED | {"multipliers": {"b": 2.0, "a": 0.5}, "clipnorm": 1.0}
    config = Config.from_keras(json.loads(json.dumps(saved)))
    assert config.to_keras() == saved
    assert list(config.to_keras()["multipliers"]) == ["b", "a"]
    assert json.loads(json.dumps(config.to_keras())) == saved


def test_reads_the_optimizer_of_a_saved_model() -> None:
    whole = {"class_name": "Adam_lr_mult", "config": dict(SAVED)}
    assert Config.from_keras(whole) == Config.from_keras(
        SAVED | {"debug_verbose": True}
    )


def test_refuses_the_optimizer_of_another_class() -> None:
    with pytest.raises(ValueError, match=r"'Adam_lr_mult' .*config\['config'\].*'SGD'"):
        Config.from_keras({"class_name": "SGD", "config": dict(SAVED)})


def test_defaults_are_those_of_the_function() -> None:
    assert Config.from_keras({}) == Config()
    assert Config().to_keras() == {
        "lr": 1e-3,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "decay": 0.0,
        "amsgrad": False,
        "multipliers": None,
    }


def test_names_the_key_that_the_original_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"near: \['beta_1'\S*.*, not 'beta1'"):
        Config.from_keras({"beta1": 0.9})


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("multipliers", {re.compile("a"): 1}, "a substring and a number"),
        ("multipliers", {olm.glob("a"): 1}, "a substring and a number"),
        ("multipliers", olm.Rules(lambda name: 1.0), "a substring and a number"),
        ("multipliers", {"a": lambda step: 1.0}, "a substring and a number"),
        ("multipliers", {"a": float("inf")}, "Rule 'a' must be finite"),
        ("learning_rate", lambda step: 1.0, "rate must be a number"),
        ("constraints", {"a": olm.keras.max_norm()}, "constraints with the layers"),
    ],
)
def test_says_what_keras_cannot_say(field: str, value: Any, text: str) -> None:
    config = dataclasses.replace(Config(), **{field: value})
    with pytest.raises(ValueError, match=text):
        config.to_keras()


def test_the_first_of_equal_keys_wins_in_a_dictionary_too() -> None:
    table = olm.Rules({"a": 0.5}) + {"a": 2, "b": 3}
    assert Config(multipliers=table).to_keras()["multipliers"] == {"a": 0.5, "b": 3.0}


def test_a_later_change_to_the_mapping_has_no_effect() -> None:
    table = {"a": 0.5}
    config = Config(multipliers=table)
    table["a"] = 9.0
    assert config.multipliers == olm.Rules({"a": 0.5})


def test_a_bare_function_is_no_table() -> None:
    with pytest.raises(TypeError, match=r"table multipliers .*Rules\(function\)"):
        Config(multipliers=lambda name: 1.0)
