"""One training step with multipliers, held against the step's own gradients."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PyTree = Any
RATE = 0.1
INPUTS = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)


class Step(NamedTuple):
    """The leaves before a step and after it, and the gradients between them."""

    before: list[np.ndarray]
    after: list[np.ndarray]
    gradients: list[np.ndarray]


class Training(Protocol):
    """A tiny model with its loss, and the framework's way to take a step."""

    @property
    def params(self) -> PyTree: ...

    @property
    def param_labels(self) -> PyTree: ...

    def step(self, tx: optax.GradientTransformation) -> Step: ...


@dataclasses.dataclass
class Functional:
    """The loop of plain JAX: parameters in, new parameters out."""

    params: PyTree
    loss: Callable[[PyTree], jax.Array]
    param_labels: PyTree = None

    def step(self, tx: optax.GradientTransformation) -> Step:
        @jax.jit
        def train(params: PyTree, state: Any) -> Any:
            gradients = jax.grad(self.loss)(params)
            updates, _ = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), gradients

        after, gradients = train(self.params, tx.init(self.params))
        return Step(leaves(self.params), leaves(after), leaves(gradients))


def squares(outputs: Any) -> jax.Array:
    """A loss, with its minimum away from the tiny models' first outputs."""
    return jnp.mean((outputs - 3.0) ** 2)


def keras_model() -> Any:
    """Two layers of Keras 3, whose backend is JAX."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as home:
        # Read once, by the import, which also writes a file into its home.
        patch.setenv("KERAS_BACKEND", "jax")
        patch.setenv("KERAS_HOME", home)
        from keras import Input, Sequential, layers, utils

    utils.set_random_seed(0)
    stem = layers.Dense(4, activation="tanh", name="stem")
    return Sequential([Input((3,)), stem, layers.Dense(1, name="head")], name="net")


def check_names_and_step(training: Training, multipliers: Mapping[str, Any]) -> None:
    """Holds names against `multipliers`, in order, and then a step of SGD.

    Each rule takes one whole name, so that any other name shows: one that `init` does
    not see is an error there, and one that `update` does not see has the multiplier 1.
    """
    names: Any = {"param_labels": training.param_labels}
    rules = {re.compile(re.escape(name)): m for name, m in multipliers.items()}
    rows = olm.assign(training.params, rules, on_unmatched="error", **names)
    assert [row.name for row in rows] == list(multipliers)
    shown = olm.preview(training.params, rules, **names).to_dict()["parameters"]
    assert {row["name"] for row in shown} == {*multipliers}
    step = training.step(
        optax.chain(
            optax.trace(0.9),
            olm.scale_by_name_multiplier(rules, **names),
            optax.scale_by_learning_rate(RATE),
        )
    )
    for (name, multiplier), before, after, gradient in zip(
        multipliers.items(), *step, strict=True
    ):
        assert np.max(np.abs(gradient)) > 1e-3, f"{name} shows nothing"
        update = -RATE * factor(multiplier, gradient.ndim) * gradient
        np.testing.assert_allclose(after, before + update, 1e-5, 1e-6, err_msg=name)
        if not np.any(update):
            assert after.tobytes() == before.tobytes(), f"{name} is not frozen"


def factor(multiplier: Any, ndim: int) -> Any:
    """A number, or the values of `per_layer` along their axis."""
    if isinstance(multiplier, float | int):
        return multiplier
    shape = [1] * ndim
    shape[multiplier.axis] = -1
    return np.reshape(multiplier.values, shape)


def leaves(tree: PyTree) -> list[np.ndarray]:
    """Copies of the leaves, which no later step changes."""
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]
