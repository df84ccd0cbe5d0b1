"""One training step with multipliers, held against the same step without them."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_lrmult import path_labels, scale_by_name_multiplier

PyTree = Any


class Step(NamedTuple):
    """The leaves before a step and after it, and the updates between them."""

    before: list[np.ndarray]
    after: list[np.ndarray]
    updates: list[np.ndarray]


class Training(Protocol):
    """A tiny model with its loss, and the framework's way to take a step."""

    @property
    def params(self) -> PyTree: ...

    def step(self, tx: optax.GradientTransformation) -> Step: ...


@dataclasses.dataclass
class Functional:
    """The loop of plain JAX: parameters in, new parameters out."""

    params: PyTree
    loss: Callable[[PyTree], jax.Array]

    def step(self, tx: optax.GradientTransformation) -> Step:
        @jax.jit
        def train(params: PyTree, state: Any) -> Any:
            gradients = jax.grad(self.loss)(params)
            updates, _ = tx.update(gradients, state, params)
            # With the gradients returned, XLA computes also those of frozen leaves, so
            # that the other leaves' are compiled alike and agree to the last bit.
            return optax.apply_updates(params, updates), updates, gradients

        after, updates, _ = train(self.params, tx.init(self.params))
        return Step(leaves(self.params), leaves(after), leaves(updates))


def sgd_by_full_names(multipliers: Mapping[str, Any]) -> optax.GradientTransformation:
    """SGD whose rules match one whole name each, so that any other name shows.

    A name that `init` does not see is an error; one that `update` does not see has the
    multiplier 1. (XLA rounds a leaf of Adam differently if another leaf is dead.)
    """
    rules = {re.compile(re.escape(name)): m for name, m in multipliers.items()}
    return optax.chain(
        optax.trace(0.9),
        scale_by_name_multiplier(rules),
        optax.scale_by_learning_rate(0.1),
    )


def squares(outputs: Any) -> jax.Array:
    """A loss, with its minimum away from the tiny models' first outputs."""
    return jnp.mean((outputs - 3.0) ** 2)


def check_names_and_step(
    make: Callable[[], Training], multipliers: Mapping[str, Any]
) -> None:
    """Holds the names against `multipliers`, in order, and then a step's updates.

    The multipliers are powers of two, so that the products are exact.
    """
    training = make()
    assert jax.tree.leaves(path_labels(training.params)) == list(multipliers)
    plain = make().step(sgd_by_full_names({}))
    scaled = training.step(sgd_by_full_names(multipliers))
    rows = zip(multipliers.items(), *scaled, plain.updates, strict=True)
    for (name, multiplier), before, after, update, plain_update in rows:
        assert np.any(plain_update), f"{name} has no gradient: the test shows nothing"
        expected = factor(multiplier, plain_update.ndim) * plain_update
        np.testing.assert_array_equal(update, expected, err_msg=name)
        if not np.any(expected):
            assert after.tobytes() == before.tobytes(), f"{name} is not frozen"


def factor(multiplier: Any, ndim: int) -> Any:
    """A number, or the values of `per_layer` along their axis."""
    if isinstance(multiplier, float | int):
        return np.float32(multiplier)
    shape = [1] * ndim
    shape[multiplier.axis] = -1
    return np.float32(multiplier.values).reshape(shape)


def leaves(tree: PyTree) -> list[np.ndarray]:
    """Copies of the leaves, which no later step changes."""
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]
