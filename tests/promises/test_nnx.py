"""Names and one training step in NNX, and labels of a user's own."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_lrmult as olm
from optax_lrmult import path_labels, per_layer, scale_by_name_multiplier
from tests.promises.one_step import (
    Functional,
    Step,
    Training,
    check_names_and_step,
    leaves,
    squares,
)
from tests.promises.thaw import masked_adam, taken_over

FLAX = tuple(map(int, flax.__version__.split(".")[:2]))
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


def keep_updates() -> optax.GradientTransformation:
    """Keeps the last updates in the state, where a test can read them."""
    return optax.GradientTransformation(
        lambda params: optax.tree_utils.tree_zeros_like(params),
        lambda updates, state, params=None: (updates, updates),
    )


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

    @property
    def params(self) -> Any:
        return nnx.state(self.model, self.wrt)

    def step(self, tx: optax.GradientTransformation) -> Step:
        before = leaves(self.params)
        kept = optax.chain(tx, keep_updates())
        optimizer = nnx.Optimizer(self.model, kept, wrt=self.wrt)
        train_with_optimizer(self.model, optimizer, self.wrt)
        updates = nnx.state(optimizer)["opt_state"][1]
        return Step(before, leaves(self.params), leaves(updates))


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


@pytest.mark.parametrize(("make", "multipliers"), CASES.values(), ids=CASES.keys())
def test_names_and_one_step(
    make: Callable[[], Training], multipliers: dict[str, Any]
) -> None:
    check_names_and_step(make, multipliers)


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
    plain = WithOptimizer(Net()).step(optax.sgd(0.1)).updates
    tx = scale_by_name_multiplier({"slow": 0.5}, param_labels=labels)
    scaled = WithOptimizer(Net()).step(optax.chain(optax.sgd(0.1), tx)).updates
    factors = {"head/bias": 1, "head/kernel": 0.5, "stem/bias": 1, "stem/kernel": 0.5}
    rows = zip(scaled, plain, factors.values(), strict=True)
    assert all((update == m * plain_update).all() for update, plain_update, m in rows)


def test_a_packed_state_is_unpacked_from_its_boxes() -> None:
    plain, packed = ListNet(), ListNet()
    optimizers = [
        nnx.Optimizer(plain, optax.adam(0.1), wrt=nnx.Param),
        nnx.Optimizer(packed, olm.packed(optax.adam(0.1)), wrt=nnx.Param),
    ]
    train_with_optimizer(plain, optimizers[0], nnx.Param)
    train_with_optimizer(packed, optimizers[1], nnx.Param)
    expected, state = (optimizer.opt_state for optimizer in optimizers)
    if FLAX < (0, 11):  # There boxes are leaves.
        state = jax.tree.map(lambda box: box.value, state)
    unpacked = olm.unpacked_state(state, nnx.state(packed, nnx.Param))
    pairs = zip(leaves(unpacked), leaves(expected), strict=True)
    assert all((mine == other).all() for mine, other in pairs)
    back = olm.packed_state(unpacked, nnx.state(packed, nnx.Param), like=state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    if FLAX >= (0, 11):
        optimizers[1].opt_state = back
    train_with_optimizer(plain, optimizers[0], nnx.Param)
    train_with_optimizer(packed, optimizers[1], nnx.Param)
    pairs = zip(leaves(nnx.state(packed)), leaves(nnx.state(plain)), strict=True)
    assert all(np.allclose(mine, other, rtol=1e-6) for mine, other in pairs)


def first_bias(model: Any) -> Any:
    return jax.tree.leaves(nnx.state(model.layers[1], nnx.Param))[0]


if FLAX >= (0, 11):  # Before it boxes are leaves; before 0.12 they hold no nodes.

    @pytest.mark.parametrize("pack", [False, True] if FLAX >= (0, 12) else [True])
    def test_moments_go_on_where_others_are_frozen(pack: bool) -> None:
        """The README's way, between the states of two optimizers."""

        model = ListNet()
        old_tx = masked_adam(0.1, "layers/0", pack=pack)
        new_tx = masked_adam(0.1, "layers/1/bias", pack=pack)
        optimizer = nnx.Optimizer(model, old_tx, wrt=nnx.Param)
        train_with_optimizer(model, optimizer, nnx.Param)
        old = optimizer.opt_state
        optimizer = nnx.Optimizer(model, new_tx, wrt=nnx.Param)
        new, params = optimizer.opt_state, nnx.state(model, nnx.Param)
        if pack:
            old, new = (olm.unpacked_state(state, params) for state in (old, new))
        state = taken_over(new, old)
        if pack:
            state = olm.packed_state(state, params, like=optimizer.opt_state)
        optimizer.opt_state = state
        bias = first_bias(model)
        train_with_optimizer(model, optimizer, nnx.Param)
        assert jax.tree.leaves(
            optax.tree_utils.tree_get(optimizer.opt_state, "count")
        ) == [2]
        assert (first_bias(model) == bias).all()
