"""Names and shapes of the arrays in a checkpoint file; no code in it is run."""

import contextlib
import json
import logging
import re
import zipfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from optax_lrmult.core.expect import few

Shapes = dict[str, jax.ShapeDtypeStruct]
Found = Iterator[tuple[str, Any, Any]]
"""The name, the shape and the dtype of each array."""

_INDEX = ".safetensors.index.json"
_DTYPES = {
    "BF16": "bfloat16",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_KINDS = {"F": "float", "I": "int", "U": "uint"}


def read_shapes(path: Path, separator: str | None = None) -> Shapes:
    """The names and shapes of a checkpoint's arrays.

    Args:
      path: a `.safetensors` file or the index of a sharded one, an `.npz` file, a
        `.msgpack` file of Flax, an Orbax checkpoint, or a folder of these by step, of
        which the latest is taken.
      separator: what stands between the keys in the names of a flat file: `.` in
        safetensors and `/` in npz if `None`; `""` leaves names as they are.

    Raises:
      ImportError: the package for this kind of file is not installed.
      ValueError: it is of another kind, damaged, or holds no array.
    """
    try:
        found = list(_found(path, separator))
    except (ImportError, FileNotFoundError):
        raise
    except Exception as error:  # Readers raise what they like about a damaged file.
        reason = str(error) or type(error).__name__
        raise ValueError(f"it can't be read: {reason}") from None
    shapes: Shapes = {}
    for name, shape, dtype in found:
        if shape is not None:
            shapes[name] = jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
    if not shapes:
        raise ValueError("it holds no array")
    return shapes


def _found(path: Path, separator: str | None) -> Found:
    name = path.name.lower()
    if path.is_dir():
        return _orbax(path)
    if name.endswith(_INDEX):
        return _sharded(path, separator)
    if name.endswith(".safetensors"):
        return _safetensors(path, "." if separator is None else separator)
    if name.endswith(".npz"):
        return _npz(path, "/" if separator is None else separator)
    if name.endswith(".msgpack"):
        return _msgpack(path)
    path.stat()
    raise ValueError(
        "a checkpoint is a .safetensors, .npz or .msgpack file, or a folder of Orbax. "
        "A pickle (.pt, .pth, .bin, .pkl) runs code when it is read: save its arrays "
        "as .safetensors"
    )


def _named(name: str, separator: str) -> str:
    return name.replace(separator, "/") if separator else name


def _safetensors(path: Path, separator: str) -> Found:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        names = file.keys()  # It is no mapping, and can't be iterated by itself.
        for name in names:
            tensor = file.get_slice(name)
            kind = tensor.get_dtype()
            dtype = _DTYPES.get(kind) or _KINDS[kind[0]] + kind[1:]
            yield _named(name, separator), tensor.get_shape(), dtype


def _sharded(path: Path, separator: str | None) -> Found:
    shards = dict.fromkeys(json.loads(path.read_bytes())["weight_map"].values())
    for shard in shards:
        if Path(shard).name != shard:
            raise ValueError(f"a shard is a file beside its index, not {shard!r}")
        yield from _found(path.parent / shard, separator)


def _npz(path: Path, separator: str) -> Found:
    readers = {(1, 0): np.lib.format.read_array_header_1_0}
    readers[2, 0] = np.lib.format.read_array_header_2_0
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
            if dtype == np.dtype("V2"):  # So NumPy saves a bfloat16.
                dtype = "bfloat16"
            yield _named(member.removesuffix(".npy"), separator), shape, dtype


def _msgpack(path: Path) -> Found:
    from flax import serialization

    return _of_tree(serialization.msgpack_restore(path.read_bytes()))


def _orbax(path: Path) -> Found:
    from orbax import checkpoint

    trees = _trees(path) or _trees(_latest_step(path))
    if not trees:
        raise ValueError(
            "the folder holds no Orbax checkpoint; of others name the file"
        )
    for tree in trees:
        with _quietly():
            found = checkpoint.StandardCheckpointer().metadata(tree.absolute())
        found = getattr(found, "item_metadata", found)
        name = f"{tree.name}/" if len(trees) > 1 else ""
        yield from _of_tree(getattr(found, "tree", found), name)


def _trees(path: Path) -> list[Path]:
    """The folder itself if it is a tree of arrays, or its items that are."""
    if (path / "_METADATA").is_file():
        return [path]
    trees = [file.parent for file in sorted(path.glob("*/_METADATA"))]
    return [tree for tree in trees if not tree.name.isdigit()]


def _latest_step(path: Path) -> Path:
    steps = {f: re.fullmatch(r"(?:.*_)?(\d{1,18})", f.name) for f in path.iterdir()}
    numbers = {f: int(match[1]) for f, match in steps.items() if match and _trees(f)}
    return max(numbers, key=lambda folder: numbers[folder], default=path)


@contextlib.contextmanager
def _quietly() -> Generator[None]:
    """Without Orbax's warnings of metadata that not every checkpoint has."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _of_tree(tree: Any, prefix: str = "") -> Found:
    """The arrays of nested dictionaries and lists."""
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    nodes = {str(key): node for key, node in pairs}
    # Flax saves a box as a dictionary of one key, `value`. A parameter of that name
    # lies in a module, which has other modules beside it, and not arrays.
    are_boxes = all(not _is_tree(node) or _is_box(node) for node in nodes.values())
    for key, node in nodes.items():
        leaf = node["value"] if are_boxes and _is_box(node) else node
        if _is_tree(leaf):
            yield from _of_tree(leaf, f"{prefix}{key}/")
        elif leaf is not None:
            yield (
                prefix + key,
                getattr(leaf, "shape", None),
                getattr(leaf, "dtype", None),
            )


def _is_tree(node: Any) -> bool:
    return isinstance(node, Mapping | list | tuple)


def _is_box(node: Any) -> bool:
    is_single = isinstance(node, Mapping) and [*node] == ["value"]
    return is_single and not _is_tree(node["value"])


def selected(shapes: Shapes, keys: str | None) -> Shapes:
    """The arrays below some keys, by the rest of their names; below `params` if any."""
    prefix = "params/" if keys is None else f"{keys.strip('/')}/".lstrip("/")
    inside = {
        n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)
    }
    if not inside and keys is not None:
        raise ValueError(f"nothing in it is below {keys!r}; it has {few(list(shapes))}")
    return inside or shapes
