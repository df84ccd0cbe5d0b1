"""Which leaves of a tree share a buffer, and the way in and out of it."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_lrmult._names import PyTree

# Of a buffer: a concatenation of more takes long to compile, and saves little.
_MOST_LEAVES = 32

Keep = Callable[[PyTree], PyTree] | PyTree


class Packed(NamedTuple):
    """A tree as `packed` shows it to its inner transformation.

    Attributes:
      buffers: vectors, each of leaves of one size and dtype, one after the other.
      leaves: the other leaves as they are, in the tree's order.
    """

    buffers: tuple[jax.Array, ...]
    leaves: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which leaves are parts of which buffer."""

    shapes: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def left(self) -> list[int]:
        inside = {index for group in self.groups for index in group}
        return [index for index in range(len(self.shapes)) if index not in inside]

    def size(self, group: Sequence[int]) -> int:
        """The elements of each of a group's leaves."""
        return math.prod(self.shapes[group[0]])

    def pack(self, tree: PyTree) -> PyTree:
        """The tree's leaves in buffers; a tree without leaves as it is."""
        leaves = jax.tree.leaves(tree)
        if not leaves:
            return tree
        buffers = [
            jnp.concatenate([jnp.ravel(leaves[index]) for index in group])
            for group in self.groups
        ]
        return Packed(tuple(buffers), tuple(leaves[index] for index in self.left))

    def unpack(self, tree: PyTree, like: PyTree) -> PyTree:
        """The way back, into the structure of `like`."""
        if not isinstance(tree, Packed):
            return tree
        leaves = dict(zip(self.left, tree.leaves, strict=True))
        starts = self._starts()
        for buffer, group in zip(tree.buffers, self.groups, strict=True):
            size = self.size(group)
            for place, index in enumerate(group):
                start = starts[place * size]
                part = jax.lax.dynamic_slice(buffer, (start,), (size,))
                leaves[index] = jax.lax.reshape(part, self.shapes[index])
        ordered = [leaves[index] for index in range(len(self.shapes))]
        return jax.tree.unflatten(jax.tree.structure(like), ordered)

    def _starts(self) -> dict[int, jax.Array]:
        """Where parts begin, behind a barrier, so that XLA does not see the numbers.

        With them baked in the kernel of every part is a different one; behind the
        barrier all parts of one shape share a kernel, and compilation is short.
        """
        places = {p * self.size(g) for g in self.groups for p in range(len(g))}
        # Of shape [1]: shard_map of jax 0.5 can't check a barrier around scalars.
        starts = [np.full(1, place, np.int32) for place in sorted(places)]
        if starts:
            starts = jax.lax.optimization_barrier(starts)
        rows = zip(sorted(places), starts, strict=True)
        return {place: jnp.reshape(start, ()) for place, start in rows}


def layout_of(tree: PyTree, max_size: int, keep: Keep) -> Layout:
    """Leaves of one size and dtype share buffers; all of this is known under `jit`.

    Args:
      tree: a pytree of arrays, or of their shapes and dtypes.
      max_size: the most elements of a leaf that is packed.
      keep: leaves that are not; see `packed`.
    """
    leaves = jax.tree.leaves(tree)
    alike: dict[Any, list[int]] = {}
    for index, (leaf, kept) in enumerate(zip(leaves, _kept(tree, keep), strict=True)):
        size, dtype = math.prod(jnp.shape(leaf)), jnp.result_type(leaf)
        if not kept and 0 < size <= max_size and jnp.issubdtype(dtype, jnp.inexact):
            alike.setdefault((size, dtype), []).append(index)
    groups = [
        tuple(indices[first : first + _MOST_LEAVES])
        for indices in alike.values()
        for first in range(0, len(indices), _MOST_LEAVES)
    ]
    several = tuple(group for group in groups if len(group) > 1)
    return Layout(tuple(map(jnp.shape, leaves)), several)


def _kept(tree: PyTree, keep: Keep) -> list[bool]:
    number = len(jax.tree.leaves(tree))
    if keep is None or not number:
        return [False] * number
    kept = jax.tree.leaves(keep(tree) if callable(keep) else keep)
    if len(kept) != number:
        raise ValueError(
            f"packed: keep has {len(kept)} leaves, and the parameters {number}. It "
            "must be a tree of bool like the parameters, or a function to one."
        )
    return kept
