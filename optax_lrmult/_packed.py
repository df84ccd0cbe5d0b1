"""Many small leaves in a few buffers, for an elementwise optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_lrmult._hyperparameters import check_not_negative, is_transformation
from optax_lrmult._layout import (
    Keep,
    Layout,
    Packed,
    is_packed,
    layout_inside,
    layout_of,
)
from optax_lrmult._names import PyTree, check_alike, unboxed
from optax_lrmult._values import shown

MAX_SIZE = 2**14


def packed(
    inner: optax.GradientTransformation,
    *,
    max_size: int = MAX_SIZE,
    keep: Keep = None,
) -> optax.GradientTransformationExtraArgs:
    """Runs an elementwise optimizer on a few buffers instead of many small leaves.

    A compiled step has a few kernels for each leaf, and on a tree of many small ones
    it is these that take the time. Leaves of one size and dtype are laid into buffers
    of up to 32, larger leaves stay as they are, and the updates are those of `inner`
    to the last rounding. Names are not lost, since trees go in and come out as they
    are: put multipliers around it, `with_name_multipliers(packed(tx), table)`.

    `inner` must treat each element by itself, and all of them alike, as `optax.adam`,
    `adamw`, `lion`, `sgd`, `rmsprop`, `nadam` and `amsgrad` do; a global norm is that
    of the tree too. What knows a leaf's shape or name gives other updates without an
    error: `lamb`, `lars`, `adafactor`, `clip_by_block_rms`, masks. Put these around.

    `init` decides what is packed, and `update` reads that from the state. A leaf that a
    mesh shards is left alone, since each step would gather its parts. Under `jit` a
    sharding is not to be seen if the mesh's axes are of type `Auto`: where `init` is
    jitted, or in `jax.eval_shape`, name such leaves by
    `keep=jax.tree.map(lambda p: not p.sharding.is_fully_replicated, params)`. The state
    of an eager `init` is sharded as the parameters are; `optax.tree.map_params` can't
    pair it with trees like the parameters.

    Args:
      inner: an elementwise transformation.
      max_size: the most elements of a leaf that is packed. Memory traffic, not the
        number of kernels, is what takes the time of larger ones.
      keep: leaves that are not packed, as a tree of `bool` like the parameters, or a
        function from the parameters to one.

    Returns:
      A transformation whose state is `inner`'s, of a tuple of buffers and leaves
      instead of the tree; `unpacked_state` turns it into that of the tree, and
      `packed_state` one of the tree into it.

    Raises:
      TypeError: `inner` is no gradient transformation, or a parameter no array.
      ValueError: `max_size` is negative, `keep` is no tree like the parameters; from
        `update`, parameters (gradients, if none are given) are not those of the state,
        or gradients not like parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_lrmult import with_name_multipliers
      >>> params = {f"layer_{i}": jnp.ones((4, 4)) for i in range(20)}
      >>> tx = with_name_multipliers(packed(optax.adam(1e-3)), {"layer_0": 0})
      >>> state = tx.init(params)
      >>> len(jax.tree.leaves(state))  # a count, and a buffer for each of two moments
      3
      >>> updates, state = tx.update(params, state, params)
      >>> print(f"{updates['layer_0'][0, 0]} {updates['layer_1'][0, 0]:.4f}")
      0.0 -0.0010
    """
    if not is_transformation(inner):
        raise TypeError(
            "packed wraps a gradient transformation such as optax.adam(1e-3), not "
            f"{shown(inner)} ({type(inner).__name__})."
        )
    check_not_negative(max_size, "max_size")
    transformation = optax.with_extra_args_support(inner)

    def init_fn(params: PyTree) -> optax.OptState:
        if _packs_in(params):
            raise ValueError("packed stands inside of packed: leave out one of them.")
        layout = layout_of(params, max_size, keep)
        try:
            return transformation.init(layout.pack(params))
        except (TypeError, ValueError) as error:
            error.add_note(
                "Raised inside packed, where parameters are buffers without names: put "
                "what reads names around it, as in with_name_multipliers(packed(tx), "
                "table)."
            )
            raise

    def update_fn(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, optax.OptState]:
        if state is None:
            raise TypeError("The state is None; it must be what init(params) returns.")
        packs = _packs_in(state)
        if not packs:  # Without moments there are no kernels to be saved.
            return transformation.update(updates, state, params, **extra_args)
        layout = _layout_inside(packs[0], updates if params is None else params)
        now = None
        if params is not None:
            check_alike(updates, params)
            now = layout.pack(params)
        new, state = transformation.update(
            layout.pack(updates), state, now, **extra_args
        )
        return layout.unpack(new, like=updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def unpacked_state(state: optax.OptState, params: PyTree) -> optax.OptState:
    """The state of a packed optimizer as that of the optimizer by itself.

    For a checkpoint that is to be read without `packed`, and to look at moments by
    name. `packed` may stand anywhere in the optimizer. Inside of a mask it sees some
    of the parameters only: with `mask_frozen=True` hide the others here too, by
    `jax.tree.map(lambda t, p: p if t else optax.MaskedNode(), trainable(table)(params),
    params)`.

    Args:
      state: the state of an optimizer with `packed` in it, or the `opt_state` of an
        `nnx.Optimizer`, whose boxes are left out.
      params: the parameters, or their shapes and dtypes.

    Returns:
      The state with each set of buffers as a tree like `params`: for `packed(inner)`
      of the structure of `inner.init(params)`.

    Raises:
      ValueError: the state was made with other parameters.

    Example:
      >>> import jax.numpy as jnp
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
        return _layout_inside(node, params).unpack(node, like=params)

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
      like: the packed optimizer's `init(params)`, which says what is packed.

    Returns:
      The numbers of `state` in the structure of `like`.

    Raises:
      ValueError: the states are of different optimizers or parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {f"layer_{i}": jnp.ones((4, 4)) for i in range(20)}
      >>> saved = optax.adam(1e-3).init(params)
      >>> tx = packed(optax.adam(1e-3))
      >>> state = packed_state(saved, params, like=tx.init(params))
      >>> updates, state = tx.update(params, state, params)
    """
    _refuse_state(params)
    wanted, treedef = jax.tree.flatten(like, is_leaf=is_packed)
    try:
        found = treedef.flatten_up_to(state)
    except ValueError:
        raise ValueError(
            "packed_state: `state` and `like` are of different optimizers. Pass the "
            "state of the optimizer without packed, the parameters, and of the same "
            f"optimizer with packed like=tx.init(params), not {shown(like)}."
        ) from None
    rows = zip(wanted, found, strict=True)
    new = [_packed_like(w, f, params) if is_packed(w) else f for w, f in rows]
    return jax.tree.unflatten(treedef, new)


def _packed_like(wanted: Packed, found: PyTree, params: PyTree) -> PyTree:
    layout = _layout_inside(wanted, params)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(found)]
    if shapes != list(layout.shapes):
        raise ValueError(
            f"packed_state: the state has {len(shapes)} arrays, of other shapes than "
            f"the {len(layout.shapes)} parameters, where `like` has packed ones."
        )
    return layout.pack(found)


def _packs_in(tree: PyTree) -> list[Packed]:
    return [
        node for node in jax.tree.leaves(tree, is_leaf=is_packed) if is_packed(node)
    ]


def _refuse_state(params: PyTree) -> None:
    if _packs_in(params):
        raise ValueError("packed: a state stands where the parameters should.")


def _layout_inside(pack: Packed, params: PyTree) -> Layout:
    """The layout that a part of a state was made with."""
    layout = layout_inside(params, pack)
    found = [buffer.size for buffer in pack.buffers]
    wanted = [layout.size(group) * len(group) for group in layout.groups]
    # Another layout than the state's would give moments to the wrong parameters.
    if found != wanted:
        raise ValueError(
            f"packed: the state has buffers of {shown(found)} elements, and what is "
            f"packed of these parameters would make some of {shown(wanted)}. If "
            "gradients are of other dtypes than parameters, pass params to update; if "
            "a mask hides parameters, as mask_frozen=True does, see unpacked_state."
        )
    return layout
