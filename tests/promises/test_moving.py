"""A state moves between optimizers: training goes on as if nothing had changed."""

import functools
import re
from typing import Any

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from tests.promises.optimizers_table import INSTALLED, make

RATE, BEFORE, AFTER = 0.1, 3, 2
PARAMS = {
    "stem": {"kernel": jnp.linspace(-1, 1, 6).reshape(3, 2), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.linspace(1, 2, 2)},
}


@jax.grad
def gradients(params: Any) -> Any:
    return sum(jnp.sum(jnp.cos(leaf + 1)) for leaf in jax.tree.leaves(params))


def trained(tx: Any, tree: Any, steps: int) -> Any:
    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(gradients(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        tree = step(*tree)
    return tree


def begun(tx: Any) -> Any:
    return PARAMS, tx.init(PARAMS)


def from_then_on(value: float) -> Any:
    """A schedule that is 1 up to the move, and another value after it."""
    return lambda step: jnp.where(step < BEFORE, 1.0, value)


def constant(step: Any) -> Any:
    return RATE + 0 * step


def chain(table: Any, rate: Any = RATE) -> Any:
    rates = optax.scale_by_learning_rate(rate)
    return optax.chain(
        optax.scale_by_adam(), olm.scale_by_name_multiplier(table), rates
    )


def injected(rate: Any) -> Any:
    """The betas are no hyperparameters: as arrays of float32 they are others."""
    return optax.inject_hyperparams(lambda learning_rate: olm.adam(learning_rate))(rate)


def partition(table: Any) -> Any:
    split = getattr(optax, "partition", optax.multi_transform)
    return split({n: optax.adam(RATE) for n in "abc"}, olm.by_name(table))


FROZEN = {"stem/kernel": 0}
ADAM = functools.partial(olm.adam, RATE)
# Pairs of optimizers that do the same up to the move.
MOVES: dict[str, tuple[Any, Any]] = {
    "into a chain with a member more": (ADAM(), chain({"stem": 1})),
    "out of it": (chain({"stem": from_then_on(0.5)}), ADAM()),
    "into a schedule that unfreezes": (
        ADAM(multipliers={"stem": 0}),
        chain({"stem": olm.recipes.unfreeze_at(BEFORE + 1)}),
    ),
    "into two schedules": (
        ADAM(),
        chain({"stem": from_then_on(0.5)}, lambda n: RATE * from_then_on(0.2)(n)),
    ),
    "from two schedules into one": (
        chain({"stem": from_then_on(0.5)}, lambda n: RATE * from_then_on(0.2)(n)),
        olm.adam(lambda n: RATE * from_then_on(0.3)(n)),
    ),
    "into mask_frozen": (
        ADAM(multipliers=FROZEN),
        ADAM(multipliers=FROZEN, mask_frozen=True),
    ),
    "into optax.masked with a prefix": (
        ADAM(multipliers={"stem": 0}),
        olm.with_name_multipliers(
            optax.masked(optax.adam(RATE), {"stem": False, "head": True}), {"stem": 0}
        ),
    ),
    "into inject_hyperparams": (ADAM(), injected(RATE)),
    "out of inject_hyperparams": (injected(RATE), ADAM()),
    "into a schedule that is injected": (
        injected(RATE),
        injected(lambda n: RATE * from_then_on(0.2)(n)),
    ),
    "into optax.partition": (ADAM(), partition({"stem": "a", "": "b"})),
    "out of optax.partition": (partition({"stem": "a", "": "b"}), ADAM()),
    "to other groups": (
        partition({"stem": "a", "": "b"}),
        partition({"kernel": "b", "": "c"}),
    ),
    "with decay and a clip around": (
        optax.adamw(RATE, weight_decay=0.1),
        optax.chain(
            optax.clip_by_global_norm(1e9),
            olm.adamw(RATE, weight_decay={"": 0.1}, b2={"stem": 0.999}),
        ),
    ),
    "into a chain with names, of another optimizer": (
        optax.chain(optax.scale_by_lion(), optax.scale(-RATE)),
        optax.named_chain(
            ("lion", optax.scale_by_lion()),
            ("table", olm.scale_by_name_multiplier({"stem": 1})),
            ("rate", optax.scale(-RATE)),
        ),
    ),
}


@pytest.mark.parametrize(("old", "new"), MOVES.values(), ids=MOVES)
def test_training_goes_on_as_if_the_optimizer_had_always_been_the_new_one(
    old: Any, new: Any
) -> None:
    params, state = trained(old, begun(old), BEFORE)
    state = olm.move_state(state, new.init(PARAMS))
    found = trained(new, (params, state), AFTER)
    expected = trained(new, begun(new), BEFORE + AFTER)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-7)


def stirred(state: Any) -> Any:
    """As after training: each leaf has a value that no other leaf has."""
    leaves, treedef = jax.tree.flatten(state)
    new = [
        x if is_key(x) else x + jnp.asarray(n, x.dtype) for n, x in enumerate(leaves, 1)
    ]
    return jax.tree.unflatten(treedef, new)


@pytest.mark.parametrize("name", INSTALLED)
def test_any_state_moves_to_itself(name: str) -> None:
    like = make(name).init(PARAMS)
    state = stirred(like)
    chex.assert_trees_all_equal(olm.move_state(state, like), state)


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype == bool


def test_numbers_are_the_new_optimizers_and_hyperparameters_the_states() -> None:
    rate = injected(0.1).init(PARAMS)
    rate.hyperparams["learning_rate"] = jnp.asarray(0.02)
    assert olm.move_state(rate, injected(0.3).init(PARAMS)).hyperparams == {
        "learning_rate": 0.02
    }
    fresh = olm.move_state(ADAM().init(PARAMS), injected(0.3).init(PARAMS))
    assert fresh.hyperparams["learning_rate"] == np.float32(0.3)


def test_moments_take_the_dtype_of_the_new_state_also_under_jit() -> None:
    state = stirred(ADAM().init(PARAMS))
    like = ADAM(mu_dtype="bfloat16").init(PARAMS)
    moved = jax.jit(olm.move_state)(state, like)
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, like)
    bfloat16 = jax.tree.map(lambda mu: mu.astype("bfloat16"), state[0].mu)
    chex.assert_trees_all_equal(moved[0].mu, bfloat16)


def test_what_mask_frozen_hid_begins_with_large_steps_unless_they_are_corrected() -> (
    None
):
    """What the docstring says, of a gradient that stays the same."""
    before, after = 10_000, 100

    def correction(step: Any) -> Any:
        k = step - before + 1
        return (1 - 0.999**k) ** 0.5 / (1 - 0.9**k)

    def steps_of_stem(table: Any) -> Any:
        old = ADAM(multipliers={"stem": 0}, mask_frozen=True)
        state = optax.tree_utils.tree_set(old.init(PARAMS), count=jnp.asarray(before))
        tx = ADAM(multipliers=table)

        def step(state: Any, _: Any) -> Any:
            updates, state = tx.update(PARAMS, state)
            return state, -updates["stem"]["bias"][0] / RATE

        moved = olm.move_state(state, tx.init(PARAMS))
        return jax.lax.scan(step, moved, length=after)[1]

    large = steps_of_stem({})
    assert large[0] == pytest.approx(3.16, abs=0.01)
    assert max(large) == pytest.approx(6.5, abs=0.1)
    # As Adam's are from its first step on.
    corrected = steps_of_stem({"stem": correction})
    np.testing.assert_allclose(corrected, 1, rtol=1e-3)


STATE = stirred(ADAM().init(PARAMS))
SGD = optax.sgd(RATE, momentum=0.9).init(PARAMS)
OTHER = {"stem": PARAMS["stem"], "hand": PARAMS["head"]}
WIDER = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
MISFITS: dict[str, tuple[Any, Any, str]] = {
    "another optimizer": (
        STATE,
        optax.lion(RATE).init(PARAMS),
        "of ScaleByAdamState.mu at 'head/kernel', the old state has 1 and the new one "
        "0. Nearest: ScaleByLionState.mu at 'head/kernel'. Moments of other parameters",
    ),
    "other parameters": (
        STATE,
        ADAM().init(OTHER),
        "Nearest: ScaleByAdamState.mu at 'hand/kernel'.",
    ),
    "other shapes": (
        STATE,
        ADAM().init(WIDER),
        "ScaleByAdamState.mu at 'head/kernel' of the old state must be of the shape "
        "(2, 2), as in the new one, not (2,)",
    ),
    "a part that is new": (
        STATE,
        optax.chain(optax.trace(0.9), ADAM()).init(PARAMS),
        "of TraceState.trace at 'head/kernel', the old state has 0 and the new one 1.",
    ),
    "one of two parts": (
        (SGD, SGD),
        SGD,
        "of TraceState.trace at 'head/kernel', the old state has 2 and the new one 1. "
        "Moments of other",
    ),
    "no count of steps": (
        SGD,
        optax.sgd(constant, momentum=0.9).init(PARAMS),
        "ScaleByScheduleState.count of the new state is the number of steps taken",
    ),
    "a checkpoint without classes": (
        flax.serialization.to_state_dict(STATE),
        ADAM().init(PARAMS),
        "of '0/count', the old state has 1 and the new one 0. The old state must be",
    ),
    "a packed state": (
        olm.packed(optax.adam(RATE)).init(PARAMS),
        ADAM().init(PARAMS),
        "give it unpacked_state(...) of both",
    ),
}


@pytest.mark.parametrize(("state", "like", "text"), MISFITS.values(), ids=MISFITS)
def test_what_has_no_place_is_told(state: Any, like: Any, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        olm.move_state(state, like)


def test_steps_that_are_not_counted_are_given_beside_the_state() -> None:
    """As the error says."""
    like = optax.sgd(constant, momentum=0.9).init(PARAMS)
    counted = (stirred(SGD), optax.ScaleByScheduleState(count=7))
    moved = olm.move_state(counted, like)
    assert optax.tree_utils.tree_get(moved, "count") == 7
    chex.assert_trees_all_equal(moved[0], counted[0][0])


def test_a_packed_state_moves_unpacked() -> None:
    old = olm.packed(optax.adam(RATE))
    new = optax.chain(
        olm.packed(optax.scale_by_adam()),
        olm.scale_by_name_multiplier({"stem": from_then_on(0.5)}),
        optax.scale_by_learning_rate(RATE),
    )
    params, state = trained(old, begun(old), BEFORE)
    like = new.init(PARAMS)
    both = (olm.unpacked_state(packed, PARAMS) for packed in (state, like))
    state = olm.packed_state(olm.move_state(*both), PARAMS, like=like)
    found = trained(new, (params, state), AFTER)
    expected = trained(new, begun(new), BEFORE + AFTER)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_state_moves_into_a_wrapper_that_has_its_own() -> None:
    like = optax.MultiSteps(ADAM(), 2).init(PARAMS)
    with pytest.raises(ValueError, match=r"MultiStepsState\.mini_step, the old state"):
        olm.move_state(STATE, like)
    inner = olm.move_state(STATE, like.inner_opt_state)
    chex.assert_trees_all_equal(like._replace(inner_opt_state=inner)[2], STATE)
