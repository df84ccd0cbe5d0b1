"""Under each of optax's wrappers, updates are multiplied as they are without it."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib, transforms

import optax_lrmult as olm

PARAMS = {"stem": jnp.array([1.0, -2.0]), "head": jnp.ones(2), "ice": jnp.ones(3)}
TABLE = {"stem": 0.1, "ice": 0}
FACTORS = {"stem": 0.1, "head": 1.0, "ice": 0.0}
MakeTx = Callable[[Any], Any]


def is_odd(step: Any) -> Any:
    return step % 2 == 1


def scale(table: Any) -> optax.GradientTransformationExtraArgs:
    return olm.scale_by_name_multiplier(table)


def adam(table: Any) -> optax.GradientTransformationExtraArgs:
    rate = optax.scale_by_learning_rate(0.1)
    return optax.chain(optax.scale_by_adam(), scale(table), rate)


def wrapped_adam(table: Any) -> optax.GradientTransformationExtraArgs:
    return olm.with_name_multipliers(optax.adam(0.1), table)


def gradients_of_step(params: Any, step: int) -> Any:
    """The same in every run, whatever the parameters are by then."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(step), len(leaves))
    rows = zip(keys, leaves, strict=True)
    return treedef.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in rows])


def updates_of_steps(tx: Any, params: Any, steps: int = 4) -> list[Any]:
    """The updates of some jitted steps that are all applied."""
    update, state, way = jax.jit(tx.update), tx.init(params), []
    is_lookahead = isinstance(params, optax.LookaheadParams)
    for step in range(steps):
        gradients = gradients_of_step(params.fast if is_lookahead else params, step)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        way.append(updates)
    return way


def assert_multiplied(
    make_tx: MakeTx,
    params: Any,
    factors: Any,
    *,
    resting: tuple[str, ...] = (),
    atol: float = 0.0,
) -> None:
    """Holds each update of each step against the same one without multipliers.

    Without multipliers all parameters move but the `resting` ones. With `atol` 0 a
    frozen parameter stays to the last bit.
    """
    plain_way = updates_of_steps(make_tx({}), params)
    way = updates_of_steps(make_tx(TABLE), params)
    for updates, plain in zip(way, plain_way, strict=True):
        expected = jax.tree.map(jnp.multiply, factors, plain)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=atol)
    names = jax.tree.leaves(olm.path_labels(params))
    steps_of_leaf = zip(*map(jax.tree.leaves, plain_way), strict=True)
    is_moved = [np.any(steps) for steps in steps_of_leaf]
    assert resting == tuple(
        n for n, moved in zip(names, is_moved, strict=True) if not moved
    )


def named_chain(table: Any) -> Any:
    rate = optax.scale_by_learning_rate(0.1)
    return optax.named_chain(
        ("core", optax.scale_by_adam()), ("multipliers", scale(table)), ("rate", rate)
    )


def conditional_core(table: Any) -> Any:
    """Adam's core runs in every second step, and the multiplier in each."""
    core = optax.conditionally_transform(optax.scale_by_adam(), is_odd)
    return optax.chain(core, scale(table), optax.scale_by_learning_rate(0.1))


def partition(table: Any) -> Any:
    groups = {"a": adam(table), "b": optax.chain(optax.sgd(0.1), scale(table))}
    return optax.multi_transform(groups, {"stem": "a", "head": "a", "ice": "b"})


def multi_transform(table: Any) -> Any:
    groups = {"a": adam({}), "b": adam({})}
    tx = optax.multi_transform(groups, {"stem": "a", "head": "b", "ice": "b"})
    return olm.with_name_multipliers(tx, table)


def injected_chain(table: Any) -> Any:
    def make(learning_rate: Any) -> Any:
        rate = optax.scale_by_learning_rate(learning_rate)
        return optax.chain(optax.scale_by_adam(), scale(table), rate)

    return optax.inject_hyperparams(make)(learning_rate=0.1)


def injected_adam(table: Any) -> Any:
    return optax.inject_hyperparams(olm.adam)(learning_rate=0.1, multipliers=table)


def lookahead(table: Any) -> Any:
    return optax.lookahead(adam(table), sync_period=2, slow_step_size=0.5)


def schedule_free(table: Any) -> Any:
    return contrib.schedule_free(adam(table), learning_rate=0.1)


HEAD = {"stem": False, "head": True, "ice": False}
NOT_HEAD = {"stem": True, "head": False, "ice": True}
WRAPPERS: dict[str, MakeTx] = {
    "chain": adam,
    "named_chain": named_chain,
    "masked": lambda table: optax.masked(adam(table), NOT_HEAD),
    "partition": partition,
    "multi_transform": multi_transform,
    "MultiSteps": lambda table: optax.MultiSteps(adam(table), 2),
    "apply_if_finite": lambda table: optax.apply_if_finite(adam(table), 3),
    "conditionally_transform": conditional_core,
    "conditionally_mask": lambda table: optax.conditionally_mask(adam(table), is_odd),
    "inject_hyperparams of adam": injected_adam,
    "inject_hyperparams of a chain": injected_chain,
    "apply_every": lambda table: optax.chain(adam(table), optax.apply_every(2)),
}
# Beside them a parameter rests that moves without them; optax 0.2.4 has neither.
FREEZERS: dict[str, MakeTx] = {
    "freeze": lambda table: optax.chain(adam(table), transforms.freeze(HEAD)),
    "selective_transform": lambda table: transforms.selective_transform(
        adam(table), freeze_mask=HEAD
    ),
}
INSTALLED = [*WRAPPERS, *(name for name in FREEZERS if hasattr(transforms, name))]


@pytest.mark.parametrize("name", INSTALLED)
def test_updates_are_multiplied(name: str) -> None:
    resting = ("head",) if name in FREEZERS else ()
    assert_multiplied((WRAPPERS | FREEZERS)[name], PARAMS, FACTORS, resting=resting)


# The next two make their updates from differences of parameters, which are rounded.
ROUNDING = 5e-7


def test_fast_and_slow_parameters_of_lookahead_are_multiplied() -> None:
    params = optax.LookaheadParams.init_synced(PARAMS)
    factors = optax.LookaheadParams(FACTORS, FACTORS)
    assert_multiplied(lookahead, params, factors, atol=ROUNDING)


def test_updates_are_multiplied_within_schedule_free() -> None:
    assert_multiplied(schedule_free, PARAMS, FACTORS, atol=ROUNDING)


def test_zeros_around_schedule_free_freeze_to_the_last_bit() -> None:
    """Within it, a frozen parameter drifts by the rounding of the averages."""
    params = {"stem": jnp.ones(3), "ice": jnp.array([0.3, 0.7, -1.234])}
    tx = optax.chain(schedule_free(TABLE), scale({"ice": 0}))
    way = updates_of_steps(tx, params, steps=8)
    assert all(np.any(updates["stem"]) for updates in way)
    assert not any(np.any(updates["ice"]) for updates in way)


def test_split_real_and_imaginary_gives_both_parts_a_name() -> None:
    params = {"wave": jnp.array([1 + 2j, 3 - 1j]), "head": jnp.ones(2)}
    table = {"wave/real": 0.1, "wave/imaginary": 0.5}
    split = contrib.split_real_and_imaginary
    plain_way = updates_of_steps(split(adam({})), params)
    way = updates_of_steps(split(adam(table)), params)
    for updates, plain in zip(way, plain_way, strict=True):
        wave = jax.lax.complex(0.1 * plain["wave"].real, 0.5 * plain["wave"].imag)
        expected = {"wave": wave, "head": plain["head"]}
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)


@pytest.mark.parametrize("make_tx", [adam, wrapped_adam])
def test_tree_map_params_finds_the_moments(make_tx: MakeTx) -> None:
    tx = make_tx(TABLE)
    state = optax.tree_utils.tree_map_params(
        tx, lambda moment: moment + 1, tx.init(PARAMS)
    )
    moments = (
        optax.tree_utils.tree_get(state, "mu"),
        optax.tree_utils.tree_get(state, "nu"),
    )
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    chex.assert_trees_all_equal(moments, (ones, ones))
    assert optax.tree_utils.tree_get(state, "count") == 0


def test_strict_promotion_of_dtypes() -> None:
    with jax.numpy_dtype_promotion("strict"):
        params = {"a": jnp.ones(2), "b": jnp.ones(2)}
        table = {"a": lambda step: 0.5, "b": 2.0}
        tx = olm.with_name_multipliers(olm.scale_by_name_multiplier(table), {"a": 3})
        tx.update(params, tx.init(params), params)
