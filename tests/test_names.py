"""Names of leaves: containers, boxes, labels of one's own, collisions."""

import collections
import re
from typing import Any

import flax.core
import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import optax_lrmult as olm
from optax_lrmult import _names
from optax_lrmult._names import check_alike, names_of, natural_order


def boxed(value: Any) -> Any:
    """What `nnx.state` holds; the nnx.Variable itself is no pytree in flax < 0.11."""
    param = nnx.Param(value)
    if jax.tree_util.all_leaves([param]):
        return nnx.VariableState(nnx.Param, value)
    return param


Pair = collections.namedtuple("Pair", ["first", "second"])


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"a": {"b": 1.0}, "c": 2.0}, ["a/b", "c"]),
        ([1.0, (2.0, 3.0)], ["0", "1/0", "1/1"]),
        (Pair(1.0, {"x": 2.0}), ["first", "second/x"]),
        ({10: 1.0, 2: 1.0}, ["2", "10"]),
        ({"encoder/~/linear_0": {"w": 1.0}}, ["encoder/~/linear_0/w"]),
        (jnp.ones(2), [""]),
        ({"a": None, "b": {}, "c": 1.0}, ["c"]),
        ({}, []),
        (flax.core.freeze({"a": {"b": 1.0}}), ["a/b"]),
        (nn.Partitioned(1.0, ()), [""]),
        ({"k": boxed(jnp.ones(2)), "b": jnp.ones(2)}, ["b", "k"]),
        ({"k": nn.Partitioned({"value": 1.0}, ())}, ["k/value"]),
        ({"k": {"value": 1.0}}, ["k/value"]),
    ],
)
def test_the_name_is_the_key_path_without_boxes(tree: Any, names: list[str]) -> None:
    assert names_of(tree) == names
    labels = olm.path_labels(tree)
    assert jax.tree.leaves(labels) == names
    assert jax.tree.structure(labels) == jax.tree.structure(tree)


def test_a_box_in_a_box_is_left_out_too() -> None:
    assert names_of({"k": boxed(nn.Partitioned(1.0, ()))}) == ["k"]


def test_two_leaves_of_one_name_are_an_error_that_shows_both_paths() -> None:
    tree = {"a/b": 1.0, "a": {"b": 2.0, "c": 3.0}, "A": 0.0, "z": [0.0, 0.0]}
    with pytest.raises(ValueError, match=r"'a/b': \['a'\]\['b'\] and \['a/b'\]"):
        olm.path_labels(tree)
    with pytest.raises(ValueError, match="param_labels="):
        olm.adam(1e-3, multipliers={"a": 1}).init(tree)
    labels = {"a/b": "x", "a": {"b": "y", "c": "c"}, "A": "A", "z": "z"}
    assert names_of(tree, labels) == ["A", "y", "c", "x", "z", "z"]


class TestLabels:
    TREE = {"enc": {"w": 1.0, "b": 2.0}, "head": 3.0}

    @pytest.mark.parametrize(
        "labels",
        [
            {"enc": {"w": "W", "b": "B"}, "head": "H"},
            {"enc": {"w": "W", "b": "B"}, "head": "H", "more": "M"},
            flax.core.freeze({"enc": {"w": "W", "b": "B"}, "head": "H"}),
            lambda tree: {"enc": {"w": "W", "b": "B"}, "head": "H"},
            lambda tree: jax.tree.map_with_path(
                lambda path, _: path[-1].key[0].upper(), tree
            ),
        ],
    )
    def test_may_be_a_tree_or_a_function(self, labels: Any) -> None:
        assert names_of(self.TREE, labels) == ["B", "W", "H"]

    def test_may_be_a_prefix_of_the_tree(self) -> None:
        assert names_of(self.TREE, {"enc": "E", "head": "H"}) == ["E", "E", "H"]
        assert names_of(self.TREE, "all") == ["all"] * 3
        deep = {"a": {"b": {"c": [1.0]}}}
        assert names_of(deep, {"a": {"b": "B"}}) == ["B"]

    def test_may_be_the_default_by_name(self) -> None:
        assert names_of(self.TREE, olm.path_labels) == names_of(self.TREE)

    def test_need_a_label_for_each_leaf(self) -> None:
        with pytest.raises(ValueError, match="no label for the parameter 'head'"):
            names_of(self.TREE, {"enc": "E"})

    def test_must_be_strings(self) -> None:
        with pytest.raises(TypeError, match=r"label of the parameter 'head'.* 3 "):
            names_of(self.TREE, lambda tree: {"enc": "E", "head": 3})

    def test_function_sees_the_tree_without_boxes(self) -> None:
        seen = []
        tree = {"k": boxed(jnp.ones(2)), "p": nn.Partitioned(jnp.ones(2), ())}
        names_of(tree, lambda t: seen.append(t) or olm.path_labels(t))
        assert [type(leaf) for leaf in seen[0].values()] == [type(jnp.ones(2))] * 2


trees = st.recursive(
    st.just(0.0),
    lambda t: (
        st.lists(t, max_size=3)
        | st.tuples(t, t)
        | st.dictionaries(st.text("ab_1", min_size=1, max_size=3), t, max_size=3)
        | st.dictionaries(st.integers(0, 12), t, max_size=3)
        | st.builds(Pair, t, t)
        | st.builds(lambda x: nn.Partitioned(x, ()), t)
    ),
    max_leaves=12,
)


def names_by_hand(tree: Any) -> list[str]:
    if isinstance(tree, nn.Partitioned):
        return names_by_hand(tree.value)
    if isinstance(tree, Pair):
        children = list(tree._asdict().items())
    elif isinstance(tree, dict):
        children = [(key, tree[key]) for key in sorted(tree)]
    elif isinstance(tree, list | tuple):
        children = list(enumerate(tree))
    else:
        return [""]
    return [
        f"{key}/{rest}" if rest else str(key)
        for key, child in children
        for rest in names_by_hand(child)
    ]


@hypothesis.given(trees)
def test_names_are_those_found_by_hand(tree: Any) -> None:
    assert names_of(tree) == names_by_hand(tree)


def test_numbers_in_names_are_sorted_as_numbers() -> None:
    names = ["head", "block_10/w", "block_10/a", "block_9", "block_2/w", "10", "2"]
    assert sorted(names, key=natural_order) == names[::-1]


def test_keys_that_cannot_be_sorted_are_told_where_they_are() -> None:
    with pytest.raises(ValueError, match=r"no pytree.*\[1, 'b'\] are not"):
        olm.path_labels({"a": [2.0, {1: 1.0, "b": 2.0}]})


@pytest.mark.parametrize(
    ("updates", "params", "text"),
    [
        ({"a": (2,)}, {"a": (3,)}, "(2,) in the updates and (3,) in params"),
        ({"a": (3,)}, {"a": (2,)}, "(3,) in the updates and (2,) in params"),
        ({}, {"a": (2,)}, "not there in the updates and (2,) in params"),
        ({"a": (2,)}, {}, "(2,) in the updates and not there in params"),
    ],
)
def test_updates_unlike_params_are_told_where(
    updates: Any, params: Any, text: str
) -> None:
    def arrays(shapes: Any) -> Any:
        return {name: np.ones(shape) for name, shape in shapes.items()} | {"z": 1.0}

    with pytest.raises(ValueError, match=f"differ in 'a': .* {re.escape(text)}"):
        check_alike(arrays(updates), arrays(params))
    check_alike(arrays(updates), arrays(updates))


def test_updates_like_params_in_another_container() -> None:
    check_alike([np.ones(2)], (np.ones(2),))


@pytest.mark.parametrize("error", [RecursionError, SystemError])  # By the JAX release.
def test_a_tree_that_is_too_deep_for_jax(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(_names, "tree_flatten_with_path", fails)
    with pytest.raises(ValueError, match="nested too deeply"):
        names_of({"a": 1.0})
