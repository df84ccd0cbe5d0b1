"""Names and shapes of a `.msgpack` file, as `flax.serialization.to_bytes` writes it."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optax_lrmult._checkpoints._headers import Header, Keys, headers_of, needed

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # Flax's extension types.
_CHUNKED = "__msgpack_chunked_array__"
_LONGEST_HEADER = 4096
# By the first byte of an array's elements, how many bytes hold their number.
_PREFIX = {0xC4: 2, 0xC5: 3, 0xC6: 5}


def read(path: Path) -> Iterator[tuple[Keys, Header]]:
    """What a file says of its arrays.

    The format has no table of contents, so the file is walked through from end to end;
    one array at a time is in memory, and only its header is looked at.
    """
    msgpack = needed("msgpack", "msgpack")

    def from_extension(code: int, data: bytes) -> Any:
        if code in (_ARRAY, _SCALAR):
            return _header(msgpack.Unpacker(), data)
        return 0j if code == _COMPLEX else data

    try:
        with path.open("rb") as file, _mapped(file.fileno()) as content:
            tree = msgpack.unpackb(
                content, ext_hook=from_extension, object_hook=_joined_chunks
            )
        if not isinstance(tree, dict):
            raise ValueError("it holds no dictionary")
        yield from headers_of(tree)
    except (msgpack.UnpackException, ValueError, RecursionError) as error:
        reason = str(error) or "it is nested too deeply"
        raise ValueError(f"no whole msgpack file of Flax: {reason}") from None


def _mapped(fileno: int) -> mmap.mmap:
    return mmap.mmap(fileno, 0, access=mmap.ACCESS_READ)


def _header(unpacker: Any, data: bytes) -> Header:
    """An array is a triple of its shape, the name of its dtype, and its elements."""
    unpacker.feed(data[:_LONGEST_HEADER])
    unpacker.read_array_header()
    shape, dtype, start = unpacker.unpack(), unpacker.unpack(), unpacker.tell()
    prefix = _PREFIX.get(data[start]) if start < len(data) else None
    if prefix is None:
        raise ValueError("an array without its elements")
    return Header(shape, dtype, len(data) - start - prefix)


def _joined_chunks(node: dict[str, Any]) -> Any:
    """A large array, which Flax cuts into chunks, as one; any other node as it is."""
    if _CHUNKED not in node:
        return node
    shape, chunks = node.get("shape"), node.get("chunks")
    if not isinstance(shape, dict) or not isinstance(chunks, dict) or not chunks:
        raise ValueError("an array in chunks without its shape or its chunks")
    headers = [*chunks.values()]
    if not all(isinstance(h, Header) and h.size is not None for h in headers):
        raise ValueError("an array in chunks that are no arrays")
    size = sum(header.size for header in headers)
    return Header([*shape.values()], headers[0].dtype, size)
