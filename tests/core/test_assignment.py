"""Where names meet rules: rows, and rules that match nothing."""

import re
import warnings
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {
    "stem": {"kernel": jnp.ones((2, 3)), "bias": np.ones(3, "float64")},
    "head": jax.ShapeDtypeStruct((3,), "bfloat16"),
    "scale": 1.0,
}


def test_a_row_for_each_leaf_in_the_order_of_the_tree() -> None:
    table = olm.Rules({"bias": 2, "stem": 0.1})
    bias, stem = table
    assert olm.assign(PARAMS, table) == [
        ("head", (3,), jnp.bfloat16, None, None),
        ("scale", (), jnp.float32, None, None),
        ("stem/bias", (3,), np.float64, bias, 2),
        ("stem/kernel", (2, 3), jnp.float32, stem, 0.1),
    ]


def dead(table: Any, params: Any = PARAMS, **options: Any) -> str:
    with pytest.raises(ValueError, match="match|no value") as raised:
        olm.assign(params, table, on_unmatched="error", **options)
    return str(raised.value)


def test_a_dead_rule_is_told_with_what_was_meant() -> None:
    text = dead({"stem": 0.1, "stam/kernl": 0.5}, argument="multipliers")
    assert text == (
        "Rule 'stam/kernl' (0.5) of multipliers matches none of the 4 parameters. "
        "Nearest: 'stem/kernel', as in 'stem/kernel'. "
        "A str must be a substring of the name, and letter case counts.\n"
        "To allow this, pass on_unmatched='warn' or on_unmatched='ignore'."
    )


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("STEM", "letter case only"),
        ("stem.*", r"re.compile('stem.*')"),
        ("stem/*", "glob('stem/*')"),
        (olm.prefix("kernel"), "whole segments from the beginning"),
        (olm.glob("kernel"), "A glob must match the whole name"),
        (re.compile("kernel"), "A regex must match the whole name"),
    ],
)
def test_the_hint_says_what_to_write(pattern: Any, hint: str) -> None:
    assert hint in dead({pattern: 0.1})


def test_the_error_lists_parameters_where_none_is_near() -> None:
    assert "The parameters are 'head', 'scale', 'stem/bias' and 1 more" in dead(
        {"q": 1}
    )


def test_the_numbers_of_a_list_are_told_to_need_names() -> None:
    """As the variables of a model of Keras 3."""
    advice = "give names by param_labels=, or a dict"
    variables = [jnp.ones((2, 2)), [jnp.ones(2)]]
    assert advice in dead({"dense/kernel": 0.1}, variables)
    assert advice not in dead({"dense/kernel": 0.1}, {"layers": variables})


def test_a_function_without_a_value_for_any_name_is_dead_too() -> None:
    def never(name: str) -> None:
        del name

    assert "Function test_a_function" in dead(olm.Rules(never))


@pytest.mark.parametrize(
    "make",
    [
        lambda table: olm.scale_by_name_multiplier(table),
        lambda table: olm.with_name_multipliers(optax.sgd(0.1), table),
        lambda table: olm.adam(0.1, multipliers=table),
    ],
)
def test_every_transformation_tells_in_init(make: Any) -> None:
    params = {"stem": jnp.ones(2)}
    with pytest.raises(ValueError, match="Rule 'stam' .* of multipliers"):
        make({"stam": 0.1}).init(params)


@pytest.mark.parametrize(
    ("tx", "argument"),
    [
        (olm.adamw(0.1, weight_decay={"stam": 0, "": 0.1}), "weight_decay"),
        (olm.adamw(0.1, b1={"stam": 0.5}), "b1"),
        (olm.scale_by_adam(eps={"stam": 0.5}), "eps"),
    ],
)
def test_the_error_names_the_argument(tx: Any, argument: str) -> None:
    with pytest.raises(ValueError, match=rf"'stam' .* of {argument} matches none"):
        tx.init({"stem": jnp.ones(2)})


def test_on_unmatched_warns_ignores_or_is_refused() -> None:
    with pytest.warns(UserWarning, match="'stam' .* matches none"):
        olm.assign(PARAMS, {"stam": 1}, on_unmatched="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        olm.assign(PARAMS, {"stam": 1}, on_unmatched="ignore")
    with pytest.raises(ValueError, match="on_unmatched must be one of"):
        olm.assign(PARAMS, {"stam": 1}, on_unmatched="raise")


def test_a_shadowed_rule_is_not_dead() -> None:
    rows = olm.assign({"stem": 1.0}, {"": 1, "stem": 2}, on_unmatched="error")
    assert rows[0].value == 1


class TestBehindMasks:
    """What a mask hides has a name, so a misspelt rule is told there too."""

    HALF = {"stem": {"kernel": jnp.ones(2)}, "head": optax.MaskedNode()}

    def test_a_hidden_leaf_counts_as_a_name_and_has_no_row(self) -> None:
        rows = olm.assign(self.HALF, {"head": 0.1}, on_unmatched="error")
        assert [row.name for row in rows] == ["stem/kernel"]
        assert "'head'" in dead({"haed": 0.1}, self.HALF)
        assert "'head'" in dead({"haed": 0.1}, {"head": optax.MaskedNode()})

    def test_rules_below_a_node_that_is_hidden_as_a_whole_are_excused(self) -> None:
        olm.assign(self.HALF, {"head/kernel": 0.1}, on_unmatched="error")
        olm.assign(optax.MaskedNode(), {"any": 0.1}, on_unmatched="error")
        assert "on_unmatched='ignore'" in dead({"header/kernel": 0.1}, self.HALF)

    def test_a_tree_without_any_leaf_is_not_asked(self) -> None:
        assert olm.assign({}, {"any": 0.1}, on_unmatched="error") == []

    @pytest.mark.parametrize("spelt", ["stem", "stam"])
    def test_inside_of_masked_partition_and_mask_frozen(self, spelt: str) -> None:
        params = {"stem": jnp.ones(2), "head": jnp.ones(2), "ice": jnp.ones(2)}
        inner = olm.adam(0.1, multipliers={spelt: 0.1})
        mask = {"stem": False, "head": True, "ice": True}
        labels = {"stem": "a", "head": "b", "ice": "b"}
        for tx in (
            optax.masked(inner, mask),
            optax.multi_transform({"a": optax.sgd(0.1), "b": inner}, labels),
            olm.with_name_multipliers(inner, {"ice": 0}, mask_frozen=True),
        ):
            if spelt == "stem":
                tx.init(params)
            else:
                with pytest.raises(ValueError, match="'stam' .*Nearest: 'stem'"):
                    tx.init(params)


@pytest.mark.parametrize(
    "take",
    [
        lambda model: olm.assign(model, {"layers": 0.1}),
        lambda model: olm.by_name({"": "adam"})(model),
        lambda model: olm.adam(0.1, multipliers={"layers/0": 0}, mask_frozen=True).init(
            model
        ),
    ],
)
def test_an_unfiltered_equinox_model_is_told_what_to_write(take: Any) -> None:
    model = equinox.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"'activation'.*equinox\.filter"):
        take(model)


def test_a_thousand_rules_on_a_thousand_leaves() -> None:
    params = {
        f"layer_{i}": {"w": jax.ShapeDtypeStruct((1,), "float32")} for i in range(1000)
    }
    table = {f"layer_{i}/w": 1 + i / 1000 for i in range(1000)}
    rows = olm.assign(params, table, on_unmatched="error")
    assert {row.name: row.value for row in rows} == table


def test_ten_dead_rules_are_told_at_once() -> None:
    text = dead({f"block_{i}/": 1 for i in range(30)})
    assert text.count("matches none") == 10
    assert "'block_0/'" in text


def test_labels_are_the_names_in_errors_too() -> None:
    labels = {"stem": {"kernel": "W", "bias": "B"}, "head": "H", "scale": "S"}
    assert "The parameters are 'H', 'S', 'B' and 1" in dead(
        {"stem": 1}, param_labels=labels
    )
    rows = olm.assign(PARAMS, {"W": 0.5}, param_labels=labels, on_unmatched="error")
    assert [row.value for row in rows] == [None, None, None, 0.5]
