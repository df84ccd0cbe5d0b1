"""The Keras optimizer `Adam_lr_mult`, step for step."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import chain, clip, clip_by_global_norm, identity

from optax_lrmult.core.assignment import OnUnmatched
from optax_lrmult.core.expect import expect
from optax_lrmult.core.names import ParamLabels, PyTree
from optax_lrmult.core.rules import RulesLike, as_rules
from optax_lrmult.core.values import as_scalar, is_number
from optax_lrmult.keras.adam import KERAS_EPSILON, scale_by_adam
from optax_lrmult.keras.constraints import constrain_by_name
from optax_lrmult.report.preview import preview
from optax_lrmult.transforms.by_name import with_name_multipliers

_LOGGER = logging.getLogger("optax_lrmult")


def adam_lr_mult(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float | None = None,
    decay: float = 0.0,
    amsgrad: bool = False,
    multipliers: RulesLike = None,
    constraints: RulesLike = None,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    on_unmatched: OnUnmatched = "error",
    *,
    param_labels: ParamLabels = None,
    mask_frozen: bool = False,
    verbose: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""The Keras 2 optimizer `Adam_lr_mult`, step for step.

    $$p \leftarrow c\left(p - m(\mathrm{name}(p)) \, \frac{\alpha}{1 + d i}
      \, u\right)$$

    with the updates $u$ of `keras.scale_by_adam` at step $i = 0, 1, \dots$ It is a
    whole optimizer: pass its updates to `optax.apply_updates`.

    Args:
      learning_rate: the rate $\alpha$ of a parameter with the multiplier 1, or a
        schedule.
      b1: decay rate of the first moment.
      b2: decay rate of the second moment.
      eps: added to the root of the second moment; `None` is Keras' 1e-7.
      decay: inverse time decay $d$ of the learning rate, per step.
      amsgrad: divide by the largest second moment so far.
      multipliers: a table of rules; see `scale_by_name_multiplier`. The original took
        a dictionary, its keys as substrings in their order, as here.
      constraints: a table from pattern to function of an array; see
        `constrain_by_name`.
      clipnorm: the largest norm of all gradients together; `None` or 0 is no limit.
      clipvalue: the largest size of an element of a gradient, after `clipnorm`.
      on_unmatched: what `init` does about a rule that matches no parameter; the
        original ignored it.
      param_labels: the names, if not those of `path_labels`.
      mask_frozen: keep no moments for parameters whose multiplier is the number 0, and
        leave their gradients out of `clipnorm`; see `with_name_multipliers`.
      verbose: log a preview from `init`, to the logger `optax_lrmult` at the level
        `INFO` (the original's `debug_verbose`).

    Returns:
      The optimizer. Its state is that of `keras.scale_by_adam`, whatever the options;
      with `mask_frozen` it is that of `optax.masked` around it.

    Raises:
      TypeError: a table, `decay` or a limit is of a wrong type.
      ValueError: `decay` or a limit is negative or not finite; from `init`, a rule
        matches no parameter.

    Source: Erik Brorson 2018,
    https://erikbrorson.github.io/2018/04/30/Adam-with-learning-rate-multipliers/

    Example:
      >>> params = {"layer_1": jnp.ones(2), "layer_2": jnp.ones(2)}
      >>> tx = adam_lr_mult(0.01, multipliers={"layer_1": 1, "layer_2": 0.5})
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates))
      {'layer_1': Array([0.99, 0.99], dtype=float32),
       'layer_2': Array([0.995, 0.995], dtype=float32)}
    """
    core = scale_by_adam(b1, b2, KERAS_EPSILON if eps is None else eps, amsgrad)
    decay = _at_least_0(decay, "decay")
    limits = chain(
        _limited(clip_by_global_norm, clipnorm, "clipnorm"),
        _limited(clip, clipvalue, "clipvalue"),
    )

    def step_fn(
        updates: PyTree, state: Any, params: PyTree = None
    ) -> tuple[PyTree, optax.OptState]:
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        rate = jnp.negative(rate) / (1 + decay * state.count)
        updates, _ = limits.update(updates, limits.init(updates))
        updates, state = core.update(updates, state, params)
        updates = jax.tree.map(lambda u: (rate * u).astype(u.dtype), updates)
        return updates, state

    multipliers = as_rules(multipliers, "The table multipliers")
    names: Any = {"param_labels": param_labels, "on_unmatched": on_unmatched}
    step = optax.GradientTransformation(core.init, step_fn)
    tx = with_name_multipliers(step, multipliers, mask_frozen=mask_frozen, **names)
    constrain = constrain_by_name(constraints, **names)

    def init_fn(params: PyTree) -> optax.OptState:
        constrain.init(params)
        state = tx.init(params)
        if verbose:
            # Without a word on dead rules, since they have just been told.
            table = preview(
                params, multipliers, param_labels=param_labels, on_unmatched="ignore"
            )
            _LOGGER.info("The multipliers are:\n%s", table)
        return state

    def update_fn(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, optax.OptState]:
        updates, state = tx.update(updates, state, params, **extra_args)
        if constraints:
            updates, _ = constrain.update(updates, optax.EmptyState(), params)
        return updates, state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _at_least_0(value: Any, owner: str) -> Any:
    """The number: with a negative one, training would go uphill."""
    number = as_scalar(value, owner)
    expect(not is_number(number) or number >= 0, owner, "at least 0", value)
    return number


def _limited(
    limited_to: Callable[[Any], optax.GradientTransformation], limit: Any, owner: str
) -> optax.GradientTransformation:
    """The clipping to a limit, where Keras takes 0 for none, as of a traced one."""
    limit = 0.0 if limit is None else _at_least_0(limit, owner)
    if is_number(limit):
        return limited_to(limit) if limit > 0 else identity()
    return limited_to(jnp.where(limit > 0, limit, jnp.inf))
