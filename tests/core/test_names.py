"""Names of leaves: containers, boxes, labels of one's own, collisions."""

import collections
from typing import Any

import flax.core
import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_lrmult as olm


def boxed(value: Any) -> Any:
    """What `nnx.state` holds; the nnx.Variable itself is no pytree in flax < 0.11."""
    param = nnx.Param(value)
    if jax.tree_util.all_leaves([param]):
        return nnx.VariableState(nnx.Param, value)
    return param


class NamedArray:
    """A node with one child and no key for it, such as Haliax's."""

    def __init__(self, array: Any) -> None:
        self.array = array


jax.tree_util.register_pytree_node(
    NamedArray,
    lambda node: ((node.array,), None),
    lambda _, inside: NamedArray(*inside),
)


class TwoArrays(NamedArray):
    pass


jax.tree_util.register_pytree_node(
    TwoArrays,
    lambda node: (tuple(node.array), None),
    lambda _, inside: TwoArrays(inside),
)


class WithKey(NamedArray):
    pass


jax.tree_util.register_pytree_with_keys(
    WithKey,
    lambda node: (((jax.tree_util.GetAttrKey("array"), node.array),), None),
    lambda _, inside: WithKey(*inside),
)
Pair = collections.namedtuple("Pair", ["first", "second"])


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"a": {"b": 1.0}, "c": 2.0}, ["a/b", "c"]),
        ([1.0, (2.0, 3.0)], ["0", "1/0", "1/1"]),
        ([1.0], ["0"]),
        (Pair(1.0, {"x": 2.0}), ["first", "second/x"]),
        ({10: 1.0, 2: 1.0}, ["2", "10"]),
        ({"encoder/~/linear_0": {"w": 1.0}}, ["encoder/~/linear_0/w"]),
        (jnp.ones(2), [""]),
        ({"a": None, "b": {}, "c": 1.0}, ["c"]),
        ({}, []),
        (flax.core.freeze({"a": {"b": 1.0}}), ["a/b"]),
        (nn.Partitioned(1.0, ()), [""]),
        ({"k": boxed(jnp.ones(2)), "b": jnp.ones(2)}, ["b", "k"]),
        ({"k": boxed(nn.Partitioned(1.0, ()))}, ["k"]),
        ({"k": nn.Partitioned({"value": 1.0}, ())}, ["k/value"]),
        ({"k": {"value": 1.0}}, ["k/value"]),
        ({"w": NamedArray(jnp.ones(2)), "v": [NamedArray(1.0)]}, ["v/0", "w"]),
        ({"w": NamedArray({"a": NamedArray(1.0)}), "v": (1.0,)}, ["v/0", "w/a"]),
        ({"w": TwoArrays([1.0, 2.0])}, ["w/0", "w/1"]),
        ({"v": TwoArrays([1.0, None]), "w": TwoArrays([None, 1.0])}, ["v/0", "w/1"]),
        ({"w": WithKey(NamedArray(1.0))}, ["w/array"]),
    ],
)
def test_the_name_is_the_key_path_without_boxes(tree: Any, names: list[str]) -> None:
    labels = olm.path_labels(tree)
    assert jax.tree.leaves(labels) == names
    assert jax.tree.structure(labels) == jax.tree.structure(tree)


def test_two_leaves_of_one_name_are_an_error_that_shows_both_paths() -> None:
    tree = {"a/b": 1.0, "a": {"b": 2.0}, "z": [0.0, 0.0]}
    with pytest.raises(ValueError, match=r"'a/b'.*\('a', 'b'\) and \('a/b',\)"):
        olm.path_labels(tree)
    labels = {"a/b": "x", "a": {"b": "y"}, "z": "z"}
    rows = olm.assign(tree, None, param_labels=labels)
    assert [row.name for row in rows] == ["y", "x", "z", "z"]


class TestLabels:
    TREE = {"enc": {"w": 1.0, "b": 2.0}, "head": 3.0}

    def names(self, labels: Any, tree: Any = None) -> list[str]:
        tree = self.TREE if tree is None else tree
        return [row.name for row in olm.assign(tree, None, param_labels=labels)]

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
        assert self.names(labels) == ["B", "W", "H"]

    def test_may_be_a_prefix_of_the_tree(self) -> None:
        assert self.names({"enc": "E", "head": "H"}) == ["E", "E", "H"]
        assert self.names("all") == ["all"] * 3
        assert self.names({"a": "A"}, {"a": {"b": [1.0]}}) == ["A"]

    @pytest.mark.parametrize("labels", [{"enc": "E"}, {"enc": "E", "head": 3}])
    def test_are_a_string_for_each_leaf(self, labels: Any) -> None:
        with pytest.raises(ValueError, match="for 'head', a str"):
            self.names(labels)

    def test_function_sees_the_tree_without_boxes_and_a_scalar_for_what_is_hidden(
        self,
    ) -> None:
        seen: list[Any] = []
        tree = {"k": boxed(jnp.ones(2)), "m": optax.MaskedNode()}
        self.names(lambda t: seen.append(t) or olm.path_labels(t), tree)
        assert jax.tree.map(np.shape, seen[0]) == {"k": (2,), "m": ()}
        assert isinstance(seen[0]["k"], jax.Array)


trees = st.recursive(
    st.just(0.0),
    lambda t: (
        st.lists(t, max_size=3)
        | st.tuples(t, t)
        | st.dictionaries(st.text("ab_1", min_size=1, max_size=3), t, max_size=3)
        | st.dictionaries(st.integers(0, 12), t, max_size=3)
        | st.builds(Pair, t, t)
        | st.builds(lambda x: nn.Partitioned(x, ()), t)
        | st.builds(NamedArray, t)
    ),
    max_leaves=12,
)


def names_by_hand(tree: Any) -> list[str]:
    if isinstance(tree, nn.Partitioned):
        return names_by_hand(tree.value)
    if isinstance(tree, NamedArray):
        return names_by_hand(tree.array)
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
    assert jax.tree.leaves(olm.path_labels(tree)) == names_by_hand(tree)
