"""Names and one training step in NNX, and labels of a user's own."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from optax_lrmult import path_labels, per_layer, scale_by_name_multiplier
from tests.promises.one_step import (
    Functional,
    Step,
    Training,
    check_names_and_step,
    leaves,
    squares,
)

FLAX = tuple(map(int, flax.__version__.split(".")[:2]))
TREE_MODE: Any = {"graph": False}
HAS_TREE_MODE = "graph" in inspect.signature(nnx.Optimizer.__init__).parameters
INPUTS = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.tanh(self.stem(x)))


class ListNet(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        layers = [nnx.Linear(3, 3, rngs=rngs) for _ in range(2)]
        self.layers = nnx.List(layers) if hasattr(nnx, "List") else layers

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layers[1](nnx.tanh(self.layers[0](x)))


class TiedNet(nnx.Module):
    def __init__(self) -> None:
        self.encoder = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
        self.decoder = self.encoder

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.decoder(nnx.tanh(self.encoder(x)))


class LoRANet(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        normal = nnx.initializers.normal()
        base = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.LoRA(3, 2, 4, base_module=base, b_initializer=normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(x)


class StackedNet(nnx.Module):
    def __init__(self) -> None:
        @nnx.split_rngs(splits=3)
        @nnx.vmap
        def make_layers(rngs: nnx.Rngs) -> nnx.Linear:
            return nnx.Linear(3, 4, rngs=rngs)

        self.layers = make_layers(nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(self.layers, x)


def loss(model: Any) -> jax.Array:
    return squares(model(INPUTS))


def train_with_optimizer(model: Any, optimizer: Any, wrt: Any) -> Any:
    """One step of `nnx.Optimizer`, whose signature changed in flax 0.11."""

    @nnx.jit
    def train(model: Any, optimizer: Any) -> Any:
        gradients = nnx.grad(loss, argnums=nnx.DiffState(0, wrt))(model)
        if FLAX >= (0, 11):
            optimizer.update(model, gradients)
        else:
            optimizer.update(gradients)
        return gradients

    return train(model, optimizer)


@dataclasses.dataclass
class WithOptimizer:
    """The loop of `nnx.Optimizer`, which changes a model in place."""

    model: Any
    wrt: Any = nnx.Param
    param_labels: Any = None

    @property
    def params(self) -> Any:
        return nnx.state(self.model, self.wrt)

    def step(self, tx: optax.GradientTransformation) -> Step:
        before = leaves(self.params)
        optimizer = nnx.Optimizer(self.model, tx, wrt=self.wrt)
        gradients = train_with_optimizer(self.model, optimizer, self.wrt)
        return Step(before, leaves(self.params), leaves(gradients))


@dataclasses.dataclass
class InTreeMode(WithOptimizer):
    """The same in Flax's tree mode, where a module is a pytree and no graph."""

    def step(self, tx: optax.GradientTransformation) -> Step:
        before = leaves(self.params)
        optimizer = nnx.Optimizer(self.model, tx, wrt=self.wrt, **TREE_MODE)

        @functools.partial(nnx.jit, **TREE_MODE)
        def train(model: Any, optimizer: Any) -> Any:
            gradients = nnx.grad(loss, **TREE_MODE)(model)
            optimizer.update(model, gradients)
            return nnx.clone(gradients)

        gradients = train(self.model, optimizer)
        return Step(before, leaves(self.params), leaves(gradients))


def split_and_merge() -> Functional:
    graph, params = nnx.split(Net())
    return Functional(params, lambda p: loss(nnx.merge(graph, p)))


def module_as_params() -> Functional:
    return Functional(Net(), loss)


HEAD = nnx.All(nnx.Param, nnx.PathContains("head"))
DENSE = {"bias": "fast", "kernel": "slow"}
NET = {"head/bias": 2, "head/kernel": 0.5, "stem/bias": 1, "stem/kernel": 0}
CASES: dict[str, tuple[Callable[[], Training], dict[str, Any]]] = {
    "Optimizer": (lambda: WithOptimizer(Net()), NET),
    "split and merge": (split_and_merge, NET),
    "wrt a path": (
        lambda: WithOptimizer(Net(), HEAD),
        {"head/bias": 0, "head/kernel": 0.5},
    ),
    "LoRAParam": (
        lambda: WithOptimizer(LoRANet(), nnx.LoRAParam),
        {"head/lora_a": 0, "head/lora_b": 2},
    ),
    "LoRA and its base": (
        lambda: WithOptimizer(LoRANet()),
        {
            "head/base_module/bias": 0,
            "head/base_module/kernel": 0,
            "head/lora_a": 0.5,
            "head/lora_b": 8,
        },
    ),
    "list of layers": (
        lambda: WithOptimizer(ListNet()),
        {
            "layers/0/bias": 0.5,
            "layers/0/kernel": 0,
            "layers/1/bias": 1,
            "layers/1/kernel": 2,
        },
    ),
    "shared parameters": (
        lambda: WithOptimizer(TiedNet()),
        {"decoder/bias": 0, "decoder/kernel": 0.5},
    ),
    "stacked by vmap": (
        lambda: WithOptimizer(StackedNet()),
        {"layers/bias": 0, "layers/kernel": per_layer([0, 0.5, 2])},
    ),
}
if FLAX >= (0, 12):  # There a module is a pytree.
    CASES["jax.grad of a module"] = (module_as_params, NET)
if HAS_TREE_MODE:
    CASES["tree mode"] = (lambda: InTreeMode(Net()), NET)
    CASES["list of layers in tree mode"] = (
        lambda: InTreeMode(ListNet()),
        CASES["list of layers"][1],
    )


@pytest.mark.parametrize(("make", "multipliers"), CASES.values(), ids=CASES.keys())
def test_names_and_one_step(
    make: Callable[[], Training], multipliers: dict[str, Any]
) -> None:
    check_names_and_step(make(), multipliers)


def test_label_function_gets_the_same_tree_in_init_and_update() -> None:
    seen: list[Any] = []

    def labels(tree: Any) -> Any:
        seen.append(jax.tree.structure(tree))
        return path_labels(tree)

    tx = scale_by_name_multiplier({"stem": 0.5}, param_labels=labels)
    WithOptimizer(Net()).step(tx)
    without_boxes = nnx.State({"head": DENSE, "stem": DENSE})
    assert len(seen) >= 2
    assert set(seen) == {jax.tree.structure(without_boxes)}


def labels_by_function(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: "slow" if leaf.ndim == 2 else "fast", tree)


def labels_in_boxes() -> Any:
    return labels_by_function(nnx.state(Net(), nnx.Param))


@pytest.mark.parametrize(
    "labels",
    [labels_by_function, labels_in_boxes(), {"head": DENSE, "stem": DENSE}],
    ids=["function", "nnx.state", "plain dict"],
)
def test_labels_under_optimizer(labels: Any) -> None:
    scale = scale_by_name_multiplier({"slow": 0}, param_labels=labels)
    before, after, _ = WithOptimizer(Net()).step(optax.chain(optax.sgd(0.1), scale))
    moved = [bool((a != b).any()) for a, b in zip(after, before, strict=True)]
    assert moved == [True, False, True, False]
