"""Many small leaves in a few buffers, for an elementwise optimizer."""

from typing import Any

import jax
import optax

from optax_lrmult._hyperparameters import is_transformation
from optax_lrmult._layout import Keep, Layout, Packed, layout_of
from optax_lrmult._names import PyTree, path_labels
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

    Which leaves are packed depends on `max_size`, `keep`, and the sizes and dtypes of
    parameters (of gradients, where `update` is given no parameters), so `init` and
    `update` agree under every transformation of JAX. A leaf that is sharded over a
    mesh must be kept, or its parts are gathered:
    `keep=jax.tree.map(lambda p: not p.sharding.is_fully_replicated, params)`.

    Args:
      inner: an elementwise transformation.
      max_size: the most elements of a leaf that is packed. Memory traffic, not the
        number of kernels, is what takes the time of larger ones.
      keep: leaves that are not packed, as a tree of `bool` like the parameters, or a
        function from the parameters to one.

    Returns:
      A transformation whose state is `inner`'s, of a tuple of buffers and leaves
      instead of the tree; `unpacked_state` turns it into that of the tree.

    Raises:
      TypeError: `inner` is no gradient transformation.
      ValueError: `max_size` is negative; from `init`, a leaf to be packed is sharded;
        from `update`, gradients are laid out unlike the state.

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
    if max_size < 0:
        raise ValueError(f"packed: max_size is a number of elements, not {max_size}.")
    transformation = optax.with_extra_args_support(inner)

    def init_fn(params: PyTree) -> optax.OptState:
        layout = layout_of(params, max_size, keep)
        _check_unsharded(params, layout)
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
        layout = layout_of(updates if params is None else params, max_size, keep)
        _check_fits(state, layout)
        now = None if params is None else layout.pack(params)
        new, state = transformation.update(
            layout.pack(updates), state, now, **extra_args
        )
        return layout.unpack(new, like=updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def unpacked_state(
    state: optax.OptState,
    params: PyTree,
    *,
    max_size: int = MAX_SIZE,
    keep: Keep = None,
) -> optax.OptState:
    """The state of a packed optimizer as that of the optimizer by itself.

    For a checkpoint that is to be read without `packed`, and to look at moments by
    name. `packed` may stand anywhere in the optimizer. Inside of a mask it sees some
    of the parameters only: with `mask_frozen=True` hide the others here too, by
    `jax.tree.map(lambda t, p: p if t else optax.MaskedNode(), trainable(table)(params),
    params)`.

    Args:
      state: the state of an optimizer with `packed` in it.
      params: the parameters, or their shapes and dtypes.
      max_size: as given to `packed`.
      keep: as given to `packed`.

    Returns:
      The state with each set of buffers as a tree like `params`: for `packed(inner)`
      of the structure of `inner.init(params)`.

    Raises:
      ValueError: the state was made with other parameters, `max_size` or `keep`.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {f"layer_{i}": jnp.ones((4, 4)) for i in range(20)}
      >>> state = packed(optax.adam(1e-3)).init(params)
      >>> plain = unpacked_state(state, params)
      >>> jax.tree.structure(plain) == jax.tree.structure(optax.adam(1e-3).init(params))
      True
    """
    layout = layout_of(params, max_size, keep)
    _check_fits(state, layout)

    def unpack(node: Any) -> Any:
        return layout.unpack(node, like=params) if _is_packed(node) else node

    return jax.tree.map(unpack, state, is_leaf=_is_packed)


def _is_packed(node: Any) -> bool:
    return isinstance(node, Packed)


def _check_unsharded(params: PyTree, layout: Layout) -> None:
    """Only arrays tell; packing a tracer that turns out sharded is slow, not wrong."""
    leaves = jax.tree.leaves(params)
    for index in (index for group in layout.groups for index in group):
        sharding = getattr(leaves[index], "sharding", None)
        if sharding is not None and not sharding.is_fully_replicated:
            name = jax.tree.leaves(path_labels(params))[index]
            raise ValueError(
                f"packed: {name!r} is sharded over a mesh, and each step would gather "
                "its parts. Pass packed(..., keep=jax.tree.map(lambda p: "
                "not p.sharding.is_fully_replicated, params))."
            )


def _check_fits(state: optax.OptState, layout: Layout) -> None:
    """A layout that is not the state's would give moments to the wrong parameters."""
    sizes = [layout.size(group) * len(group) for group in layout.groups]
    for node in jax.tree.leaves(state, is_leaf=_is_packed):
        if _is_packed(node) and [buffer.size for buffer in node.buffers] != sizes:
            raise ValueError(
                "packed: the state has buffers of "
                f"{[buffer.size for buffer in node.buffers]} elements, and these "
                f"parameters, max_size and keep make some of {sizes}. Use those that "
                "the state was made with. If gradients are of other dtypes than "
                "parameters, pass params to update; if a mask hides parameters, as "
                "mask_frozen=True does, see unpacked_state."
            )
