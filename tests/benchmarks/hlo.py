"""What the text of a compiled program says that it will do."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Sequence

KERNELS = ("fusion", "concatenate")
_COLLECTIVE = re.compile(
    " (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_NAME = re.compile(r"%[\w.\-]+")
_COMPUTATION = re.compile(r"^(ENTRY )?(%[\w.\-]+) [^\n]*\{\n(.*?)^\}", re.M | re.S)
# %name = shape operation(operands), attributes: the shape may be a tuple, with layouts
# such as {0:T(1024)} in it.
_INSTRUCTION = re.compile(r"\s+(ROOT )?(%\S+) = (\([^=]*?\)|\S+) ([\w-]+)\((.*)")


@dataclasses.dataclass(frozen=True)
class Program:
    """Counts of a compiled program.

    Attributes:
      kernels: fusions of the entry computation, and concatenations that stand beside
        them: each is a kernel that is started.
      bytes: what these read and write. Of an array that a kernel takes slices of, or
        writes a slice into, the slices count. Arrays in fast memory count as others.
      cycles: the compiler's own estimate, summed over the kernels of the whole text,
        without the copies that run beside them; `None` if it makes none. A loop's body
        counts once.
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
    found = _COMPUTATION.findall(text)
    computations = {name: body for _, name, body in found}
    (entry,) = (body for is_entry, _, body in found if is_entry)
    instructions = _instructions(entry)
    kernels = [i for i in instructions.values() if i.operation in KERNELS]
    there = sum(entry.count(f" {kind}(") for kind in KERNELS)
    if len(kernels) != there:
        raise ValueError(
            f"{len(kernels)} of {there} kernels were read: XLA writes its programs "
            f"otherwise than {__name__} expects."
        )
    moved = 0.0
    for kernel in kernels:
        body = computations.get(kernel.called, "")
        whole = [instructions[name].nbytes for name in kernel.operands]
        moved += min(kernel.nbytes, _written(body))
        moved += sum(map(min, whole, _needed(body, len(whole))))
    cycles = [int(number) for number in _CYCLES.findall(text)]
    return Program(
        kernels=len(kernels),
        bytes=int(moved),
        cycles=sum(cycles) if cycles else None,
        prefetches=entry.count(" copy-start("),
        collectives=dict(collections.Counter(_COLLECTIVE.findall(text))),
    )


@dataclasses.dataclass(frozen=True)
class _Instruction:
    nbytes: int
    operation: str
    operands: list[str]
    place: str
    called: str
    is_root: bool


def _instructions(computation: str) -> dict[str, _Instruction]:
    found: dict[str, _Instruction] = {}
    for match in filter(None, map(_INSTRUCTION.match, computation.split("\n"))):
        root, name, shape, operation, rest = match.groups()
        inside = rest.split(")", 1)[0]
        called = re.search(r"calls=(%[\w.\-]+)", rest)
        found[name] = _Instruction(
            nbytes=_nbytes(shape),
            operation=operation,
            operands=_NAME.findall(inside),
            place=inside,
            called=called[1] if called else "",
            is_root=bool(root),
        )
    return found


def _written(body: str) -> float:
    """The most that a kernel writes, where it writes a slice into an array in place."""
    if "dynamic-update-slice(" not in body:
        return math.inf
    inside = _instructions(body)
    (root,) = (instruction for instruction in inside.values() if instruction.is_root)
    if root.operation != "dynamic-update-slice":
        return math.inf
    return inside[root.operands[1]].nbytes


def _needed(body: str, operands: int) -> Sequence[float]:
    """The most that a kernel needs of each operand, where it takes slices of it."""
    if "slice(" not in body:
        return [math.inf] * operands
    inside = _instructions(body)
    users: dict[str, list[_Instruction]] = collections.defaultdict(list)
    names = {id(instruction): name for name, instruction in inside.items()}
    for instruction in inside.values():
        for operand in dict.fromkeys(instruction.operands):
            users[operand].append(instruction)

    @functools.cache
    def needed(name: str) -> float:
        total = 0.0 if users[name] else math.inf
        for user in users[name]:
            if user.operation in ("slice", "dynamic-slice"):
                total += user.nbytes
            elif user.operation == "dynamic-update-slice" and user.is_root:
                total += 0 if user.operands[0] == name else math.inf
            elif user.nbytes == inside[name].nbytes and users[names[id(user)]]:
                total += needed(names[id(user)])  # Elementwise, and sliced later.
            else:
                return math.inf
        return total

    places = {i.place: n for n, i in inside.items() if i.operation == "parameter"}
    return [needed(places[str(place)]) for place in range(operands)]


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
