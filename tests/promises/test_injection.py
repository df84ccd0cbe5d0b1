"""Numbers in the state, by `optax.inject_hyperparams`: set in training, compiled once.

The function that it calls builds the whole chain, so that a number may stand anywhere
in a table.
"""

from typing import Any

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_lrmult as olm

FLAX = tuple(map(int, flax.__version__.split(".")[:2]))
PARAMS = {"stem": jnp.ones(2), "body": jnp.ones((3, 2)), "head": jnp.ones(2)}


@optax.inject_hyperparams
def in_a_chain(stem: Any, layers: Any) -> optax.GradientTransformation:
    table = {"stem": stem, "body": olm.per_layer(layers)}
    return optax.chain(
        optax.scale_by_adam(),
        olm.scale_by_name_multiplier(table),
        optax.scale_by_learning_rate(0.1),
    )


@optax.inject_hyperparams
def around_an_optimizer(stem: Any, layers: Any) -> optax.GradientTransformation:
    table = {"stem": stem, "body": olm.per_layer(layers)}
    return olm.with_name_multipliers(optax.adam(0.1), table)


@pytest.mark.parametrize("make", [in_a_chain, around_an_optimizer])
def test_new_numbers_are_used_without_a_new_compilation(make: Any) -> None:
    tx, plain = make(stem=0.5, layers=jnp.ones(3)), optax.adam(0.1)
    step = jax.jit(tx.update)
    state, plain_state = tx.init(PARAMS), plain.init(PARAMS)
    for stem, layers in ((0.5, [1, 1, 1]), (0.25, [0, 0.5, 2]), (3, [1, 1, 0])):
        new = {"stem": jnp.float32(stem), "layers": jnp.float32(layers)}
        state.hyperparams.update(new)
        updates, state = step(PARAMS, state, PARAMS)
        theirs, plain_state = plain.update(PARAMS, plain_state, PARAMS)
        factors = {"stem": stem, "body": np.float32(layers)[:, None], "head": 1}
        expected = jax.tree.map(lambda u, m: m * u, theirs, factors)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)
    assert step._cache_size() == 1


def test_a_number_of_zero_stills_what_is_not_finite() -> None:
    tx = around_an_optimizer(stem=0.5, layers=jnp.ones(3))
    state = tx.init(PARAMS)
    state.hyperparams["stem"] = jnp.float32(0)
    gradients = {**PARAMS, "stem": jnp.array([jnp.nan, jnp.inf])}
    updates, _ = jax.jit(tx.update)(gradients, state, PARAMS)
    np.testing.assert_array_equal(updates["stem"], 0)


def test_the_state_inside_is_the_plain_optimizers() -> None:
    state = around_an_optimizer(stem=0.5, layers=jnp.ones(3)).init(PARAMS)
    chex.assert_trees_all_equal(state.inner_state, optax.adam(0.1).init(PARAMS))


def test_a_misspelt_rule_is_told() -> None:
    @optax.inject_hyperparams
    def make(stem: Any) -> optax.GradientTransformation:
        return olm.adam(0.1, multipliers={"stam": stem})

    with pytest.raises(ValueError, match=r"'stam' \(traced float32\).*Nearest: 'stem'"):
        jax.eval_shape(make(stem=0.5).init, PARAMS)


class Net(nnx.Module):
    def __init__(self) -> None:
        self.stem = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(2, 1, rngs=nnx.Rngs(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.stem(x))


def kernel_of_stem(model: Net) -> np.ndarray:
    return np.array(jax.tree.leaves(nnx.state(model, nnx.Param)["stem"]["kernel"])[0])


def test_in_an_optimizer_of_nnx() -> None:
    @optax.inject_hyperparams
    def make(stem: Any) -> optax.GradientTransformation:
        return olm.adam(0.1, multipliers={"stem/kernel": stem})

    traces, model = 0, Net()
    optimizer = nnx.Optimizer(model, make(stem=0.0), wrt=nnx.Param)

    @nnx.jit
    def train(model: Net, optimizer: Any) -> None:
        nonlocal traces
        traces += 1
        gradients = nnx.grad(lambda m: jnp.sum(m(jnp.ones((4, 3))) ** 2))(model)
        optimizer.update(*([model] if FLAX >= (0, 11) else []), gradients)

    moved = []
    for stem in (0.0, 0.5, 0.0):
        box = optimizer.opt_state.hyperparams["stem"]
        if FLAX >= (0, 12):
            box[...] = stem
        else:
            box.value = jnp.float32(stem)
        before = kernel_of_stem(model)
        train(model, optimizer)
        after = kernel_of_stem(model)
        moved.append(float(np.max(np.abs(after - before))))
    assert (np.array(moved) > 0).tolist() == [False, True, False]
    assert traces == 1
