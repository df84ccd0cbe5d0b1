"""The state of a packed optimizer as that of the plain one, and the way back."""

import re
from collections.abc import Container, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves_with_path

from optax_lrmult._hyperparameters import check_has_state
from optax_lrmult._layout import Layout, layout_inside
from optax_lrmult._names import PyTree, names_of, unboxed
from optax_lrmult._packed_tree import Packed, is_mask, is_packed, packs_in
from optax_lrmult._values import shown


def unpacked_state(state: optax.OptState, params: PyTree) -> optax.OptState:
    """The state of a packed optimizer as that of the optimizer by itself.

    For checkpoints, and to look at moments by name. What a packed state has where
    depends on `max_size`, `keep` and how parameters are sharded; save the unpacked one,
    and take it back by `packed_state`. `packed` may stand anywhere in the optimizer.
    What a mask hides from it, as `mask_frozen=True` does, is an `optax.MaskedNode()` in
    the plain state too, for each parameter (not for a whole branch, as a mask that is a
    prefix of the tree has it). Of a state made under `vmap`, map this too; of shapes,
    take `jax.eval_shape(unpacked_state, state, params)`.

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

    state = _plain(state)
    masked = _masked(state)

    def unpack(node: Any) -> Any:
        if not is_packed(node):
            return node
        seen = _seen(params, node, masked)
        return layout_inside(node, seen).unpack(node, like=seen)

    return jax.tree.map(unpack, state, is_leaf=is_packed)


def packed_state(
    state: optax.OptState, params: PyTree, like: optax.OptState
) -> optax.OptState:
    """The way back: the state of an optimizer by itself as that of a packed one.

    To go on from a checkpoint that was written without `packed`, or with another
    `max_size`, sharding or `keep` and then unpacked.

    Args:
      state: the state of the same optimizer without `packed` in it.
      params: the parameters, as for `unpacked_state`.
      like: the packed optimizer's `init(params)`, which says what is packed. For an
        `nnx.Optimizer` its `opt_state`, since the result needs its boxes too:
        `optimizer.opt_state = packed_state(saved, params, like=optimizer.opt_state)`.

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
    plain = _plain(like)
    paths, treedef = tree_flatten_with_path(plain, is_leaf=is_packed)
    try:
        found = treedef.flatten_up_to(_plain(state))
    except ValueError:
        raise ValueError(
            "packed_state: `state` and `like` are of different optimizers. Pass the "
            "state of the optimizer without packed, the parameters, and of the same "
            "optimizer with packed like=tx.init(params), in this order. A checkpoint "
            "is restored into the first one's init(params)."
        ) from None
    masked, new = _masked(plain), []
    for (path, wanted), leaf in zip(paths, found, strict=True):
        if is_packed(wanted):
            layout = layout_inside(wanted, _seen(params, wanted, masked))
            new.append(_packed_like(layout, leaf))
        else:
            name = keystr(path)
            _check_same({name: jnp.shape(leaf)}, {name: jnp.shape(wanted)})
            new.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(new))


def _packed_like(layout: Layout, found: PyTree) -> PyTree:
    leaves = dict(zip(names_of(found), jax.tree.leaves(found), strict=True))
    shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
    _check_same(shapes, dict(zip(layout.names, layout.shapes, strict=True)))
    return layout.pack([leaves[name] for name in layout.names])


def _check_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in (*wanted, *found):
        has, needs = found.get(name, "nothing"), wanted.get(name, "nothing")
        if has != needs:
            raise ValueError(
                f"packed_state: of {shown(name)} the state has {has}, and `like` "
                f"{needs}. Both must be of the same parameters, with mask_frozen=True "
                "of the same frozen ones; of a state made under vmap, map the call too."
            )


def _masked(state: optax.OptState) -> set[int]:
    """The packed parts that a mask stands around: they know some parameters only."""
    nodes = jax.tree.leaves(state, is_leaf=is_mask)
    return {id(pack) for node in nodes if is_mask(node) for pack in packs_in(node)}


def _seen(params: PyTree, pack: Packed, masked: Container[int]) -> PyTree:
    """The parameters without what a mask around `packed` had hidden from it."""
    if id(pack) not in masked:
        return params
    leaves, treedef = jax.tree.flatten(params)
    rows, inside = zip(leaves, names_of(params), strict=True), pack.all_names
    seen = [x if name in inside else optax.MaskedNode() for x, name in rows]
    return jax.tree.unflatten(treedef, seen)


def _plain(state: optax.OptState) -> optax.OptState:
    """The state without boxes, if it still has the classes that `init` gave it."""
    check_has_state(state)
    if hasattr(state, "opt_state") and hasattr(state, "step"):  # SAM's has no step.
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
