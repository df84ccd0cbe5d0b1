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


def shared_vector(groups: int) -> Make:
    """Multipliers as elements of one small array, which every leaf reads.

    On a GPU, XLA puts what reads one array into one kernel, if the shapes are equal;
    elsewhere each leaf reads a scalar, as ours do.
    """
    table = multipliers(groups)

    def make(tree: PyTree) -> optax.GradientTransformation:
        names = jax.tree.leaves(labels(tree, groups))
        places = [list(table).index(name) for name in names]

        def vector() -> list[jax.Array]:
            all_of_them = jnp.asarray(list(table.values()), jnp.float32)
            hidden = jax.lax.optimization_barrier(all_of_them)
            return [hidden[index] for index in range(groups)]

        def scalars() -> list[jax.Array]:
            each = [jnp.full(1, m, jnp.float32) for m in table.values()]
            return [x.reshape(()) for x in jax.lax.optimization_barrier(each)]

        def update(updates: PyTree, state: Any, params: PyTree = None) -> Any:
            factors = jax.lax.platform_dependent(cuda=vector, default=scalars)
            leaves, treedef = jax.tree.flatten(updates)
            scaled = [x * factors[i] for x, i in zip(leaves, places, strict=True)]
            return treedef.unflatten(scaled), state

        by_vector = optax.GradientTransformation(lambda _: optax.EmptyState(), update)
        return optax.chain(optax.adam(RATE), by_vector)

    return make


def adam_by_name(groups: int) -> Make:
    """Every number of Adam from a table, and each of them another in each row."""
    rows = {
        name: {
            "multipliers": value,
            "weight_decay": value / 10,
            "b1": 0.8 + index / 100,
            "b2": 0.9 + index / 1000,
            "eps": 1e-8 * value,
        }
        for index, (name, value) in enumerate(multipliers(groups).items())
    }
    columns = olm.groups(rows)
    return lambda tree: olm.adamw(RATE, **columns, param_labels=labels(tree, groups))


def muon(tree: PyTree) -> optax.GradientTransformation:
    """Muon for hidden matrices, and Adam for the rest."""
    matrices = olm.by_name(olm.recipes.hidden_matrices(tree), default=None)
    return optax.contrib.muon(RATE, muon_weight_dimension_numbers=matrices)


def muon_static(groups: int) -> Make:
    table = multipliers(groups)
    return lambda tree: olm.with_name_multipliers(
        muon(tree), table, param_labels=labels(tree, groups)
    )
