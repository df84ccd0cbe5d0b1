"""`by_name` wherever optax takes labels, masks or dimension numbers, in each framework.

A run with it is held against one of plain optax, on a flat dictionary of the same
arrays, with a tree of the values that is written by hand.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import optax_lrmult as olm

FLAX = tuple(map(int, flax.__version__.split(".")[:2]))
STEPS = 4


def loss(tree: Any) -> jax.Array:
    return sum(
        (jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(tree)), jnp.zeros(())
    )


def trained(tx: optax.GradientTransformation, params: Any) -> Any:
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(STEPS):
        updates, state = update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.LayerNorm(name="norm")(nn.Dense(4, name="stem")(x))
        return nn.Dense(2, name="head")(x)


class NnxNet(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)


class EquinoxNet(eqx.Module):
    stem: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        """Makes the module callable, as most are; it is no function of a tree."""
        return self.head(self.norm(self.stem(x)))


def in_linen(tx: optax.GradientTransformation) -> tuple[Any, Any]:
    params = LinenNet().init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    state = TrainState.create(apply_fn=None, params=params, tx=tx)
    for _ in range(STEPS):
        state = state.apply_gradients(grads=jax.grad(loss)(state.params))
    return params, state.params


def in_nnx(tx: optax.GradientTransformation) -> tuple[Any, Any]:
    model = NnxNet()
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for _ in range(STEPS):
        gradients = nnx.grad(lambda m: loss(nnx.state(m, nnx.Param)))(model)
        optimizer.update(*([model] if FLAX >= (0, 11) else []), gradients)
    return before, nnx.state(model, nnx.Param)


def in_equinox(tx: optax.GradientTransformation) -> tuple[Any, Any]:
    keys = jax.random.split(jax.random.key(0))
    stem, head = eqx.nn.Linear(3, 4, key=keys[0]), eqx.nn.Linear(4, 2, key=keys[1])
    params = eqx.filter(EquinoxNet(stem, eqx.nn.LayerNorm(4), head), eqx.is_array)
    return params, trained(tx, params)


def flat(tree: Any) -> dict[str, jax.Array]:
    names = jax.tree.leaves(olm.path_labels(tree))
    return dict(zip(names, jax.tree.leaves(tree), strict=True))


class Place(NamedTuple):
    """Where a tree of values stands, the table for it, and each value by hand."""

    make: Callable[[Any], optax.GradientTransformation]
    table: dict[str, Any]
    expected: Callable[[str], Any]
    default: dict[str, Any] = {}


def partition(labels: Any) -> optax.GradientTransformationExtraArgs:
    txs = {"slow": optax.adam(0.01), "fast": optax.sgd(1.0)}
    return optax.multi_transform(txs, labels)


LABELS = {"stem": "slow", "": "fast"}
PLACES = {
    "partition": Place(
        partition, LABELS, lambda name: "slow" if name.startswith("stem") else "fast"
    ),
    "masked": Place(
        lambda mask: optax.chain(
            optax.masked(optax.trace(0.9), mask), optax.scale(-0.1)
        ),
        {"stem": False, "": True},
        lambda name: not name.startswith("stem"),
    ),
    "mask of adamw": Place(
        lambda mask: optax.adamw(0.1, weight_decay=1.0, mask=mask),
        {"bias": False, "norm": False},
        lambda name: "bias" not in name and "norm" not in name,
        {"default": True},
    ),
    "partition in MultiSteps": Place(
        lambda labels: optax.MultiSteps(partition(labels), 2).gradient_transformation(),
        LABELS,
        lambda name: "slow" if name.startswith("stem") else "fast",
    ),
}
if hasattr(optax.contrib, "MuonDimensionNumbers"):  # Since optax 0.2.6.
    NUMBERS = optax.contrib.MuonDimensionNumbers(0, 1)
    PLACES["Muon"] = Place(
        lambda v: optax.contrib.muon(0.1, muon_weight_dimension_numbers=v),
        {"stem/kernel": NUMBERS, "stem/weight": NUMBERS},
        lambda name: NUMBERS if name in ("stem/kernel", "stem/weight") else None,
        {"default": None, "on_unmatched": "ignore"},
    )

at_each_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


@pytest.mark.parametrize("train", [in_linen, in_nnx, in_equinox])
@at_each_place
def test_a_run_is_that_of_plain_optax(place: Place, train: Any) -> None:
    tx = place.make(olm.by_name(place.table, **place.default))
    if train is in_nnx and FLAX == (0, 11) and place is not PLACES["mask of adamw"]:
        with pytest.raises(TypeError):  # It has no place for what a mask hides.
            train(tx)
        return
    before, after = train(tx)
    start = flat(before)
    assert len(start) == 6
    values = {name: place.expected(name) for name in start}
    expected = trained(place.make(values), start)
    for name, array in flat(after).items():
        assert np.any(array != start[name])
        np.testing.assert_allclose(array, expected[name], 1e-5, 1e-6, err_msg=name)


PARAMS = {
    "stem": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
}


@at_each_place
def test_a_misspelt_rule_is_told(place: Place) -> None:
    table = {"stam": next(iter(place.table.values())), **place.table}
    options = {**place.default, "on_unmatched": "error"}
    with pytest.raises(ValueError, match="Rule 'stam'.*Nearest: 'stem'"):
        place.make(olm.by_name(table, **options)).init(PARAMS)


@at_each_place
def test_names_without_a_rule_are_told(place: Place) -> None:
    value = next(iter(place.table.values()))
    tx = place.make(olm.by_name({"kernel": value}))
    with pytest.raises(ValueError, match="takes 'head/bias', 'stem/bias', and each"):
        tx.init(PARAMS)


INNER: dict[str, Callable[..., optax.GradientTransformation]] = {
    "multipliers": lambda **table: olm.adam(0.1, multipliers=table),
    "b2": lambda **table: olm.adam(0.1, b2=table),
    "weight_decay": lambda **table: olm.adamw(0.1, weight_decay=table | {"": 0.5}),
    "decay": lambda **table: olm.add_decayed_weights_by_name(table | {"": 0.5}),
    "scale": lambda **table: olm.scale_by_name_multiplier(table),
    "by_name": lambda **table: optax.masked(
        optax.identity(), olm.by_name(table, default=False)
    ),
    "frozen": lambda **table: olm.adam(0.1, multipliers=table, mask_frozen=True),
}
OUTER: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "partition": lambda tx: optax.multi_transform(
        {"slow": tx, "fast": optax.sgd(1.0)}, olm.by_name(LABELS)
    ),
    "masked": lambda tx: optax.masked(tx, olm.by_name({"stem": True}, default=False)),
    "mask_frozen": lambda tx: olm.with_name_multipliers(
        tx, {"head": 0}, mask_frozen=True
    ),
}


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER)
def test_behind_a_mask_hidden_names_are_known_and_misspelt_ones_told(
    outer: Any, inner: Any
) -> None:
    """One table may serve all the optimizers of a partition."""
    outer(inner(stem=0.5, head=0.25)).init(PARAMS)
    with pytest.raises(ValueError, match="Rule 'haed'.*Nearest: 'head'"):
        outer(inner(stem=0.5, haed=0.25)).init(PARAMS)


def test_the_recipe_of_flax_s_cookbook_with_a_norm_in_the_model() -> None:
    """Its labels are the last keys: a `LayerNorm` has one, `scale`, without a rate.

    https://flax.readthedocs.io/en/latest/guides/optimization_cookbook.html
    """
    rngs = nnx.Rngs(0)
    layers = nnx.Linear(2, 8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)
    model = nnx.Sequential(*layers, nnx.Linear(8, 8, rngs=rngs))
    rates = {"kernel": optax.sgd(1e-3), "bias": optax.sgd(1e-2)}
    tx = optax.multi_transform(rates, olm.by_name({k: k for k in rates}))
    with pytest.raises(ValueError, match="No rule of by_name takes 'layers/1/scale'"):
        nnx.Optimizer(model, tx, wrt=nnx.Param)
    tx = optax.multi_transform(rates, olm.by_name({"kernel": "kernel", "": "bias"}))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = {n: np.array(a) for n, a in flat(nnx.state(model, nnx.Param)).items()}
    gradients = nnx.grad(lambda m: loss(nnx.state(m, nnx.Param)))(model)
    optimizer.update(*([model] if FLAX >= (0, 11) else []), gradients)
    for name, after in flat(nnx.state(model, nnx.Param)).items():
        rate = 1e-3 if name.endswith("kernel") else 1e-2
        expected = before[name] - rate * np.cos(before[name])
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-7)
