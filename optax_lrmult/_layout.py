"""Which leaves of a tree share a buffer, and the way in and out of it."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_lrmult._names import PyTree, names_of, shape_and_dtype
from optax_lrmult._values import shown

# Of a buffer: a concatenation of more takes long to compile, and saves little.
_MOST_LEAVES = 32

Keep = Callable[[PyTree], PyTree] | PyTree


class Packed(NamedTuple):
    """A tree as `packed` shows it to its inner transformation.

    Attributes:
      buffers: vectors, each of leaves of one shape and dtype, in the order of their
        names, one after the other; by a number and this shape.
      leaves: the other leaves as they are, by name, and `None` for each leaf of the
        buffers. So a state says itself what is packed in it, also under `jit`.
    """

    buffers: dict[str, jax.Array]
    leaves: dict[str, Any]


def is_packed(node: Any) -> bool:
    """Whether it is a `Packed`; also for `is_leaf`."""
    return isinstance(node, Packed)


def packs_in(tree: PyTree) -> list[Packed]:
    """All of them, such as the moments of a state."""
    return [
        node for node in jax.tree.leaves(tree, is_leaf=is_packed) if is_packed(node)
    ]


class _Array(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: Any


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which leaves of a tree are parts of which buffer."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    groups: dict[str, tuple[int, ...]]

    @property
    def left(self) -> list[int]:
        inside = {index for group in self.groups.values() for index in group}
        return [index for index in range(len(self.shapes)) if index not in inside]

    def size(self, group: Sequence[int]) -> int:
        """The elements of each of a group's leaves."""
        return math.prod(self.shapes[group[0]])

    @property
    def buffer_shapes(self) -> dict[str, tuple[int]]:
        """Of each buffer, by its key."""
        return {key: (self.size(g) * len(g),) for key, g in self.groups.items()}

    def pack(self, tree: PyTree) -> PyTree:
        """The tree's leaves in buffers; a tree without leaves as it is."""
        leaves = jax.tree.leaves(tree)
        if not leaves:
            return tree
        buffers = {
            key: jnp.concatenate([jnp.ravel(leaves[index]) for index in group])
            for key, group in self.groups.items()
        }
        left = {self.names[index]: leaves[index] for index in self.left}
        return Packed(buffers, dict.fromkeys(self.names) | left)

    def unpack(self, tree: PyTree, like: PyTree) -> PyTree:
        """The way back, into the structure of `like`."""
        if not is_packed(tree):
            return tree
        leaves = [tree.leaves[name] for name in self.names]
        starts = self._starts()
        for key, group in self.groups.items():
            size = self.size(group)
            for place, index in enumerate(group):
                start = starts[place * size]
                part = jax.lax.dynamic_slice(tree.buffers[key], (start,), (size,))
                leaves[index] = jax.lax.reshape(part, self.shapes[index])
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _starts(self) -> dict[int, jax.Array]:
        """Where parts begin, behind a barrier, so that XLA does not see the numbers.

        With them baked in the kernel of every part is a different one; behind the
        barrier all parts of one shape share a kernel, and compilation is short.
        """
        groups = self.groups.values()
        places = {p * self.size(g) for g in groups for p in range(len(g))}
        # Of shape [1]: shard_map of jax 0.5 can't check a barrier around scalars.
        starts = [np.full(1, place, np.int32) for place in sorted(places)]
        if starts:
            starts = jax.lax.optimization_barrier(starts)
        rows = zip(sorted(places), starts, strict=True)
        return {place: jnp.reshape(start, ()) for place, start in rows}


def layout_of(tree: PyTree, max_size: int, keep: Keep) -> Layout:
    """Small leaves of one shape and dtype share buffers, if no mesh shards them.

    Args:
      tree: a pytree of arrays, or of their shapes and dtypes.
      max_size: the most elements of a leaf that is packed.
      keep: leaves that are not; see `packed`.
    """
    arrays, kept = _arrays(tree), _kept(tree, keep)
    small = [
        index
        for index, leaf in enumerate(jax.tree.leaves(tree))
        if not kept[index]
        and _is_packable(arrays[index], max_size)
        and not _is_sharded(leaf)
    ]
    return _layout(arrays, small, least=2)


def layout_inside(pack: Packed, tree: PyTree) -> Layout:
    """The layout that a part of a state was made with, from a tree like `tree`.

    Raises:
      ValueError: the state is that of other parameters, by names or by shapes.
    """
    arrays = _arrays(tree)
    _check_names(pack, [array.name for array in arrays])
    inside = [i for i, array in enumerate(arrays) if pack.leaves[array.name] is None]
    layout = _layout(arrays, inside)
    _check_shapes(pack, layout)
    return layout


def hidden(tree: PyTree, pack: Packed) -> PyTree:
    """The tree without what a mask around `packed` had left out."""
    leaves, treedef = jax.tree.flatten(tree)
    rows = zip(leaves, names_of(tree), strict=True)
    seen = [x if name in pack.leaves else optax.MaskedNode() for x, name in rows]
    return jax.tree.unflatten(treedef, seen)


def _layout(arrays: Sequence[_Array], inside: Iterable[int], least: int = 1) -> Layout:
    """In the order of names, so that a dictionary and a class make the same one."""
    ordered = sorted(inside, key=lambda index: arrays[index].name)
    groups = [group for group in _groups(arrays, ordered) if len(group) >= least]
    keys = [f"{number} {arrays[g[0]].shape}" for number, g in enumerate(groups)]
    return Layout(
        tuple(array.name for array in arrays),
        tuple(array.shape for array in arrays),
        dict(zip(keys, groups, strict=True)),
    )


def _check_names(pack: Packed, names: Sequence[str]) -> None:
    has, lacks = pack.leaves.keys() - set(names), set(names) - pack.leaves.keys()
    found = [f"has {shown(name)}, which is not among these" for name in sorted(has)[:1]]
    found += [f"has no {shown(name)}" for name in sorted(lacks)[:1]]
    if found:
        raise ValueError(
            f"packed: the state is that of other parameters: it {' and '.join(found)}. "
            "A mask hides parameters, as mask_frozen=True does those of multiplier 0: "
            "restore a state with the rules that it was saved with."
        )


def _check_shapes(pack: Packed, layout: Layout) -> None:
    found = {key: jnp.shape(x) for key, x in pack.buffers.items()}
    left = {layout.names[index]: layout.shapes[index] for index in layout.left}
    found |= {name: jnp.shape(pack.leaves[name]) for name in left}
    wanted = layout.buffer_shapes | left
    wrong = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    for key in wrong[:1]:
        raise ValueError(
            f"packed: the state is that of parameters of other shapes: {shown(key)} is "
            f"{found.get(key, 'nothing')} in it, and {wanted.get(key, 'nothing')} in "
            "one of these parameters. If gradients are of other dtypes than "
            "parameters, pass params to update; of a state made under vmap, map the "
            "call too."
        )


def _arrays(tree: PyTree) -> list[_Array]:
    # Dtypes are what JAX makes of them: without 64 bits, float64 of NumPy is float32.
    return [
        _Array(name, shape_and_dtype(name, leaf)[0], jnp.result_type(leaf))
        for name, leaf in zip(names_of(tree), jax.tree.leaves(tree), strict=True)
    ]


def _is_sharded(leaf: Any) -> bool:
    """Whether it is known that the leaf's parts lie on several devices.

    Arrays tell, and tracers if the axes of the mesh are of type `Explicit`.
    """
    at = leaf if hasattr(leaf, "sharding") else getattr(leaf, "aval", None)
    sharding = getattr(at, "sharding", None)
    return sharding is not None and not sharding.is_fully_replicated


def _is_packable(array: _Array, max_size: int) -> bool:
    size = math.prod(array.shape)
    return 0 < size <= max_size and jnp.issubdtype(array.dtype, jnp.inexact)


def _groups(arrays: Sequence[_Array], indices: Iterable[int]) -> list[tuple[int, ...]]:
    """The indices in groups of one shape and dtype, none too large."""
    alike: dict[Any, list[int]] = {}
    for index in indices:
        alike.setdefault(arrays[index][1:], []).append(index)
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
