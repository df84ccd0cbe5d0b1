"""Other ways to make Adam's step cheaper, and what they give."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import optax_lrmult as olm

from . import contenders, trees
from .contenders import RATE, Make
from .steps import QUICK, Row, compared
from .trees import PyTree


def ways(is_quick: bool) -> list[Row]:
    """On a ViT-S and on many small leaves, as ratios to plain Adam.

    Multipliers that are baked in read no byte more than plain Adam, but take longer
    to compile; behind a barrier, as ours are, the kernel of a leaf reads a scalar more.
    """
    makes = {**WAYS, **multiplied(2 if is_quick else 14)}
    if is_quick:
        return compared("two leaves", QUICK, makes, 3, 1)
    return [
        *compared("ViT-S", trees.vit(*trees.VIT_S), makes, 25, 3),
        *compared("1000 leaves", trees.leaves(1000, 1000), makes, 40, 1),
    ]


def multiplied(groups: int) -> dict[str, Make]:
    """As constants that the compiler sees, and as ones that it does not."""
    return {
        f"{groups} multipliers baked in": contenders.masked_chain(groups),
        f"{groups} behind a barrier": contenders.static(groups),
    }


def by_leaf(adam_of_leaf: Any) -> Make:
    """Adam with a function of one leaf, traced and lowered once for each shape."""
    of_leaf = jax.jit(adam_of_leaf)

    def update_fn(updates: PyTree, state: Any, params: PyTree = None) -> Any:
        del params
        count = optax.safe_increment(state.count)
        leaves, treedef = jax.tree.flatten(updates)
        moments = zip(jax.tree.leaves(state.mu), jax.tree.leaves(state.nu), strict=True)
        rows = zip(leaves, moments, strict=True)
        results = [of_leaf(g, mu, nu, count) for g, (mu, nu) in rows]
        columns = zip(*results, strict=True)
        updates, mu, nu = (treedef.unflatten(column) for column in columns)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    init_fn = optax.scale_by_adam().init
    return lambda tree: optax.GradientTransformation(init_fn, update_fn)


def textbook(g: Any, mu: Any, nu: Any, count: Any) -> tuple[Any, Any, Any]:
    mu, nu = moments_after(g, mu, nu)
    corrected = mu / (1 - 0.9**count)
    root = jnp.sqrt(nu / (1 - 0.999**count))
    return -RATE * corrected / (root + 1e-8), mu, nu


def one_scalar(g: Any, mu: Any, nu: Any, count: Any) -> tuple[Any, Any, Any]:
    """Rate and corrections in one factor; epsilon then stands elsewhere."""
    mu, nu = moments_after(g, mu, nu)
    factor = -RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    return factor * mu / (jnp.sqrt(nu) + 1e-8), mu, nu


def moments_after(g: Any, mu: Any, nu: Any) -> tuple[Any, Any]:
    return 0.9 * mu + 0.1 * g, 0.999 * nu + 0.001 * g * g


WAYS: dict[str, Make] = {
    "plain": contenders.plain,
    "a jitted function of a leaf": by_leaf(textbook),
    "one scalar for a leaf": by_leaf(one_scalar),
    "first moment in bfloat16": lambda tree: optax.adam(RATE, mu_dtype=jnp.bfloat16),
    "packed": lambda tree: olm.packed(optax.adam(RATE)),
    "optax.flatten": lambda tree: optax.flatten(optax.adam(RATE)),
}
