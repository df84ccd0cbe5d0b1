"""The ways to give parameters different learning rates, each as an optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import optax_lrmult as olm
from tests.benchmarks.trees import PyTree, parameters

RATE = 1e-3
Make = Callable[[PyTree], optax.GradientTransformation]
"""From shapes to an optimizer that has not been used yet."""


def labels(tree: PyTree, groups: int) -> PyTree:
    """Neighbouring leaves in groups of about equal number: `'g00'`, `'g01'`, ..."""
    leaves, treedef = jax.tree.flatten(tree)
    names = [f"g{i * groups // len(leaves):02d}" for i in range(len(leaves))]
    return jax.tree.unflatten(treedef, names)


def multipliers(groups: int) -> dict[str, float]:
    return {f"g{index:02d}": 0.75 ** (groups - index) for index in range(groups)}


def plain(tree: PyTree) -> optax.GradientTransformation:
    return optax.adam(RATE)


def static(groups: int) -> Make:
    table = multipliers(groups)
    return lambda tree: olm.adam(
        RATE, multipliers=table, param_labels=labels(tree, groups)
    )


def scheduled(groups: int) -> Make:
    def schedule(multiplier: float) -> Callable[[Any], Any]:
        return lambda step: multiplier * jnp.minimum(step / 100, 1)

    table = {name: schedule(value) for name, value in multipliers(groups).items()}
    return lambda tree: olm.adam(
        RATE, multipliers=table, param_labels=labels(tree, groups)
    )


def injected(groups: int) -> Make:
    """Numbers in the optimizer's state, which change without a compilation."""
    table = multipliers(groups)

    def make(tree: PyTree) -> optax.GradientTransformation:
        names = labels(tree, groups)

        @optax.inject_hyperparams
        def build(rates: jax.Array) -> optax.GradientTransformation:
            rows = {name: rates[index] for index, name in enumerate(table)}
            return olm.adam(RATE, multipliers=rows, param_labels=names)

        return build(jnp.asarray(list(table.values())))

    return make


def per_layer(tree: PyTree) -> optax.GradientTransformation:
    """For a scanned model, whose leaves of `blocks` hold all the layers."""
    depth = jax.tree.leaves(tree["blocks"])[0].shape[0]
    table = {"blocks": olm.per_layer([0.75**index for index in range(depth)])}
    return olm.adam(RATE, multipliers=table)


def frozen(share: float) -> Make:
    """The first leaves stand still, so many that they hold `share` of the elements."""

    def make(tree: PyTree) -> optax.GradientTransformation:
        leaves, treedef = jax.tree.flatten(tree)
        before, names = 0, []
        for leaf in leaves:
            names.append("trains" if before >= share * parameters(tree) else "frozen")
            before += leaf.size
        names = jax.tree.unflatten(treedef, names)
        table = {"frozen": 0}
        return olm.adam(RATE, multipliers=table, param_labels=names, mask_frozen=True)

    return make


def packed(groups: int) -> Make:
    """Ours around an optimizer whose small leaves share buffers."""
    return lambda tree: olm.with_name_multipliers(
        olm.packed(optax.adam(RATE)),
        multipliers(groups),
        param_labels=labels(tree, groups),
    )


def multi_transform(groups: int) -> Make:
    """An optimizer of its own for each group."""
    adams = {name: optax.adam(RATE * m) for name, m in multipliers(groups).items()}
    return lambda tree: optax.multi_transform(adams, labels(tree, groups))


def masked_chain(groups: int) -> Make:
    """Constants that the compiler sees, each behind a mask."""

    def make(tree: PyTree) -> optax.GradientTransformation:
        names = labels(tree, groups)
        scales = [
            optax.masked(
                optax.scale(m), jax.tree.map(lambda name, n=n: name == n, names)
            )
            for n, m in multipliers(groups).items()
        ]
        learning_rate = optax.scale_by_learning_rate(RATE)
        return optax.chain(optax.scale_by_adam(), *scales, learning_rate)

    return make
