"""The state of a packed optimizer as that of the plain one, and the way back."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_leaves_with_path

from optax_lrmult._layout import layout_inside
from optax_lrmult._names import PyTree, names_of, unboxed
from optax_lrmult._packed_tree import Packed, is_packed, packs_in
from optax_lrmult._values import shown


def unpacked_state(state: optax.OptState, params: PyTree) -> optax.OptState:
    """The state of a packed optimizer as that of the optimizer by itself.

    For checkpoints, and to look at moments by name. What a packed state has where
    depends on `max_size`, `keep` and how parameters are sharded; save the unpacked one,
    and take it back by `packed_state`. `packed` may stand anywhere in the optimizer.
    What a mask hides from it, as `mask_frozen=True` does, is an `optax.MaskedNode()` in
    the plain state too. Of a state made under `vmap`, map this too.

    Args:
      state: the state of an optimizer with `packed` in it, or the `opt_state` of an
        `nnx.Optimizer`, whose boxes are left out.
      params: the parameters, or their shapes and dtypes.

    Returns:
      The state with each set of buffers as a tree like `params`: for `packed(inner)`
      of the structure of `inner.init(params)`.

    Raises:
      TypeError: it is no such state, but a train state or what it was saved as.
      ValueError: the state is that of parameters of other names or shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_lrmult import packed
      >>> params = {f"layer_{i}": jnp.ones((4, 4)) for i in range(20)}
      >>> state = packed(optax.adam(1e-3)).init(params)
      >>> plain = unpacked_state(state, params)
      >>> jax.tree.structure(plain) == jax.tree.structure(optax.adam(1e-3).init(params))
      True
    """
    _refuse_state(params)

    def unpack(node: Any) -> Any:
        if not is_packed(node):
            return node
        seen = _seen(params, node)
        return layout_inside(node, seen).unpack(node, like=seen)

    return jax.tree.map(unpack, _plain(state), is_leaf=is_packed)


def packed_state(
    state: optax.OptState, params: PyTree, like: optax.OptState
) -> optax.OptState:
    """The way back: the state of an optimizer by itself as that of a packed one.

    To go on from a checkpoint that was written without `packed`, or with another
    `max_size`, sharding or `keep` and then unpacked.

    Args:
      state: the state of the same optimizer without `packed` in it.
      params: the parameters, as for `unpacked_state`.
      like: the packed optimizer's `init(params)`, which says what is packed, or the
        `opt_state` of an `nnx.Optimizer`.

    Returns:
      The numbers of `state` in the structure of `like`.

    Raises:
      ValueError: the states are of different optimizers or parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_lrmult import packed
      >>> params = {f"layer_{i}": jnp.ones((4, 4)) for i in range(20)}
      >>> saved = optax.adam(1e-3).init(params)
      >>> tx = packed(optax.adam(1e-3))
      >>> state = packed_state(saved, params, like=tx.init(params))
      >>> updates, state = tx.update(params, state, params)
    """
    _refuse_state(params)
    wanted, treedef = jax.tree.flatten(_plain(like), is_leaf=is_packed)
    try:
        found = treedef.flatten_up_to(_plain(state))
    except ValueError:
        raise ValueError(
            "packed_state: `state` and `like` are of different optimizers. Pass the "
            "state of the optimizer without packed, the parameters, and of the same "
            "optimizer with packed like=tx.init(params), in this order."
        ) from None
    rows = zip(wanted, found, strict=True)
    new = [_packed_like(w, f, params) if is_packed(w) else f for w, f in rows]
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(new))


def _packed_like(wanted: Packed, found: PyTree, params: PyTree) -> PyTree:
    layout = layout_inside(wanted, _seen(params, wanted))
    leaves = dict(zip(names_of(found), jax.tree.leaves(found), strict=True))
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        if name not in leaves or jnp.shape(leaves[name]) != shape:
            has = f"{jnp.shape(leaves[name])}" if name in leaves else "nothing"
            raise ValueError(
                f"packed_state: the state has {has} of the parameter {shown(name)}, "
                f"which is of the shape {shape}."
            )
    return layout.pack([leaves[name] for name in layout.names])


def _seen(params: PyTree, pack: Packed) -> PyTree:
    """The parameters without what a mask around `packed` had hidden from it."""
    leaves, treedef = jax.tree.flatten(params)
    rows, inside = zip(leaves, names_of(params), strict=True), pack.all_names
    seen = [x if name in inside else optax.MaskedNode() for x, name in rows]
    return jax.tree.unflatten(treedef, seen)


def _plain(state: optax.OptState) -> optax.OptState:
    """The state without boxes, if it still has the classes that `init` gave it."""
    if hasattr(state, "opt_state"):
        raise TypeError(
            "packed: this takes the state of an optimizer, such as tx.init(params), "
            f"not {type(state).__name__}. Pass its opt_state."
        )
    paths = [keystr(path) for path, _ in tree_leaves_with_path(state)]
    if any(re.search(r"\['buffers'\]\['\d+ \(", path) for path in paths):
        raise TypeError(
            "packed: the state is a mapping of what a packed state holds. Restore it "
            "into tx.init(params), or of an nnx.Optimizer pass optimizer.opt_state."
        )
    return unboxed(state)


def _refuse_state(params: PyTree) -> None:
    if packs_in(params):
        raise ValueError("packed: a state stands where the parameters should.")
