"""Many settings of the multipliers: with one compilation, and with one for each."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_lrmult as olm

from .steps import Row

WIDTHS = (64, 64, 64, 10)


def sweeps(is_quick: bool) -> list[Row]:
    """Seconds for all settings, compilation included."""
    settings, steps = (2, 2) if is_quick else (32, 30)
    table = np.geomspace(0.1, 2, 2 * settings, dtype=np.float32).reshape(-1, 2)
    seconds = {name: elapsed(run, table, steps) for name, run in WAYS.items()}
    return [
        {"way": name, "settings": settings, "s": each}
        | {"to separate runs": each / seconds["separate runs"]}
        for name, each in seconds.items()
    ]


def loss_after(multipliers: Any, steps: int) -> jax.Array:
    """A small network trained by Adam; `multipliers` are of its first two layers."""
    random = np.random.default_rng(0)
    pairs = itertools.pairwise(WIDTHS)
    params = {
        f"layer_{i}": random.normal(0, a**-0.5, (a, b)).astype(np.float32)
        for i, (a, b) in enumerate(pairs)
    }
    inputs = random.normal(size=(128, WIDTHS[0])).astype(np.float32)
    labels = random.integers(0, WIDTHS[-1], 128)
    table = {"layer_0": multipliers[0], "layer_1": multipliers[1]}
    tx = olm.adam(1e-2, multipliers=table)

    def loss(params: Any) -> jax.Array:
        x = jnp.tanh(jnp.tanh(inputs @ params["layer_0"]) @ params["layer_1"])
        logits = x @ params["layer_2"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses)

    def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), value

    carry = jax.tree.map(jnp.asarray, params), tx.init(params)
    return jax.lax.scan(step, carry, None, steps)[1][-1]


def separately(table: np.ndarray, steps: int) -> list[jax.Array]:
    return [jax.jit(lambda row=row: loss_after(row, steps))() for row in table.tolist()]


def one_function(table: np.ndarray, steps: int) -> list[jax.Array]:
    run = jax.jit(lambda row: loss_after(row, steps))
    return [run(row) for row in table]


def vmapped(table: np.ndarray, steps: int) -> jax.Array:
    return jax.jit(jax.vmap(lambda row: loss_after(row, steps)))(table)


WAYS = {
    "separate runs": separately,
    "one compiled function": one_function,
    "vmap": vmapped,
}


def elapsed(run: Callable[..., Any], table: np.ndarray, steps: int) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(table, steps))
    return time.perf_counter() - start
