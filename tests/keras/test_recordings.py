"""The original optimizer, whole: recorded runs, and how they go on from its weights."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from tests.keras.recorded import (
    Case,
    assert_follows,
    cases,
    keras_weights_after,
    stepper,
)

ORIGINAL = cases("keras")
ALL = ORIGINAL | cases("keras_clip")
CONSTRAINTS = {
    "NonNeg": olm.keras.non_negative,
    "MaxNorm": olm.keras.max_norm,
    "UnitNorm": olm.keras.unit_norm,
}


def constraints(case: Case) -> list[tuple[str, Any]]:
    return [
        (v["name"], CONSTRAINTS[c["class_name"]](**c["config"]))
        for v in case.variables
        if (c := v.get("constraint"))
    ]


def optimizer(case: Case) -> optax.GradientTransformation:
    config = olm.keras.AdamLRMultConfig.from_keras(case.config)
    return dataclasses.replace(
        config, constraints=constraints(case) or None, on_unmatched="ignore"
    ).make()


def test_all_recordings_are_here() -> None:
    assert (len(ORIGINAL), len(ALL)) == (22, 26)


@functools.cache
def compiled_step(name: str) -> Any:
    return jax.jit(stepper(optimizer(ALL[name])))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.xdist_group("compiled_keras_steps")
def test_every_parameter_agrees_after_every_step(name: str) -> None:
    case = ALL[name]
    state = optimizer(case).init(case.initial_params)
    state = assert_follows(compiled_step(name), state, case)
    for mine, theirs in [("mu", "m"), ("nu", "v"), ("nu_max", "vhat")]:
        if recorded := case.raw["final_state"].get(theirs):
            moments = getattr(state, mine)
            for variable, expected in case.tree(recorded).items():
                np.testing.assert_allclose(moments[variable], expected, 1e-4, 1e-9)


@pytest.mark.parametrize("name", ORIGINAL)
@pytest.mark.xdist_group("compiled_keras_steps")
def test_the_rest_of_a_run_agrees_after_restoring_from_keras_weights(name: str) -> None:
    case = ORIGINAL[name]
    third = len(case.gradients) // 3
    state = olm.keras.state_from_weights(
        keras_weights_after(case, third),
        case.initial_params,
        names=[v["name"] for v in case.variables],
    )
    fresh = optimizer(case).init(case.initial_params)
    assert jax.tree.structure(state) == jax.tree.structure(fresh)
    assert_follows(compiled_step(name), state, case, first=third)


@pytest.mark.parametrize("name", ["constraints", "clipnorm_amsgrad_decay"])
def test_a_run_agrees_without_jit(name: str) -> None:
    tx = optimizer(ALL[name])
    assert_follows(stepper(tx), tx.init(ALL[name].initial_params), ALL[name])


@pytest.mark.parametrize("name", ["decay", "clipnorm_amsgrad_decay"])
def test_every_number_may_be_injected(name: str) -> None:
    case = ALL[name]
    config = olm.keras.AdamLRMultConfig.from_keras(case.config)
    fields = dataclasses.fields(config)
    arguments = {f.name: getattr(config, f.name) for f in fields}
    tx = optax.inject_hyperparams(olm.keras.adam_lr_mult)(**arguments)
    state = assert_follows(jax.jit(stepper(tx)), tx.init(case.initial_params), case)
    numbers = {"learning_rate", "b1", "b2", "decay"}
    assert state.hyperparams.keys() >= numbers | {"clipnorm"} & {name[:8]}


@pytest.mark.parametrize("name", ["some_layers", "amsgrad_decay", "clipvalue"])
def test_a_config_makes_the_same_run_after_the_way_to_keras_and_back(name: str) -> None:
    case = ALL[name]
    config = olm.keras.AdamLRMultConfig.from_keras(case.config)
    again = olm.keras.AdamLRMultConfig.from_keras(config.to_keras())
    assert again.to_keras() == config.to_keras()
    results = [
        c.make().update(
            case.gradients[0], c.make().init(case.initial_params), case.initial_params
        )
        for c in (config, again)
    ]
    jax.tree.map(np.testing.assert_array_equal, *results)


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_rule_of_each_variable_is_the_one_that_the_original_reported(
    name: str,
) -> None:
    case = ORIGINAL[name]
    rows = {
        row.name: row
        for row in olm.assign(case.initial_params, case.config["multipliers"])
    }
    for variable in case.variables:
        row, key = rows[variable["name"]], variable["matched_key"]
        assert row.value_or(1) == variable["multiplier"]
        assert row.rule == (None if key is None else olm.Rule(key, row.value))


def test_a_real_run_has_the_recorded_losses() -> None:
    case = ORIGINAL["training"]
    layers = case.raw["network"]["layers"]
    x, y = (np.asarray(case.raw[k], np.float32) for k in ("x", "y"))
    x = jnp.reshape(x, (-1, case.variables[0]["shape"][0]))
    y = jnp.reshape(y, (x.shape[0], -1))
    activations = {"tanh": jnp.tanh, "linear": lambda a: a}

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        arrays, a = [params[v["name"]] for v in case.variables], x
        for index, layer in enumerate(layers):
            kernel, bias = arrays[2 * index : 2 * index + 2]
            a = activations[layer["activation"]](a @ kernel + bias[None])
        return jnp.mean((a - y) ** 2)

    tx, params = optimizer(case), case.initial_params
    take = stepper(tx)

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any, Any]:
        value, gradients = jax.value_and_grad(loss)(params)
        return value, *take(gradients, state, params)

    state = tx.init(params)
    for index, recorded in enumerate(case.raw["losses"]):
        value, params, state = step(params, state)
        assert abs(value - recorded) <= 1e-6 + 1e-5 * abs(recorded), index
