"""Names and shapes of the arrays in a checkpoint file; no code in it is run."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

Shapes = dict[str, jax.ShapeDtypeStruct]
Found = Iterator[tuple[str, Any, Any]]  # Name, shape and dtype of each array.

_DTYPES = {"BF16": "bfloat16", "BOOL": "bool", "C64": "complex64"}
_KINDS = {"F": "float", "I": "int", "U": "uint"}


def read_shapes(path: Path, separator: str | None = None) -> Shapes:
    """The names and shapes of a checkpoint's arrays.

    Args:
      path: a `.safetensors` file or the index of a sharded one, an `.npz` file, a
        `.msgpack` file of Flax, an Orbax checkpoint, or a folder of these by step, of
        which the latest is taken.
      separator: what joins the keys in a flat file's names; by its kind if `None`.
    """
    kind = next((k for k in _READERS if path.name.lower().endswith(k)), "")
    if path.is_dir():
        read, default = _orbax, ""
    elif kind and path.exists():
        read, default = _READERS[kind]
    else:
        path.stat()
        raise ValueError(
            "a checkpoint is a .safetensors, .npz or .msgpack file, or a folder of "
            "Orbax; a pickle runs code when it is read: save its arrays as .safetensors"
        )
    separator, shapes = default if separator is None else separator, Shapes()
    try:
        for name, shape, dtype in read(path):
            if shape is not None:
                name = name.replace(separator, "/") if separator else name
                shapes[name] = jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
    except ImportError:
        raise
    except Exception as error:  # Readers raise what they like about a damaged file.
        kind = type(error).__name__
        raise ValueError(f"it can't be read: {kind}: {error}") from None
    if not shapes:
        raise ValueError("it holds no array")
    return shapes


def _safetensors(path: Path) -> Found:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        names = file.keys()  # It is no mapping, and can't be iterated by itself.
        for name in names:
            tensor = file.get_slice(name)
            kind = tensor.get_dtype()
            dtype = _DTYPES.get(kind) or _KINDS[kind[0]] + kind[1:]
            yield name, tensor.get_shape(), dtype


def _sharded(path: Path) -> Found:
    shards = dict.fromkeys(json.loads(path.read_bytes())["weight_map"].values())
    for shard in shards:
        if Path(shard).name != shard:
            raise ValueError(f"a shard is a file beside its index, not {shard!r}")
        yield from _safetensors(path.parent / shard)


def _npz(path: Path) -> Found:
    with path.open("rb") as file, np.load(file) as archive:
        for name, array in archive.items():
            # NumPy saves a bfloat16 as two bytes without a type.
            dtype = "bfloat16" if array.dtype == np.dtype("V2") else array.dtype
            yield name, array.shape, dtype


def _msgpack(path: Path) -> Found:
    from flax import serialization

    return _of_tree(serialization.msgpack_restore(path.read_bytes()))


_READERS = {
    ".safetensors": (_safetensors, "."),
    ".safetensors.index.json": (_sharded, "."),
    ".npz": (_npz, "/"),
    ".msgpack": (_msgpack, ""),
}


def _orbax(path: Path) -> Found:
    from orbax import checkpoint

    trees = _trees(path) or _trees(_latest_step(path))
    if not trees:
        raise ValueError(
            "the folder holds no Orbax checkpoint; of others name the file"
        )
    # Without warnings of metadata that not every checkpoint has.
    logging.getLogger("absl").setLevel(logging.ERROR)
    for tree in trees:
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
            shape, dtype = (getattr(leaf, name, None) for name in ("shape", "dtype"))
            yield prefix + key, shape, dtype


def _is_tree(node: Any) -> bool:
    return isinstance(node, Mapping | list | tuple)


def _is_box(node: Any) -> bool:
    is_single = isinstance(node, Mapping) and [*node] == ["value"]
    return is_single and not _is_tree(node["value"])
