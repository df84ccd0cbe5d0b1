"""Which leaves of a tree share a buffer, and the way in and out of it."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from optax_lrmult._names import PyTree
from optax_lrmult._values import shortened, shown

# Of a buffer: a concatenation of more takes long to compile, and saves little.
_MOST_LEAVES = 32

Keep = Callable[[PyTree], PyTree] | PyTree


class Packed(NamedTuple):
    """A tree as `packed` shows it to its inner transformation.

    Attributes:
      buffers: vectors, each of leaves of one size and dtype, one after the other.
      leaves: the other leaves as they are, by their place in the tree. With these
        places a state says itself what is packed in it, also under `jit`.
    """

    buffers: tuple[jax.Array, ...]
    leaves: dict[int, Any]


def is_packed(node: Any) -> bool:
    """Whether it is a `Packed`; also for `is_leaf`."""
    return isinstance(node, Packed)


def packs_in(tree: PyTree) -> list[Packed]:
    """All of them, such as the moments of a state."""
    return [
        node for node in jax.tree.leaves(tree, is_leaf=is_packed) if is_packed(node)
    ]


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

    @property
    def buffer_shapes(self) -> list[tuple[int]]:
        """Of each group's buffer, in their order."""
        return [(self.size(group) * len(group),) for group in self.groups]

    def pack(self, tree: PyTree) -> PyTree:
        """The tree's leaves in buffers; a tree without leaves as it is."""
        leaves = jax.tree.leaves(tree)
        if not leaves:
            return tree
        buffers = [
            jnp.concatenate([jnp.ravel(leaves[index]) for index in group])
            for group in self.groups
        ]
        return Packed(tuple(buffers), {index: leaves[index] for index in self.left})

    def unpack(self, tree: PyTree, like: PyTree) -> PyTree:
        """The way back, into the structure of `like`."""
        if not is_packed(tree):
            return tree
        leaves = dict(tree.leaves)
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
    """Small leaves of one size and dtype share buffers, if no mesh shards them.

    Args:
      tree: a pytree of arrays, or of their shapes and dtypes.
      max_size: the most elements of a leaf that is packed.
      keep: leaves that are not; see `packed`.
    """
    leaves, kept = _arrays(tree), _kept(tree, keep)
    small = [
        index
        for index, leaf in enumerate(leaves)
        if not kept[index] and _is_packable(leaf, max_size) and not _is_sharded(leaf)
    ]
    several = [group for group in _groups(leaves, small) if len(group) > 1]
    return Layout(tuple(map(jnp.shape, leaves)), tuple(several))


def layout_inside(pack: Packed, tree: PyTree) -> Layout:
    """The layout that a part of a state was made with, from a tree like `tree`.

    Raises:
      ValueError: buffers would be of other shapes: moments would go to the wrong
        parameters. Names are not compared, nor shapes of one size.
    """
    leaves = _arrays(tree)
    inside = [index for index in range(len(leaves)) if index not in pack.leaves]
    layout = Layout(tuple(map(jnp.shape, leaves)), tuple(_groups(leaves, inside)))
    found, wanted = list(map(jnp.shape, pack.buffers)), layout.buffer_shapes
    if found != wanted:
        raise ValueError(
            "packed: the state is that of other parameters: it has buffers of the "
            f"shapes {shown(found)}, and these would make {shown(wanted)}. If "
            "gradients are of other dtypes than parameters, pass params to update; if "
            "a mask hides parameters, as mask_frozen=True does, see unpacked_state; of "
            "a state made under vmap, map the call too."
        )
    return layout


def _arrays(tree: PyTree) -> list[Any]:
    """The leaves, if all of them are arrays or Python's numbers."""
    leaves = jax.tree.leaves(tree)
    for index, leaf in enumerate(leaves):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            path, _ = tree_leaves_with_path(tree)[index]
            raise TypeError(
                f"packed: the parameter {shortened(keystr(path))} is of type "
                f"{type(leaf).__name__}, which is no array."
            )
    return leaves


def _is_sharded(leaf: Any) -> bool:
    """Whether it is known that the leaf's parts lie on several devices.

    Arrays tell, and tracers if the axes of the mesh are of type `Explicit`.
    """
    at = leaf if hasattr(leaf, "sharding") else getattr(leaf, "aval", None)
    sharding = getattr(at, "sharding", None)
    return sharding is not None and not sharding.is_fully_replicated


def _is_packable(leaf: Any, max_size: int) -> bool:
    size = math.prod(jnp.shape(leaf))
    return 0 < size <= max_size and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _groups(leaves: Sequence[Any], indices: Iterable[int]) -> list[tuple[int, ...]]:
    """The indices in groups of one size and dtype, none too large."""
    alike: dict[Any, list[int]] = {}
    for index in indices:
        leaf = leaves[index]
        key = math.prod(jnp.shape(leaf)), jnp.result_type(leaf)
        alike.setdefault(key, []).append(index)
    return [
        tuple(group[first : first + _MOST_LEAVES])
        for group in alike.values()
        for first in range(0, len(group), _MOST_LEAVES)
    ]


def _kept(tree: PyTree, keep: Keep) -> list[bool]:
    number = len(jax.tree.leaves(tree))
    if keep is None or not number:
        return [False] * number
    kept = jax.tree.leaves(keep(tree) if callable(keep) else keep)
    wrong = [leaf for leaf in kept if not isinstance(leaf, bool | np.bool_)]
    if wrong or len(kept) != number:
        what = f"{shown(wrong[0])} as a leaf" if wrong else f"{len(kept)} leaves"
        raise ValueError(
            f"packed: keep has {what}, and the parameters have {number} leaves. It "
            "must be a tree of bool like the parameters, or a function to one."
        )
    return kept
