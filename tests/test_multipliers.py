"""The assignment and the checks: the same answer everywhere, and no typo unnoticed."""

import copy
import pickle
import re
import types
import warnings
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {
    "layer_1": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "layer_10": {"kernel": jnp.ones((3, 3), jnp.bfloat16)},
    "head": {"kernel": jnp.ones((3, 1))},
}


class TestAssign:
    def test_is_a_row_for_each_leaf_in_the_order_of_the_tree(self) -> None:
        rows = olm.assign(PARAMS, {"layer_1/": 0.5, "kernel": 2})
        rule = olm.Rule("layer_1/", 0.5)
        kernel = olm.Rule("kernel", 2)
        assert rows == [
            olm.Assignment("head/kernel", (3, 1), np.float32, kernel, 2.0),
            olm.Assignment("layer_1/bias", (3,), np.float32, rule, 0.5),
            olm.Assignment("layer_1/kernel", (2, 3), np.float32, rule, 0.5),
            olm.Assignment("layer_10/kernel", (3, 3), jnp.bfloat16, kernel, 2.0),
        ]

    def test_needs_shapes_only(self) -> None:
        shapes = jax.eval_shape(lambda: PARAMS)
        assert olm.assign(shapes, {"head": 2}) == olm.assign(PARAMS, {"head": 2})

    def test_a_stack_may_be_of_hundreds_of_layers(self) -> None:
        layers = olm.per_layer([0.5] * 300)
        (row,) = olm.assign({"stack": np.ones((300, 2))}, {"stack": layers})
        assert row.multiplier == layers

    def test_python_scalars_are_parameters_too(self) -> None:
        assert [row[1:3] for row in olm.assign([1.0, 2], None)] == [
            ((), np.float32),
            ((), np.int32),
        ]

    @pytest.mark.parametrize(
        "leaf", [jax.nn.relu, "text", object(), types.SimpleNamespace(shape=())]
    )
    def test_names_the_leaf_that_is_no_array(self, leaf: Any) -> None:
        with pytest.raises(TypeError, match=r"'act' is of type .*equinox\.is_array"):
            olm.assign({"act": leaf}, None)

    def test_a_length_that_does_not_fit_names_the_parameter_and_both(self) -> None:
        with pytest.raises(
            ValueError, match=r"gives 3 .*'head/kernel'.* has 1 of them"
        ):
            olm.assign(PARAMS, {"head": olm.per_layer([1, 2, 3], axis=1)})
        with pytest.raises(ValueError, match=r"gives 2 .*'layer_1/bias'.* has 3 of"):
            olm.assign(PARAMS, {"layer_1/bias": olm.per_layer([1, 2])})
        with pytest.raises(ValueError, match=r"axis 2, but .*'layer_1/bias'"):
            olm.assign(PARAMS, {"bias": olm.per_layer([1, 2, 3], axis=2)})
        with pytest.raises(ValueError, match=r"axis 1, but .*'layer_1/bias'.*\(3,\)"):
            olm.assign(PARAMS, {"bias": olm.per_layer([1, 2, 3], axis=1)})
        with pytest.raises(ValueError, match="axis -2"):
            olm.assign(PARAMS, {"bias": olm.per_layer([1, 2, 3], axis=-2)})

    @hypothesis.given(
        st.dictionaries(
            st.text("ab1", min_size=1, max_size=2),
            st.dictionaries(st.text("ab1", min_size=1, max_size=2), st.just(1.0)),
        ),
        st.lists(st.tuples(st.text("ab1/", max_size=3), st.floats(-4, 4)), max_size=5),
    )
    def test_is_what_two_loops_find(
        self, tree: dict[str, dict[str, float]], pairs: list[tuple[str, float]]
    ) -> None:
        expected = {}
        for outer in tree:
            for inner in tree[outer]:
                expected[f"{outer}/{inner}"] = 1.0
                for pattern, multiplier in reversed(pairs):
                    if pattern in f"{outer}/{inner}":
                        expected[f"{outer}/{inner}"] = multiplier
        found = {row.name: row.multiplier for row in olm.assign(tree, pairs)}
        assert found == expected


def check_error(multipliers: Any, **options: Any) -> str:
    with pytest.raises(ValueError, match="matches none") as error:
        olm.check_rules(PARAMS, multipliers, **options)
    return str(error.value)


class TestCheckRules:
    def test_a_typo_is_an_error_with_the_nearest_names(self) -> None:
        text = check_error({"head": 1, "layr_1": 0.25})
        assert "Rule 'layr_1' (multiplier 0.25) matches none of the 4" in text
        assert "Nearest: 'layer_1', as in 'layer_1/bias'; 'layer_10', as in" in text
        assert "'head'" not in text.split("Nearest")[0]
        assert "on_unmatched='warn'" in text

    def test_all_dead_rules_are_told_at_once(self) -> None:
        text = check_error({"layr_1": 1, "hed": 2})
        assert "'layr_1'" in text
        assert "'hed'" in text

    def test_a_table_for_another_model_is_told_in_a_few_lines(self) -> None:
        lines = check_error({f"blok_{i}/": 1 for i in range(40)}).splitlines()
        assert len(lines) == 12
        assert lines[9].startswith("Rule 'blok_9/'")
        expected = "'blok_10/', 'blok_11/', 'blok_12/' and 27 more"
        assert lines[10] == f"30 more match nothing: {expected}."

    @pytest.mark.parametrize(
        ("pattern", "hint"),
        [
            ("Layer_1", "differs in letter case only"),
            ("layer_1.kernel", "joined by '/', not by '.'"),
            ("layer_1.kernel", "Nearest: 'layer_1/kernel'; "),
            ("layer_*/kernel", "write glob('layer_*/kernel')"),
            ("layer_.*", "write re.compile('layer_.*')"),
            ("layer_*", "write glob('layer_*')"),
            ("layer_\\d+", "write re.compile('layer_"),
            ("^head", "write re.compile('^head')"),
            ("layer_1/kernel/value", "drop '/value'"),
            ("params/layer_1", "Without 'params/' it would match"),
            ("/layer_1", "Without '/' it would match"),
            ("stem.weight", "joined by '/', not by '.'"),
            (olm.glob("layr_1/*"), "Nearest: 'layer_1/"),
            (olm.by_prefix({"layr_1": 1})[0].pattern, "Nearest: 'layer_1', as in"),
            ("tail", "must be a substring of the name, and letter case counts"),
            (re.compile("layer"), "matches a part of 'layer_1/bias', but"),
            (re.compile("xyz"), "must match the whole name"),
        ],
    )
    def test_says_what_was_probably_meant(self, pattern: Any, hint: str) -> None:
        assert hint in check_error({pattern: 0.5})

    def test_dots_that_are_in_the_names_are_kept(self) -> None:
        with pytest.raises(ValueError, match=r"Nearest: 'layer\.1\.w'\. A str"):
            olm.check_rules({"layer.1.w": 1.0}, {"layr.1.w": 0.5})

    def test_lists_the_parameters_where_nothing_is_near(self) -> None:
        text = check_error({"qqq": 0.5})
        assert (
            "parameters are 'head/kernel', 'layer_1/bias', 'layer_1/kernel' and 1"
            in text
        )

    def test_a_function_that_returns_nothing_is_dead(self) -> None:
        with pytest.raises(
            ValueError, match=r"function .*<lambda> gives no multiplier"
        ):
            olm.check_rules(PARAMS, lambda name: None)

    def test_a_shadowed_rule_is_a_warning_that_names_the_other(self) -> None:
        with pytest.warns(
            UserWarning, match=r"Rule 'layer_10'.* never applies.*'layer'"
        ):
            olm.check_rules(PARAMS, {"layer": 2, "layer_10": 3})

    def test_the_same_rule_twice_is_shadowed(self) -> None:
        with pytest.warns(UserWarning, match="Rule 'head'.*never applies") as told:
            olm.check_rules(PARAMS, [("head", 1), ("head", 1)])
        assert [warning.filename for warning in told] == [__file__]

    def test_a_table_in_front_of_another_overrides_without_a_warning(self) -> None:
        table = olm.freeze("layer_1/") + olm.by_prefix({"layer_1": 0.5, "head": 2})
        olm.check_rules(PARAMS, table)
        for copied in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
            olm.check_rules(PARAMS, {"layer_10": 3} + copied)
        with pytest.warns(UserWarning, match="Rule 'head/'.*never applies"):
            olm.check_rules(PARAMS, olm.freeze("layer_1/") + {"head": 1, "head/": 2})

    def test_a_warning_is_at_the_line_of_the_user(self) -> None:
        table = {"layer": 1, "layer_1": 1}
        tx = optax.chain(olm.scale_by_name_multiplier(table), optax.sgd(1.0))
        with pytest.warns(UserWarning, match="never applies") as told:
            tx.init(PARAMS)
        assert [warning.filename for warning in told] == [__file__]

    def test_can_warn_or_be_silent(self) -> None:
        with pytest.warns(UserWarning, match="'hed'.*matches none") as told:
            olm.check_rules(PARAMS, {"hed": 1}, on_unmatched="warn")
        assert [warning.filename for warning in told] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = [("hed", 1), ("layer", 1), ("layer_1", 1)]
            olm.check_rules(PARAMS, table, on_unmatched="ignore")

    def test_refuses_another_word_in_the_factory(self) -> None:
        for factory in (
            olm.scale_by_name_multiplier,
            olm.constrain_by_name,
            olm.trainable,
            lambda table, **options: olm.adam(1e-3, multipliers=table, **options),
            lambda table, **options: olm.add_decayed_weights_by_name(
                1, table, **options
            ),
        ):
            with pytest.raises(
                ValueError, match=r"on_unmatched must be one of .*'raise'"
            ):
                factory({}, on_unmatched="raise")

    @pytest.mark.parametrize(
        "make",
        [
            lambda table: olm.scale_by_name_multiplier(table),
            lambda table: olm.with_name_multipliers(optax.sgd(1.0), table),
            lambda table: olm.add_decayed_weights_by_name(0.1, table),
            lambda table: olm.constrain_by_name(
                {pattern: olm.non_negative() for pattern in table}
            ),
            lambda table: olm.adam_lr_mult(multipliers=table),
            lambda table: olm.adamw(1e-3, multipliers=table),
            lambda table: olm.AdamLRMultConfig(multipliers=table).make(),
        ],
    )
    def test_runs_in_every_init(self, make: Any) -> None:
        make({"head": 0.5}).init(PARAMS)
        with pytest.raises(ValueError, match="Rule 'hed'"):
            make({"hed": 0.5}).init(PARAMS)

    def test_is_skipped_where_leaves_are_hidden(self) -> None:
        table = {"head": 0.5, "hed": 2}
        olm.check_rules({}, table)
        masked = {"head": jnp.ones(2), "layer": optax.MaskedNode()}
        olm.check_rules(masked, table)
        tx = optax.masked(
            olm.adam(1e-3, multipliers=table),
            lambda p: {"layer_1": False, "layer_10": False, "head": True},
        )
        tx.init(PARAMS)

    def test_none_leaves_do_not_switch_it_off(self) -> None:
        with pytest.raises(ValueError, match="'hed'"):
            olm.check_rules({"head": jnp.ones(2), "static": None}, {"hed": 1})

    def test_is_quick_on_many_names(self) -> None:
        tree = {f"block_{i}": {"kernel": 1.0} for i in range(5000)}
        with pytest.raises(ValueError, match="Nearest: 'block_0'"):
            olm.check_rules(tree, {"blok_0": 1})


class TestTrainable:
    def test_is_false_for_static_zeros_only(self) -> None:
        table = {
            "head": 0,
            "bias": olm.per_layer([0, 0, 0]),
            "layer_10": lambda step: 0.0,
            "layer_1": -0.0,
        }
        mask = olm.trainable(table)(PARAMS)
        assert mask == {
            "head": {"kernel": False},
            "layer_1": {"bias": False, "kernel": False},
            "layer_10": {"kernel": True},
        }

    def test_frozen_parameters_carry_no_moments_and_stay(self) -> None:
        table = {"layer_1/": 0, "head": 0.5}
        tx = olm.with_name_multipliers(
            optax.masked(optax.adam(0.1), olm.trainable(table)), table
        )
        state = tx.init(PARAMS)
        assert len(jax.tree.leaves(state)) == 1 + 2 * 2
        updates, _ = tx.update(PARAMS, state, PARAMS)
        assert not jnp.any(updates["layer_1"]["kernel"])
        np.testing.assert_allclose(updates["head"]["kernel"], -0.05, rtol=1e-5)

    def test_a_traced_zero_is_trainable(self) -> None:
        def mask(zero: jax.Array) -> jax.Array:
            assert olm.trainable({"head": zero})(PARAMS)["head"]["kernel"]
            return zero

        jax.jit(mask)(0.0)

    def test_names_a_typo(self) -> None:
        with pytest.raises(ValueError, match="'hed'"):
            olm.trainable({"hed": 0})(PARAMS)
