"""How far each parameter goes in training with Adam, told from what a trainer keeps."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import optax_lrmult as olm

PyTree = Any
EPS, B1 = 1e-8, 0.9


class Moment(NamedTuple):
    """The parameters and Adam's state at one moment of a run, by name."""

    params: dict[str, np.ndarray]
    mu: dict[str, np.ndarray]
    nu: dict[str, np.ndarray]
    count: int


def named(tree: PyTree) -> dict[str, np.ndarray]:
    """Copies of the leaves, which no later step changes."""
    names = jax.tree.leaves(olm.path_labels(tree))
    return dict(zip(names, map(np.array, jax.tree.leaves(tree)), strict=True))


def moment(params: PyTree, opt_state: PyTree) -> Moment:
    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    leaves = jax.tree.leaves(opt_state, is_leaf=is_adam)
    (adam,) = filter(is_adam, leaves)
    (count,) = jax.tree.leaves(adam.count)
    return Moment(named(params), named(adam.mu), named(adam.nu), int(count))


def ratios(
    run: Sequence[Moment],
    rate: Callable[[int], Any],
    b2: Callable[[str], float] = lambda name: 0.999,
    decay: Callable[[str], float] = lambda name: 0.0,
) -> dict[str, float]:
    """Each parameter's steps in units of plain AdamW's, from the same moments."""
    along, size = dict.fromkeys(run[0].params, 0.0), dict.fromkeys(run[0].params, 0.0)
    for before, after in itertools.pairwise(run):
        assert after.count == before.count + 1
        for name, start in before.params.items():
            mu = after.mu[name] / (1 - B1**after.count)
            nu = after.nu[name] / (1 - b2(name) ** after.count)
            adam = mu / (np.sqrt(nu) + EPS) + decay(name) * start
            plain = np.float64(-rate(before.count)) * adam
            along[name] += float(np.sum(plain * (after.params[name] - start)))
            size[name] += float(np.sum(plain * plain))
    assert all(size.values()), f"nothing shows in {size}"
    return {name: along[name] / size[name] for name in along}
