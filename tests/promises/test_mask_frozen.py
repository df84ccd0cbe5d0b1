"""Frozen parameters without moments: what it changes, and what it saves."""

import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import optax_lrmult as olm
from tests.benchmarks.measure import compiled_step
from tests.benchmarks.trees import leaves

PARAMS = {
    "stem": {"kernel": jnp.linspace(-1, 1, 12).reshape(4, 3), "bias": jnp.ones(3)},
    "head": {"kernel": jnp.linspace(-2, 1, 6).reshape(3, 2)},
}
TABLE = {"stem/kernel": 0, "bias": 0.5}
LABELS = {"stem": {"kernel": "a", "bias": "b"}, "head": {"kernel": "c"}}
BY_NAME: Any = {"b2": {"stem": 0.9}, "weight_decay": {"kernel": 0.1, "": 0}}
# Of other optimizers laws.py says that what is not frozen goes on as it would.
OPTIMIZERS: dict[str, Any] = {
    "adamw": lambda **more: olm.adamw(1e-2, multipliers=TABLE, **BY_NAME, **more),
    "adamw with labels and a mask": lambda **more: olm.adamw(
        1e-2,
        mask=jax.tree.map(lambda p: p.ndim > 1, PARAMS),
        multipliers={"a": 0, "b": 0.5},
        param_labels=LABELS,
        **more,
    ),
    "the original": lambda **more: olm.keras.adam_lr_mult(
        1e-2, multipliers=TABLE, **more
    ),
}


def trained(tx: Any, steps: int) -> tuple[Any, Any]:
    params, state = PARAMS, tx.init(PARAMS)
    with jax.disable_jit():
        for step in range(steps):
            gradients = jax.tree.map(lambda p, n=step: jnp.cos(p + n), params)
            updates, state = tx.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_parameters_go_the_same_way_without_moments(make: Any) -> None:
    params, state = trained(make(mask_frozen=True), steps=3)
    plain, plain_state = trained(make(), steps=3)
    chex.assert_trees_all_equal(params, plain)
    np.testing.assert_array_equal(params["stem"]["kernel"], PARAMS["stem"]["kernel"])
    assert {jnp.shape(leaf) for leaf in jax.tree.leaves(state)} == {(), (3,), (3, 2)}
    assert (4, 3) in {jnp.shape(leaf) for leaf in jax.tree.leaves(plain_state)}


def test_a_gradient_that_is_not_finite_stops_at_a_frozen_parameter() -> None:
    tx = olm.adam(1e-2, multipliers={"stem": 0}, mask_frozen=True)
    bad = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), PARAMS)
    updates, state = tx.update(bad, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["stem"]["kernel"], 0)
    assert np.isnan(updates["head"]["kernel"]).all()
    assert len(jax.tree.leaves(state)) == 3


def test_a_schedule_is_no_static_zero_and_finds_its_step() -> None:
    table = {"stem": 0, "head": olm.recipes.unfreeze_at(2)}
    tx = olm.adam(1e-2, multipliers=table, mask_frozen=True)
    params, kernel = PARAMS, PARAMS["head"]["kernel"]
    params, _ = trained(tx, 2)
    np.testing.assert_array_equal(params["head"]["kernel"], kernel)
    params, _ = trained(tx, 3)
    assert (params["head"]["kernel"] != kernel).all()


def test_in_a_train_state_and_in_nnx() -> None:
    tx = olm.adam(1e-2, multipliers={"kernel": 0}, mask_frozen=True)
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
    state = jax.jit(lambda s: s.apply_gradients(grads=s.params))(state)
    np.testing.assert_array_equal(
        state.params["stem"]["kernel"], PARAMS["stem"]["kernel"]
    )
    params = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Param)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    moved = [bool(jnp.any(u)) for u in jax.tree.leaves(updates)]
    assert moved == [
        "kernel" not in n for n in jax.tree.leaves(olm.path_labels(params))
    ]


BLOCKS, WIDTH = 5, 8


def forward(params: Any, x: jax.Array) -> jax.Array:
    for index in range(BLOCKS):
        x = jnp.tanh(x @ params[f"block_{index}"]["kernel"])
    return x @ params["head"]["kernel"]


def products_in_a_step(table: Any, **options: Any) -> int:
    """Matrix products in the compiled text of a whole training step."""
    kernel = {"kernel": jnp.ones((WIDTH, WIDTH))}
    params = {f"block_{index}": kernel for index in range(BLOCKS)} | {"head": kernel}
    tx = olm.adam(1e-3, multipliers=table, **options)

    def step(params: Any, state: Any, x: jax.Array) -> Any:
        gradients = jax.grad(lambda p: (forward(p, x) ** 2).sum())(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    arguments = params, tx.init(params), jnp.ones((3, WIDTH))
    text = jax.jit(step).lower(*arguments).compile().as_text()
    return len(re.findall(r"= \S+ (?:dot|custom-call)\(", text))


def test_the_backward_work_of_a_frozen_stem_is_gone() -> None:
    """Forward: one product a layer. Backward: one for its kernel, one for its input."""
    layers, trained_blocks = BLOCKS + 1, 2
    stem = olm.recipes.freeze(*[f"block_{i}/" for i in range(BLOCKS - trained_blocks)])
    trains = trained_blocks + 1
    assert products_in_a_step({}) == layers + layers + layers - 1
    masked = products_in_a_step(stem, mask_frozen=True)
    assert masked == layers + trains + trains - 1
    # With moments for what is frozen, its gradients are computed all the same.
    assert products_in_a_step(stem) == layers + layers + layers - 1


def test_state_and_traffic_shrink_with_what_is_frozen() -> None:
    """Of two blocks one is frozen; nothing is allocated."""
    params = leaves(20, 1000)
    _, plain = compiled_step(optax.adam(1e-3), params)
    frozen = olm.adam(1e-3, multipliers={"block_0/": 0}, mask_frozen=True)
    _, ours = compiled_step(frozen, params)
    assert ours.bytes_accessed is not None
    assert plain.bytes_accessed is not None
    assert ours.state_bytes / plain.state_bytes == pytest.approx(0.5, abs=0.01)
    assert ours.bytes_accessed / plain.bytes_accessed < 0.6


def is_hidden(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def taken_over(new: optax.OptState, old: optax.OptState) -> optax.OptState:
    """The moments of the old state, where both states have them."""
    return jax.tree.map(
        lambda new, old: new if is_hidden(new) or is_hidden(old) else old,
        new,
        old,
        is_leaf=is_hidden,
    )


@pytest.mark.parametrize("pack", [False, True])
def test_moments_can_go_on_where_others_are_frozen(pack: bool) -> None:
    params = {name: jnp.full((2, 2), float(n)) for n, name in enumerate("abcd", 1)}
    adam = olm.packed(optax.adam(1e-2)) if pack else optax.adam(1e-2)
    old, new = (
        olm.with_name_multipliers(adam, {frozen: 0}, mask_frozen=True)
        for frozen in "ab"
    )
    _, state = old.update(params, old.init(params), params)
    first = new.init(params)
    if pack:
        unpacked = (olm.unpacked_state(s, params) for s in (first, state))
        state = olm.packed_state(taken_over(*unpacked), params, like=first)
    else:
        state = taken_over(first, state)
    updates, state = new.update(params, state, params)
    state = olm.unpacked_state(state, params) if pack else state
    moments, twice = state.inner_state[0], (0.9 * 0.1 + 0.1) * params["c"]
    np.testing.assert_allclose(moments.mu["c"], twice, rtol=1e-6)
    np.testing.assert_allclose(moments.mu["a"], 0.1 * params["a"], rtol=1e-6)
    assert is_hidden(moments.mu["b"])
    assert moments.count == 2
    assert not updates["b"].any()
    assert updates["a"].all()
