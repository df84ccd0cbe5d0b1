"""What the library promises, for every optimizer: laws and optimizers, in tables."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": lambda: optax.adam(1e-2),
    "amsgrad": lambda: optax.amsgrad(1e-2),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
    "lion": lambda: optax.lion(1e-2),
    "sgd with momentum": lambda: optax.sgd(1e-2, momentum=0.9),
    "nadam": lambda: optax.nadam(1e-2),
    "adamax": lambda: optax.adamax(1e-2),
    "rmsprop": lambda: optax.rmsprop(1e-2),
    "adafactor": lambda: optax.adafactor(1e-2, min_dim_size_to_factor=2),
    "lamb": lambda: optax.lamb(1e-2, weight_decay=0.1),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
PLACES = {
    "around": lambda make, table: olm.with_name_multipliers(make(), table),
    "behind": lambda make, table: optax.chain(
        make(), olm.scale_by_name_multiplier(table)
    ),
}
every_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
NAMES = ("frozen", "half", "plain", "twice")
POWERS = {"frozen": 0, "half": 0.5, "twice": 2.0}


def gradients_at(step: int) -> dict[str, jax.Array]:
    key = jax.random.fold_in(jax.random.key(0), step)
    keys = jax.random.split(key, len(NAMES))
    return {n: jax.random.normal(k, (4, 3)) for n, k in zip(NAMES, keys, strict=True)}


PARAMS = gradients_at(99)


def updates_of(tx: optax.GradientTransformation, steps: int = 3) -> list[Any]:
    """Updates at parameters that stay, so that two optimizers see the same ones."""
    state, update, found = tx.init(PARAMS), jax.jit(tx.update), []
    for step in range(steps):
        updates, state = update(gradients_at(step), state, PARAMS)
        found.append(updates)
    return found


@functools.cache
def plain_updates(make: Any) -> list[Any]:
    return updates_of(make())


@every_place
@every_optimizer
def test_ones_are_bitwise_no_change(make: Any, place: Any) -> None:
    ones = updates_of(place(make, dict.fromkeys(NAMES, 1)))
    chex.assert_trees_all_equal(ones, plain_updates(make))


@every_place
@every_optimizer
def test_zero_and_powers_of_two_are_exact(make: Any, place: Any) -> None:
    ours, plain = updates_of(place(make, POWERS)), plain_updates(make)
    for mine, theirs in zip(ours, plain, strict=True):
        for name in NAMES:
            expected = POWERS.get(name, 1) * theirs[name]
            np.testing.assert_array_equal(mine[name], expected, err_msg=name)


@every_place
@every_optimizer
def test_any_multiplier_is_exact_to_the_last_rounding(make: Any, place: Any) -> None:
    ours, plain = updates_of(place(make, {"half": 0.3})), plain_updates(make)
    for mine, theirs in zip(ours, plain, strict=True):
        expected = np.float32(0.3) * np.asarray(theirs["half"])
        np.testing.assert_allclose(mine["half"], expected, rtol=1.2e-7)


@every_optimizer
def test_the_state_has_the_structure_of_the_plain_one(make: Any) -> None:
    ours = olm.with_name_multipliers(make(), POWERS).init(PARAMS)
    chex.assert_trees_all_equal(ours, make().init(PARAMS))


@every_optimizer
def test_zero_stills_gradients_that_are_not_finite(make: Any) -> None:
    tx = olm.with_name_multipliers(make(), POWERS)
    bad = {**gradients_at(0), "frozen": jnp.full((4, 3), jnp.nan)}
    updates, _ = tx.update(bad, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["frozen"], 0)


@every_optimizer
def test_eager_and_jit_agree(make: Any) -> None:
    tx = olm.with_name_multipliers(make(), {"half": 0.3})
    state = tx.init(PARAMS)
    eager = tx.update(gradients_at(0), state, PARAMS)
    jitted = jax.jit(tx.update)(gradients_at(0), state, PARAMS)
    chex.assert_trees_all_close(eager, jitted, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "sgd with momentum"])
def test_equals_one_optimizer_per_group(name: str) -> None:
    """As `optax.multi_transform` does, with a learning rate for each group."""
    rates = {"frozen": 0.0, "half": 0.005, "plain": 0.01, "twice": 0.02}
    make: dict[str, Any] = {
        "adam": optax.adam,
        "adamw": lambda rate: optax.adamw(rate, weight_decay=0.1),
        "lion": optax.lion,
        "sgd with momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    }
    transforms = {group: make[name](rate) for group, rate in rates.items()}
    groups = optax.multi_transform(transforms, {group: group for group in NAMES})
    ours = olm.with_name_multipliers(make[name](0.01), POWERS)
    chex.assert_trees_all_close(
        updates_of(ours), updates_of(groups), rtol=3e-7, atol=2e-9
    )
