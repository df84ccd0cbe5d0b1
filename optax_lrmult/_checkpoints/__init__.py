"""Names and shapes of the arrays in a checkpoint, without the arrays."""

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_lrmult._checkpoints import _msgpack, _npz, _orbax, _safetensors
from optax_lrmult._checkpoints._headers import Header, Keys
from optax_lrmult._diagnosis import few
from optax_lrmult._values import printable


class Shapes(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      arrays: the shape and the dtype of each array by its name, keys joined by `/`.
      notes: what was left out, and which of several checkpoints it is.
    """

    arrays: dict[str, jax.ShapeDtypeStruct]
    notes: list[str]


def read_shapes(path: Path, separator: str | None = None) -> Shapes:
    """The names and shapes of a checkpoint's arrays; no code in it is run.

    Args:
      path: a `.safetensors` file or the index of a sharded one, an `.npz` file, a
        `.msgpack` file of Flax, an Orbax checkpoint, or a folder of these by step, of
        which the latest is taken.
      separator: what stands between the keys in the names of a flat file: `.` in
        safetensors and `/` in npz if `None`.

    Returns:
      The shapes by name. A character of a name that can't be printed is escaped.

    Raises:
      ImportError: the package for this kind of file is not installed.
      OSError: the file can't be opened.
      ValueError: it is of another kind, damaged, or holds no array.
    """
    notes = []
    if path.is_dir():
        step = _orbax.latest_step(path)
        notes += [f"the latest step is {step.name}"] if step != path else []
        path = step
    arrays: dict[str, jax.ShapeDtypeStruct] = {}
    left_out = []
    for keys, header in _headers(path, separator):
        name = printable("/".join(keys))
        struct = _struct(name, header)
        if struct is None:
            left_out.append(f"{name} ({header.dtype})")
        elif name in arrays:
            raise ValueError(f"two arrays have the name {name!r}")
        else:
            arrays[name] = struct
    if not arrays:
        raise ValueError("it holds no array")
    if left_out:
        notes.append(f"left out, no arrays of numbers: {few(left_out)}")
    return Shapes(arrays, notes)


def _headers(path: Path, separator: str | None) -> Iterable[tuple[Keys, Header]]:
    if path.is_dir():
        return _orbax.read(path)
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    name = path.name.lower()
    if name.endswith((".safetensors", _safetensors.INDEX)):
        return _safetensors.read(path, "." if separator is None else separator)
    if name.endswith(".npz"):
        return _npz.read(path, "/" if separator is None else separator)
    if name.endswith(".msgpack"):
        return _msgpack.read(path)
    path.stat()
    raise ValueError(
        "a checkpoint is a .safetensors, .npz or .msgpack file or a folder of Orbax; "
        "a pickle (.pt, .pth, .bin, .pkl) runs code when it is read: save its arrays "
        "as .safetensors"
    )


def _struct(name: str, header: Header) -> jax.ShapeDtypeStruct | None:
    """The shape and the dtype after a check; `None` if it is no array of numbers."""
    dtype = _dtype(header.dtype)
    if header.shape is None or dtype is None:
        return None
    shape = _shape(name, header.shape)
    if header.size not in (None, prod(shape) * dtype.itemsize):
        raise ValueError(
            f"the array {name!r} of shape {shape} and dtype {dtype} can't have "
            f"{header.size:,} bytes"
        )
    return jax.ShapeDtypeStruct(shape, dtype)


def _dtype(dtype: Any) -> np.dtype[Any] | None:
    if isinstance(dtype, str) and not dtype.isidentifier():
        return None
    try:
        found = np.dtype(dtype)
    except TypeError:
        return None
    is_number = jnp.issubdtype(found, np.number) or found == np.bool_
    return found if is_number else None


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    if isinstance(shape, list | tuple) and all(
        type(n) is int and n >= 0 for n in shape
    ):
        return tuple(shape)
    raise ValueError(f"the array {name!r} can't have the shape {shape!r}")
