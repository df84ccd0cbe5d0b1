"""The state of a packed optimizer as that of the plain one, and the way back."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_lrmult._layout import Packed, is_packed, layout_inside, packs_in
from optax_lrmult._names import PyTree, unboxed


def unpacked_state(state: optax.OptState, params: PyTree) -> optax.OptState:
    """The state of a packed optimizer as that of the optimizer by itself.

    For checkpoints, and to look at moments by name. What a packed state has where
    depends on `max_size`, `keep` and how parameters are sharded; save the unpacked one,
    and take it back by `packed_state`. `packed` may stand anywhere in the optimizer.
    Inside of a mask it sees some of the parameters only: with `mask_frozen=True` hide
    the others here too, by `jax.tree.map(lambda t, p: p if t else optax.MaskedNode(),
    trainable(table)(params), params)`. Of a state made under `vmap`, map this too.

    Args:
      state: the state of an optimizer with `packed` in it, or the `opt_state` of an
        `nnx.Optimizer`, whose boxes are left out.
      params: the parameters, or their shapes and dtypes.

    Returns:
      The state with each set of buffers as a tree like `params`: for `packed(inner)`
      of the structure of `inner.init(params)`.

    Raises:
      ValueError: the parameters would fill other buffers than the state's. Names are
        not compared: other parameters of the same sizes pass.

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
        return layout_inside(node, params).unpack(node, like=params)

    return jax.tree.map(unpack, unboxed(state), is_leaf=is_packed)


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
    wanted, treedef = jax.tree.flatten(unboxed(like), is_leaf=is_packed)
    try:
        found = treedef.flatten_up_to(unboxed(state))
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
    layout = layout_inside(wanted, params)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(found)]
    if shapes != list(layout.shapes):
        raise ValueError(
            f"packed_state: the state has {len(shapes)} arrays, of other shapes than "
            f"the {len(layout.shapes)} parameters, where `like` has packed ones."
        )
    return layout.pack(found)


def _refuse_state(params: PyTree) -> None:
    if packs_in(params):
        raise ValueError("packed: a state stands where the parameters should.")
