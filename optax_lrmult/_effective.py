"""What the multipliers of an optimizer come to, measured."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_lrmult._hyperparameters import is_transformation
from optax_lrmult._multipliers import assign
from optax_lrmult._names import ParamLabels, PyTree, names_of
from optax_lrmult._rules import RulesLike
from optax_lrmult._values import check_takes_one, is_schedule, shown


def effective_multipliers(
    make_tx: Callable[[Any], optax.GradientTransformation],
    multipliers: RulesLike,
    params: PyTree,
    *,
    steps: int = 20,
    param_labels: ParamLabels = None,
) -> dict[str, float]:
    r"""How far parameters move with multipliers, relative to how far without.

    $$r_p = \langle d_p, d_p^{(1)} \rangle / \langle d_p^{(1)}, d_p^{(1)} \rangle$$

    where $d_p$ is the sum of the updates of parameter $p$ under `make_tx(multipliers)`,
    and $d_p^{(1)}$ under `make_tx({})`, over a few steps of the same random gradients.
    If the multipliers stand in the right place, $r_p$ is the multiplier; in front of
    Adam it is 1.

    Args:
      make_tx: a function from a table of rules to a whole optimizer.
      multipliers: a table of rules; see `scale_by_name_multiplier`.
      params: a pytree of floating arrays, where the ways begin.
      steps: the number of steps taken; methods that adapt to the way travelled, such
        as prodigy, show what they do to multipliers only after some.
      param_labels: the names under which ratios are returned, if not `path_labels`'.

    Returns:
      The ratio by name; NaN for a parameter that `make_tx({})` does not move.

    Raises:
      TypeError: `make_tx` is no function to an optimizer, a parameter is no floating
        array, or `steps` is no int.
      ValueError: `steps` is not positive; and what `make_tx` raises.

    Example:
      >>> params = {"stem": jnp.ones(3), "head": jnp.ones(3)}
      >>> def wrong(table):
      ...     return optax.chain(scale_by_name_multiplier(table), optax.adam(1e-3))
      >>> def right(table):
      ...     return with_name_multipliers(optax.adam(1e-3), table)
      >>> from optax_lrmult import scale_by_name_multiplier, with_name_multipliers
      >>> for make_tx in wrong, right:
      ...     ratios = effective_multipliers(make_tx, {"stem": 0.1}, params)
      ...     print({name: round(ratio, 3) for name, ratio in ratios.items()})
      {'head': 1.0, 'stem': 1.0}
      {'head': 1.0, 'stem': 0.1}
    """
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps must be an int, not {shown(steps)}.")
    if steps < 1:
        raise ValueError(f"steps must be positive, not {shown(steps)}.")
    _check_has_values(params)
    moved = jax.tree.leaves(_way(_made(make_tx, multipliers), params, steps))
    plain = jax.tree.leaves(_way(_made(make_tx, {}), params, steps))
    names = names_of(params, param_labels)
    ratios = [float(_ratio(a, b)) for a, b in zip(moved, plain, strict=True)]
    return dict(zip(names, ratios, strict=True))


def _made(make_tx: Any, multipliers: RulesLike) -> optax.GradientTransformation:
    if not is_schedule(make_tx):
        raise TypeError(
            "make_tx must be a function from a table of rules to an optimizer, as in "
            f"lambda table: adam(1e-3, multipliers=table), not {shown(make_tx)}."
        )
    check_takes_one(make_tx, "The function make_tx", "a table of rules")
    tx = make_tx(multipliers)
    if not is_transformation(tx):
        raise TypeError(f"make_tx must return an optimizer, not {shown(tx)}.")
    return tx


def _check_has_values(params: PyTree) -> None:
    for row, leaf in zip(assign(params, ()), jax.tree.leaves(params), strict=True):
        is_floating = jnp.issubdtype(row.dtype, jnp.floating)
        if not is_floating or not isinstance(leaf, jax.Array | np.ndarray):
            raise TypeError(
                "effective_multipliers takes steps, and needs floating arrays. The "
                f"parameter {shown(row.name)} is of type {type(leaf).__name__} and "
                f"dtype {row.dtype}."
            )


def _way(tx: optax.GradientTransformation, params: PyTree, steps: int) -> PyTree:
    """The sum of the updates over some steps."""

    @jax.jit
    def step(gradients: PyTree, state: Any, now: PyTree, way: PyTree) -> Any:
        updates, state = tx.update(gradients, state, now)
        way = jax.tree.map(jnp.add, way, updates)
        return state, optax.apply_updates(now, updates), way

    state, now = tx.init(params), params
    way = jax.tree.map(jnp.zeros_like, params)
    for key in jax.random.split(jax.random.key(0), steps):
        state, now, way = step(_random_like(key, params), state, now, way)
    return way


def _random_like(key: jax.Array, params: PyTree) -> PyTree:
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, max(1, len(leaves)))
    rows = zip(keys, leaves, strict=False)
    return treedef.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in rows])


def _ratio(way: jax.Array, plain: jax.Array) -> jax.Array:
    way, plain = (jnp.ravel(x).astype(jnp.float32) for x in (way, plain))
    return jnp.vdot(way, plain) / jnp.vdot(plain, plain)
