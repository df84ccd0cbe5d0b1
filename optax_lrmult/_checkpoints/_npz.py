"""Names and shapes of an `.npz` file."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from optax_lrmult._checkpoints._headers import Header, Keys, split

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_DAMAGE = (
    EOFError,
    OSError,  # an offset that is none
    RuntimeError,  # an encrypted member, or a compression that Python does not have
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def read(path: Path, separator: str) -> Iterator[tuple[Keys, Header]]:
    """What the headers of a file's members say; the elements are not read.

    A header is a literal, and an array of objects, which would be a pickle, is told by
    its dtype.
    """
    with path.open("rb") as file:
        yield from _members(file, separator)


def _members(file: BinaryIO, separator: str) -> Iterator[tuple[Keys, Header]]:
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                yield split(name, separator), _header(archive, member)
    except _DAMAGE as error:
        raise ValueError(f"no whole npz file: {error}") from None


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    if not member.filename.endswith(".npy"):
        return Header(None, "no .npy file")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADER_READERS:  # Names of fields in other than Latin-1.
            return Header(None, "fields")
        shape, _, dtype = _HEADER_READERS[version](file)
        size = member.file_size - file.tell()
    if dtype == np.dtype("V2"):  # NumPy saves a bfloat16 as two bytes without a type.
        return Header(shape, "bfloat16", size)
    return Header(shape, dtype, size)
