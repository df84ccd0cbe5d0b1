"""A tree in a few buffers, which says itself what is where."""

import math
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_lrmult._values import shown


class Packed(NamedTuple):
    """A tree as `packed` shows it to its inner transformation.

    Attributes:
      buffers: vectors, each of leaves of one shape and dtype, one after the other; by
        a number and this shape, as in `"0 (8, 4)"`.
      names: of the leaves in each buffer, in their order: dictionaries, whose values
        are `None`. So a state says itself what is packed in it, also under `jit`.
      leaves: the other leaves as they are, by name.
    """

    buffers: dict[str, jax.Array]
    names: dict[str, dict[str, None]]
    leaves: dict[str, Any]

    @property
    def all_names(self) -> set[str]:
        """Of the leaves in buffers, and of the others."""
        return set(self.leaves).union(*self.names.values())


def is_packed(node: Any) -> bool:
    """Whether it is a `Packed`; also for `is_leaf`."""
    return isinstance(node, Packed)


def packs_in(tree: Any) -> list[Packed]:
    """All of them, such as the moments of a state."""
    return [
        node for node in jax.tree.leaves(tree, is_leaf=is_packed) if is_packed(node)
    ]


def is_mask(node: Any) -> bool:
    """Whether it is the state of `optax.masked`; also for `is_leaf`."""
    return isinstance(node, optax.MaskedState)


def check_describes(pack: Packed, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a `ValueError` if a part of a state is that of other parameters.

    Args:
      pack: the part of a state.
      shapes: of the parameters, by their names.
    """
    _check_names(pack.all_names, shapes.keys())
    found = {name: str(jnp.shape(leaf)) for name, leaf in pack.leaves.items()}
    for key, names in pack.names.items():
        found |= dict.fromkeys(names, key.partition(" ")[2])
    for name, shape in found.items():
        if shape != str(shapes[name]):
            raise ValueError(
                "packed: the state is that of parameters of other shapes: the shape "
                f"of {shown(name)} is {shape} in it, and {shapes[name]} here. Of a "
                "state made under vmap, map the call too."
            )
    for key, names in pack.names.items():
        _check_buffer(pack.buffers[key], sum(math.prod(shapes[n]) for n in names))


def _check_names(inside: Set[str], names: Set[str]) -> None:
    found = [
        f"has {shown(name)}, which is not among these"
        for name in sorted(inside - names)[:1]
    ]
    found += [f"has no {shown(name)}" for name in sorted(names - inside)[:1]]
    if found:
        raise ValueError(
            f"packed: the state is that of other parameters: it {' and '.join(found)}. "
            "A mask hides parameters, as mask_frozen=True does those of multiplier 0: "
            "restore a state with the rules that it was saved with."
        )


def _check_buffer(buffer: Any, size: int) -> None:
    if jnp.shape(buffer) != (size,):
        raise ValueError(
            f"packed: the state has a buffer of shape {jnp.shape(buffer)}, not "
            f"{(size,)}. Of a state made under vmap, map the call too."
        )
