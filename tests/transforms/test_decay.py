"""Weight decay by name: a table of decays, in front of the learning rate."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([4.0])}
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)


def decayed(table: Any, updates: Any = ZERO, params: Any = PARAMS) -> Any:
    tx = olm.add_decayed_weights_by_name(table)
    return tx.update(updates, tx.init(params), params)[0]


def test_each_parameter_gets_its_decay_times_itself() -> None:
    updates = decayed({"bias": 0, "": 0.5})
    np.testing.assert_array_equal(updates["kernel"], [0.5, -1.0])
    np.testing.assert_array_equal(updates["bias"], [0.0])


def test_a_number_is_optax_own_function() -> None:
    plain = optax.add_decayed_weights(0.3)
    tx = olm.add_decayed_weights_by_name(0.3)
    chex.assert_trees_all_equal(tx.init(PARAMS), plain.init(PARAMS))
    for dtype in "float32", "bfloat16":
        params = jax.tree.map(lambda p, d=dtype: (1.5 * p).astype(d), PARAMS)
        zero = jax.tree.map(jnp.zeros_like, params)
        expected = plain.update(zero, plain.init(params), params)[0]
        chex.assert_trees_all_equal(decayed(0.3, zero, params), expected)


def test_a_table_of_one_number_is_the_number() -> None:
    chex.assert_trees_all_close(
        decayed({"": 0.3}, PARAMS), decayed(0.3, PARAMS), rtol=1e-6
    )


def test_every_name_needs_a_decay() -> None:
    for make in (
        olm.add_decayed_weights_by_name,
        lambda t: olm.adamw(0.1, weight_decay=t),
    ):
        with pytest.raises(
            ValueError, match="No rule of weight_decay takes 'kernel'.*\"\""
        ):
            make({"bias": 0}).init(PARAMS)


def test_only_those_that_a_mask_shows_need_one() -> None:
    mask = {"kernel": False, "bias": True}
    optax.masked(olm.add_decayed_weights_by_name({"bias": 0.1}), mask).init(PARAMS)
    tx = olm.adamw(0.1, weight_decay={"": 1.0}, mask=mask)
    updates, _ = tx.update(ZERO, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["kernel"], 0)
    np.testing.assert_allclose(updates["bias"], [-0.4], rtol=1e-6)


def test_it_stands_in_front_of_the_learning_rate() -> None:
    """Behind a finished optimizer, whose updates are negative, weights would grow."""
    decay = olm.add_decayed_weights_by_name({"bias": 0, "": 0.1})
    right = optax.chain(optax.scale_by_lion(), decay, optax.scale_by_learning_rate(0.1))
    plain = optax.lion(0.1, weight_decay=0.1)
    ours, _ = right.update(PARAMS, right.init(PARAMS), PARAMS)
    theirs, _ = plain.update(PARAMS, plain.init(PARAMS), PARAMS)
    np.testing.assert_allclose(ours["kernel"], theirs["kernel"], rtol=1e-6)
    wrong = optax.chain(optax.lion(0.1, weight_decay=0), decay)
    grown, _ = wrong.update(ZERO, wrong.init(PARAMS), PARAMS)
    assert np.all(np.sign(grown["kernel"]) == np.sign(PARAMS["kernel"]))


def test_schedules_and_stacks_may_decay() -> None:
    table = {"bias": lambda step: 0.25 * step, "kernel": olm.per_layer([0, 1])}
    tx = olm.add_decayed_weights_by_name(table)
    state = tx.init(PARAMS)
    for step in range(3):
        updates, state = tx.update(ZERO, state, PARAMS)
        np.testing.assert_array_equal(updates["bias"], [step])
        np.testing.assert_array_equal(updates["kernel"], [0, -2])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes_of_the_updates_are_kept(dtype: str) -> None:
    updates = decayed({"": 0.5}, jax.tree.map(lambda p: p.astype(dtype), ZERO))
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("decay", [-0.1, float("nan")])
def test_a_decay_that_cannot_be_meant_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="weight_decay of rule 'a'"):
        olm.add_decayed_weights_by_name({"a": decay})


def test_params_are_needed() -> None:
    tx = olm.add_decayed_weights_by_name({"": 0.1})
    with pytest.raises(ValueError, match="Decay adds params"):
        tx.update(ZERO, tx.init(PARAMS))


def test_what_does_not_decay_may_be_infinite_or_no_number_of_reals() -> None:
    params = {"a": jnp.array([jnp.inf]), "n": jnp.arange(3), "w": jnp.ones(1)}
    updates = {"a": jnp.zeros(1), "n": jnp.arange(3), "w": jnp.zeros(1)}
    result = decayed({"a": 0, "": 0.5}, updates, params)
    np.testing.assert_array_equal(result["a"], [0])
    assert result["n"] is updates["n"]
    np.testing.assert_array_equal(result["w"], [0.5])


def test_labels_of_ones_own_are_the_names() -> None:
    labels = {"kernel": "K", "bias": "B"}
    tx = olm.add_decayed_weights_by_name({"B": 0.5, "": 0}, param_labels=labels)
    updates, _ = tx.update(ZERO, tx.init(PARAMS), PARAMS)
    assert updates["bias"].tolist() == [2.0]
    assert not np.any(updates["kernel"])


def test_a_decay_may_be_traced() -> None:
    updates = jax.jit(lambda decay: decayed({"bias": decay, "": 0}))(0.25)
    np.testing.assert_array_equal(updates["bias"], [1.0])
