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
from tests.promises.thaw import is_hidden, masked_adam, taken_over

PARAMS = {
    "stem": {"kernel": jnp.linspace(-1, 1, 12).reshape(4, 3), "bias": jnp.ones(3)},
    "head": {"kernel": jnp.linspace(-2, 1, 6).reshape(3, 2)},
}
TABLE = {"stem/kernel": 0, "bias": 0.5}
OPTIMIZERS: dict[str, Any] = {
    "adam": lambda **kwargs: olm.adam(1e-2, **kwargs),
    "amsgrad": lambda **kwargs: olm.adam(1e-2, amsgrad=True, **kwargs),
    "adamw": lambda **kwargs: olm.adamw(1e-2, weight_decay=0.1, **kwargs),
    "adam_lr_mult": lambda **kwargs: olm.keras.adam_lr_mult(1e-2, **kwargs),
    "wrapper": lambda multipliers, **kwargs: olm.with_name_multipliers(
        optax.lion(1e-2), multipliers, **kwargs
    ),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def trained(tx: Any, steps: int = 3) -> tuple[Any, Any]:
    params, state = PARAMS, tx.init(PARAMS)
    for step in range(steps):
        gradients = jax.tree.map(lambda p, n=step: jnp.cos(p + n), params)
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@every_optimizer
def test_parameters_go_the_same_way(make: Any) -> None:
    masked, _ = trained(make(multipliers=TABLE, mask_frozen=True))
    plain, _ = trained(make(multipliers=TABLE))
    chex.assert_trees_all_equal(masked, plain)
    np.testing.assert_array_equal(masked["stem"]["kernel"], PARAMS["stem"]["kernel"])


@every_optimizer
def test_frozen_parameters_have_no_moments(make: Any) -> None:
    state = make(multipliers=TABLE, mask_frozen=True).init(PARAMS)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state)}
    assert shapes == {(), (3,), (3, 2)}
    assert type(state).__name__ == "MaskedState"
    plain = make(multipliers=TABLE).init(PARAMS)
    assert (4, 3) in {leaf.shape for leaf in jax.tree.leaves(plain)}


def test_the_state_is_that_of_the_mask() -> None:
    ours = olm.adam(1e-2, multipliers=TABLE, mask_frozen=True).init(PARAMS)
    by_hand = optax.masked(optax.adam(1e-2), olm.trainable(TABLE)).init(PARAMS)
    chex.assert_trees_all_equal_structs(ours, by_hand)


def test_a_gradient_that_is_not_finite_stops_at_a_frozen_parameter() -> None:
    tx = olm.adam(1e-2, multipliers={"stem": 0}, mask_frozen=True)
    bad = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), PARAMS)
    updates, state = tx.update(bad, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["stem"]["kernel"], 0)
    assert np.isnan(updates["head"]["kernel"]).all()
    chex.assert_tree_all_finite(tx.init(PARAMS))
    assert len(jax.tree.leaves(state)) == 3


def test_a_schedule_is_no_static_zero_and_finds_its_step() -> None:
    table = {"stem": 0, "head": olm.recipes.unfreeze_at(2)}
    tx = olm.adam(1e-2, multipliers=table, mask_frozen=True)
    first, _ = trained(tx, 2)
    np.testing.assert_array_equal(first["head"]["kernel"], PARAMS["head"]["kernel"])
    third, _ = trained(tx, 3)
    assert (third["head"]["kernel"] != PARAMS["head"]["kernel"]).all()


def test_labels_and_a_decay_mask_go_through() -> None:
    labels = {"stem": {"kernel": "a", "bias": "b"}, "head": {"kernel": "c"}}
    options = {"multipliers": {"a": 0}, "param_labels": labels}
    mask = jax.tree.map(lambda p: p.ndim > 1, PARAMS)
    masked = olm.adamw(1e-2, 0.9, 0.99, mask=mask, mask_frozen=True, **options)
    plain = olm.adamw(1e-2, 0.9, 0.99, mask=mask, **options)
    chex.assert_trees_all_equal(trained(masked)[0], trained(plain)[0])


def test_a_dead_rule_is_told() -> None:
    tx = olm.adam(1e-2, multipliers={"stm": 0}, mask_frozen=True)
    with pytest.raises(ValueError, match="Nearest: 'stem'"):
        tx.init(PARAMS)


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
    moved = jax.tree.map(lambda u: bool(u.any()), updates)
    kernels = jax.tree.map(lambda name: "kernel" in name, olm.path_labels(params))
    assert [not m for m in jax.tree.leaves(moved)] == jax.tree.leaves(kernels)


BLOCKS, WIDTH = 10, 16


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
    layers, trained_blocks = BLOCKS + 1, 3
    stem = olm.recipes.freeze(*[f"block_{i}/" for i in range(BLOCKS - trained_blocks)])
    trains = trained_blocks + 1
    assert products_in_a_step({}) == layers + layers + layers - 1
    masked = products_in_a_step(stem, mask_frozen=True)
    assert masked == layers + trains + trains - 1
    # With moments for what is frozen, its gradients are computed all the same.
    assert products_in_a_step(stem) == layers + layers + layers - 1


def test_state_and_traffic_shrink_with_what_is_frozen() -> None:
    """On ten blocks of which nine are frozen, and nothing is allocated."""
    params = leaves(100, 1000)
    stem = olm.recipes.freeze(*[f"block_{index}/" for index in range(9)])
    _, plain = compiled_step(optax.adam(1e-3), params)
    ours_tx = olm.adam(1e-3, multipliers=stem, mask_frozen=True)
    _, ours = compiled_step(ours_tx, params)
    assert ours.bytes_accessed is not None
    assert plain.bytes_accessed is not None
    assert ours.state_bytes / plain.state_bytes < 0.15
    assert ours.bytes_accessed / plain.bytes_accessed < 0.2


@pytest.mark.parametrize("pack", [False, True])
def test_moments_go_on_where_others_are_frozen(pack: bool) -> None:
    """The README's way from one set of frozen parameters to another."""
    params = {name: jnp.full((2, 2), float(n)) for n, name in enumerate("abcd", 1)}

    old, new = (masked_adam(1e-2, frozen, pack=pack) for frozen in "ab")
    _, state = old.update(params, old.init(params), params)
    fresh = new.init(params)
    if pack:
        state = olm.unpacked_state(state, params)
        fresh = olm.unpacked_state(fresh, params)
    state = taken_over(fresh, state)
    if pack:
        state = olm.packed_state(state, params, like=new.init(params))
    updates, state = new.update(params, state, params)
    if pack:
        state = olm.unpacked_state(state, params)
    moments, twice = state.inner_state[0], (0.9 * 0.1 + 0.1) * params["c"]
    np.testing.assert_allclose(moments.mu["c"], twice, rtol=1e-6)
    np.testing.assert_allclose(moments.mu["a"], 0.1 * params["a"], rtol=1e-6)
    assert is_hidden(moments.mu["b"])
    assert moments.count == 2
    assert not updates["b"].any()
    assert updates["a"].all()


def test_an_error_of_the_optimizers_own_stays_as_it_is() -> None:
    tx = olm.with_name_multipliers(optax.adamw(1e-3), {"a": 0.5})
    params = {"a": jnp.ones(2)}
    with pytest.raises(ValueError, match="params"):
        tx.update(params, tx.init(params))
