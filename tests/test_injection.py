"""Multipliers in the state: set between steps, in any nesting, with one compilation."""

import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {"stem": jnp.ones(2), "body": jnp.ones((3, 2)), "head": jnp.ones(2)}
TABLE = {
    "stem": 0.5,
    re.compile("bo.*"): olm.per_layer([0, 1, 2]),
    "head": lambda step: 0.25,
}


def core(table: Any = TABLE) -> optax.GradientTransformationExtraArgs:
    return olm.scale_by_name_multiplier(table, inject=True)


def test_the_state_holds_a_number_for_each_rule_that_is_no_schedule() -> None:
    state = core().init(PARAMS)
    assert isinstance(state, olm.ScaleByNameMultiplierState)
    assert state.count.dtype == jnp.int32
    chex.assert_trees_all_equal(
        state.multipliers, {"stem": jnp.array(0.5), "bo.*": jnp.array([0.0, 1, 2])}
    )


def test_every_init_gives_arrays_of_its_own() -> None:
    tx = core()
    assert (
        tx.init(PARAMS).multipliers["stem"] is not tx.init(PARAMS).multipliers["stem"]
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: core(),
        lambda: optax.chain(optax.scale_by_rms(), core(), optax.scale(-1.0)),
        lambda: optax.named_chain(("inner", optax.chain(core()))),
        lambda: optax.MultiSteps(core(), 2).gradient_transformation(),
        lambda: optax.inject_hyperparams(lambda lr: optax.chain(core(), optax.sgd(lr)))(
            lr=0.1
        ),
        lambda: optax.masked(core(), True),
    ],
)
def test_values_are_set_in_any_nesting(make: Any) -> None:
    tx = make()
    state = tx.init(PARAMS)
    changed = olm.set_multipliers(
        state, {"stem": 0.25, re.compile("bo.*"): [3, 0.5, 0]}
    )
    chex.assert_trees_all_equal_structs(state, changed)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, changed)
    leaves = jax.tree.leaves(changed, is_leaf=lambda n: hasattr(n, "multipliers"))
    found = next(leaf for leaf in leaves if hasattr(leaf, "multipliers"))
    assert found.multipliers["stem"] == 0.25
    np.testing.assert_array_equal(found.multipliers["bo.*"], [3, 0.5, 0])


def test_the_next_step_uses_them_without_a_new_compilation() -> None:
    tx = core()
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(lambda u, s: tx.update(u, s), n=1))
    state = tx.init(PARAMS)
    for value in (0.5, np.float64(0.1), jnp.float32(2), 3, 0):
        state = olm.set_multipliers(state, {"stem": value})
        updates, state = step(PARAMS, state)
        np.testing.assert_array_equal(updates["stem"], np.float32(value))
        np.testing.assert_array_equal(updates["head"], 0.25)
    assert state.count == 5


def test_a_value_of_zero_stills_nan() -> None:
    tx = core({"stem": 0.5})
    state = olm.set_multipliers(tx.init(PARAMS), {"stem": 0})
    gradients = {**PARAMS, "stem": jnp.array([jnp.nan, jnp.inf])}
    updates, _ = jax.jit(tx.update)(gradients, state)
    np.testing.assert_array_equal(updates["stem"], 0)


def test_values_may_be_traced() -> None:
    tx = core({"stem": 0.5})
    state = tx.init(PARAMS)

    def way(rate: jax.Array) -> jax.Array:
        new = olm.set_multipliers(state, {"stem": rate})
        return jnp.sum(tx.update(PARAMS, new)[0]["stem"])

    np.testing.assert_array_equal(jax.vmap(way)(jnp.arange(3.0)), [0, 2, 4])
    assert jax.grad(way)(0.0) == 2.0


def test_values_are_set_in_each_transform_that_has_the_rule() -> None:
    tx = optax.chain(core({"stem": 0.5}), core({"stem": 0.5, "head": 2}))
    state = olm.set_multipliers(tx.init(PARAMS), {"stem": 4, "head": 8})
    updates, _ = tx.update(PARAMS, state)
    assert (updates["stem"][0], updates["head"][0]) == (16, 8)


class TestErrors:
    def test_an_unknown_rule_names_the_nearest(self) -> None:
        with pytest.raises(ValueError, match=r"text 'stm'.*mean 'stem'\?"):
            olm.set_multipliers(core().init(PARAMS), {"stm": 1})

    def test_a_scheduled_rule_cannot_be_set(self) -> None:
        with pytest.raises(ValueError, match="Scheduled rules can't be set"):
            olm.set_multipliers(core().init(PARAMS), {"head": 1})

    @pytest.mark.parametrize(
        "tx", [optax.adam(1), olm.adam(1, multipliers={"stem": 1})]
    )
    def test_a_state_without_injected_multipliers(self, tx: Any) -> None:
        with pytest.raises(ValueError, match=r"inject=True\)"):
            olm.set_multipliers(tx.init(PARAMS), {"stem": 1})

    def test_values_that_are_no_numbers(self) -> None:
        state = core().init(PARAMS)
        for value in (True, "1", None, lambda step: 1.0, olm.per_layer([1]), [1, 2]):
            with pytest.raises(TypeError, match="rule 'stem'"):
                olm.set_multipliers(state, {"stem": value})
        with pytest.raises(ValueError, match="rule 'stem' must be finite"):
            olm.set_multipliers(state, {"stem": jnp.nan})

    def test_what_is_no_mapping(self) -> None:
        with pytest.raises(TypeError, match=r"takes a mapping .* not 0\.5 \(float\)"):
            olm.set_multipliers(core().init(PARAMS), 0.5)

    def test_a_number_of_values_that_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"shape \(3,\), and 2 values do not fit"):
            olm.set_multipliers(core().init(PARAMS), {"bo.*": [1, 2]})

    def test_a_function_has_no_rules_to_inject(self) -> None:
        with pytest.raises(TypeError, match="inject=True needs a table"):
            core(lambda name: 1.0)

    def test_rules_of_one_text_could_not_be_told_apart(self) -> None:
        with pytest.raises(ValueError, match=r"'stem' occurs twice\. Write one of"):
            core({"stem": 1, re.compile("stem"): 2})


class Variable:
    """As that of flax < 0.11: nothing in it that JAX can see."""

    __module__ = "flax.nnx.variablelib"

    def __init__(self, value: Any) -> None:
        self.value = value

    def replace(self, value: Any) -> "Variable":
        return Variable(value)


def test_values_are_set_inside_a_box_that_is_a_leaf() -> None:
    state = core().init(PARAMS)
    state = state._replace(multipliers=jax.tree.map(Variable, state.multipliers))
    changed = olm.set_multipliers(state, {"stem": 0.25}).multipliers
    assert isinstance(changed["stem"], Variable)
    assert changed["stem"].value == 0.25
    assert changed["bo.*"] is state.multipliers["bo.*"]


def test_wrong_values_of_a_stack_name_their_rule() -> None:
    with pytest.raises(ValueError, match="values is empty") as caught:
        olm.set_multipliers(core().init(PARAMS), {"bo.*": []})
    assert caught.value.__notes__ == ["Raised by the new value of rule 'bo.*'."]


@pytest.mark.parametrize(
    ("table", "inject"),
    [
        ({"body": 0.5}, True),
        ({"stem": 0.5}, True),
        ({"stem": 0.5, re.compile("bo.*"): 0.5}, True),
        ({"stem": 0.5, re.compile("bo.*"): olm.per_layer([1, 2])}, True),
        ({}, False),
        (TABLE, False),
    ],
)
def test_a_state_of_other_rules_is_refused(table: Any, inject: bool) -> None:
    tx = olm.scale_by_name_multiplier(table, inject=inject)
    text = r"shapes \{'stem': \(\), 'bo\.\*': \(3,\)\}, and this table injects \{"
    with pytest.raises(ValueError, match=text) as caught:
        tx.update(PARAMS, core().init(PARAMS))
    if inject:
        assert "optax.tree.set(state, multipliers=" in str(caught.value)


def test_the_multipliers_of_the_table_are_put_into_an_old_state() -> None:
    """As the error says that refuses the state."""

    def chain(table: Any) -> optax.GradientTransformationExtraArgs:
        return optax.chain(olm.scale_by_name_multiplier(table, inject=True))

    tx = chain({"body": 0.5})
    new = optax.tree.get(tx.init(PARAMS), "multipliers")
    state = optax.tree.set(chain({"stem": 0.1}).init(PARAMS), multipliers=new)
    updates, _ = tx.update(PARAMS, state)
    assert (updates["body"] == 0.5).all()
