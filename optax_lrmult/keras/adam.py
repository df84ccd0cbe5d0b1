"""The Adam and AMSGrad core of Keras 2."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import tree_utils

from optax_lrmult.core.names import PyTree

KERAS_EPSILON = 1e-7


def scale_by_adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = KERAS_EPSILON,
    amsgrad: bool = False,
    eps_after_correction: bool = False,
) -> optax.GradientTransformation:
    r"""The Adam or AMSGrad core of Keras 2.

    With $t = 1, 2, \dots$ and all products elementwise:

    $$m = b_1 m + (1 - b_1) g, \quad v = b_2 v + (1 - b_2) g^2, \quad
      \hat v = \max(\hat v, v)$$
    $$u = \frac{\sqrt{1 - b_2^t}}{1 - b_1^t} \cdot
      \frac{m}{\sqrt{v} + \epsilon}, \quad \text{or with AMSGrad} \quad
      \frac{\sqrt{1 - b_2^t}}{1 - b_1^t} \cdot \frac{m}{\sqrt{\hat v} + \epsilon}$$

    Unlike in `optax.scale_by_adam`, $\epsilon$ is added before the bias correction, and
    unlike in `optax.scale_by_amsgrad`, the maximum is that of the raw $v$. PyTorch's
    AMSGrad has this maximum too, and $\epsilon \sqrt{1 - b_2^t}$ in place of
    $\epsilon$. Place it first in the chain, in front of `scale_by_name_multiplier`.

    Args:
      b1: decay rate of the first moment, rounded to float32 as in the original.
      b2: decay rate of the second moment, rounded to float32 as in the original.
      eps: added to the root of the second moment, in units of the gradient.
      amsgrad: divide by the largest second moment so far.
      eps_after_correction: add `eps` after the bias correction, as PyTorch does.

    Returns:
      A transformation with the state `optax.ScaleByAdamState`, or with AMSGrad
      `optax.ScaleByAmsgradState`. Updates keep the shapes and dtypes of the gradients.

    Source: Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, section 2, last
    paragraph; Reddi et al. 2018, https://openreview.net/forum?id=ryQu7f-RZ

    Example:
      >>> tx = scale_by_adam()
      >>> gradient = jnp.array([3.0, -0.5])
      >>> print(tx.update(gradient, tx.init(gradient))[0].round(3))
      [ 1. -1.]
    """
    b1, b2 = _in_float32(b1), _in_float32(b2)

    def init_fn(params: PyTree) -> optax.OptState:
        count = jnp.zeros([], jnp.int32)
        moments = [tree_utils.tree_zeros_like(params) for _ in range(2 + amsgrad)]
        if amsgrad:
            return optax.ScaleByAmsgradState(count, *moments)
        return optax.ScaleByAdamState(count, *moments)

    def update_fn(
        updates: PyTree, state: Any, params: PyTree = None
    ) -> tuple[PyTree, optax.OptState]:
        del params
        count = optax.safe_increment(state.count)
        mu = tree_utils.tree_update_moment(updates, state.mu, b1, 1)
        nu = tree_utils.tree_update_moment_per_elem_norm(updates, state.nu, b2, 2)
        new = {"count": count, "mu": mu, "nu": nu}
        if amsgrad:
            nu = new["nu_max"] = jax.tree.map(jnp.maximum, state.nu_max, nu)
        root = jnp.sqrt(1 - b2**count)
        correction = root / (1 - b1**count)
        added = eps * root if eps_after_correction else eps

        def direction(u: Any, m: Any, v: Any) -> jax.Array:
            update = m * correction / (jnp.sqrt(v) + added)
            return update.astype(jnp.result_type(u))

        return jax.tree.map(direction, updates, mu, nu), state._replace(**new)

    return optax.GradientTransformation(init_fn, update_fn)


def _in_float32(rate: Any) -> Any:
    """The float32 value nearest to a rate, which is what Keras computes with."""
    return float(np.float32(rate)) if isinstance(rate, float) else rate
