"""The learning rate of each rule at a step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from optax_lrmult._rates import learning_rates

PARAMS = {
    "head": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))},
    "stack": {"kernel": jnp.ones((3, 2, 2))},
    "stem": {"kernel": jnp.ones((2, 2))},
}


def rates(
    table: Any, rate: Any = 0.5, step: Any = 0, **options: Any
) -> dict[str, float]:
    found = learning_rates(PARAMS, table, rate, step, **options)
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

    def test_all_parameters_have_a_rule(self) -> None:
        assert rates({"stem": 4, "": 2}) == {"stem": 2.0, "''": 1.0}

    def test_no_rules(self) -> None:
        assert rates(None) == {"(no rule)": 0.5}
        assert learning_rates({}, {"a": 1}, 0.5, 0) == {}

    def test_a_glob_and_a_prefix_as_they_are_written(self) -> None:
        assert rates({olm.glob("*/bias"): 2})["*/bias"] == 1.0
        assert rates(olm.by_prefix({"stem": 2}))["stem"] == 1.0

    def test_a_key_that_is_taken(self) -> None:
        names = "stem", "stem/kernel", "(no rule)", "x"
        params = dict.fromkeys(names, jnp.ones(2)) | {
            "stack[0]": 1.0,
            "stack": np.ones(1),
        }
        table = [(olm.glob("stem"), 2), ("stem", 3), ("(no rule)", 5), ("stack[0]", 7)]
        table.append(("stack", olm.per_layer([9])))
        found = learning_rates(params, table, 1.0, 0)
        assert {key: float(value) for key, value in found.items()} == {
            "stem": 2.0,
            "stem#2": 3.0,
            "(no rule)": 5.0,
            "stack[0]": 7.0,
            "stack[0]#2": 9.0,
            "(no rule)#2": 1.0,
        }

    def test_one_rule_twice_in_a_table_is_one_entry(self) -> None:
        rules = olm.Rules({"stem": 2})
        for table in (rules + rules, [("stem", 2), ("stem", 2)]):
            assert rates(table) == {"stem": 1.0, "(no rule)": 0.5}

    def test_a_function_has_an_entry_for_each_number(self) -> None:
        def rate(name: str) -> float | None:
            return {"bias": 0.25, "kernel": 0.5}.get(name.split("/")[-1])

        assert rates(olm.Rules({"stem": 4}) + rate) == {
            "stem": 2.0,
            "rate[0.25]": 0.125,
            "rate[0.5]": 0.25,
        }

    def test_a_function_of_traced_values_has_one_for_each_parameter(self) -> None:
        def logged(x: jax.Array) -> dict[str, jax.Array]:
            def rate(name: str) -> Any:
                return x * len(name) if "kernel" in name else None

            return learning_rates(PARAMS, rate, 0.5, 0)

        found = jax.jit(logged)(2.0)
        assert {key: float(value) for key, value in found.items()} == {
            "rate[head/kernel]": 11.0,
            "rate[stack/kernel]": 12.0,
            "rate[stem/kernel]": 11.0,
            "(no rule)": 0.5,
        }


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
        traces = []

        @jax.jit
        def logged(params: Any, rate: Any, step: Any) -> dict[str, jax.Array]:
            traces.append(step)
            return learning_rates(params, self.TABLE, rate, step)

        for step in (5, 0):
            found = logged(PARAMS, jnp.float32(0.5), jnp.int32(step))
            expected = self.AT_5 if step else self.AT_5 | {"stem": 0, "stack[1]": 0}
            assert {key: float(value) for key, value in found.items()} == expected
        assert len(traces) == 1

    def test_a_schedule_under_jit(self) -> None:
        def logged(step: Any) -> dict[str, jax.Array]:
            schedule = optax.linear_schedule(1, 0, 10)
            return learning_rates(PARAMS, self.TABLE, schedule, step)

        assert {k: float(v) for k, v in jax.jit(logged)(5).items()} == self.AT_5

    def test_is_the_step_that_the_optimizer_takes(self) -> None:
        table = {"stem": optax.linear_schedule(0.5, 1, 4), "bias": 2}
        schedule = optax.linear_schedule(1, 0.5, 3)
        tx = olm.with_name_multipliers(optax.sgd(schedule), table)
        ones = jax.tree.map(jnp.ones_like, PARAMS)
        state = tx.init(PARAMS)
        for step in range(4):
            updates, state = tx.update(ones, state, PARAMS)
            found = rates(table, schedule, step)
            np.testing.assert_allclose(-updates["stem"]["kernel"], found["stem"], 1e-6)
            np.testing.assert_allclose(-updates["head"]["bias"], found["bias"], 1e-6)
            free = found["(no rule)"]
            np.testing.assert_allclose(-updates["stack"]["kernel"], free, 1e-6)

    def test_reads_shapes_only(self) -> None:
        shapes = jax.eval_shape(lambda: PARAMS)
        assert learning_rates(shapes, {"stem": 2}, 0.5, 0)["stem"] == 1.0

    def test_other_names(self) -> None:
        labels = jax.tree.map(lambda _: "all", PARAMS)
        assert rates({"all": 3}, param_labels=labels) == {"all": 1.5}


class TestRefusals:
    @pytest.mark.parametrize("rate", ["fast", None, True, 1j, jnp.ones(2)])
    def test_a_rate_of_another_type(self, rate: Any) -> None:
        with pytest.raises(TypeError, match="The value of learning_rate"):
            learning_rates(PARAMS, {}, rate, 0)

    def test_a_rate_that_is_not_finite(self) -> None:
        with pytest.raises(ValueError, match="learning_rate must be finite"):
            learning_rates(PARAMS, {}, float("nan"), 0)

    def test_a_schedule_that_returns_no_scalar(self) -> None:
        with pytest.raises(ValueError, match="must return a real scalar"):
            learning_rates(PARAMS, {}, lambda step: jnp.ones(2), 0)

    def test_a_table_that_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match="gives 2 multipliers"):
            learning_rates(PARAMS, {"stack": olm.per_layer([1, 2])}, 0.5, 0)
