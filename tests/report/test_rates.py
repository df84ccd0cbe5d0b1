"""Learning rates and update ratios of each rule, for a metrics logger."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {
    "head": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))},
    "stack": {"kernel": jnp.ones((3, 2, 2))},
    "stem": {"kernel": jnp.ones((2, 2))},
}


def rates(
    table: Any, rate: Any = 0.5, step: Any = 0, **options: Any
) -> dict[str, float]:
    found = olm.report.learning_rates(PARAMS, table, rate, step, **options)
    for value in found.values():
        assert isinstance(value, jax.Array)
        assert value.shape == ()
        assert jnp.issubdtype(value.dtype, jnp.floating)
    return {key: float(value) for key, value in found.items()}


class TestKeys:
    def test_each_rule_that_is_used_in_the_order_of_the_table(self) -> None:
        table = {"stem": 0, "stack": olm.per_layer([0.25, 0.5, 1]), "bias": 2}
        found = rates([*table.items(), ("nothing", 3), ("head/bias", 4)])
        assert list(found.items()) == [
            ("stem", 0.0),
            ("stack[0]", 0.125),
            ("stack[1]", 0.25),
            ("stack[2]", 0.5),
            ("bias", 1.0),
            ("(no rule)", 0.5),
        ]

    def test_all_parameters_have_a_rule_or_none_has(self) -> None:
        assert rates({"stem": 4, "": 2}) == {"stem": 2.0, "''": 1.0}
        assert rates(None) == {"(no rule)": 0.5}
        assert olm.report.learning_rates({}, {"a": 1}, 0.5) == {}

    def test_a_pattern_as_it_is_written_and_a_recipes_words(self) -> None:
        table = {olm.glob("*/bias"): 2, olm.prefix("stem", "stack"): 4}
        assert rates(table) == {"*/bias": 1.0, "stem, stack": 2.0, "(no rule)": 0.5}
        words = [{"name": ["head/bias", "stem/kernel"], "words": "some", "value": 2}]
        assert rates(olm.Rules.from_config(words)) == {"some": 1.0, "(no rule)": 0.5}

    def test_rules_of_one_text_are_two(self) -> None:
        names = "stem", "stem/kernel", "(no rule)", "x", "stack[0]", "stack"
        params = dict.fromkeys(names, jnp.ones(2))
        table = [
            (olm.glob("stem"), 2),
            ("stem", 3),
            ("(no rule)", 5),
            (olm.glob("stack"), olm.per_layer([7, 8])),
            ("stack[0]", 9),
        ]
        found = olm.report.learning_rates(params, table, 1.0)
        assert {key: float(value) for key, value in found.items()} == {
            "stem": 2.0,
            "stem#1": 3.0,
            "(no rule)": 5.0,
            "stack[0]": 7.0,
            "stack[1]": 8.0,
            "stack[0]#4": 9.0,
            "(no rule)#5": 1.0,
        }

    def test_one_rule_twice_in_a_table_decides_once(self) -> None:
        rules = olm.Rules({"stem": 2})
        assert rates(rules + rules) == {"stem": 1.0, "(no rule)": 0.5}

    def test_a_function_has_an_entry_for_each_number(self) -> None:
        def rate(name: str) -> float | None:
            return {"bias": 0.25, "kernel": 0.5}.get(name.split("/")[-1])

        found = rates({"stem": 4} + olm.Rules(rate))
        assert len(found) == 3
        assert found["stem"] == 2.0
        assert {key.split("rate")[-1]: value for key, value in found.items()} == {
            "stem": 2.0,
            "[0.25]": 0.125,
            "[0.5]": 0.25,
        }

    def test_a_function_of_traced_values_has_one_for_each_parameter(self) -> None:
        @jax.jit
        def logged(x: jax.Array) -> dict[str, jax.Array]:
            def rate(name: str) -> Any:
                return x * len(name) if "kernel" in name else None

            return olm.report.learning_rates(PARAMS, olm.Rules(rate), 0.5)

        found = {
            key.split("rate")[-1]: float(value) for key, value in logged(2.0).items()
        }
        assert found == {
            "[head/kernel]": 11.0,
            "[stack/kernel]": 12.0,
            "[stem/kernel]": 11.0,
            "(no rule)": 0.5,
        }

    def test_a_row_without_a_multiplier_has_the_base_rate(self) -> None:
        rows = {"stem": {"labels": "muon"}, "": {"labels": "adam", "multipliers": 2}}
        assert rates(olm.groups(rows)["multipliers"]) == {"stem": 0.5, "''": 1.0}


class TestRates:
    TABLE = {
        "stem": optax.linear_schedule(0, 1, 10),
        "stack": olm.per_layer([1, lambda step: step / 10, 0]),
    }
    AT_5 = {
        "stem": 0.25,
        "stack[0]": 0.5,
        "stack[1]": 0.25,
        "stack[2]": 0.0,
        "(no rule)": 0.5,
    }

    def test_schedules_read_the_step(self) -> None:
        assert rates(self.TABLE, optax.linear_schedule(1, 0, 10), 5) == self.AT_5
        assert rates(self.TABLE, 0.5, jnp.int32(5)) == self.AT_5

    def test_under_jit_with_all_of_it_traced(self) -> None:
        @jax.jit
        def logged(params: Any, rate: Any, step: Any) -> dict[str, jax.Array]:
            return olm.report.learning_rates(params, self.TABLE, rate, step)

        for step in (5, 0):
            found = logged(PARAMS, jnp.float32(0.5), jnp.int32(step))
            expected = self.AT_5 if step else self.AT_5 | {"stem": 0, "stack[1]": 0}
            assert {key: float(value) for key, value in found.items()} == expected
        assert logged._cache_size() == 1

    def test_is_the_step_that_the_optimizer_takes(self) -> None:
        table = {"stem": optax.linear_schedule(0.5, 1, 4), "bias": 2}
        schedule = optax.linear_schedule(1, 0.5, 3)
        tx = olm.with_name_multipliers(optax.sgd(schedule), table)
        ones = jax.tree.map(jnp.ones_like, PARAMS)
        state = tx.init(PARAMS)
        for step in range(3):
            updates, state = tx.update(ones, state, PARAMS)
            found = rates(table, schedule, step)
            moved = {
                "stem": updates["stem"]["kernel"],
                "bias": updates["head"]["bias"],
                "(no rule)": updates["stack"]["kernel"],
            }
            for key, update in moved.items():
                np.testing.assert_allclose(-update, found[key], rtol=1e-6)

    def test_injected_numbers_are_those_of_the_state(self) -> None:
        @optax.inject_hyperparams
        def make(learning_rate: Any, stem: Any) -> optax.GradientTransformation:
            return olm.with_name_multipliers(optax.sgd(learning_rate), {"stem": stem})

        tx = make(learning_rate=0.5, stem=0.25)
        state = tx.init(PARAMS)
        state.hyperparams["stem"] = jnp.float32(0.5)

        @jax.jit
        def step(state: Any) -> tuple[Any, dict[str, jax.Array]]:
            now = state.hyperparams
            table, rate = {"stem": now["stem"]}, now["learning_rate"]
            logged = olm.report.learning_rates(PARAMS, table, rate)
            return tx.update(PARAMS, state, PARAMS)[0], logged

        updates, logged = step(state)
        assert {k: float(v) for k, v in logged.items()} == {
            "stem": 0.25,
            "(no rule)": 0.5,
        }
        np.testing.assert_array_equal(updates["stem"]["kernel"], -0.25)

    def test_reads_shapes_only_and_other_names(self) -> None:
        found = olm.report.learning_rates(
            jax.eval_shape(lambda: PARAMS), {"stem": 2}, 0.5
        )
        assert found["stem"] == 1.0
        labels = jax.tree.map(lambda _: "all", PARAMS)
        assert rates({"all": 3}, param_labels=labels) == {"all": 1.5}

    def test_a_wrong_table_or_schedule(self) -> None:
        with pytest.raises(ValueError, match="gives 2 values for the slices"):
            rates({"stack": olm.per_layer([1, 2])})
        with pytest.raises(TypeError, match="The table multipliers"):
            rates(lambda name: 1)
        with pytest.raises(ValueError, match="returns must be a real scalar"):
            rates({"stem": lambda step: jnp.ones(2)})


class TestUpdateRatios:
    def test_root_mean_squares_over_all_parameters_of_a_rule(self) -> None:
        rng = np.random.default_rng(0)
        params, updates = (
            jax.tree.map(
                lambda p: jnp.asarray(rng.normal(size=p.shape), "float32"), PARAMS
            )
            for _ in range(2)
        )
        found = olm.report.update_ratios(updates, params, {"stem": 0, "kernel": 1})

        def rms(tree: Any, *paths: tuple[str, str]) -> float:
            leaves = [np.ravel(tree[a][b]).astype("float64") for a, b in paths]
            return float(np.sqrt(np.mean(np.concatenate(leaves) ** 2)))

        kernels = ("head", "kernel"), ("stack", "kernel")
        expected = {
            "stem": [("stem", "kernel")],
            "kernel": kernels,
            "(no rule)": [("head", "bias")],
        }
        assert list(found) == list(expected)
        for key, paths in expected.items():
            np.testing.assert_allclose(
                found[key], rms(updates, *paths) / rms(params, *paths), rtol=1e-6
            )

    def test_zeros_integers_and_low_precision(self) -> None:
        params = {"a": jnp.zeros(2), "b": jnp.zeros(2), "c": jnp.ones(2, int)}
        params["d"] = jnp.full(70_000, 1.1, "bfloat16")
        updates = jax.tree.map(jnp.zeros_like, params) | {"b": jnp.ones(2)}
        updates["d"] = jnp.full(70_000, 0.5, "bfloat16")
        one_tenth_more = float(params["d"][0])
        table = {"a": 1, "b": "any value", "c": None, "d": olm.per_layer([1] * 70_000)}
        found = jax.jit(lambda u, p: olm.report.update_ratios(u, p, table))(
            updates, params
        )
        assert {key: float(value) for key, value in found.items()} == {
            "a": 0.0,
            "b": np.inf,
            "c": 0.0,
            "d": pytest.approx(0.5 / one_tenth_more, rel=1e-5),
        }

    def test_trees_that_differ(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            olm.report.update_ratios({"a": 1.0}, PARAMS, {})
        with pytest.raises(TypeError, match="The table must be a table of rules"):
            olm.report.update_ratios(PARAMS, PARAMS, lambda name: 1)
