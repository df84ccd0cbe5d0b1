"""Many small leaves in a few buffers, for an elementwise optimizer."""

from typing import Any

import jax
import optax

from optax_lrmult._hyperparameters import (
    check_has_state,
    check_not_negative,
    is_transformation,
)
from optax_lrmult._layout import Keep, Layout, layout_inside, layout_of
from optax_lrmult._names import PyTree, check_alike
from optax_lrmult._packed_tree import is_mask, is_packed, packs_in
from optax_lrmult._values import shortened, shown


def packed(
    inner: optax.GradientTransformation,
    *,
    max_size: int = 2**14,
    keep: Keep = None,
) -> optax.GradientTransformationExtraArgs:
    """Runs an elementwise optimizer on a few buffers instead of many small leaves.

    A compiled step has a few kernels for each leaf, and on a tree of many small ones
    it is these that take the time. Leaves of one shape and dtype are laid into buffers
    of up to 32, larger leaves stay as they are, and the updates are those of `inner`
    to the last rounding. Names are not lost, since trees go in and come out as they
    are: put multipliers around it, `with_name_multipliers(packed(tx), table)`.

    `inner` must treat each element by itself, and all of them alike, as `optax.adam`,
    `adamw`, `lion`, `rmsprop`, `nadam` and `amsgrad` do; a global norm is that of the
    tree too. What knows a leaf's shape gives other updates without an error: `lamb`,
    `clip_by_block_rms`. Masks (`lars` and `muon` have one), and what keeps a state by
    leaf (`adafactor`, `sm3`, `zero_nans`), are refused. Put these around; for the mask
    of `adamw` that is `optax.chain(packed(optax.scale_by_adam()),
    add_decayed_weights_by_name(0.01, no_decay()), optax.scale_by_learning_rate(1e-3))`.
    Without a state, as in `sgd` without momentum, nothing is packed.

    `init` decides what is packed, and `update` reads that from the state; a state of
    the plain optimizer goes on unpacked. A leaf that a mesh shards is left alone, since
    each step would gather its parts. Under `jit` a sharding is not to be seen if the
    mesh's axes are of type `Auto`: where `init` is jitted, or in `jax.eval_shape`, name
    such leaves by `keep=jax.tree.map(lambda p: not p.sharding.is_fully_replicated,
    params)`. The state of an eager `init` is sharded as the parameters are;
    `optax.tree.map_params` can't pair it with trees like the parameters.

    Args:
      inner: an elementwise transformation.
      max_size: the most elements of a leaf that is packed. Memory traffic, not the
        number of kernels, is what takes the time of larger ones.
      keep: leaves that are not packed, as a tree of `bool` like the parameters, or a
        function from the parameters to one.

    Returns:
      A transformation whose state is `inner`'s, of buffers and leaves by their names
      instead of the tree; `unpacked_state` turns it into that of the tree, and
      `packed_state` one of the tree into it.

    Raises:
      TypeError: `inner` is no gradient transformation, or a parameter no array.
      ValueError: `max_size` is negative; from `init`, `keep` is no tree like the
        parameters, or `inner` is not elementwise; from `update`, the state is
        that of parameters of other names or shapes, or gradients are not like
        parameters, or of several dtypes in one buffer.

    Example:
      >>> import jax
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
        if is_packed(params):
            raise ValueError("packed stands inside of packed: leave out one of them.")
        layout = layout_of(params, max_size, keep)
        try:
            state = transformation.init(layout.pack(params))
        except (AttributeError, TypeError, ValueError) as error:
            if "Packed" not in str(error):
                raise
            raise ValueError(
                "packed: inside of it the parameters are a few buffers, and the "
                "optimizer looks for a tree or for names. Put what does around it: "
                f"masks, labels, lookahead. {_first_line(error)}"
            ) from None
        _check_elementwise(state, layout)
        return state

    def update_fn(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, optax.OptState]:
        check_has_state(state)
        packs = packs_in(state)
        if not packs:  # Without moments there are no kernels to be saved.
            return transformation.update(updates, state, params, **extra_args)
        if params is not None:
            check_alike(updates, params)
        layout = layout_inside(packs[0], updates)
        now = None if params is None else layout.pack(params)
        new, state = transformation.update(
            layout.pack(updates), state, now, **extra_args
        )
        return layout.unpack(new, like=updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_elementwise(state: optax.OptState, layout: Layout) -> None:
    if any(map(is_mask, jax.tree.leaves(state, is_leaf=is_mask))):
        raise ValueError(
            "packed: a mask inside of packed sees buffers instead of the parameters. "
            "Put it around packed. For weight decay: optax.chain(packed("
            "optax.scale_by_adam()), add_decayed_weights_by_name(0.01, no_decay()), "
            "optax.scale_by_learning_rate(1e-3))."
        )
    for pack in packs_in(state):
        for key, wanted in layout.buffer_shapes.items():
            _check_shape(pack.buffers[key], wanted)


def _first_line(error: Exception) -> str:
    return shortened(str(error).splitlines()[0])


def _check_shape(buffer: Any, wanted: tuple[int]) -> None:
    shape = getattr(buffer, "shape", None)
    if shape != wanted:
        found = "nothing" if shape is None else f"an array of shape {shape}"
        raise ValueError(
            f"packed: for a buffer of {wanted[0]} elements the optimizer's state has "
            f"{found}, so it does not treat each element by itself. Use it without "
            "packed, or if it is a link of a chain, put it around: "
            "optax.chain(optax.zero_nans(), packed(tx))."
        )
