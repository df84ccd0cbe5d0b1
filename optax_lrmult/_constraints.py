"""Constraints on parameters by name, applied to the whole new value."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_lrmult._multipliers import Assignment, OnUnmatched
from optax_lrmult._names import ParamLabels, PyTree, check_alike
from optax_lrmult._rules import Rules, RulesLike
from optax_lrmult._table import Table
from optax_lrmult._values import as_scalar, is_number, is_schedule, shown

Axis = int | tuple[int, ...]
Constraint = Callable[[jax.Array], jax.Array]

KERAS_EPSILON = 1e-7


def constrain_by_name(
    constraints: RulesLike,
    *,
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "error",
) -> optax.GradientTransformationExtraArgs:
    r"""Projects the new value of each parameter by the constraint of its name.

    $$u_p \leftarrow c(p + u_p) - p$$

    Place it last in the chain: it acts on the value that `optax.apply_updates` would
    give. A parameter frozen by a multiplier of 0 is constrained too. An update of fewer
    bits than its parameter is rounded, and the constraint holds to these bits.

    Args:
      constraints: a table from pattern to function of an array, such as `max_norm()` or
        `optax.projections.projection_simplex`, with the same patterns as `Rules`.
      param_labels: the names, if not those of `path_labels`.
      on_unmatched: what `init` does about a rule that matches no parameter.

    Returns:
      A transformation without state that needs `params` in `update`.

    Raises:
      TypeError: a constraint is not a function of one argument, or a pattern is of a
        wrong type; from `update`, a constraint returns no array of the parameter's
        dtype.
      ValueError: from `init`, a rule matches no parameter; from `update`, `params` is
        missing or unlike the updates, or a constraint changes the shape.

    Example:
      >>> params = {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([0.5])}
      >>> constrain = constrain_by_name({"kernel": non_negative()})
      >>> tx = optax.chain(optax.sgd(1.0), constrain)
      >>> gradient = {"kernel": jnp.array([3.0, 1.0]), "bias": jnp.array([1.0])}
      >>> updates, _ = tx.update(gradient, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [0. 1.]
    """
    table = Table(_rules(constraints), param_labels, on_unmatched, verbose=False)

    def init_fn(params: PyTree) -> optax.OptState:
        table.inspect(params)
        return optax.EmptyState()

    def update_fn(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, optax.OptState]:
        del extra_args
        if params is None:
            raise ValueError(
                "constrain_by_name acts on the new parameters: call "
                "update(updates, state, params)."
            )
        check_alike(updates, params)
        leaves, treedef = jax.tree.flatten(updates)
        rows = table.assignments(updates)
        columns = zip(leaves, jax.tree.leaves(params), rows, strict=True)
        return jax.tree.unflatten(treedef, [_constrained(*c) for c in columns]), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _rules(constraints: RulesLike) -> Rules:
    try:
        rules = Rules(constraints)
    except TypeError as error:
        error.add_note(
            "Raised by constrain_by_name, which takes a function of an array for each "
            'pattern: {"kernel": non_negative()}, with its parentheses.'
        )
        raise
    for rule in rules:
        if rule.multiplier is None:
            raise TypeError(
                "constrain_by_name takes a table from pattern to constraint, as in "
                f'{{"kernel": max_norm()}}, not the function {rule} alone.'
            )
        if not is_schedule(rule.multiplier) or rule.multiplier in _FACTORIES:
            raise TypeError(
                f"The constraint of rule {rule} must be a function of an array, such "
                f"as max_norm(), not {shown(rule.multiplier)}."
            )
    return rules


def _constrained(update: Any, param: Any, row: Assignment) -> Any:
    if row.rule is None:
        return update
    update = jnp.asarray(update)
    new = jnp.asarray(param) + update
    try:
        allowed = row.multiplier(new)
    except Exception as error:
        error.add_note(f"Raised by the constraint of {row.rule} for {shown(row.name)}.")
        raise
    if getattr(allowed, "dtype", None) != new.dtype:
        raise TypeError(
            f"The constraint of rule {row.rule} must return an array of dtype "
            f"{new.dtype} for {shown(row.name)}, not {shown(allowed)} "
            f"({type(allowed).__name__})."
        )
    if jnp.shape(allowed) != jnp.shape(new):
        raise ValueError(
            f"The constraint of rule {row.rule} turns {shown(row.name)} of shape "
            f"{jnp.shape(new)} into shape {jnp.shape(allowed)}; it must keep the shape."
        )
    # Where nothing changes, the update stays as it is to the last bit.
    return jnp.where(allowed == new, update, allowed - param).astype(update.dtype)


def non_negative() -> Constraint:
    r"""The constraint $w \leftarrow \max(w, 0)$, Keras' `NonNeg`.

    Returns:
      A function from an array to one of the same shape, for `constrain_by_name`.

    Example:
      >>> print(non_negative()(jnp.array([-1.0, 2.0])))
      [0. 2.]
    """
    return _non_negative


def max_norm(max_value: float = 2.0, axis: Axis = 0) -> Constraint:
    r"""The constraint $\|w\| \le$ `max_value` along axes, Keras' `MaxNorm`.

    $$w \leftarrow w \, \mathrm{clip}(\|w\|, 0, c) / (10^{-7} + \|w\|)$$

    Args:
      max_value: the largest norm $c$, in units of the parameter.
      axis: the axes over which the norm is taken; for a dense kernel `[in, out]`, 0
        gives one norm for each output, and so does (0, 1, 2) for that of a convolution.

    Returns:
      A function from an array to one of the same shape, for `constrain_by_name`.

    Raises:
      TypeError: `max_value` is no number, or `axis` no int and no tuple of them.
      ValueError: `max_value` is not positive and finite; from the function, the array
        has no such axis.

    Source: https://keras.io/api/layers/constraints/

    Example:
      >>> print(max_norm(1.0)(jnp.array([[3.0, 0.3], [4.0, 0.4]])).round(3))
      [[0.6 0.3]
       [0.8 0.4]]
    """
    largest = as_scalar(max_value, "max_value")
    if is_number(largest) and not largest > 0:
        raise ValueError(
            f"max_norm: max_value must be positive, not {shown(max_value)}."
        )
    _check_axis(axis)

    return functools.partial(_with_max_norm, max_value=max_value, axis=axis)


def unit_norm(axis: Axis = 0) -> Constraint:
    r"""The constraint $\|w\| = 1$ along axes, Keras' `UnitNorm`.

    $$w \leftarrow w / (10^{-7} + \|w\|)$$

    Args:
      axis: the axes over which the norm is taken.

    Returns:
      A function from an array to one of the same shape, for `constrain_by_name`.

    Raises:
      TypeError: `axis` is no int and no tuple of them.
      ValueError: from the function, the array has no such axis.

    Source: https://keras.io/api/layers/constraints/

    Example:
      >>> print(unit_norm()(jnp.array([3.0, 4.0])).round(3))
      [0.6 0.8]
    """
    _check_axis(axis)
    return functools.partial(_with_unit_norm, axis=axis)


_FACTORIES = max_norm, unit_norm


# At the module's level, so that a table of constraints can be pickled.
def _non_negative(value: jax.Array) -> jax.Array:
    if jnp.issubdtype(jnp.result_type(value), jnp.integer):
        raise TypeError(
            "non_negative() is a constraint, and got an integer: as a multiplier it "
            "would be a schedule, which gets the step. Write it into constrain_by_name."
        )
    return jnp.maximum(value, 0)


def _with_max_norm(value: jax.Array, max_value: float, axis: Axis) -> jax.Array:
    norm = _norm(value, axis)
    scaled = value * jnp.clip(norm, 0, max_value) / (KERAS_EPSILON + norm)
    return scaled.astype(value.dtype)


def _with_unit_norm(value: jax.Array, axis: Axis) -> jax.Array:
    return (value / (KERAS_EPSILON + _norm(value, axis))).astype(value.dtype)


def _check_axis(axis: Any) -> None:
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(a, int) and not isinstance(a, bool) for a in axes):
        raise TypeError(
            f"axis must be an int or a tuple of them, not {shown(axis)} "
            f"({type(axis).__name__})."
        )


def _norm(value: jax.Array, axis: Axis) -> jax.Array:
    rank, axes = jnp.ndim(value), axis if isinstance(axis, tuple) else (axis,)
    known = {a % rank for a in axes if -rank <= a < rank}
    if len(known) < len(axes):
        raise ValueError(
            f"The norm is taken over the axis {axis}, and an array of shape "
            f"{jnp.shape(value)} has none, or it once only. Give it a rule of its own."
        )
    # In float32 at least: the square of 300 is too much for a float16.
    size = jnp.abs(value)
    size = size.astype(jnp.promote_types(size.dtype, jnp.float32))
    return jnp.sqrt(jnp.sum(jnp.square(size), axis=axis, keepdims=True))
