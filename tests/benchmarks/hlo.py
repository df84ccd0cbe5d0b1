"""What the text of a compiled program says that it will do."""

import collections
import dataclasses
import math
import re

_KERNEL = " fusion("
_COLLECTIVE = re.compile(
    " (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
# %name = shape operation(operands), attributes: the shape may be a tuple, with layouts
# such as {0:T(1024)} in it.
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?(%\S+) = (\([^=]*?\)|\S+) ([\w-]+)\((.*)")


@dataclasses.dataclass(frozen=True)
class Program:
    """Counts of a compiled program.

    Attributes:
      kernels: fusions of the entry computation, each of them a kernel that is started.
      bytes: what these read and write; an operand counts whole, even if only a slice
        of it is read, and operands in fast memory count as all others.
      cycles: the compiler's own estimate, summed over the whole text; `None` if it
        makes none. A loop's body counts once.
      prefetches: copies that run beside kernels.
      collectives: how often chips talk, by kind, in the whole text.
    """

    kernels: int
    bytes: int
    cycles: int | None
    prefetches: int
    collectives: dict[str, int]


def program(text: str) -> Program:
    """The counts of `compiled.as_text()`."""
    # XLA numbers the members of long tuples: /*index=5*/. The sign "=" is in the way.
    text = re.sub(r"/\*index=\d+\*/", "", text)
    entry = text[text.index("\nENTRY ") :].split("\n}", 1)[0]
    found = list(filter(None, map(_INSTRUCTION.match, entry.split("\n"))))
    shapes = {match[1]: match[2] for match in found}
    kernels = [match for match in found if match[3] == "fusion"]
    if len(kernels) != entry.count(_KERNEL):
        raise ValueError(
            f"{len(kernels)} of {entry.count(_KERNEL)} fusions were read: XLA writes "
            f"its programs otherwise than {__name__} expects."
        )
    cycles = [int(number) for number in _CYCLES.findall(text)]
    return Program(
        kernels=len(kernels),
        bytes=sum(_nbytes(kernel[2]) + _read(kernel[4], shapes) for kernel in kernels),
        cycles=sum(cycles) if cycles else None,
        prefetches=entry.count(" copy-start("),
        collectives=dict(collections.Counter(_COLLECTIVE.findall(text))),
    )


def _read(operands_and_more: str, shapes: dict[str, str]) -> int:
    operands = re.findall(r"%[\w.\-]+", operands_and_more.split("), ")[0])
    return sum(_nbytes(shapes[name]) for name in operands)


def _nbytes(shape: str) -> int:
    """The size of an array or of a tuple of arrays, as in `(f32[8,4]{1,0}, pred[])`."""
    total = 0
    for dtype, dims in _ARRAY.findall(shape):
        size = math.prod(int(dim) for dim in dims.split(",") if dim)
        total += size * _itemsize(dtype)
    return total


def _itemsize(dtype: str) -> int:
    """A boolean takes a byte, and `f32`, `bf16`, `u8`, `c64` say their bits."""
    if dtype == "pred":
        return 1
    bits = re.search(r"\d+", dtype)
    if bits is None:
        raise ValueError(f"The size of {dtype} is not known.")
    return -(-int(bits[0]) // 8)
