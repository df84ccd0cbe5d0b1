"""Decoupled weight decay with multipliers of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_lrmult._hyperparameters import check_not_negative
from optax_lrmult._multipliers import OnUnmatched
from optax_lrmult._names import ParamLabels, PyTree, check_alike
from optax_lrmult._rules import RulesLike
from optax_lrmult._transform import scale_by_name_multiplier
from optax_lrmult._values import as_scalar


def add_decayed_weights_by_name(
    weight_decay: Any,
    multipliers: RulesLike = None,
    *,
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "error",
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the parameters to the updates, times weight decay, times a multiplier.

    $$u_p \leftarrow u_p + m(\mathrm{name}(p)) \, \lambda \, p$$

    Place it where `optax.add_decayed_weights` stands in `optax.adamw`: after the core
    and before the learning rate. In front of `scale_by_name_multiplier` the decay is
    multiplied once more, with the update.

    Args:
      weight_decay: the decay $\lambda$ per step and unit of learning rate, a real
        number or a traced scalar.
      multipliers: a table of rules; see `scale_by_name_multiplier`. A parameter without
        a rule decays in full.
      param_labels: the names, if not those of `path_labels`.
      on_unmatched: what `init` does about a rule that matches no parameter.

    Returns:
      A transformation that needs `params` in `update` and keeps the updates' dtypes.

    Raises:
      TypeError: `weight_decay` or a rule is of a wrong type.
      ValueError: a number is not finite, or the decay is negative; from `init`, a rule
        matches no parameter; from `update`, `params` is missing or unlike the updates.

    Source: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101

    Example:
      >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
      >>> tx = add_decayed_weights_by_name(0.01, {"bias": 0})
      >>> updates = jax.tree.map(jnp.zeros_like, params)
      >>> print(tx.update(updates, tx.init(params), params)[0])
      {'bias': Array([0., 0.], dtype=float32),
       'kernel': Array([0.01, 0.01], dtype=float32)}
    """
    check_not_negative(weight_decay, "weight_decay")
    weight_decay = as_scalar(weight_decay, "weight_decay")
    scale = scale_by_name_multiplier(
        multipliers, param_labels=param_labels, on_unmatched=on_unmatched
    )

    def update_fn(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, optax.OptState]:
        if params is None:
            raise ValueError(
                "add_decayed_weights_by_name adds the parameters: call "
                "update(updates, state, params)."
            )
        check_alike(updates, params)
        scaled, state = scale.update(params, state, **extra_args)

        def decayed(update: Any, weight: Any) -> Any:
            if not jnp.issubdtype(jnp.result_type(weight), jnp.inexact):
                return update
            dtype = jnp.result_type(update)
            return jnp.asarray(update + weight_decay * weight).astype(dtype)

        return jax.tree.map(decayed, updates, scaled), state

    return optax.GradientTransformationExtraArgs(scale.init, update_fn)
