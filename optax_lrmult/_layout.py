"""Which leaves of a tree share a buffer, and the way in and out of it."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from optax_lrmult._names import PyTree, names_of, shape_and_dtype
from optax_lrmult._packed_tree import Packed, check_describes, is_packed
from optax_lrmult._values import check_takes_one, shown

# Of a buffer: a concatenation of more takes long to compile, and saves little.
_MOST_LEAVES = 32

Keep = Callable[[PyTree], PyTree] | PyTree


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
            key: self._buffer([leaves[index] for index in group])
            for key, group in self.groups.items()
        }
        names = {
            key: dict.fromkeys(self.names[index] for index in group)
            for key, group in self.groups.items()
        }
        left = {self.names[index]: leaves[index] for index in self.left}
        return Packed(buffers, names, left)

    def _buffer(self, parts: Sequence[Any]) -> jax.Array:
        dtypes = {str(jnp.result_type(part)) for part in parts}
        if len(dtypes) > 1:
            raise ValueError(
                f"packed: the arrays of one buffer are of the dtypes {sorted(dtypes)}, "
                "and would become all of one. Cast gradients like the parameters: "
                "jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, params)."
            )
        return jnp.concatenate(list(map(jnp.ravel, parts)))

    def unpack(self, tree: PyTree, like: PyTree) -> PyTree:
        """The way back, into the structure of `like`."""
        if not is_packed(tree):
            return tree
        leaves = [tree.leaves.get(name) for name in self.names]
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
    arrays = _arrays(tree)
    kept = _kept(tree, arrays, keep)
    small = [
        index
        for index, leaf in enumerate(jax.tree.leaves(tree))
        if not kept[index]
        and _is_packable(arrays[index], max_size)
        and not _is_sharded(leaf)
    ]
    # In the order of names, so that a dictionary and a class make the same one.
    small.sort(key=lambda index: arrays[index].name)
    several = [group for group in _groups(arrays, small) if len(group) > 1]
    return _layout(
        arrays, {f"{n} {arrays[g[0]].shape}": g for n, g in enumerate(several)}
    )


def layout_inside(pack: Packed, tree: PyTree) -> Layout:
    """The layout that a part of a state was made with, from a tree like `tree`.

    Raises:
      ValueError: the state is that of other parameters, by names or by shapes.
    """
    arrays = _arrays(tree)
    check_describes(pack, {array.name: array.shape for array in arrays})
    index_of = {array.name: index for index, array in enumerate(arrays)}
    groups = {
        key: tuple(index_of[name] for name in sorted(names))
        for key, names in pack.names.items()
    }
    return _layout(arrays, groups)


def _layout(arrays: Sequence[_Array], groups: dict[str, tuple[int, ...]]) -> Layout:
    names, shapes, _ = zip(*arrays, strict=True) if arrays else ((), (), ())
    return Layout(names, shapes, groups)


def _arrays(tree: PyTree) -> list[_Array]:
    # Dtypes are what JAX makes of them: without 64 bits, float64 of NumPy is float32.
    return [
        _Array(name, shape_and_dtype(name, leaf)[0], jnp.result_type(leaf))
        for name, leaf in zip(names_of(tree), jax.tree.leaves(tree), strict=True)
    ]


def _is_sharded(leaf: Any) -> bool:
    """Whether it is known that the leaf's parts lie on several devices.

    Arrays tell, and tracers if the axes of the mesh are of type `Explicit`: of these
    also an axis of one device counts, since JAX reshapes no array that names it.
    """
    owners = leaf, getattr(leaf, "aval", None)
    shardings = [getattr(owner, "sharding", None) for owner in owners]
    return any(map(_splits, shardings))


def _splits(sharding: Any) -> bool:
    if sharding is None:
        return False
    mesh = getattr(sharding, "mesh", None)
    is_explicit = AxisType.Explicit in (getattr(mesh, "axis_types", None) or ())
    names_an_axis = any(getattr(sharding, "spec", None) or ())
    return (is_explicit and names_an_axis) or not sharding.is_fully_replicated


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


def _kept(tree: PyTree, arrays: Sequence[_Array], keep: Keep) -> list[bool]:
    """By name, so that it may say more than a mask around `packed` shows."""
    if keep is None:
        return [False] * len(arrays)
    if callable(keep):
        check_takes_one(keep, "The function keep", "the parameters")
        keep = keep(tree)
    kept = dict(zip(names_of(keep), jax.tree.leaves(keep), strict=True))
    for name in [array.name for array in arrays]:
        if not isinstance(kept.get(name), bool | np.bool_):
            raise ValueError(
                f"packed: keep has {shown(kept.get(name))} for the parameter "
                f"{shown(name)}. It must be a tree of bool like the parameters, or a "
                "function to one."
            )
    return [bool(kept[array.name]) for array in arrays]
