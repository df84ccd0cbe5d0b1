"""Names and shapes of a `.safetensors` file, or of the index of a sharded one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optax_lrmult._checkpoints._headers import Header, Keys, needed, split

INDEX = ".safetensors.index.json"
_LARGEST_INDEX = 100_000_000  # Bytes; the format's own bound for a header.
_DTYPES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "C64": "complex64",
    "F4": "float4_e2m1fn",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def read(path: Path, separator: str) -> Iterator[tuple[Keys, Header]]:
    """What a file's header says; the elements are not read."""
    if path.name.lower().endswith(INDEX):
        yield from _read_shards(path, separator)
        return
    safetensors = needed("safetensors", "safetensors")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = file.keys()
            for name in names:
                tensor = file.get_slice(name)
                dtype = _DTYPES.get(tensor.get_dtype(), tensor.get_dtype())
                yield split(name, separator), Header(tensor.get_shape(), dtype)
    except safetensors.SafetensorError as error:
        raise ValueError(f"no whole safetensors file: {error}") from None


def _read_shards(path: Path, separator: str) -> Iterator[tuple[Keys, Header]]:
    for shard in dict.fromkeys(_weight_map(path).values()):
        try:
            yield from read(path.parent / shard, separator)
        except (OSError, ValueError) as error:
            raise ValueError(f"the shard {shard!r}: {error}") from None


def _weight_map(path: Path) -> dict[str, str]:
    """From the name of each tensor to the file it is in, a neighbour of the index."""
    if path.stat().st_size > _LARGEST_INDEX:
        raise ValueError(f"an index has at most {_LARGEST_INDEX:,} bytes")
    try:
        index: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no whole JSON file: {error}") from None
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise ValueError("an index has 'weight_map', a mapping from names to files")
    for shard in shards.values():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ValueError(f"a shard is a file beside its index, not {shard!r}")
    return shards
