"""A pytree's key paths as slash-joined names, the same in every framework."""

import functools
import operator
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import (
    DictKey,
    FlattenedIndexKey,
    GetAttrKey,
    SequenceKey,
    keystr,
    tree_flatten_with_path,
)

PyTree = Any
KeyPath = tuple[Any, ...]
ParamLabels = PyTree | Callable[[PyTree], PyTree] | None
"""A function from a pytree to a pytree of strings, such a pytree, or `None`."""

# A box is told by its type's name, so that no framework has to be imported.
_BOXES = {
    ("flax.core.meta", "AxisMetadata"),
    ("flax.nnx.variablelib", "Variable"),
    ("flax.nnx.variablelib", "VariableState"),
}


def path_labels(params: PyTree) -> PyTree:
    """The pytree of parameter names: each leaf's key path joined by `/`.

    A box (`nnx.Variable`, `nn.Partitioned`, ...) is no part of a name, list indices
    are numbers, and a bare array is called `''`.

    Args:
      params: a pytree of arrays, or of anything else that has leaves.

    Returns:
      A pytree of the same structure, whose leaves are strings.

    Raises:
      ValueError: two leaves have the same name, as in `{"a/b": x, "a": {"b": y}}`.

    Example:
      >>> path_labels({"block_0": {"attn": {"kernel": 1.0}}, "heads": [2.0, 3.0]})
      {'block_0': {'attn': {'kernel': 'block_0/attn/kernel'}},
       'heads': ['heads/0', 'heads/1']}
    """
    return jax.tree.unflatten(jax.tree.structure(params), _path_names(params))


def names_of(tree: PyTree, param_labels: ParamLabels = None) -> list[str]:
    """The name of each leaf, in the order of `jax.tree.leaves(tree)`.

    Labels are looked up by path, so a tree of labels fits whatever the boxes and the
    kinds of mapping, may hold more than `tree` does, and may be a prefix of it.
    """
    if param_labels is None or param_labels is path_labels:
        return _path_names(tree)
    labels = param_labels
    if callable(labels) and not _is_tree_of_strings(labels):
        labels = labels(_unboxed(tree))
    label_at = {_keys(path): label for path, label in _leaves_with_path(labels)}
    return [_label(label_at, path) for path, _ in _leaves_with_path(tree)]


def natural_order(name: str) -> list[Any]:
    """A sorting key that puts `block_2` before `block_10`."""
    pieces = re.split(r"(\d+)", name)
    return [int(p) if index % 2 else p for index, p in enumerate(pieces)]


def _path_names(tree: PyTree) -> list[str]:
    paths = [path for path, _ in _leaves_with_path(tree)]
    names = [_name(path) for path in paths]
    if len(set(names)) < len(names):
        _refuse_collision(names, paths)
    return names


def _refuse_collision(names: list[str], paths: list[KeyPath]) -> None:
    first_path: dict[str, KeyPath] = {}
    for name, path in zip(names, paths, strict=True):
        if name in first_path:
            both = f"{keystr(first_path[name])} and {keystr(path)}"
            raise ValueError(
                f"Two parameters have the name {name!r}: {both}. Rename one of them, "
                "or pass param_labels=, a function from the parameters to a pytree "
                "of distinct names."
            )
        first_path[name] = path


def _label(label_at: dict[tuple[str, ...], Any], path: KeyPath) -> str:
    keys = _keys(path)
    prefixes = (keys[:length] for length in range(len(keys), -1, -1))
    label = next((label_at[prefix] for prefix in prefixes if prefix in label_at), None)
    if isinstance(label, str):
        return label
    name = _name(path)
    if label is None:
        raise ValueError(
            f"param_labels has no label for the parameter {name!r}. It must be a "
            "pytree of strings with the structure of the parameters (or a prefix of "
            "it), or a function that returns one."
        )
    raise TypeError(
        f"The label of the parameter {name!r} must be a string, not {label!r} "
        f"({type(label).__name__})."
    )


def _name(path: KeyPath) -> str:
    return "/".join(_keys(path))


def _keys(path: KeyPath) -> tuple[str, ...]:
    return tuple([str(_INSIDE.get(type(key), str)(key)) for key in path])


# What `keystr(simple=True)` reads, at a third of its time.
_INSIDE: dict[type, Callable[[Any], Any]] = {
    DictKey: operator.attrgetter("key"),
    FlattenedIndexKey: operator.attrgetter("key"),
    GetAttrKey: operator.attrgetter("name"),
    SequenceKey: operator.attrgetter("idx"),
}


def _is_tree_of_strings(tree: PyTree) -> bool:
    """True for labels; an Equinox module of strings is callable, yet no function."""
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(isinstance(leaf, str) for leaf in leaves)


def _leaves_with_path(tree: PyTree) -> list[tuple[KeyPath, Any]]:
    """Leaves with their key paths, from which the keys into boxes are left out."""
    found: list[tuple[KeyPath, Any]] = []
    for path, node in tree_flatten_with_path(tree, is_leaf=_is_box)[0]:
        if _is_box(node):
            for content in _contents(node):
                found += [(path + keys, x) for keys, x in _leaves_with_path(content)]
        else:
            found.append((path, node))
    return found


def _unboxed(tree: PyTree) -> PyTree:
    def unbox(node: Any) -> Any:
        contents = _contents(node) if _is_box(node) else []
        return _unboxed(contents[0]) if len(contents) == 1 else node

    return jax.tree.map(unbox, tree, is_leaf=_is_box)


def _contents(box: Any) -> list[Any]:
    return jax.tree.leaves(box, is_leaf=lambda node: node is not box)


def _is_box(node: Any) -> bool:
    # The nnx.Variable of flax < 0.11 is a leaf, with nothing inside that JAX can see.
    return is_box_type(type(node)) and not jax.tree_util.all_leaves([node])


@functools.cache
def is_box_type(cls: type) -> bool:
    """True for the boxes of flax, whether JAX can see into them or not."""
    return any((base.__module__, base.__name__) in _BOXES for base in cls.__mro__)
