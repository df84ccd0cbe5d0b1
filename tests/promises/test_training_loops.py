"""Three steps and a checkpoint in the loops that users write, one for each framework.

The loop gets no help: what each parameter did is told from the parameters and Adam's
moments between steps, by the names that the preview shows.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import optax_lrmult as olm
from tests.promises.one_step import INPUTS, keras_model, squares
from tests.promises.three_steps import Moment, moment, ratios

PyTree = Any
RATE = 0.01
TAKES_MODEL = "model" in inspect.signature(nnx.Optimizer.update).parameters


class Loop(NamedTuple):
    """A state, a step from one to the next, and where Adam's moments lie in it."""

    state: PyTree
    step: Callable[[PyTree], PyTree]
    look: Callable[[PyTree], Moment]


def nnx_loop(tx: optax.GradientTransformation) -> Loop:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs))
    optimizer: Any = nnx.Optimizer(model, tx, wrt=nnx.Param)
    graph, state = nnx.split((model, optimizer))

    @jax.jit
    def step(state: PyTree) -> PyTree:
        model, optimizer = nnx.merge(graph, state)
        grads = nnx.grad(lambda model: squares(model(INPUTS)))(model)
        optimizer.update(*([model, grads] if TAKES_MODEL else [grads]))
        return nnx.split((model, optimizer))[1]

    def look(state: PyTree) -> Moment:
        model, optimizer = nnx.merge(graph, state)
        return moment(nnx.state(model, nnx.Param), optimizer.opt_state)

    return Loop(state, step, look)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(1, name="head")(nn.tanh(nn.Dense(4, name="stem")(x)))


def linen_loop(tx: optax.GradientTransformation) -> Loop:
    model = LinenNet()
    params = model.init(jax.random.key(0), INPUTS)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def step(state: Any) -> PyTree:
        grads = jax.grad(lambda p: squares(model.apply({"params": p}, INPUTS)))
        return state.apply_gradients(grads=grads(state.params))

    state = state.replace(step=jnp.zeros([], jnp.int32))  # Orbax keeps no Python int.
    return Loop(state, step, lambda state: moment(state.params, state.opt_state))


def plain_loop(tx: Any, params: PyTree, loss: Callable[[PyTree], jax.Array]) -> Loop:
    @jax.jit
    def step(state: PyTree) -> PyTree:
        params, opt_state = state
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return Loop((params, tx.init(params)), step, lambda state: moment(*state))


def equinox_loop(tx: optax.GradientTransformation) -> Loop:
    model = eqx.nn.MLP(3, 1, width_size=4, depth=1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return plain_loop(
        tx, params, lambda p: squares(jax.vmap(eqx.combine(p, static))(INPUTS))
    )


def haiku_loop(tx: optax.GradientTransformation) -> Loop:
    def forward(x: jax.Array) -> jax.Array:
        return hk.nets.MLP([4, 1], activation=jnp.tanh, name="net")(x)

    model = hk.without_apply_rng(hk.transform(forward))
    params = model.init(jax.random.key(0), INPUTS)
    return plain_loop(tx, params, lambda p: squares(model.apply(p, INPUTS)))


def keras_loop(tx: optax.GradientTransformation) -> Loop:
    model = keras_model()
    weights = {v.path: v.value for v in model.trainable_variables}

    def loss(weights: PyTree) -> jax.Array:
        # In the model's order, which is not that of JAX's dictionaries.
        ordered = [weights[v.path] for v in model.trainable_variables]
        with jax.numpy_rank_promotion("allow"):  # Keras broadcasts its biases.
            return squares(model.stateless_call(ordered, [], INPUTS)[0])

    return plain_loop(tx, weights, loss)


# Each loop, and the name of its first and of its last layer.
LOOPS: dict[str, tuple[Callable[[Any], Loop], str, str]] = {
    "NNX": (nnx_loop, "layers/0/", "layers/1/"),
    "Linen": (linen_loop, "stem/", "head/"),
    "Equinox": (equinox_loop, "layers/0/", "layers/1/"),
    "Haiku": (haiku_loop, "net/~/linear_0/", "net/~/linear_1/"),
    "Keras": (keras_loop, "net/stem/", "net/head/"),
}


def run(loop: Loop, state: PyTree, steps: int) -> tuple[list[Moment], PyTree]:
    moments = [loop.look(state)]
    for _ in range(steps):
        state = loop.step(state)
        moments.append(loop.look(state))
    return moments, state


@pytest.mark.parametrize(("make", "stem", "head"), LOOPS.values(), ids=LOOPS.keys())
def test_three_steps_and_a_checkpoint(
    make: Callable[[Any], Loop], stem: str, head: str, tmp_path: Path
) -> None:
    table = {stem: 0.25, head: 2}
    loop = make(olm.adam(RATE, multipliers=table))
    moments, state = run(loop, loop.state, 3)
    names = list(moments[0].params)
    assert len(names) == 4
    expected = {name: 0.25 if name.startswith(stem) else 2.0 for name in names}
    found = ratios(moments, lambda step: RATE)
    assert found == pytest.approx(expected, rel=1e-3)

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "at_3", state)
        checkpointer.wait_until_finished()
        # Another run, with another table: the state is plain Adam's.
        other = make(olm.adam(RATE, multipliers={stem: 0.5}))
        restored = checkpointer.restore(tmp_path / "at_3", other.state)
    resumed, _ = run(other, restored, 2)
    for kept, read in zip(moments[-1][:3], resumed[0][:3], strict=True):
        assert kept.keys() == read.keys()
        for name in kept:
            np.testing.assert_array_equal(kept[name], read[name], name)
    assert [at.count for at in resumed] == [3, 4, 5]
    expected = {name: 0.5 if name.startswith(stem) else 1.0 for name in names}
    assert ratios(resumed, lambda step: RATE) == pytest.approx(expected, rel=1e-3)
