"""A pytree's key paths as slash-joined names, the same in every framework."""

import functools
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
from jax.tree_util import (
    DictKey,
    FlattenedIndexKey,
    GetAttrKey,
    SequenceKey,
    keystr,
    tree_flatten_with_path,
)

from optax_lrmult._values import check_takes_one, shortened, shown

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
      ValueError: two leaves have the same name, as in `{"a/b": x, "a": {"b": y}}`; or
        JAX can't sort a dictionary's keys.

    Example:
      >>> path_labels({"block_0": {"attn": {"kernel": 1.0}}, "heads": [2.0, 3.0]})
      {'block_0': {'attn': {'kernel': 'block_0/attn/kernel'}},
       'heads': ['heads/0', 'heads/1']}
    """
    names = _path_names(params)
    return jax.tree.unflatten(jax.tree.structure(params), names)


def names_of(tree: PyTree, param_labels: ParamLabels = None) -> list[str]:
    """The name of each leaf, in the order of `jax.tree.leaves(tree)`.

    Labels are looked up by path, so a tree of labels fits whatever the boxes and the
    kinds of mapping, may hold more than `tree` does, and may be a prefix of it.
    """
    if param_labels is None:
        return _path_names(tree)
    labels = param_labels
    if callable(labels) and not _is_tree_of_strings(labels):
        check_takes_one(labels, "The function param_labels", "the parameters")
        labels = labels(unboxed(tree))
    label_at = {_keys(path): label for path, label in _leaves_with_path(labels)}
    return [_label(label_at, path) for path, _ in _leaves_with_path(tree)]


def check_alike(updates: PyTree, params: PyTree) -> None:
    """Raises a `ValueError` if they differ in names, in their order or in shapes."""
    if _plain_shapes(updates) == _plain_shapes(params):
        return  # As in each eager step, without a look at the names.
    shapes, others = _shapes(updates), _shapes(params)
    for name in (*shapes, *others):
        if shapes.get(name) != others.get(name):
            raise ValueError(
                f"The updates and params differ in {shown(name)}: its shape is "
                f"{shapes.get(name, 'not there')} in the updates and "
                f"{others.get(name, 'not there')} in params."
            )
    if list(shapes) != list(others):
        raise ValueError("The updates and params have their names in another order.")


def _shapes(tree: PyTree) -> dict[str, Any]:
    return {
        _name(path): jax.numpy.shape(leaf) for path, leaf in _leaves_with_path(tree)
    }


def _plain_shapes(tree: PyTree) -> tuple[Any, ...]:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, list(map(jax.numpy.shape, leaves))


def shape_and_dtype(name: str, leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Those of a leaf, which may be one of Python's numbers."""
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return tuple(leaf.shape), leaf.dtype
    if isinstance(leaf, int | float | complex):
        return (), jax.numpy.result_type(leaf)
    raise TypeError(
        f"The parameter {shown(name)} is of type {type(leaf).__name__}, which is no "
        "array. Take the arrays of the tree first, for example by "
        "equinox.filter(model, equinox.is_array) or flax.nnx.state(model, "
        "flax.nnx.Param)."
    )


def natural_order(name: str) -> list[Any]:
    """A sorting key that puts `block_2` before `block_10`."""
    pieces = re.split(r"(\d+)", name)
    return [int(p) if index % 2 else p for index, p in enumerate(pieces)]


def _path_names(tree: PyTree) -> list[str]:
    paths = [path for path, _ in _leaves_with_path(tree)]
    names = [_name(path) for path in paths]
    if len(set(names)) < len(names):
        _refuse_collision(paths)
    return names


def _refuse_collision(paths: list[KeyPath]) -> NoReturn:
    [[name, _]] = Counter(map(_name, paths)).most_common(1)
    first, second, *_ = (keystr(path) for path in paths if _name(path) == name)
    raise ValueError(
        f"Two parameters have the name {shown(name)}: {shortened(first)} and "
        f"{shortened(second)}. Rename one of them, or pass param_labels=, a function "
        "from the parameters to a pytree of distinct names."
    )


def _label(label_at: dict[tuple[str, ...], Any], path: KeyPath) -> str:
    keys = _keys(path)
    while keys and keys not in label_at:
        keys = keys[:-1]
    label = label_at.get(keys)
    if isinstance(label, str):
        return label
    name = _name(path)
    if label is None:
        raise ValueError(
            f"param_labels has no label for the parameter {shown(name)}. It must be a "
            "pytree of strings with the structure of the parameters (or a prefix of "
            "it), or a function that returns one."
        )
    raise TypeError(
        f"The label of the parameter {shown(name)} must be a string, not "
        f"{shown(label)} ({type(label).__name__})."
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
    for path, node in _flattened(tree):
        if _is_box(node):
            for content in _contents(node):
                found += [(path + keys, x) for keys, x in _leaves_with_path(content)]
        else:
            found.append((path, node))
    return found


def _flattened(tree: PyTree) -> list[tuple[KeyPath, Any]]:
    try:
        return tree_flatten_with_path(tree, is_leaf=_is_box)[0]
    except ValueError as error:
        raise ValueError(
            f"This is no pytree: {error} The keys of a dictionary must be all of one "
            f"type that can be sorted; {shown(_unsortable_keys(tree))} are not."
        ) from None
    except (RecursionError, SystemError):
        raise ValueError(
            "The pytree is nested too deeply, more than a thousand containers in each "
            "other."
        ) from None


def _unsortable_keys(tree: PyTree) -> list[Any]:
    """The keys of the first dictionary that JAX can't sort."""
    if isinstance(tree, Mapping):
        try:
            sorted(tree)
        except TypeError:
            return list(tree)
    children = tree.values() if isinstance(tree, Mapping) else tree
    is_container = isinstance(tree, Mapping | list | tuple)
    found = map(_unsortable_keys, children) if is_container else ()
    return next(filter(None, found), [])


def unboxed(tree: PyTree) -> PyTree:
    """The tree with what is in its boxes in their place."""

    def unbox(node: Any) -> Any:
        match _contents(node) if _is_box(node) else []:
            case [content]:
                return unboxed(content)
            case _:
                return node

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
