"""What compiles once, and what compiles again: as with any transform of optax."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax.training.train_state import TrainState

import optax_lrmult as olm

PARAMS = {"kernel": jnp.ones(3), "bias": jnp.ones(1)}


def make_tx() -> optax.GradientTransformationExtraArgs:
    return olm.with_name_multipliers(optax.adam(0.1), {"kernel": 0.5})


def updated_kernel(multiplier: Any) -> jax.Array:
    tx = olm.scale_by_name_multiplier({"kernel": multiplier})
    return jax.jit(tx.update)(PARAMS, tx.init(PARAMS))[0]["kernel"]


def test_traced_multiplier_within_a_jitted_update() -> None:
    """What `jit` gets is hashed, and a traced multiplier has no hash."""
    sweep = jax.vmap(updated_kernel)(jnp.array([0.25, 0.5]))
    assert sweep.tolist() == [[0.25] * 3, [0.5] * 3]
    assert jax.grad(lambda m: updated_kernel(m).sum())(0.5) == 3.0


def test_traced_multipliers_of_layers_within_a_jitted_update() -> None:
    sweep = jax.vmap(lambda m: updated_kernel(olm.per_layer([m, 1, 2])))(
        jnp.array([0.5, 4])
    )
    assert sweep.tolist() == [[0.5, 1, 2], [4, 1, 2]]


@pytest.mark.parametrize(("is_shared", "expected"), [(True, 1), (False, 2)])
def test_train_states_share_a_compilation_if_they_share_the_transform(
    is_shared: bool, expected: int
) -> None:
    """A Linen `TrainState` holds its transform as a static field.

    Optax's transforms are closures, and a closure is equal to nothing but itself.
    """

    @jax.jit
    def step(state: TrainState) -> TrainState:
        return state.apply_gradients(grads=PARAMS)

    tx = make_tx()
    for each in tx, tx if is_shared else make_tx():
        step(TrainState.create(apply_fn=make_tx, params=PARAMS, tx=each))
    assert step._cache_size() == expected
