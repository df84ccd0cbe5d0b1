"""The numbers and flags that optimizers take, checked where they are given.

A traced value passes: `jit`, `vmap` and `optax.inject_hyperparams` hand them over.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_lrmult._values import (
    as_scalar,
    check_takes_one,
    is_number,
    is_schedule,
    shown,
)


def checked_learning_rate(value: Any) -> Any:
    """The learning rate: a finite number, or a schedule that is checked when called."""
    if not is_schedule(value):
        as_scalar(value, "learning_rate")
        return value
    check_takes_one(value, "The schedule learning_rate", "the step")

    def learning_rate(step: Any) -> Any:
        rate = value(step)
        check_is_real_scalar(rate, value)
        return rate

    return learning_rate


def check_is_real_scalar(value: Any, schedule: Any) -> None:
    """Raises a `ValueError` if a schedule returned anything else."""
    if not _is_real(value) or jnp.shape(value) != ():
        raise ValueError(
            f"The schedule {shown(schedule)} must return a real scalar, not "
            f"{shown(value)} ({type(value).__name__})."
        )


def _is_real(value: Any) -> bool:
    if not hasattr(value, "dtype"):
        return isinstance(value, int | float)
    kinds = (jnp.integer, jnp.floating, jnp.bool)
    return any(jnp.issubdtype(value.dtype, kind) for kind in kinds)


def check_decay_rate(value: Any, owner: str) -> None:
    """Raises if it is not in [0, 1): at 1 a moment would never move."""
    number = as_scalar(value, owner)
    if is_number(number) and not 0 <= number < 1:
        raise ValueError(f"The value of {owner} must be in [0, 1), not {shown(value)}.")


def check_not_negative(value: Any, owner: str) -> None:
    """Raises if a number is negative."""
    number = as_scalar(value, owner)
    if is_number(number) and number < 0:
        raise ValueError(
            f"The value of {owner} must not be negative, but is {shown(value)}."
        )


def is_transformation(value: Any) -> bool:
    """True for a pair of `init` and `update`, whatever its class."""
    return hasattr(value, "init") and hasattr(value, "update")


def check_has_state(state: Any) -> None:
    """Raises if a transformation is called without the state that it made."""
    if state is None:
        raise TypeError("The state is None; it must be what init(params) returns.")


def check_flag(value: Any, owner: str) -> None:
    """Raises if it is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(
            f"{owner} must be True or False, not {shown(value)} "
            f"({type(value).__name__})."
        )


def check_dtype(value: Any, owner: str) -> None:
    """Raises if it is no floating-point dtype; `None` passes."""
    try:
        is_floating = value is None or jnp.issubdtype(jnp.dtype(value), jnp.inexact)
    except TypeError:
        is_floating = False
    if not is_floating:
        raise TypeError(
            f"{owner} must be a floating-point dtype such as 'bfloat16', or None, not "
            f"{shown(value)}."
        )


def checked_mask(mask: Any) -> Callable[[Any], Any] | None:
    """The mask of an optax transformation, checked against the parameters."""
    if mask is None:
        return None
    if callable(mask):
        check_takes_one(mask, "The function mask", "the parameters")

    def mask_of(params: Any) -> Any:
        tree = mask(params) if callable(mask) else mask
        if not all(map(_is_bool, jax.tree.leaves(tree))):
            raise TypeError(
                f"mask must be a pytree of bool, not {shown(tree)}. Of a table write "
                "optax_lrmult.trainable(table): True where it is not 0."
            )
        try:
            jax.tree.map(lambda *_: None, tree, params)
        except ValueError as error:
            raise ValueError(
                "mask must have the structure of the parameters, or of a prefix of "
                f"it: {shown(str(error).splitlines()[0])}."
            ) from None
        return tree

    return mask_of


def _is_bool(leaf: Any) -> bool:
    return isinstance(leaf, bool) or getattr(leaf, "dtype", None) == np.bool_
