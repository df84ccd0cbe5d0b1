"""What `adam_lr_mult` does beside the recorded runs."""

import logging
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, -3.0)}
LABELS = {"kernel": "dense/kernel", "bias": "dense/bias"}
LIMITS = ["decay", "clipnorm", "clipvalue"]


def update(tx: optax.GradientTransformation, params: Any = PARAMS) -> Any:
    return tx.update(params, tx.init(params), params)[0]


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(
    ("value", "error"),
    [(-1.0, ValueError), (float("nan"), ValueError), (True, TypeError)],
)
def test_a_limit_that_would_turn_the_gradient_is_refused(
    name: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"{name} must be "):
        olm.keras.adam_lr_mult(**{name: value})


@pytest.mark.parametrize("name", ["clipnorm", "clipvalue"])
@pytest.mark.parametrize("inject", [False, True])
def test_zero_is_no_limit(name: str, inject: bool) -> None:
    make: Any = olm.keras.adam_lr_mult
    make = optax.inject_hyperparams(make) if inject else make
    tx = make(eps=1.0, **{name: 0.0})
    state = tx.init(PARAMS)
    updates, _ = jax.jit(tx.update)(PARAMS, state, PARAMS)
    unlimited = update(olm.keras.adam_lr_mult(eps=1.0))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-6), updates, unlimited
    )


def test_the_state_does_not_depend_on_the_options() -> None:
    plain = jax.tree.structure(olm.keras.adam_lr_mult().init(PARAMS))
    full = olm.keras.adam_lr_mult(
        0.1,
        decay=0.1,
        multipliers={"kernel": 0.5},
        constraints={"": olm.keras.unit_norm()},
        clipnorm=1.0,
        clipvalue=0.5,
    )
    assert jax.tree.structure(full.init(PARAMS)) == plain


def test_updates_keep_their_dtypes() -> None:
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    tx = olm.keras.adam_lr_mult(lambda step: jnp.float32(0.1))
    updates = update(tx, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("bfloat16")}


def test_only_constraints_need_the_parameters() -> None:
    tx = olm.keras.adam_lr_mult(multipliers={"bias": 0.5})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    jax.tree.map(np.testing.assert_array_equal, updates, update(tx))


def test_param_labels_are_the_names_of_constraints_too() -> None:
    tx = olm.keras.adam_lr_mult(
        multipliers={"dense/bias": 0},
        constraints={"dense/bias": olm.keras.non_negative()},
        param_labels=LABELS,
    )
    new = optax.apply_updates(PARAMS, update(tx))
    np.testing.assert_array_equal(new["bias"], 0)


def test_a_schedule_is_the_rate_or_the_multiplier_of_each_step() -> None:
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    tx = olm.keras.adam_lr_mult(
        lambda step: 0.1 * (step + 1),
        eps=0.0,
        multipliers={"b": lambda step: 10.0**step},
    )
    state = tx.init(params)
    for rate, factor in ((0.1, 1), (0.2, 10)):
        updates, state = tx.update(params, state, params)
        np.testing.assert_allclose(updates["a"], [-rate], rtol=1e-4)
        np.testing.assert_allclose(updates["b"], [-rate * factor], rtol=1e-4)


def test_frozen_parameters_can_be_hidden_from_the_moments_and_the_norm() -> None:
    tx = olm.keras.adam_lr_mult(
        eps=1.0, multipliers={"bias": 0}, clipnorm=1.0, mask_frozen=True
    )
    assert len(jax.tree.leaves(tx.init(PARAMS))) == 1 + 2
    alone = {"kernel": PARAMS["kernel"]}
    updates = update(tx)
    np.testing.assert_array_equal(updates["bias"], 0)
    without = update(olm.keras.adam_lr_mult(eps=1.0, clipnorm=1.0), alone)
    np.testing.assert_allclose(updates["kernel"], without["kernel"], rtol=1e-6)


def test_frozen_parameters_are_constrained_too() -> None:
    tx = olm.keras.adam_lr_mult(
        multipliers={"bias": 0},
        constraints={"bias": olm.keras.non_negative()},
        mask_frozen=True,
    )
    new = optax.apply_updates(PARAMS, update(tx))
    np.testing.assert_array_equal(new["bias"], 0)


@pytest.mark.parametrize("argument", ["multipliers", "constraints"])
def test_a_dead_rule_is_told_with_its_argument(argument: str) -> None:
    value = {"multipliers": 0.5, "constraints": olm.keras.max_norm()}[argument]
    tx = olm.keras.adam_lr_mult(**{argument: {"kernal": value}})
    with pytest.raises(ValueError, match=rf"of {argument} matches .* 'kernel'"):
        tx.init(PARAMS)


@pytest.mark.parametrize("argument", ["multipliers", "constraints"])
def test_a_bare_function_is_no_table(argument: str) -> None:
    with pytest.raises(TypeError, match=rf"table {argument} .*Rules\(function\)"):
        olm.keras.adam_lr_mult(**{argument: lambda name: 1.0})


def test_verbose_logs_the_assignment_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="optax_lrmult")
    pairs = iter([("kernel", 0.5), ("kernal", 2)])  # To be read once only.
    tx = olm.keras.adam_lr_mult(
        multipliers=pairs, on_unmatched="warn", verbose=True, param_labels=LABELS
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = tx.init(PARAMS)
    tx.update(PARAMS, state, PARAMS)
    assert len(caught) == 1
    (record,) = caplog.records
    shown = olm.preview(
        PARAMS, {"kernel": 0.5}, param_labels=LABELS, on_unmatched="ignore"
    )
    assert record.getMessage() == f"The multipliers are:\n{shown}"
    assert "dense/kernel" in record.getMessage()


def test_nothing_is_logged_without_verbose(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="optax_lrmult")
    olm.keras.adam_lr_mult(multipliers={"kernel": 0.5}).init(PARAMS)
    assert not caplog.records
