"""Names and shapes of the arrays in a checkpoint; no code in it is run."""

import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib import format as npy

Shapes = dict[str, jax.ShapeDtypeStruct]
Leaves = Iterator[tuple[str, Any]]  # Names, and what has a shape and a dtype.

_KINDS = {"F": "float", "I": "int", "U": "uint"}
_dtypes = {f"{k}{n}": f"{_KINDS[k]}{n}" for k in _KINDS for n in (8, 16, 32, 64)}
_dtypes |= {"BOOL": "bool", "BF16": "bfloat16", "C64": "complex64"}
_dtypes |= {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


def read_shapes(path: Path, separator: str | None = None) -> Shapes:
    """The shapes of a checkpoint's arrays by name; what holds no numbers is left out.

    Args:
      path: a `.safetensors` file or the index of a sharded one, an `.npz` file, a
        `.msgpack` file of Flax, or a folder of Orbax, of which the latest step is read.
      separator: what stands between the keys of a name: `.` in safetensors and `/`
        elsewhere if `None`; `""` leaves names as they are.
    """
    shapes: Shapes = {}
    try:
        leaves, usual = _reader(path)
        between = usual if separator is None else separator
        for name, leaf in leaves:
            name = name.replace(between, "/") if between else name
            # A name may hold codes that move the cursor of a terminal.
            name = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
            if name in shapes:
                raise ValueError(f"two arrays have the name {name!r}")
            if jnp.issubdtype(leaf.dtype, np.number) or leaf.dtype == np.bool_:
                shapes[name] = jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype)
        if not shapes:
            raise ValueError("it holds no array")
    except ImportError as error:
        raise ImportError(f"{error}: install the extra 'checkpoints'") from None
    except Exception as error:  # Readers raise what they like about a damaged file.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{str(path)!r} can't be read: {reason}") from None
    return shapes


def _reader(path: Path) -> tuple[Leaves, str]:
    """What reads a checkpoint, and what stands between the keys of its names."""
    name = path.name.lower()
    if path.is_dir():
        return _of_tree(_orbax(path)), "/"
    if name.endswith(".msgpack"):
        from flax import serialization

        # The format has no table of contents: the arrays are read, too.
        return _of_tree(serialization.msgpack_restore(path.read_bytes())), "/"
    if name.endswith(".npz"):
        return _npz(path), "/"
    if name.endswith((".safetensors", ".safetensors.index.json")):
        return (_shards if name.endswith(".json") else _safetensors)(path), "."
    raise ValueError(
        "it is no .safetensors, .npz or .msgpack file and no folder of Orbax; a pickle "
        "(.pt, .bin) runs code when it is read: save its arrays as .safetensors"
    )


def _safetensors(path: Path) -> Leaves:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        for name in sorted(file.keys()):
            leaf = file.get_slice(name)
            dtype = _dtypes.get(leaf.get_dtype(), leaf.get_dtype())
            yield name, jax.ShapeDtypeStruct(leaf.get_shape(), np.dtype(dtype))


def _shards(path: Path) -> Leaves:
    for shard in dict.fromkeys(json.loads(path.read_bytes())["weight_map"].values()):
        if Path(shard).name != shard:
            raise ValueError(f"a shard is a file beside its index, not {shard!r}")
        yield from _safetensors(path.parent / shard)


def _npz(path: Path) -> Leaves:
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                shape, _, dtype = readers[npy.read_magic(file)](file)
            if dtype == np.dtype("V2"):  # So NumPy saves a bfloat16.
                dtype = np.dtype("bfloat16")
            yield member.removesuffix(".npy"), jax.ShapeDtypeStruct(shape, dtype)


def _orbax(path: Path) -> Any:
    """The metadata of a checkpoint's tree; of several trees by the name of each."""
    from orbax import checkpoint

    trees = sorted(file.parent for file in path.rglob("_METADATA"))
    if not (path / "_CHECKPOINT_METADATA").is_file():  # Else they are of one step.
        parts = [(*tree.relative_to(path).parts, "")[0] for tree in trees]
        steps = [re.fullmatch(r"(?:.*_)?(\d{1,18})", part) for part in parts]
        numbers = [int(step[1]) if step else -1 for step in steps]
        trees = [
            tree for tree, n in zip(trees, numbers, strict=True) if n == max(numbers)
        ]
    found = {}
    if not trees:
        raise ValueError("a folder with no Orbax checkpoint; of others name the file")
    for tree in trees:
        metadata = checkpoint.StandardCheckpointer().metadata(tree.absolute())
        metadata = getattr(metadata, "item_metadata", metadata)
        found[tree.name] = getattr(metadata, "tree", metadata)
    return found if len(found) > 1 else found.popitem()[1]


def _of_tree(tree: Any) -> Leaves:
    """The arrays of nested dictionaries and lists, without boxes.

    A file has a box (`nnx.Variable`, `nn.Partitioned`) as a dictionary of one key,
    `value`, and a module whose only parameter is called `value` looks the same. Boxes
    tell how large arrays are split: where there are any, they hold most numbers.
    """
    leaves = list(_nested(tree))
    boxed = sum(math.prod(leaf.shape) for _, leaf, alone in leaves if alone)
    are_boxes = 2 * boxed > sum(math.prod(leaf.shape) for _, leaf, _ in leaves)
    for name, leaf, alone in leaves:
        yield name.removesuffix("/value") if alone and are_boxes else name, leaf


def _nested(tree: Any, start: str = "") -> Iterator[tuple[str, Any, bool]]:
    """The name of each array, and whether it is alone below a key `value`."""
    for key, node in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        if isinstance(node, Mapping | list | tuple):
            yield from _nested(node, f"{start}{key}/")
        elif getattr(node, "shape", None) is not None:
            yield f"{start}{key}", node, [*tree] == ["value"]
