"""Multipliers are free: counted in the compiled step, not timed."""

import functools
from typing import Any

import jax
import optax

import optax_lrmult as olm
from tests.benchmarks.measure import Cost, compiled_step
from tests.benchmarks.trees import vit

TREE = vit(2, 32)
TABLE = olm.recipes.layer_decay(0.75, TREE)
SCALAR, LEAVES = 4, 40


def test_the_tree_is_that_of_a_vit_with_four_multipliers() -> None:
    assert len(jax.tree.leaves(TREE)) == LEAVES
    assert len({row.value for row in olm.assign(TREE, TABLE)}) == 4


def cost(tx: optax.GradientTransformation) -> Cost:
    return compiled_step(tx, TREE)[1]


@functools.cache
def plain_cost() -> Cost:
    return cost(optax.adamw(1e-3))


def extra_bytes(ours: Cost, plain: Cost) -> float:
    assert ours.bytes_accessed is not None
    assert plain.bytes_accessed is not None
    return ours.bytes_accessed - plain.bytes_accessed


def test_static_multipliers_are_free() -> None:
    plain, ours = plain_cost(), cost(olm.adamw(1e-3, multipliers=TABLE))
    assert ours.kernels == plain.kernels
    assert ours.temporary_bytes == plain.temporary_bytes
    assert ours.state_leaves == plain.state_leaves
    assert ours.state_bytes == plain.state_bytes
    # The kernel of a leaf reads one scalar more.
    assert 0 <= extra_bytes(ours, plain) <= SCALAR * LEAVES


def test_a_schedule_costs_one_scalar_kernel_and_no_state() -> None:
    schedules = [(r.pattern, lambda step, m=r.value: m * step) for r in TABLE]
    plain, ours = plain_cost(), cost(olm.adamw(1e-3, multipliers=schedules))
    assert ours.kernels <= plain.kernels + len(schedules)
    assert ours.state_bytes == plain.state_bytes
    assert extra_bytes(ours, plain) <= SCALAR * 2 * LEAVES


def test_a_further_beta_or_decay_costs_scalars_and_no_state() -> None:
    """A correction for each distinct beta, and for a leaf the scalars that it reads."""
    tables: Any = {"b2": {"bias": 0.99}, "weight_decay": {"kernel": 0.1, "": 0}}
    plain, ours = plain_cost(), cost(olm.adamw(1e-3, multipliers=TABLE, **tables))
    assert ours.kernels <= plain.kernels + 2
    assert ours.state_leaves == plain.state_leaves
    assert ours.state_bytes == plain.state_bytes
    assert extra_bytes(ours, plain) <= SCALAR * 10 * LEAVES
