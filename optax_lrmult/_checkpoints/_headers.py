"""What a checkpoint says about an array, before any of it is checked."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

Keys = tuple[str, ...]


class Header(NamedTuple):
    """An array whose elements are not kept.

    Attributes:
      shape: its shape, `None` if it is no array.
      dtype: its dtype or the name of one.
      size: how many bytes its elements take in the file, if the file tells.
    """

    shape: Any
    dtype: Any
    size: int | None = None


def headers_of(tree: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Header]]:
    """The leaves of nested dictionaries and lists.

    Flax saves a box (`nnx.Variable`, `nn.Partitioned`) as a dictionary whose only key
    is `value`; a box is no part of a name.
    """
    if _is_box(tree) and keys:
        yield keys, _header(tree["value"])
        return
    for key, node in _children(tree):
        yield from headers_of(node, (*keys, str(key)))
    if _is_leaf(tree):
        yield keys, _header(tree)


def _is_box(tree: Any) -> bool:
    return (
        isinstance(tree, Mapping) and [*tree] == ["value"] and _is_leaf(*tree.values())
    )


def _is_leaf(node: Any) -> bool:
    is_node = isinstance(node, Mapping | list | tuple) and not isinstance(node, Header)
    return not is_node and node is not None


def _children(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, Mapping):
        yield from tree.items()
    elif isinstance(tree, list | tuple) and not isinstance(tree, Header):
        yield from enumerate(tree)


def _header(leaf: Any) -> Header:
    if isinstance(leaf, Header):
        return leaf
    if isinstance(leaf, bool | int | float | complex):
        return Header((), np.result_type(type(leaf)))
    shape = getattr(leaf, "shape", None)
    return Header(shape, getattr(leaf, "dtype", type(leaf).__name__))


def split(name: str, separator: str) -> Keys:
    """The keys in the name of a flat file; an empty separator leaves it whole."""
    return tuple(name.split(separator)) if separator else (name,)


def needed(module: str, package: str) -> Any:
    """A module that only one kind of file needs.

    Raises:
      ImportError: it is not installed; the text says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this kind of file needs the package {package}: pip install {package}"
        ) from error
