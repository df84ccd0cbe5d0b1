"""Constraints on parameters by name, applied to the whole new value."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_lrmult.core.assignment import Assignment, OnUnmatched, assign
from optax_lrmult.core.expect import expect
from optax_lrmult.core.names import ParamLabels, PyTree
from optax_lrmult.core.rules import FunctionRule, Rule, RulesLike, as_rules
from optax_lrmult.core.values import as_scalar, is_number
from optax_lrmult.keras.adam import KERAS_EPSILON

Axis = int | tuple[int, ...]
Constraint = Callable[[jax.Array], jax.Array]
"""A function from an array to one of the same shape, for `constrain_by_name`."""


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
    rules = as_rules(constraints, "The table constraints").map(_checked)

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
        leaves, treedef = jax.tree.flatten(updates)
        rows = assign(updates, rules, param_labels=param_labels)
        columns = zip(leaves, treedef.flatten_up_to(params), rows, strict=True)
        return treedef.unflatten([_constrained(*column) for column in columns]), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _checked(constraint: Any, rule: Rule | FunctionRule) -> Any:
    owner, wanted = f"The constraint of rule {rule}", "a function of an array"
    fits = callable(constraint) and constraint not in _FACTORIES
    expect(fits, owner, f"{wanted}, as non_negative()", constraint, TypeError)
    return constraint


def _constrained(update: Any, param: Any, row: Assignment) -> Any:
    if row.rule is None:
        return update
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

    Example:
      >>> print(non_negative()(jnp.array([-1.0, 2.0])))
      [0. 2.]
    """

    def constraint(value: jax.Array) -> jax.Array:
        # Of an integer, such as the step, it would be a multiplier that grows.
        is_step = jnp.issubdtype(jnp.result_type(value), jnp.integer)
        wanted = "a parameter, as in a table of constrain_by_name"
        expect(not is_step, "What non_negative() is given", wanted, value, TypeError)
        return jnp.maximum(value, 0)

    return constraint


def max_norm(max_value: float = 2.0, axis: Axis = 0) -> Constraint:
    r"""The constraint $\|w\| \le$ `max_value` along axes, Keras' `MaxNorm`.

    $$w \leftarrow w \, \mathrm{clip}(\|w\|, 0, c) / (10^{-7} + \|w\|)$$

    Args:
      max_value: the largest norm $c$, in units of the parameter.
      axis: the axes over which the norm is taken; for a dense kernel `[in, out]`, 0
        gives one norm for each output, and so does (0, 1, 2) for that of a convolution.

    Raises:
      ValueError: `max_value` is not positive and finite.

    Source: https://keras.io/api/layers/constraints/

    Example:
      >>> print(max_norm(1.0)(jnp.array([[3.0, 0.3], [4.0, 0.4]])).round(3))
      [[0.6 0.3]
       [0.8 0.4]]
    """
    largest = as_scalar(max_value, "max_value")
    fits = not is_number(largest) or largest > 0
    expect(fits, "max_value", "positive", max_value)  # A negative one turns signs.

    def constraint(value: jax.Array) -> jax.Array:
        norm = _norm(value, axis)
        scaled = value * jnp.clip(norm, 0, largest) / (KERAS_EPSILON + norm)
        return scaled.astype(value.dtype)

    return constraint


def unit_norm(axis: Axis = 0) -> Constraint:
    r"""The constraint $\|w\| = 1$ along axes, Keras' `UnitNorm`.

    $$w \leftarrow w / (10^{-7} + \|w\|)$$

    The axes are those of `max_norm`.

    Example:
      >>> print(unit_norm()(jnp.array([3.0, 4.0])).round(3))
      [0.6 0.8]
    """

    def constraint(value: jax.Array) -> jax.Array:
        return (value / (KERAS_EPSILON + _norm(value, axis))).astype(value.dtype)

    return constraint


# Where a constraint belongs, without their parentheses they are a likely slip.
_FACTORIES = non_negative, max_norm, unit_norm


def _norm(value: jax.Array, axis: Axis) -> jax.Array:
    # In float32 at least: the square of 300 is too much for a float16.
    size = jnp.abs(value)
    size = size.astype(jnp.promote_types(size.dtype, jnp.float32))
    return jnp.sqrt(jnp.sum(jnp.square(size), axis=axis, keepdims=True))
