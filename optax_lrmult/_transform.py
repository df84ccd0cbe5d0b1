"""The gradient transformations that multiply updates by name."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from optax_lrmult._hyperparameters import check_flag, check_has_state, is_transformation
from optax_lrmult._injection import (
    ScaleByNameMultiplierState,
    check_injectable,
    initial_multipliers,
    injected_shapes,
)
from optax_lrmult._multipliers import OnUnmatched
from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._rules import Rules, RulesLike
from optax_lrmult._table import Table
from optax_lrmult._values import shown
from optax_lrmult._wrapped_state import check_fits, step_of


def scale_by_name_multiplier(
    multipliers: RulesLike,
    *,
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "error",
    inject: bool = False,
    verbose: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies the update of each parameter by the multiplier of its name.

    $$u_p \leftarrow m(\mathrm{name}(p)) \, u_p$$

    Place it after the core (`optax.scale_by_adam`), and after weight decay if decay is
    to be multiplied too, as PyTorch's parameter groups do; before or after the learning
    rate. In front of Adam it has no effect, since Adam divides by the gradient's size,
    and decay that is added behind it still moves a parameter of multiplier 0. In front
    of a trust ratio it has none either, behind `schedule_free` (stand in its base),
    `prodigy` and `madgrad` another one, and in `optax.flatten` names are lost:
    `effective_multipliers` measures it.

    Args:
      multipliers: a table of rules, read in order; the first one that matches a name
        wins, and a name without a rule has 1. See `Rules` for what it may be, and
        `per_layer` for stacked parameters. A multiplier is a real number without unit
        (0 freezes, a negative one ascends), a schedule of the step, or a traced scalar.
      param_labels: the names, if not those of `path_labels`: a function from a pytree
        to a pytree of strings, or such a pytree.
      on_unmatched: what `init` does about a rule that matches no parameter: `"error"`,
        `"warn"` or `"ignore"`.
      inject: keep the multipliers in the state, where `set_multipliers` changes them
        between steps without a new compilation. Those of a restored state go on, also
        if the table has others by now.
      verbose: log the assignment from `init`, to the logger `optax_lrmult` at level
        INFO, or to stderr if that is switched off.

    Returns:
      A transformation. Its state is `optax.EmptyState()`, or with a schedule or
      `inject` a `ScaleByNameMultiplierState`. Updates of any floating dtype and shape
      keep it; the product is taken in float32 at least. Others (integers, `float0`)
      pass.

    Raises:
      TypeError: the table, a pattern or a multiplier is of a wrong type.
      ValueError: a multiplier is not finite; from `init`, a rule matches no parameter.

    Example:
      >>> params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
      >>> tx = optax.chain(
      ...     optax.scale_by_adam(),
      ...     scale_by_name_multiplier({"stem": 0.1}),
      ...     optax.scale_by_learning_rate(1e-3),
      ... )
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print({name: f"{u[0]:.4f}" for name, u in updates.items()})
      {'head': '-0.0010', 'stem': '-0.0001'}
    """
    table = Table(Rules(multipliers), param_labels, on_unmatched, verbose)
    check_flag(inject, "inject")
    if inject:
        check_injectable(table.rules)
    return optax.GradientTransformationExtraArgs(
        _Init(table, inject), _Update(table, inject)
    )


# Two frozen dataclasses instead of closures: transformations of equal tables are equal,
# do not compile twice as static arguments, and can be pickled.
@dataclasses.dataclass(frozen=True)
class _Init:
    table: Table
    inject: bool

    def __call__(self, params: PyTree) -> optax.OptState:
        self.table.inspect(params)
        if not (self.inject or self.table.rules.need_step):
            return optax.EmptyState()
        multipliers = initial_multipliers(self.table.rules) if self.inject else {}
        return ScaleByNameMultiplierState(jnp.zeros([], jnp.int32), multipliers)


@dataclasses.dataclass(frozen=True)
class _Update:
    table: Table
    inject: bool

    def __call__(
        self, updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, optax.OptState]:
        del params, extra_args
        if not isinstance(state, ScaleByNameMultiplierState):
            self._check_stateless(state)
            return self.table.scale(updates), state
        self._check_injected(state)
        scaled = self.table.scale(updates, state.count, state.multipliers)
        return scaled, state._replace(count=optax.safe_increment(state.count))

    def _check_stateless(self, state: Any) -> None:
        if self.inject or self.table.rules.need_step:
            raise TypeError(
                "A schedule, or inject=True, needs the state that init(params) "
                "returns, "
                f"a ScaleByNameMultiplierState, not {type(state).__name__}."
            )

    def _check_injected(self, state: ScaleByNameMultiplierState) -> None:
        wanted = injected_shapes(self.table.rules) if self.inject else {}
        found = {text: jnp.shape(m) for text, m in state.multipliers.items()}
        if found != wanted:
            raise ValueError(
                "The state holds the injected multipliers of other rules, by their "
                f"texts and shapes {shown(found)}, and this table injects "
                f"{shown(wanted)}. To go on with those of the table: optax.tree.set("
                "state, multipliers=optax.tree.get(init(params), 'multipliers'))."
            )


def with_name_multipliers(
    tx: optax.GradientTransformation,
    multipliers: RulesLike,
    *,
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "error",
    mask_frozen: bool = False,
    verbose: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Gives a finished optimizer multipliers, and leaves its state as it is.

    $$u_p \leftarrow m(\mathrm{name}(p)) \, \mathrm{tx}(g)_p$$

    Stands around a whole optimizer (`optax.adamw(1e-3)`), whose weight decay is then
    multiplied too. The state has exactly the tree structure of `tx`'s, so checkpoints
    go both ways and rules may change between runs. A schedule reads the step from the
    first `count` in `tx`'s state.

    Args:
      tx: the optimizer.
      multipliers: a table of rules; see `scale_by_name_multiplier`.
      param_labels: the names, if not those of `path_labels`.
      on_unmatched: what `init` does about a rule that matches no parameter.
      mask_frozen: hide parameters of a static multiplier 0 from `tx`, so that they
        have no state and cost no step. The state is then that of `optax.masked(tx,
        trainable(multipliers))`: another set of frozen parameters is another state.
      verbose: log the assignment from `init`.

    Returns:
      A transformation with `tx`'s state.

    Raises:
      TypeError: `tx` is no gradient transformation, or a rule is of a wrong type.
      ValueError: a multiplier is not finite; from `init`, a rule matches no parameter,
        or a schedule finds no step count in `tx`'s state.

    Example:
      >>> import jax
      >>> params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
      >>> tx = with_name_multipliers(optax.lion(1e-3), {"stem": 0})
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print(updates["stem"])
      [0. 0.]
      >>> jax.tree.structure(state) == jax.tree.structure(optax.lion(1e-3).init(params))
      True
    """
    if not is_transformation(tx):
        raise TypeError(
            "with_name_multipliers wraps a gradient transformation such as "
            f"optax.adamw(1e-3), not {shown(tx)} ({type(tx).__name__})."
        )
    table = Table(Rules(multipliers), param_labels, on_unmatched, verbose)
    check_flag(mask_frozen, "mask_frozen")
    inner = optax.with_extra_args_support(tx)
    if mask_frozen:
        inner = optax.masked(inner, table.trainable)
    needs_step = table.rules.need_step

    def init_fn(params: PyTree) -> optax.OptState:
        table.inspect(params)
        state = inner.init(params)
        if needs_step:
            step_of(state)
        return state

    def update_fn(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, optax.OptState]:
        check_has_state(state)
        step = step_of(state) if needs_step else None
        try:
            updates, state = inner.update(updates, state, params, **extra_args)
        except (AttributeError, TypeError, ValueError):
            check_fits(inner, state, updates if params is None else params)
            raise
        return table.scale(updates, step), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
