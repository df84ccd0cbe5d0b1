"""The original optimizer, whole: recorded runs, saved configs, saved weights."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recorded import Case, assert_within_tolerance, cases, keras_weights_after

import optax_lrmult as olm

ORIGINAL = cases("keras")
CLIPPED = cases("keras_clip")
ALL = ORIGINAL | CLIPPED
CONSTRAINTS = {
    "NonNeg": olm.non_negative,
    "MaxNorm": olm.max_norm,
    "UnitNorm": olm.unit_norm,
}


def optimizer(case: Case) -> optax.GradientTransformationExtraArgs:
    config = olm.AdamLRMultConfig.from_keras(case.config)
    constraints = [
        (v["name"], CONSTRAINTS[c["class_name"]](**c["config"]))
        for v in case.variables
        if (c := v.get("constraint"))
    ]
    return dataclasses.replace(
        config, constraints=constraints or None, on_unmatched="ignore"
    ).make()


def stepper(tx: optax.GradientTransformation, jitted: bool) -> Any:
    def step(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step) if jitted else step


def test_all_recordings_are_here() -> None:
    assert len(ORIGINAL) == 22
    assert len(CLIPPED) == 4


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", ALL)
def test_every_parameter_agrees_after_every_step(name: str, jitted: bool) -> None:
    case = ALL[name]
    tx = optimizer(case)
    step, params = stepper(tx, jitted), case.initial_params
    state = tx.init(params)
    for index, gradients in enumerate(case.gradients):
        params, state = step(gradients, state, params)
        assert_within_tolerance(params, case.params[index], f"after step {index}")
    for mine, theirs in [("mu", "m"), ("nu", "v"), ("nu_max", "vhat")]:
        if recorded := case.raw["final_state"].get(theirs):
            moments = getattr(state, mine)
            for variable, expected in case.tree(recorded).items():
                np.testing.assert_allclose(moments[variable], expected, 1e-4, 1e-9)


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_rule_of_each_variable_is_the_one_that_the_original_reported(
    name: str,
) -> None:
    case = ORIGINAL[name]
    by_name = {
        row.name: row
        for row in olm.assign(case.initial_params, case.config["multipliers"])
    }
    for variable in case.variables:
        row = by_name[variable["name"]]
        key = row.rule.pattern if row.rule else None
        assert (key, row.multiplier) == (
            variable["matched_key"],
            variable["multiplier"],
        )


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_rest_of_a_run_agrees_after_restoring_from_keras_weights(name: str) -> None:
    case = ORIGINAL[name]
    third = len(case.gradients) // 3
    weights = keras_weights_after(case, third)
    state = olm.state_from_keras_weights(
        weights, case.params[third - 1], names=[v["name"] for v in case.variables]
    )
    tx = optimizer(case)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(case.initial_params))
    step, params = stepper(tx, True), case.params[third - 1]
    for index in range(third, len(case.gradients)):
        params, state = step(case.gradients[index], state, params)
        assert_within_tolerance(params, case.params[index], f"after step {index}")


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
    state, step = tx.init(params), stepper(optimizer(case), True)
    for index, recorded in enumerate(case.raw["losses"]):
        value, gradients = jax.value_and_grad(loss)(params)
        assert abs(value - recorded) <= 1e-6 + 1e-5 * abs(recorded), index
        params, state = step(gradients, state, params)


def test_keras_adam_differs_from_optax_adam_in_where_eps_stands() -> None:
    gradient = jnp.array([1e-6])
    keras, _ = (tx := olm.scale_by_keras_adam(eps=1e-6)).update(
        gradient, tx.init(gradient)
    )
    plain, _ = (tx := optax.scale_by_adam(eps=1e-6)).update(gradient, tx.init(gradient))
    np.testing.assert_allclose(plain, [0.5], rtol=1e-3)
    root = np.sqrt(0.001)
    np.testing.assert_allclose(keras, [root / (root + 1)], rtol=1e-3)


class TestConfig:
    SAVED = ORIGINAL["some_layers"].config | {"epsilon": 1e-7, "lr": 0.25}

    def test_goes_from_keras_and_back(self) -> None:
        saved = self.SAVED | {"multipliers": {"b": 2.0, "a": 0.5}, "clipnorm": 1.0}
        config = olm.AdamLRMultConfig.from_keras(json.loads(json.dumps(saved)))
        assert config.to_keras() == saved
        assert list(config.to_keras()["multipliers"]) == ["b", "a"]

    def test_reads_the_optimizer_of_a_saved_model(self) -> None:
        whole = {"class_name": "Adam_lr_mult", "config": dict(self.SAVED)}
        assert olm.AdamLRMultConfig.from_keras(whole) == (
            olm.AdamLRMultConfig.from_keras(self.SAVED | {"debug_verbose": True})
        )

    def test_defaults_are_those_of_the_function(self) -> None:
        assert olm.AdamLRMultConfig.from_keras({}) == olm.AdamLRMultConfig()
        assert olm.AdamLRMultConfig().to_keras() == {
            "lr": 1e-3,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": 1e-7,
            "decay": 0.0,
            "amsgrad": False,
            "multipliers": None,
        }

    def test_names_the_key_that_the_original_does_not_know(self) -> None:
        with pytest.raises(ValueError, match=r"'beta1' is none .* you mean 'beta_1'"):
            olm.AdamLRMultConfig.from_keras({"beta1": 0.9})

    def test_takes_a_mapping_only(self) -> None:
        with pytest.raises(TypeError, match="dictionary of get_config"):
            olm.AdamLRMultConfig.from_keras([("lr", 1)])

    @pytest.mark.parametrize(
        ("field", "value", "text"),
        [
            ("multipliers", {re.compile("a"): 1}, "substrings and numbers only"),
            ("multipliers", {"a": lambda step: 1.0}, "substrings and numbers only"),
            ("learning_rate", lambda step: 1.0, "no schedule"),
            ("constraints", {"a": olm.max_norm()}, "constraints with the layers"),
        ],
    )
    def test_says_what_keras_cannot_say(
        self, field: str, value: Any, text: str
    ) -> None:
        config = dataclasses.replace(olm.AdamLRMultConfig(), **{field: value})
        with pytest.raises(ValueError, match=text):
            config.to_keras()

    def test_a_later_change_to_the_mapping_has_no_effect(self) -> None:
        table = {"a": 0.5}
        config = olm.AdamLRMultConfig(multipliers=table)
        table["a"] = 9.0
        assert config.multipliers == olm.Rules({"a": 0.5})


class TestWeights:
    PARAMS: Mapping[str, Any] = {
        "layer_2": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "layer_10": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    }

    def moments(self) -> list[np.ndarray]:
        shapes = [(2, 2), (2,), (2, 2), (2,)]
        return [np.full(shape, float(i)) for i, shape in enumerate(shapes)]

    def test_follow_the_order_in_which_a_mapping_is_written(self) -> None:
        weights = [np.array(3), *self.moments(), *self.moments()]
        state = olm.state_from_keras_weights(weights, self.PARAMS)
        assert state.count == 3
        assert state.mu["layer_2"]["bias"][0] == 1
        assert state.mu["layer_10"]["kernel"][0, 0] == 2

    def test_follow_the_names(self) -> None:
        names = [
            "layer_10/kernel:0",
            "layer_10/bias:0",
            "layer_2/kernel",
            "layer_2/bias",
        ]
        weights = [np.array(3), *self.moments(), *self.moments()]
        state = olm.state_from_keras_weights(weights, self.PARAMS, names=names)
        assert state.mu["layer_2"]["bias"][0] == 3

    def test_refuse_an_order_that_nothing_tells(self) -> None:
        params = {"layer_1": jnp.ones(2), "layer_2": jnp.ones(2)}
        with pytest.raises(ValueError, match="pass names="):
            olm.state_from_keras_weights([np.array(1), *[np.ones(2)] * 4], params)

    def test_refuse_a_wrong_number(self) -> None:
        with pytest.raises(
            ValueError, match=r"saves 13 weights for 4 parameters .* not 3"
        ):
            olm.state_from_keras_weights([np.array(1)] * 3, self.PARAMS)

    def test_refuse_names_that_are_not_the_parameters(self) -> None:
        weights = [np.array(3), *self.moments(), *self.moments()]
        with pytest.raises(ValueError, match=r"one side only: .*'head'"):
            olm.state_from_keras_weights(weights, self.PARAMS, names=["head"] * 4)

    def test_refuse_a_shape_that_does_not_fit(self) -> None:
        weights = [np.array(3), *self.moments(), *self.moments()]
        weights[1] = np.ones((3, 3))
        with pytest.raises(
            ValueError, match=r"'layer_2/kernel' has the shape \(3, 3\)"
        ):
            olm.state_from_keras_weights(weights, self.PARAMS)

    def test_ask_whether_it_is_amsgrad_where_shapes_do_not_tell(self) -> None:
        weights = [np.array(3), np.ones(1), np.ones(1), np.ones(1)]
        with pytest.raises(ValueError, match="pass amsgrad=True or"):
            olm.state_from_keras_weights(weights, {"bias": jnp.ones(1)})
        state = olm.state_from_keras_weights(
            weights, {"bias": jnp.ones(1)}, amsgrad=True
        )
        assert isinstance(state, optax.ScaleByAmsgradState)


@pytest.mark.parametrize("name", ["decay", "clipnorm", "clipvalue"])
def test_a_negative_limit_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must not be negative"):
        olm.adam_lr_mult(**{name: -1.0})


def test_the_state_does_not_depend_on_the_options() -> None:
    params = {"kernel": jnp.ones(2)}
    plain = jax.tree.structure(olm.adam_lr_mult().init(params))
    full = olm.adam_lr_mult(
        0.1,
        decay=0.1,
        multipliers={"kernel": 0.5},
        constraints={"": olm.unit_norm()},
        clipnorm=1.0,
        clipvalue=0.5,
    )
    assert jax.tree.structure(full.init(params)) == plain


def test_a_schedule_is_the_learning_rate_of_each_step() -> None:
    params = {"kernel": jnp.ones(1)}
    tx = olm.adam_lr_mult(lambda step: 0.1 * (step + 1), eps=0.0)
    state = tx.init(params)
    for expected in (-0.1, -0.2):
        updates, state = tx.update(params, state, params)
        np.testing.assert_allclose(updates["kernel"], [expected], rtol=1e-4)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_state_of_another_optimizer_is_refused(amsgrad: bool) -> None:
    tx = olm.scale_by_keras_adam(amsgrad=amsgrad)
    with pytest.raises(ValueError, match=r"must be that of init\(params\)"):
        tx.update(jnp.ones(2), optax.EmptyState())
