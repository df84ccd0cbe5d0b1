"""The Adam/AMSGrad cores that optax does not have: Keras 2's, and PyTorch's AMSGrad."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_lrmult._hyperparameters import (
    check_decay_rate,
    check_flag,
    check_not_negative,
)
from optax_lrmult._multipliers import assign
from optax_lrmult._names import PyTree
from optax_lrmult._values import shown


def scale_by_keras_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-7, amsgrad: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""The Adam or AMSGrad core of Keras 2.

    With $t = 1, 2, \dots$ and all products elementwise:

    $$m = b_1 m + (1 - b_1) g, \quad v = b_2 v + (1 - b_2) g^2, \quad
      \hat v = \max(\hat v, v)$$
    $$u = \frac{\sqrt{1 - b_2^t}}{1 - b_1^t} \cdot
      \frac{m}{\sqrt{v} + \epsilon}, \quad \text{or with AMSGrad} \quad
      \frac{\sqrt{1 - b_2^t}}{1 - b_1^t} \cdot \frac{m}{\sqrt{\hat v} + \epsilon}$$

    Unlike in `optax.scale_by_adam`, $\epsilon$ is added before the bias correction, and
    unlike in `optax.scale_by_amsgrad`, the maximum is that of the raw $v$. Place it
    first in the chain, in front of `scale_by_name_multiplier`.

    Args:
      b1: decay rate of the first moment, rounded to float32 as in the original.
      b2: decay rate of the second moment, rounded to float32 as in the original.
      eps: added to the root of the second moment, in units of the gradient.
      amsgrad: divide by the largest second moment so far.

    Returns:
      A transformation with the state `optax.ScaleByAdamState`, or with AMSGrad
      `optax.ScaleByAmsgradState`. Updates keep the shapes and dtypes of the gradients.

    Raises:
      TypeError: a number or `amsgrad` is of a wrong type, or, from `init`, a leaf is
        not an array.
      ValueError: `b1` or `b2` is not in [0, 1), or `eps` is negative or not finite;
        from `update`, the state is not that of `init`.

    Source: Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, section 2, last
    paragraph; Reddi et al. 2018, https://openreview.net/forum?id=ryQu7f-RZ

    Example:
      >>> tx = scale_by_keras_adam()
      >>> gradient = jnp.array([3.0, -0.5])
      >>> print(tx.update(gradient, tx.init(gradient))[0].round(3))
      [ 1. -1.]
    """
    check_decay_rate(b1, "b1")
    check_decay_rate(b2, "b2")
    check_not_negative(eps, "eps")
    check_flag(amsgrad, "amsgrad")

    def direction(mu: Any, nu: Any, correction1: Any, correction2: Any) -> Any:
        scale = (jnp.sqrt(correction2) / correction1).astype(nu.dtype)
        return mu * scale / (jnp.sqrt(nu) + eps)

    return _raw_moments(_in_float32(b1), _in_float32(b2), amsgrad, direction)


def scale_by_raw_amsgrad(
    b1: float, b2: float, eps: float, eps_root: float, mu_dtype: Any
) -> optax.GradientTransformationExtraArgs:
    """AMSGrad with the maximum of the raw second moment, corrected afterwards.

    That is PyTorch's; see
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html
    """

    def direction(mu: Any, nu: Any, correction1: Any, correction2: Any) -> Any:
        corrected = nu / correction2.astype(nu.dtype)
        mu_hat = mu / correction1.astype(mu.dtype)
        return mu_hat / (jnp.sqrt(corrected + eps_root) + eps)

    return _raw_moments(b1, b2, True, direction, mu_dtype)


def _raw_moments(
    b1: Any, b2: Any, amsgrad: bool, direction: Any, mu_dtype: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Adam's moments without correction; `direction` makes the update of them."""
    kind = optax.ScaleByAmsgradState if amsgrad else optax.ScaleByAdamState
    mu_dtype = None if mu_dtype is None else jax.dtypes.canonicalize_dtype(mu_dtype)

    def init_fn(params: PyTree) -> optax.OptState:
        assign(params, ())
        count = jnp.zeros([], jnp.int32)
        mu = optax.tree.zeros_like(params, dtype=mu_dtype)
        nu = optax.tree.zeros_like(params)
        if not amsgrad:
            return optax.ScaleByAdamState(count, mu, nu)
        nu_max = optax.tree.zeros_like(params)
        return optax.ScaleByAmsgradState(count, mu, nu, nu_max)

    def update_fn(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, optax.OptState]:
        del params, extra_args
        _check_state(state, kind)
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        new = {"count": count, "mu": _cast_like(mu, state.mu), "nu": nu}
        if amsgrad:
            nu = new["nu_max"] = jax.tree.map(jnp.maximum, state.nu_max, nu)
        correction1, correction2 = 1 - b1**count, 1 - b2**count
        scaled = jax.tree.map(
            lambda m, v: direction(m, v, correction1, correction2), mu, nu
        )
        return _cast_like(scaled, updates), state._replace(**new)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_state(state: Any, kind: type) -> None:
    if not isinstance(state, kind):
        raise ValueError(
            f"The state must be that of init(params), a {kind.__name__}, not "
            f"{shown(state)} ({type(state).__name__})."
        )


def _in_float32(rate: Any) -> Any:
    """The float32 value nearest to a rate, which is what Keras computes with."""
    return float(np.float32(rate)) if isinstance(rate, float) else rate


def _cast_like(tree: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda x, like: x.astype(jnp.result_type(like)), tree, other)
