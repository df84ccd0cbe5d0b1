"""The README's way from one set of frozen parameters to another."""

from typing import Any

import jax
import optax

import optax_lrmult as olm


def is_hidden(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def taken_over(new: optax.OptState, old: optax.OptState) -> optax.OptState:
    """The moments of the old state, where both states have them."""
    return jax.tree.map(
        lambda new, old: new if is_hidden(new) or is_hidden(old) else old,
        new,
        old,
        is_leaf=is_hidden,
    )


def masked_adam(
    learning_rate: float, frozen: str, *, pack: bool
) -> optax.GradientTransformationExtraArgs:
    adam = optax.adam(learning_rate)
    inner = olm.packed(adam) if pack else adam
    return olm.with_name_multipliers(inner, {frozen: 0}, mask_frozen=True)
