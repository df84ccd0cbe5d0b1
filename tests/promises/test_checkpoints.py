"""Checkpoints: rules change between runs, and states go to plain optax and back."""

import functools
import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training import checkpoints
from flax.training.train_state import TrainState

import optax_lrmult
from optax_lrmult import adam, adamw, move_state

RATE = 0.05
INPUTS = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3)
TARGETS = np.linspace(0.5, -0.5, 8, dtype=np.float32).reshape(4, 2)
UPDATE_TAKES_MODEL = "model" in inspect.signature(nnx.Optimizer.update).parameters

Trip = Callable[[Any, Any], Any]
"""Saves its first argument and restores it into the structure of the second."""


def falling_rate(step: Any) -> Any:
    return RATE * 0.5**step


def rising(step: Any) -> Any:
    return 0.25 * (step + 1)


def in_chain(multipliers: Any, rate: Any = RATE) -> Any:
    return optax.chain(
        optax.scale_by_adam(),
        optax_lrmult.scale_by_name_multiplier(multipliers),
        optax.scale_by_learning_rate(rate),
    )


# Three kinds of runs: by hand, with a Linen TrainState, with an nnx.Optimizer.


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        return nn.Dense(2, name="head")(nn.tanh(nn.Dense(4, name="stem")(inputs)))


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, inputs: Any) -> Any:
        return self.head(nnx.tanh(self.stem(inputs)))


@functools.cache
def initial_params() -> Any:
    return LinenNet().init(jax.random.key(0), INPUTS)["params"]


def loss_of(outputs: Any) -> Any:
    return jnp.mean((outputs - TARGETS) ** 2)


@jax.grad
def gradients(params: Any) -> Any:
    return loss_of(LinenNet().apply({"params": params}, INPUTS))


@functools.partial(jax.jit, static_argnums=0)
def functional_step(tx: Any, tree: Any) -> Any:
    params = tree["params"]
    updates, opt_state = tx.update(gradients(params), tree["opt_state"], params)
    return {"params": optax.apply_updates(params, updates), "opt_state": opt_state}


@jax.jit
def linen_step(tree: TrainState) -> TrainState:
    return tree.apply_gradients(grads=gradients(tree.params))


@nnx.jit
def nnx_step(model: NnxNet, optimizer: Any) -> None:
    grads = nnx.grad(lambda model: loss_of(model(INPUTS)))(model)
    optimizer.update(*([model, grads] if UPDATE_TAKES_MODEL else [grads]))


class FunctionalRun:
    def __init__(self, tx: Any):
        params = initial_params()
        self.tx = tx
        self.tree = {"params": params, "opt_state": tx.init(params)}

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.tree = functional_step(self.tx, self.tree)

    def restore(self, tree: Any) -> None:
        self.tree = tree

    def take_over(self, old: Any) -> None:
        opt_state = move_state(old.tree["opt_state"], self.tree["opt_state"])
        self.tree = {"params": old.params(), "opt_state": opt_state}

    def params(self) -> Any:
        return self.tree["params"]


class LinenRun:
    def __init__(self, tx: Any):
        apply, params = LinenNet().apply, initial_params()
        tree = TrainState.create(apply_fn=apply, params=params, tx=tx)
        # TrainState begins with a Python int, which is compiled for on its own.
        self.tree = tree.replace(step=jnp.zeros([], jnp.int32))

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.tree = linen_step(self.tree)

    def restore(self, tree: Any) -> None:
        self.tree = tree

    def take_over(self, old: Any) -> None:
        opt_state = move_state(old.tree.opt_state, self.tree.opt_state)
        self.tree = old.tree.replace(tx=self.tree.tx, opt_state=opt_state)

    def params(self) -> Any:
        return self.tree.params


class NnxRun:
    def __init__(self, tx: Any):
        self.model = NnxNet(nnx.Rngs(0))
        self.optimizer = nnx.Optimizer(self.model, tx, wrt=nnx.Param)

    @property
    def tree(self) -> Any:
        return nnx.state((self.model, self.optimizer))

    def train(self, steps: int) -> None:
        for _ in range(steps):
            nnx_step(self.model, self.optimizer)

    def restore(self, tree: Any) -> None:
        nnx.update((self.model, self.optimizer), tree)

    def take_over(self, old: Any) -> None:
        nnx.update(self.model, nnx.state(old.model))
        new = move_state(old.optimizer.opt_state, self.optimizer.opt_state)
        self.optimizer.opt_state = new

    def params(self) -> Any:
        return nnx.to_pure_dict(nnx.state(self.model, nnx.Param))


Run = FunctionalRun | LinenRun | NnxRun
Start = Callable[[Any], Run]
"""Begins a run with an optimizer."""


@pytest.fixture(params=[FunctionalRun, LinenRun, NnxRun])
def start(request: pytest.FixtureRequest) -> Start:
    return request.param


@pytest.fixture(params=["orbax", "msgpack"])
def trip(request: pytest.FixtureRequest, tmp_path: Path) -> Trip:
    def through_orbax(saved: Any, target: Any) -> Any:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, saved)
            checkpointer.wait_until_finished()
            return checkpointer.restore(path, target)

    def through_msgpack(saved: Any, target: Any) -> Any:
        if not isinstance(saved, nnx.State):
            in_bytes = flax.serialization.to_bytes(saved)
            return flax.serialization.from_bytes(target, in_bytes)
        restored = through_msgpack(nnx.to_pure_dict(saved), nnx.to_pure_dict(target))
        nnx.replace_by_pure_dict(target, restored)
        return target

    def through_flax(saved: Any, target: Any) -> Any:
        checkpoints.save_checkpoint(tmp_path, saved, step=0)
        return checkpoints.restore_checkpoint(tmp_path, target)

    def through_pickle(saved: Any, target: Any) -> Any:
        del target
        return pickle.loads(pickle.dumps(jax.device_get(saved)))

    return {
        "orbax": through_orbax,
        "msgpack": through_msgpack,
        "flax.training.checkpoints": through_flax,
        "pickle": through_pickle,
    }[request.param]


by_msgpack = pytest.mark.parametrize("trip", ["msgpack"], indirect=True)


def arrays(tree: Any) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same_bits(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for array, like in zip(actual, expected, strict=True):
        assert array.dtype == like.dtype
        np.testing.assert_array_equal(array, like)


def stirred(tree: Any) -> Any:
    """As after training: each leaf has a value that no other leaf has."""
    leaves, treedef = jax.tree.flatten(tree)
    new = [leaf + jnp.asarray(i, leaf.dtype) for i, leaf in enumerate(leaves, 1)]
    return jax.tree.unflatten(treedef, new)


def moved_by_a_step(run: Run) -> dict[str, bool]:
    """Whether the kernels of stem and head change when training goes on."""
    before = {name: np.array(layer["kernel"]) for name, layer in run.params().items()}
    run.train(1)
    after = {name: np.array(layer["kernel"]) for name, layer in run.params().items()}
    return {name: bool((after[name] != before[name]).any()) for name in before}


# Numbers, and which names they go to, change between runs.

NUMBERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rates": {"multipliers": [(re.compile("stem/.*"), 0.5), ("", 2)]},
    "everything": {
        "multipliers": {"head": rising},
        "weight_decay": {"kernel": 0.1, "": 0},
        "b1": {"stem": 0.5},
        "b2": {"stem": 0.9, "head/bias": 0.99},
        "eps": {"head": 1e-6},
    },
}


@pytest.mark.parametrize("old", NUMBERS)
def test_other_numbers_restore_the_same_moments(
    old: str, trip: Trip, start: Start
) -> None:
    run = start(adamw(RATE, **NUMBERS[old]))
    run.restore(stirred(run.tree))
    new: Any = {"bias": 3.0, re.compile("stem/.*"): 0.0, "head": 0.25}
    other = start(adamw(RATE, multipliers=new, weight_decay={"": 0.2}, b2={"": 0.9}))
    other.restore(trip(run.tree, other.tree))
    assert_same_bits(arrays(other.tree), arrays(run.tree))


@by_msgpack
def test_the_new_rules_hold_after_restoring(trip: Trip, start: Start) -> None:
    run = start(adam(RATE, multipliers={"head": 0.0}))
    assert moved_by_a_step(run) == {"stem": True, "head": False}
    other = start(adam(RATE, multipliers={"stem": 0.0}))
    other.restore(trip(run.tree, other.tree))
    assert moved_by_a_step(other) == {"stem": False, "head": True}


# Plain optax and back. That states are alike for each optimizer of optax is in laws.py.

ONES = {"stem": 1.0, re.compile("head/.*"): 1}
TABLE = {"stem": rising, "head/kernel": 2.0}
PAIRS: dict[str, tuple[Any, Any]] = {
    "adam in bfloat16": (
        optax.adam(RATE, mu_dtype="bfloat16"),
        adam(RATE, mu_dtype="bfloat16", multipliers=TABLE),
    ),
    "adamw by name": (
        optax.adamw(falling_rate),
        adamw(falling_rate, multipliers=TABLE, **{"b2": {"stem": 0.9}}),
    ),
    "amsgrad": (optax.amsgrad(RATE), adam(RATE, amsgrad=True, multipliers=TABLE)),
    "wrapped lion": (
        optax.lion(RATE),
        optax_lrmult.with_name_multipliers(optax.lion(RATE), TABLE),
    ),
}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        *((name, FunctionalRun) for name in PAIRS),
        ("adamw by name", LinenRun),
        ("adamw by name", NnxRun),
    ],
)
def test_states_go_from_plain_optax_and_back(
    name: str, trip: Trip, start: Start
) -> None:
    run, ours, back = (start(PAIRS[name][index]) for index in (0, 1, 0))
    run.restore(stirred(run.tree))
    ours.restore(trip(run.tree, ours.tree))
    assert_same_bits(arrays(ours.tree), arrays(run.tree))
    ours.restore(stirred(ours.tree))
    back.restore(trip(ours.tree, back.tree))
    assert_same_bits(arrays(back.tree), arrays(ours.tree))


def test_a_plain_run_goes_on_with_multipliers_of_one(trip: Trip) -> None:
    run = FunctionalRun(optax.adamw(falling_rate))
    other = FunctionalRun(adamw(falling_rate, multipliers=ONES))
    run.train(3)
    other.restore(trip(run.tree, other.tree))
    run.train(3)
    other.train(3)
    assert_same_bits(arrays(other.tree), arrays(run.tree))


# A run that was interrupted goes on as if nothing had happened.

OPTIMIZERS = {
    "amsgrad": adam(falling_rate, amsgrad=True, multipliers={"stem": 0.3}),
    "adamw_scheduled": adamw(RATE, multipliers={"stem": rising}),
    "chain_static": in_chain({"stem": 0.3, "head/kernel": 2.0}, falling_rate),
    "chain_scheduled": in_chain({"stem": rising, "bias": 0.5}),
}


@pytest.mark.parametrize(
    ("name", "start", "trip"),
    [
        *((name, FunctionalRun, "msgpack") for name in OPTIMIZERS),
        ("chain_scheduled", LinenRun, "orbax"),
        ("chain_scheduled", NnxRun, "orbax"),
    ],
    indirect=["trip"],
)
def test_interrupted_run_equals_the_uninterrupted(
    name: str, start: Start, trip: Trip
) -> None:
    run, other = start(OPTIMIZERS[name]), start(OPTIMIZERS[name])
    run.train(3)
    other.restore(trip(run.tree, other.tree))
    run.train(3)
    other.train(3)
    assert_same_bits(arrays(other.tree), arrays(run.tree))


# Into a state of another structure. The cases of move_state are in test_moving.py.


def slower_later(step: Any) -> Any:
    return jnp.where(step < 3, RATE, 0.1 * RATE)


@pytest.mark.parametrize("start", [FunctionalRun, LinenRun, NnxRun])
@by_msgpack
def test_a_plain_run_goes_on_in_a_chain(start: Start, trip: Trip) -> None:
    """With a member more, and with a schedule, which does not begin anew."""
    run, old = start(optax.adam(RATE)), start(optax.adam(RATE))
    run.train(3)
    old.restore(trip(run.tree, old.tree))
    new, always_new = (start(in_chain(ONES, slower_later)) for _ in range(2))
    new.take_over(old)
    new.train(2)
    always_new.train(5)
    for found, expected in zip(
        arrays(new.params()), arrays(always_new.params()), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "trip", ["orbax", "flax.training.checkpoints", "pickle"], indirect=True
)
def test_a_restored_state_moves_whatever_it_was_saved_with(trip: Trip) -> None:
    run = FunctionalRun(optax.adam(RATE))
    run.restore(stirred(run.tree))
    state = trip(run.tree, FunctionalRun(optax.adam(RATE)).tree)["opt_state"]
    like = in_chain(TABLE).init(initial_params())
    count = run.tree["opt_state"][0].count
    expected = [*arrays(run.tree["opt_state"]), count]
    assert_same_bits(arrays(move_state(state, like)), expected)
