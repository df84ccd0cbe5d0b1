"""Constraints on parameters by name, applied to the whole new value."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_lrmult.core.assignment import Assignment, OnUnmatched, assign
from optax_lrmult.core.expect import expect
from optax_lrmult.core.names import ParamLabels, PyTree
from optax_lrmult.core.rules import RulesLike, as_rules
from optax_lrmult.keras.adam import KERAS_EPSILON

Axis = int | tuple[int, ...]
Constraint = Callable[[jax.Array], jax.Array]


def constrain_by_name(
    constraints: RulesLike,
    *,
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "error",
) -> optax.GradientTransformationExtraArgs:
    r"""Projects the new value of each parameter by the constraint of its name.

    $$u_p \leftarrow c(p + u_p) - p$$

    Place it last in the chain: it acts on the value that `optax.apply_updates` would
    give. A parameter frozen by a multiplier of 0 is constrained too.

    Args:
      constraints: a table from pattern to function of an array, such as `max_norm()` or
        `optax.projections.projection_simplex`, with the same patterns as `Rules`.
      param_labels: the names, if not those of `path_labels`.
      on_unmatched: what `init` does about a rule that matches no parameter.

    Returns:
      A transformation without state that needs `params` in `update`.

    Raises:
      TypeError: a constraint is not a function of an array.
      ValueError: from `init`, a rule matches no parameter; from `update`, `params` is
        missing, or a constraint changes a shape or a dtype.

    Example:
      >>> params = {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([0.5])}
      >>> constrain = constrain_by_name({"kernel": non_negative()})
      >>> tx = optax.chain(optax.sgd(1.0), constrain)
      >>> gradient = {"kernel": jnp.array([3.0, 1.0]), "bias": jnp.array([1.0])}
      >>> updates, _ = tx.update(gradient, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [0. 1.]
    """
    rules = as_rules(constraints, "The table of constraints")
    for rule in rules:
        is_constraint = callable(rule.value) and rule.value not in _FACTORIES
        owner, wanted = f"The constraint of rule {rule}", "a function of an array"
        expect(
            is_constraint, owner, f"{wanted}, as non_negative()", rule.value, TypeError
        )

    def init_fn(params: PyTree) -> optax.OptState:
        assign(
            params,
            rules,
            param_labels=param_labels,
            on_unmatched=on_unmatched,
            argument="constraints",
        )
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
        rows = iter(assign(updates, rules, param_labels=param_labels))

        def constrained(update: Any, param: Any) -> Any:
            row = next(rows)
            return update if row.rule is None else _constrained(update, param, row)

        return jax.tree.map(constrained, updates, params), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _constrained(update: Any, param: Any, row: Assignment) -> jax.Array:
    update = jnp.asarray(update)
    new = jnp.asarray(param) + update
    allowed = row.value(new)
    fits = (jnp.shape(allowed), jnp.result_type(allowed)) == (new.shape, new.dtype)
    owner = f"What the constraint of rule {row.rule} returns for {row.name!r}"
    expect(fits, owner, f"an array of shape {new.shape} and {new.dtype}", allowed)
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
    return lambda value: jnp.maximum(value, 0)


def max_norm(max_value: float = 2.0, axis: Axis = 0) -> Constraint:
    r"""The constraint $\|w\| \le$ `max_value` along axes, Keras' `MaxNorm`.

    $$w \leftarrow w \, \mathrm{clip}(\|w\|, 0, c) / (10^{-7} + \|w\|)$$

    Args:
      max_value: the largest norm $c$, in units of the parameter.
      axis: the axes over which the norm is taken; for a dense kernel `[in, out]`, 0
        gives one norm for each output, and so does (0, 1, 2) for that of a convolution.

    Returns:
      A function from an array to one of the same shape, for `constrain_by_name`.

    Source: https://keras.io/api/layers/constraints/

    Example:
      >>> print(max_norm(1.0)(jnp.array([[3.0, 0.3], [4.0, 0.4]])).round(3))
      [[0.6 0.3]
       [0.8 0.4]]
    """

    def constraint(value: jax.Array) -> jax.Array:
        norm = _norm(value, axis)
        scaled = value * jnp.clip(norm, 0, max_value) / (KERAS_EPSILON + norm)
        return scaled.astype(value.dtype)

    return constraint


def unit_norm(axis: Axis = 0) -> Constraint:
    r"""The constraint $\|w\| = 1$ along axes, Keras' `UnitNorm`.

    $$w \leftarrow w / (10^{-7} + \|w\|)$$

    Args:
      axis: the axes over which the norm is taken.

    Returns:
      A function from an array to one of the same shape, for `constrain_by_name`.

    Source: https://keras.io/api/layers/constraints/

    Example:
      >>> print(unit_norm()(jnp.array([3.0, 4.0])).round(3))
      [0.6 0.8]
    """
    return lambda value: (value / (KERAS_EPSILON + _norm(value, axis))).astype(
        value.dtype
    )


# Where a constraint belongs, without their parentheses they are a likely slip.
_FACTORIES = non_negative, max_norm, unit_norm


def _norm(value: jax.Array, axis: Axis) -> jax.Array:
    # In float32 at least: the square of 300 is too much for a float16.
    size = jnp.abs(value)
    size = size.astype(jnp.promote_types(size.dtype, jnp.float32))
    return jnp.sqrt(jnp.sum(jnp.square(size), axis=axis, keepdims=True))
