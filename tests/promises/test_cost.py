"""Multipliers are free: counted in the compiled step, not timed."""

import functools
from typing import Any

import jax
import optax
import pytest

import optax_lrmult as olm
from tests.benchmarks.measure import Cost, compiled_step
from tests.benchmarks.trees import vit

TREE = vit(2, 32)
TABLE = olm.recipes.layer_decay(0.75, TREE)
SCALAR, LEAVES = 4, 40


def test_the_tree_is_that_of_a_vit_with_four_multipliers() -> None:
    assert len(jax.tree.leaves(TREE)) == LEAVES
    assert len({row.value for row in olm.assign(TREE, TABLE)}) == 4


STATIC: dict[str, tuple[Any, Any]] = {
    "adam": (optax.adam, olm.adam),
    "amsgrad": (optax.amsgrad, functools.partial(olm.adam, amsgrad=True)),
}


def cost(tx: optax.GradientTransformation) -> Cost:
    return compiled_step(tx, TREE)[1]


@functools.cache
def plain_cost(name: str) -> Cost:
    return cost(STATIC[name][0](1e-3))


def extra_bytes(ours: Cost, plain: Cost) -> float:
    assert ours.bytes_accessed is not None
    assert plain.bytes_accessed is not None
    return ours.bytes_accessed - plain.bytes_accessed


@pytest.mark.parametrize("name", STATIC)
def test_static_multipliers_are_free(name: str) -> None:
    plain, ours = plain_cost(name), cost(STATIC[name][1](1e-3, multipliers=TABLE))
    assert ours.kernels == plain.kernels
    assert ours.temporary_bytes == plain.temporary_bytes
    assert ours.state_leaves == plain.state_leaves
    assert ours.state_bytes == plain.state_bytes
    # The kernel of a leaf reads one scalar more.
    assert 0 <= extra_bytes(ours, plain) <= SCALAR * LEAVES


def test_a_schedule_costs_one_scalar_kernel_and_no_state() -> None:
    schedules = [(r.pattern, lambda step, m=r.value: m * step) for r in TABLE]
    plain, ours = plain_cost("adam"), cost(olm.adam(1e-3, multipliers=schedules))
    assert ours.kernels <= plain.kernels + len(schedules)
    assert ours.state_leaves == plain.state_leaves
    assert ours.state_bytes == plain.state_bytes
    assert extra_bytes(ours, plain) <= SCALAR * 2 * LEAVES
