"""Weight decay by name, against optax's own and by hand."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def decayed(tx: Any, updates: Any = ZEROS, params: Any = PARAMS) -> Any:
    return tx.update(updates, tx.init(params), params)[0]


def test_adds_what_optax_adds_where_there_is_no_rule() -> None:
    ours = decayed(olm.add_decayed_weights_by_name(0.3), PARAMS)
    chex.assert_trees_all_equal(ours, decayed(optax.add_decayed_weights(0.3), PARAMS))


def test_has_multipliers_of_its_own() -> None:
    updates = decayed(olm.add_decayed_weights_by_name(0.5, {"bias": 0, "k": 0.25}))
    np.testing.assert_array_equal(updates["kernel"], [0.125, -0.25])
    np.testing.assert_array_equal(updates["bias"], [0])


def test_a_parameter_that_does_not_decay_may_be_infinite() -> None:
    params = {**PARAMS, "bias": jnp.array([jnp.inf])}
    updates = decayed(olm.add_decayed_weights_by_name(0.5, {"bias": 0}), ZEROS, params)
    np.testing.assert_array_equal(updates["bias"], [0])


def test_keeps_the_dtypes_of_the_updates() -> None:
    updates = jax.tree.map(lambda x: x.astype(jnp.bfloat16), ZEROS)
    result = decayed(olm.add_decayed_weights_by_name(0.5, {"bias": 2}), updates)
    chex.assert_trees_all_equal_shapes_and_dtypes(result, updates)
    integers = {"n": jnp.arange(3)}
    assert decayed(olm.add_decayed_weights_by_name(1.0), integers, integers) == integers


def test_takes_schedules_and_traced_numbers() -> None:
    tx = olm.add_decayed_weights_by_name(0.5, {"bias": lambda step: step + 1.0})
    _, state = tx.update(ZEROS, tx.init(PARAMS), PARAMS)
    updates, _ = tx.update(ZEROS, state, PARAMS)
    np.testing.assert_array_equal(updates["bias"], [3.0])
    rate = optax.inject_hyperparams(olm.add_decayed_weights_by_name)(
        weight_decay=lambda step: 0.5, multipliers={"bias": 0}
    )
    np.testing.assert_array_equal(decayed(rate)["kernel"], [0.5, -1.0])


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (True, TypeError, "weight_decay must be"),
        (lambda step: 1.0, TypeError, "weight_decay must be a number"),
        (float("nan"), ValueError, "weight_decay must be finite"),
    ],
)
def test_refuses_other_values(value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        olm.add_decayed_weights_by_name(value)


def test_needs_params() -> None:
    tx = olm.add_decayed_weights_by_name(0.1)
    with pytest.raises(ValueError, match=r"call update\(updates, state, params\)"):
        tx.update(ZEROS, tx.init(PARAMS))


def test_the_place_of_the_multiplier_decides_whether_a_frozen_weight_decays() -> None:
    freeze = olm.scale_by_name_multiplier({"kernel": 0})
    decay = optax.add_decayed_weights(0.1)
    behind = decayed(optax.chain(optax.scale_by_adam(), freeze, decay), PARAMS)
    in_front = decayed(optax.chain(optax.scale_by_adam(), decay, freeze), PARAMS)
    assert jnp.all(behind["kernel"] != 0)
    np.testing.assert_array_equal(in_front["kernel"], 0)
