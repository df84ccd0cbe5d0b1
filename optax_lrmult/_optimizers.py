"""Adam and AdamW, ready-made, with multipliers."""

from typing import Any, Literal

import optax

from optax_lrmult._adam import scale_by_raw_amsgrad
from optax_lrmult._hyperparameters import (
    check_decay_rate,
    check_dtype,
    check_flag,
    check_not_negative,
    checked_learning_rate,
    checked_mask,
)
from optax_lrmult._multipliers import OnUnmatched
from optax_lrmult._names import ParamLabels
from optax_lrmult._rules import RulesLike
from optax_lrmult._transform import with_name_multipliers
from optax_lrmult._values import shown

MaxOf = Literal["corrected", "raw"]


def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    multipliers: RulesLike = None,
    amsgrad: bool = False,
    max_of: MaxOf = "corrected",
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "error",
    mask_frozen: bool = False,
    verbose: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""`optax.adam` or `optax.amsgrad`, with multipliers by name.

    $$p \leftarrow p - m(\mathrm{name}(p)) \, \alpha \, \hat m / (\sqrt{\hat v +
      \epsilon_r} + \epsilon)$$

    A whole optimizer: pass its updates to `optax.apply_updates`. The numerics are
    optax's; the state has exactly the tree structure of `optax.adam`'s, or with AMSGrad
    of `optax.amsgrad`'s, so checkpoints go both ways.

    Args:
      learning_rate: the rate $\alpha$ of a parameter with the multiplier 1, or a
        schedule.
      b1: decay rate of the first moment.
      b2: decay rate of the second moment.
      eps: added outside the root, in units of the gradient.
      eps_root: added inside the root, in units of the squared gradient.
      mu_dtype: dtype of the first moment; the parameters' if `None`.
      nesterov: use Nesterov momentum (not with AMSGrad).
      multipliers: a table of rules; see `scale_by_name_multiplier`.
      amsgrad: divide by the largest second moment so far.
      max_of: with AMSGrad, `"corrected"` takes the maximum of the bias-corrected second
        moment, as optax does; `"raw"` of the raw one, as PyTorch does.
      param_labels: the names, if not those of `path_labels`.
      on_unmatched: what `init` does about a rule that matches no parameter.
      mask_frozen: keep no moments for parameters of a static multiplier 0; the state is
        then another one. See `with_name_multipliers`.
      verbose: log the assignment from `init`.

    Returns:
      The optimizer.

    Raises:
      TypeError: a number, an option or a rule is of a wrong type.
      ValueError: a number is out of range or not finite, or the options do not go
        together; see `with_name_multipliers` too.

    Source: Kingma and Ba 2015, https://arxiv.org/abs/1412.6980; Reddi et al. 2018,
    https://openreview.net/forum?id=ryQu7f-RZ

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
      >>> tx = adam(0.1, multipliers={"stem": 0.5})
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> new_params = optax.apply_updates(params, updates)
      >>> print({name: f"{p[0]:.2f}" for name, p in new_params.items()})
      {'head': '0.90', 'stem': '0.95'}
    """
    learning_rate = checked_learning_rate(learning_rate)
    moments = (b1, b2, eps, eps_root, mu_dtype)
    _check_moments(*moments)
    _check_options(nesterov, amsgrad, max_of)
    if not amsgrad:
        tx = optax.adam(learning_rate, *moments, nesterov=nesterov)
    else:
        core = _scale_by_amsgrad(max_of)(*moments)
        tx = optax.chain(core, optax.scale_by_learning_rate(learning_rate))
    return with_name_multipliers(
        tx,
        multipliers,
        param_labels=param_labels,
        on_unmatched=on_unmatched,
        mask_frozen=mask_frozen,
        verbose=verbose,
    )


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    weight_decay: float = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    multipliers: RulesLike = None,
    amsgrad: bool = False,
    max_of: MaxOf = "corrected",
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "error",
    mask_frozen: bool = False,
    verbose: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""`optax.adamw`, with multipliers by name that scale the weight decay too.

    $$p \leftarrow p - m(\mathrm{name}(p)) \, \alpha \, (\hat m / (\sqrt{\hat v +
      \epsilon_r} + \epsilon) + \lambda p)$$

    A whole optimizer. As in PyTorch's parameter groups a multiplier is a multiple of
    the learning rate, so a parameter with the multiplier 0 does not decay either. The
    state has exactly the tree structure of `optax.adamw`'s.

    Args:
      learning_rate: the rate $\alpha$ of a parameter with the multiplier 1, or a
        schedule.
      b1: decay rate of the first moment.
      b2: decay rate of the second moment.
      eps: added outside the root, in units of the gradient.
      eps_root: added inside the root, in units of the squared gradient.
      mu_dtype: dtype of the first moment; the parameters' if `None`.
      weight_decay: the decay $\lambda$ per step and unit of learning rate.
      mask: which parameters decay, as in `optax.adamw`.
      nesterov: use Nesterov momentum (not with AMSGrad).
      multipliers: a table of rules; see `scale_by_name_multiplier`.
      amsgrad: divide by the largest second moment so far.
      max_of: as in `adam`.
      param_labels: the names, if not those of `path_labels`.
      on_unmatched: what `init` does about a rule that matches no parameter.
      mask_frozen: keep no moments for parameters of a static multiplier 0; the state is
        then another one. See `with_name_multipliers`.
      verbose: log the assignment from `init`.

    Returns:
      The optimizer.

    Raises:
      TypeError: a number, an option or a rule is of a wrong type.
      ValueError: a number is out of range or not finite, or the options do not go
        together; see `with_name_multipliers` too.

    Source: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
      >>> tx = adamw(0.1, weight_decay=0.1, multipliers={"stem": 0})
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> new_params = optax.apply_updates(params, updates)
      >>> print({name: f"{p[0]:.2f}" for name, p in new_params.items()})
      {'head': '0.89', 'stem': '1.00'}
    """
    learning_rate = checked_learning_rate(learning_rate)
    moments = (b1, b2, eps, eps_root, mu_dtype)
    _check_moments(*moments)
    _check_options(nesterov, amsgrad, max_of)
    check_not_negative(weight_decay, "weight_decay")
    mask = checked_mask(mask)
    if not amsgrad:
        tx = optax.adamw(learning_rate, *moments, weight_decay, mask, nesterov=nesterov)
    else:
        tx = optax.chain(
            _scale_by_amsgrad(max_of)(*moments),
            optax.add_decayed_weights(weight_decay, mask),
            optax.scale_by_learning_rate(learning_rate),
        )
    return with_name_multipliers(
        tx,
        multipliers,
        param_labels=param_labels,
        on_unmatched=on_unmatched,
        mask_frozen=mask_frozen,
        verbose=verbose,
    )


def _check_moments(b1: Any, b2: Any, eps: Any, eps_root: Any, mu_dtype: Any) -> None:
    check_decay_rate(b1, "b1")
    check_decay_rate(b2, "b2")
    check_not_negative(eps, "eps")
    check_not_negative(eps_root, "eps_root")
    check_dtype(mu_dtype, "mu_dtype")


def _check_options(nesterov: bool, amsgrad: bool, max_of: str) -> None:
    check_flag(nesterov, "nesterov")
    check_flag(amsgrad, "amsgrad")
    if max_of not in ("corrected", "raw"):
        raise ValueError(f"max_of must be 'corrected' or 'raw', not {shown(max_of)}.")
    if nesterov and amsgrad:
        raise ValueError("nesterov=True and amsgrad=True do not go together.")
    if max_of == "raw" and not amsgrad:
        raise ValueError("max_of='raw' says how AMSGrad works: add amsgrad=True.")


def _scale_by_amsgrad(max_of: MaxOf) -> Any:
    return scale_by_raw_amsgrad if max_of == "raw" else optax.scale_by_amsgrad
