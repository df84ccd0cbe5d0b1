"""An eager step reads names and rules once for each structure of the tree."""

import copy
import dataclasses
import functools
import pickle
from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm


class Counted:
    """A label function that knows how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, params: Any) -> Any:
        self.calls += 1
        return olm.path_labels(params)


def tree(*names: str, shape: tuple[int, ...] = (2,)) -> dict[str, jax.Array]:
    return {name: jnp.ones(shape) for name in names}


@pytest.fixture
def labels() -> Counted:
    return Counted()


READERS: dict[str, tuple[Any, float]] = {
    "multipliers": (
        functools.partial(olm.scale_by_name_multiplier, {"stem": 0.1}),
        0.1,
    ),
    "decay": (
        functools.partial(olm.add_decayed_weights_by_name, 0.1, {"head": 0}),
        1.1,
    ),
    "constraints": (
        functools.partial(olm.constrain_by_name, {"stem": lambda w: w / 2}),
        0.0,
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_names_are_read_once_for_a_structure(name: str, labels: Counted) -> None:
    make, expected = READERS[name]
    tx = make(param_labels=labels)
    params = tree("stem", "head")
    state = tx.init(params)
    before, updates = labels.calls, params
    for _ in range(5):
        updates, state = tx.update(tree("stem", "head"), state, params)
    np.testing.assert_allclose(updates["stem"], expected)
    assert labels.calls == before + 1


def test_another_structure_shape_or_dtype_is_read_anew(labels: Counted) -> None:
    rules = {"stem": olm.per_layer([0.5, 2]), "tail": 3}
    tx = olm.scale_by_name_multiplier(rules, param_labels=labels)
    state, calls = tx.init(tree("stem", "tail")), labels.calls
    np.testing.assert_array_equal(tx.update(tree("stem"), state)[0]["stem"], [0.5, 2])
    np.testing.assert_array_equal(tx.update(tree("tail"), state)[0]["tail"], 3)
    tx.update(jax.tree.map(jnp.float16, tree("stem")), state)
    assert labels.calls == calls + 3
    with pytest.raises(ValueError, match="has 3 of them"):
        tx.update(tree("stem", shape=(3,)), state)


def test_injected_and_scheduled_multipliers_are_read_anew(labels: Counted) -> None:
    rules = {"stem": 0.5, "tail": lambda step: 1.0 + step}
    tx = olm.scale_by_name_multiplier(rules, param_labels=labels, inject=True)
    state, seen = tx.init(tree("stem", "tail")), []
    calls = labels.calls
    for multiplier in 0.5, 0.25, 4.0:
        state = olm.set_multipliers(state, {"stem": multiplier})
        updates, state = tx.update(tree("stem", "tail"), state)
        seen.append((float(updates["stem"][0]), float(updates["tail"][0])))
    assert seen == [(0.5, 1), (0.25, 2), (4, 3)]
    assert labels.calls == calls + 1


def test_what_a_function_returns_within_a_trace_is_not_kept() -> None:
    """A kept tracer would leak into the next trace, and be the wrong one."""
    now: list[Any] = []
    tx = olm.scale_by_name_multiplier(lambda name: now[-1])
    state = tx.init({})

    @jax.jit
    def scaled(multiplier: Any) -> Any:
        now.append(multiplier)
        return tx.update(tree("stem"), state)[0]["stem"]

    np.testing.assert_allclose(scaled(0.5), 0.5)
    now.append(0.25)
    np.testing.assert_allclose(tx.update(tree("stem"), state)[0]["stem"], 0.25)
    with jax.checking_leaks():
        np.testing.assert_allclose(jax.jit(lambda m: scaled(m))(0.75), 0.75)


def test_what_a_function_returns_is_kept_where_it_is_no_tracer() -> None:
    asked: list[str] = []

    def of_layers(name: str) -> Any:
        asked.append(name)
        return olm.per_layer([0.5, 2])

    tx = olm.scale_by_name_multiplier(of_layers)
    for _ in range(2):
        updates, _ = tx.update(tree("a", "b"), optax.EmptyState())
        np.testing.assert_array_equal(updates["b"], [0.5, 2])
    assert asked == ["a", "b"]


def test_sixteen_structures_are_kept(labels: Counted) -> None:
    tx = olm.scale_by_name_multiplier({"": 2}, param_labels=labels)

    def calls(sizes: range) -> int:
        before = labels.calls
        for size in sizes:
            updates, _ = tx.update({"w": np.ones(size)}, optax.EmptyState())
            np.testing.assert_array_equal(updates["w"], 2)
        return labels.calls - before

    assert calls(range(16)) == 16
    assert calls(range(16)) == 0
    assert calls(range(16, 17)) == 1  # It takes the place of the oldest.
    assert calls(range(16)) == 16


@jax.tree_util.register_pytree_with_keys_class
class Unhashable:
    """A node whose structure has no hash, as of a class that keeps a list in it."""

    def __init__(self, stem: Any, extra: list[int]) -> None:
        self.stem, self.extra = stem, extra

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        return [(jax.tree_util.GetAttrKey("stem"), self.stem)], self.extra

    @classmethod
    def tree_unflatten(cls, extra: Any, children: Any) -> "Unhashable":
        return cls(*children, extra)


def test_a_structure_without_a_hash_works() -> None:
    tx = olm.scale_by_name_multiplier({"stem": 0.5})
    params = Unhashable(jnp.ones(2), [1])
    for _ in range(2):
        updates, _ = tx.update(params, tx.init(params))
        np.testing.assert_array_equal(updates.stem, 0.5)


@pytest.fixture(
    params=[copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def duplicate(request: pytest.FixtureRequest) -> Iterator[Any]:
    return request.param


def test_copies_are_equal_and_work(duplicate: Any) -> None:
    tx = olm.scale_by_name_multiplier({"stem": 0.5}, on_unmatched="ignore")
    params = {"stem": (jnp.ones(2), [jnp.ones(3)])}
    expected = tx.update(params, tx.init(params))
    twin = duplicate(tx)
    assert twin == tx
    assert hash(twin.update.table) == hash(tx.update.table)
    chex.assert_trees_all_equal(twin.update(params, twin.init(params)), expected)


def test_a_table_is_a_value_that_does_not_show_what_was_seen() -> None:
    tx = olm.scale_by_name_multiplier({"stem": 0.5}, on_unmatched="ignore")
    table = tx.update.table
    before = repr(table)
    tx.update(tree("stem"), optax.EmptyState())
    assert repr(table) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.verbose = True
    with pytest.raises((TypeError, ValueError), match="_seen"):
        dataclasses.replace(table, _seen={})
