"""Names and one training step in Linen, Equinox, Haiku and Keras."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax.core import freeze

from optax_lrmult import per_layer
from tests.promises.one_step import (
    INPUTS,
    Functional,
    check_names_and_step,
    keras_model,
    squares,
)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.tanh(nn.Dense(4, name="stem")(x))
        return nn.Dense(1, name="head")(x)


class NormedNet(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        return nn.Dense(1, name="head")(nn.tanh(x))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        return nn.tanh(nn.Dense(3)(x)), None


class ScannedNet(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = layers(name="layers")(x)
        return nn.Dense(1, name="head")(x)


class EnsembleNet(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        heads = nn.vmap(
            nn.Dense,
            variable_axes={"params": 1},
            split_rngs={"params": True},
        )
        return heads(4, name="heads")(jnp.stack([x, x, x]))


class BoxedNet(nn.Module):
    boxed: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = self.boxed(nn.initializers.lecun_normal(), ("in", "out"))
        x = nn.tanh(nn.Dense(4, kernel_init=init, name="stem")(x))
        return nn.Dense(1, name="head")(x)


def linen(model: nn.Module, as_params: Any = lambda params: params) -> Functional:
    params = as_params(model.init(jax.random.key(0), INPUTS)["params"])
    return Functional(params, lambda p: squares(model.apply({"params": p}, INPUTS)))


def linen_variables() -> Functional:
    model = NormedNet()
    variables = model.init(jax.random.key(0), INPUTS)
    return Functional(variables, lambda v: squares(model.apply(v, INPUTS)))


class Gate(eqx.Module):
    """Has a field of the name that boxes give to their contents."""

    value: jax.Array


class GatedNet(eqx.Module):
    gate: Gate
    layers: list[eqx.nn.Linear]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layers[1](jnp.tanh(self.layers[0](x * self.gate.value)))


def equinox_filtered() -> Functional:
    model = eqx.nn.MLP(3, 1, width_size=4, depth=1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_array)
    return Functional(
        params, lambda p: squares(jax.vmap(eqx.combine(p, static))(INPUTS))
    )


def equinox_module() -> Functional:
    keys = jax.random.split(jax.random.key(0))
    layers = [eqx.nn.Linear(3, 4, key=keys[0]), eqx.nn.Linear(4, 1, key=keys[1])]
    model = GatedNet(Gate(jnp.ones(3)), layers)
    return Functional(model, lambda m: squares(jax.vmap(m)(INPUTS)))


def haiku() -> Functional:
    def forward(x: jax.Array) -> jax.Array:
        return hk.nets.MLP([4, 1], activation=jnp.tanh, name="encoder")(x)

    model = hk.without_apply_rng(hk.transform(forward))
    params = model.init(jax.random.key(0), INPUTS)
    return Functional(params, lambda p: squares(model.apply(p, INPUTS)))


def keras() -> Functional:
    model = keras_model()
    paths = [variable.path for variable in model.trainable_variables]
    values = [variable.value for variable in model.trainable_variables]

    def loss(params: list[jax.Array]) -> jax.Array:
        with jax.numpy_rank_promotion("allow"):  # Keras broadcasts its biases.
            return squares(model.stateless_call(params, [], INPUTS)[0])

    return Functional(values, loss, param_labels=paths)


DENSE = {"head/bias": 2, "head/kernel": 0.5, "stem/bias": 1, "stem/kernel": 0}
CASES: dict[str, tuple[Callable[[], Functional], dict[str, Any]]] = {
    "Linen dict": (lambda: linen(Net()), DENSE),
    "Linen FrozenDict": (lambda: linen(Net(), freeze), DENSE),
    "Linen Partitioned": (lambda: linen(BoxedNet(nn.with_partitioning)), DENSE),
    "Linen LogicallyPartitioned": (
        lambda: linen(BoxedNet(nn.with_logical_partitioning)),
        DENSE,
    ),
    "Linen scan": (
        lambda: linen(ScannedNet()),
        {
            "head/bias": 0,
            "head/kernel": 2,
            "layers/Dense_0/bias": 0.5,
            "layers/Dense_0/kernel": per_layer([0, 0.5, 2]),
        },
    ),
    "Linen vmap": (
        lambda: linen(EnsembleNet()),
        {
            "heads/bias": per_layer([0, 0, 0], axis=1),
            "heads/kernel": per_layer([0, 2, 0.5], axis=1),
        },
    ),
    "Linen variables": (
        linen_variables,
        {
            "batch_stats/norm/mean": 0,
            "batch_stats/norm/var": 0,
            "params/head/bias": 2,
            "params/head/kernel": 0.5,
            "params/norm/bias": 0.25,
            "params/norm/scale": 4,
        },
    ),
    "Equinox filtered": (
        equinox_filtered,
        {
            "layers/0/weight": 0,
            "layers/0/bias": 0.5,
            "layers/1/weight": 2,
            "layers/1/bias": 1,
        },
    ),
    "Equinox module": (
        equinox_module,
        {
            "gate/value": 0.5,
            "layers/0/weight": 0,
            "layers/0/bias": 2,
            "layers/1/weight": 1,
            "layers/1/bias": 4,
        },
    ),
    "Haiku": (
        haiku,
        {
            "encoder/~/linear_0/b": 2,
            "encoder/~/linear_0/w": 0,
            "encoder/~/linear_1/b": 1,
            "encoder/~/linear_1/w": 0.5,
        },
    ),
    "Keras variables, named by their paths": (
        keras,
        {
            "net/stem/kernel": 0,
            "net/stem/bias": 1,
            "net/head/kernel": 0.5,
            "net/head/bias": 2,
        },
    ),
}


@pytest.mark.parametrize(("make", "multipliers"), CASES.values(), ids=CASES.keys())
def test_names_and_one_step(
    make: Callable[[], Functional], multipliers: dict[str, Any]
) -> None:
    check_names_and_step(make(), multipliers)
