"""The Adam and AMSGrad core of Keras 2, and what PyTorch's AMSGrad has in common."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from tests.keras.recorded import Case, assert_follows, cases, stepper

TORCH = {name: case for name, case in cases("torch").items() if "amsgrad" in name}


def first_update(tx: optax.GradientTransformation, gradient: Any) -> Any:
    return tx.update(gradient, tx.init(gradient))[0]


def pytorch_amsgrad(case: Case) -> optax.GradientTransformation:
    config = case.config
    return optax.chain(
        olm.keras.scale_by_adam(
            *config["betas"], config["eps"], amsgrad=True, eps_after_correction=True
        ),
        optax.add_decayed_weights(config["weight_decay"]),
        olm.scale_by_name_multiplier(config["multipliers"]),
        optax.scale_by_learning_rate(config["lr"]),
    )


def pytorch_amsgrad_by_group(case: Case) -> optax.GradientTransformation:
    """An optimizer for each group: the core takes no tables."""
    txs, labels = {}, {}
    for group in case.config["groups"]:
        (name,) = group["params"]
        labels[name] = name
        core = olm.keras.scale_by_adam(
            *group["betas"], group["eps"], amsgrad=True, eps_after_correction=True
        )
        decay = optax.add_decayed_weights(group["weight_decay"])
        rate = optax.scale_by_learning_rate(group["lr"])
        txs[name] = optax.chain(core, decay, rate)
    return optax.multi_transform(txs, olm.by_name(labels))


@pytest.mark.parametrize("name", TORCH)
def test_agrees_with_pytorchs_amsgrad(name: str) -> None:
    case = TORCH[name]
    by_group = "groups" in case.config
    tx = (pytorch_amsgrad_by_group if by_group else pytorch_amsgrad)(case)
    assert_follows(jax.jit(stepper(tx)), tx.init(case.initial_params), case)


def test_eps_is_added_before_the_bias_correction_or_after_it() -> None:
    gradient = jnp.array([1e-6])
    keras = first_update(olm.keras.scale_by_adam(eps=1e-6), gradient)
    root = np.sqrt(0.001)
    np.testing.assert_allclose(keras, [root / (root + 1)], rtol=1e-3)
    after = olm.keras.scale_by_adam(eps=1e-6, eps_after_correction=True)
    plain = first_update(optax.scale_by_adam(eps=1e-6), gradient)
    np.testing.assert_allclose(plain, [0.5], rtol=1e-3)
    np.testing.assert_allclose(first_update(after, gradient), plain, rtol=1e-4)


def test_the_largest_second_moment_is_that_without_correction() -> None:
    """Optax corrects first, so that its maximum is that of the first step."""
    gradients = jnp.array([3.0]), jnp.array([1.0])
    ours = olm.keras.scale_by_adam(0.9, 0.999, amsgrad=True)
    optaxs = optax.scale_by_amsgrad(0.9, 0.999)
    largest = []
    for tx in (ours, optaxs):
        state = tx.init(gradients[0])
        for gradient in gradients:
            _, state = tx.update(gradient, state)
        largest.append(state.nu_max)
    np.testing.assert_allclose(largest[0], [0.999 * 0.009 + 0.001], rtol=1e-4)
    np.testing.assert_allclose(largest[1], [9.0], rtol=1e-4)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("eps_after_correction", [False, True])
def test_state_is_of_optax_and_dtypes_are_kept(
    amsgrad: bool, eps_after_correction: bool
) -> None:
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(3)}
    tx = olm.keras.scale_by_adam(
        amsgrad=amsgrad, eps_after_correction=eps_after_correction
    )
    plain = optax.scale_by_amsgrad() if amsgrad else optax.scale_by_adam()
    chex.assert_trees_all_equal(tx.init(params), plain.init(params))
    updates, state = tx.update(params, tx.init(params))
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))
