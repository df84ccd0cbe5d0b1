"""The product of an update and its multiplier, and what it costs: nothing."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_lrmult._hyperparameters import check_is_real_scalar
from optax_lrmult._multipliers import Assignment
from optax_lrmult._names import PyTree
from optax_lrmult._values import (
    Multiplier,
    PerLayer,
    is_number,
    is_schedule,
    needs_step,
    shown,
)


def scale_by_assignment(
    updates: PyTree, assignments: Sequence[Assignment], step: Any = None
) -> PyTree:
    """Each update times its multiplier, with its dtype kept.

    Args:
      updates: a pytree of arrays.
      assignments: what each leaf gets, in the tree's order.
      step: the number of steps taken, an int32 scalar, for schedules.
    """
    leaves, treedef = jax.tree.flatten(updates)
    multipliers = [row.multiplier for row in assignments]
    factors = _factors(assignments, step)
    rows = zip(leaves, multipliers, factors, strict=True)
    return jax.tree.unflatten(treedef, [_scaled(*row) for row in rows])


def _scaled(update: Any, multiplier: Multiplier, factor: Any) -> Any:
    dtype = update.dtype if hasattr(update, "dtype") else jnp.result_type(update)
    if not jnp.issubdtype(dtype, jnp.inexact):
        return update
    if is_number(multiplier) and multiplier in (0.0, 1.0):
        return update if multiplier else jnp.zeros_like(update)
    if isinstance(multiplier, PerLayer):
        shape = [1] * jnp.ndim(update)
        shape[multiplier.axis] = -1
        factor = factor.reshape(shape)
    times = jnp.multiply if is_number(multiplier) else _jitted_times_unless_zero
    return _product(times, factor, jnp.asarray(update))


def _product(times: Any, factor: jax.Array, update: jax.Array) -> jax.Array:
    if jnp.iscomplexobj(update):
        parts = (_product(times, factor, part) for part in (update.real, update.imag))
        return jax.lax.complex(*parts)
    wide = update.dtype if jnp.finfo(update.dtype).bits >= 32 else jnp.float32
    return times(factor.astype(wide), update.astype(wide)).astype(update.dtype)


@jax.custom_jvp
def _times_unless_zero(factor: jax.Array, update: jax.Array) -> jax.Array:
    """The product, but 0 x NaN is 0: a frozen parameter stays, come what may."""
    return jnp.where(factor == 0, 0, factor * update)


@_times_unless_zero.defjvp
def _times_unless_zero_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    """The product's own derivative, so that a multiplier of 0 can be learned."""
    (factor, update), (d_factor, d_update) = primals, tangents
    finite = jnp.where((factor == 0) & ~jnp.isfinite(update), 0, update)
    tangent = d_factor * finite + _times_unless_zero(factor, d_update)
    return _times_unless_zero(factor, update), tangent


# One trace for a shape instead of one for a leaf.
_jitted_times_unless_zero = jax.jit(_times_unless_zero)


def _factors(assignments: Sequence[Assignment], step: Any) -> list[Any]:
    """The multipliers as arrays, each distinct one made once.

    Numbers and schedules stand behind a barrier. A constant that is baked in makes the
    kernel of every leaf a different one, and compilation several times as long; behind
    the barrier XLA does not see it, and leaves share kernels.
    """
    multipliers = [row.multiplier for row in assignments]
    constants = _shared_constants(multipliers)
    made: dict[int, Any] = {}
    for row in assignments:
        key = id(row.multiplier)
        if key not in made and not is_number(row.multiplier):
            made[key] = _made(row, step)
    return [constants.get(m) if is_number(m) else made[id(m)] for m in multipliers]


def _made(row: Assignment, step: Any) -> jax.Array:
    try:
        value = at_step(row.multiplier, step)
    except Exception as error:
        error.add_note(f"Raised by the schedule of {row.rule} for {shown(row.name)}.")
        raise
    return _hidden(value, step) if needs_step(row.multiplier) else value


def _shared_constants(multipliers: Sequence[Multiplier]) -> dict[float, jax.Array]:
    numbers = sorted({m for m in multipliers if is_number(m) and m not in (0.0, 1.0)})
    # Of shape [1]: shard_map of jax 0.5 can't check a barrier around scalar literals.
    constants = [np.full(1, number, jnp.result_type(float)) for number in numbers]
    if constants:
        constants = jax.lax.optimization_barrier(constants)
    return {n: jnp.reshape(c, ()) for n, c in zip(numbers, constants, strict=True)}


def _hidden(value: jax.Array, step: Any) -> jax.Array:
    # A schedule may return a constant; with the step in it, it is no literal.
    return jax.lax.optimization_barrier(value + jnp.asarray(0 * step, value.dtype))


def at_step(multiplier: Multiplier, step: Any) -> jax.Array:
    """The value of a multiplier at a step, as an array.

    Args:
      multiplier: a float, a schedule, a traced scalar, or a `PerLayer` of these.
      step: the number of steps taken, an int32 scalar; read by schedules only.

    Returns:
      A floating-point scalar, or for `PerLayer` a vector.
    """
    if isinstance(multiplier, PerLayer):
        if not isinstance(multiplier.values, tuple):
            return multiplier.values
        return jnp.stack([at_step(value, step) for value in multiplier.values])
    value = multiplier(step) if is_schedule(multiplier) else multiplier
    check_is_real_scalar(value, multiplier)
    return jnp.asarray(value, jnp.result_type(float))
