"""Long runs and bad days: drift, gradients of no use, a kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from tests.promises import interrupted_run

STEPS, RATE, B1, B2, EPS = 10_000, 1e-3, 0.9, 0.999, 1e-8
PERIOD = 997
WAVES = np.sin(np.arange(PERIOD)[:, None] * np.arange(1, 5) / 3) + 0.2
GRADIENTS = WAVES.astype("float32")
LONG_TABLE = {
    "still": 0,
    "slow": 0.1,
    "up": -3,
    "late": olm.recipes.unfreeze_at(5_000, 0.7),
}


def long_run_in_float32() -> dict[str, jax.Array]:
    params = {name: jnp.ones(4) for name in (*LONG_TABLE, "plain")}
    tx, gradients = olm.adam(RATE, multipliers=LONG_TABLE), jnp.asarray(GRADIENTS)

    def step(carry: Any, index: Any) -> Any:
        params, state = carry
        updates, state = tx.update(
            dict.fromkeys(params, gradients[index % PERIOD]), state, params
        )
        return (optax.apply_updates(params, updates), state), None

    start = params, tx.init(params)
    return jax.lax.scan(step, start, jnp.arange(STEPS))[0][0]


def long_run_in_float64() -> dict[str, np.ndarray]:
    """Adam as in the paper, with a multiplier, written down once more."""
    factors = {"still": 0.0, "slow": 0.1, "up": -3.0, "late": 0.0, "plain": 1.0}
    params = {name: np.ones(4) for name in factors}
    m = v = np.zeros(4)
    for index in range(STEPS):
        factors["late"] = 0.7 if index >= 5_000 else 0.0
        g = GRADIENTS[index % PERIOD].astype("float64")
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g**2
        m_hat, v_hat = m / (1 - B1 ** (index + 1)), v / (1 - B2 ** (index + 1))
        for name, factor in factors.items():
            step = factor * RATE * m_hat / (np.sqrt(v_hat) + EPS)
            params[name] = params[name] - step
    return params


def test_ten_thousand_steps_drift_no_further_than_their_roundings() -> None:
    """Each step rounds the sum of a parameter and its update by half an ulp.

    A moment is rounded three times in each step, by half an ulp each, and forgets it at
    the rate 1 - b; the root halves the second one's. Some eight more roundings make the
    update of them.
    """
    ours, exact = jax.jit(long_run_in_float32)(), long_run_in_float64()
    half_ulp = 2.0**-24
    direction = half_ulp * (3 / (1 - B1) + 3 / (1 - B2) / 2 + 8)
    for name, factor in {**LONG_TABLE, "late": 0.7, "plain": 1}.items():
        drift = np.max(np.abs(np.asarray(ours[name], "float64") - exact[name]))
        longest_way = abs(factor) * RATE * STEPS
        largest = np.max(np.abs(exact[name])) + 1
        bound = STEPS * half_ulp * largest + longest_way * direction
        assert drift <= (bound if factor else 0), f"{name}: {drift}, bound {bound}"


BAD = np.array([0, 1e-38, -1e-38, 1e38, -1e38, np.inf, -np.inf, np.nan], np.float32)
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.1),
    "lion": lambda: optax.lion(0.1),
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_bad_gradients_reach_no_frozen_and_no_other_parameter(make: Any) -> None:
    """Three of five parameters are hit in one step of three; the others go on.

    Operation by operation, so that all of it is to the bit.
    """
    rng = np.random.default_rng(0)
    table = {"still": 0, "slow_hit": 0.3, "slow_clean": 0.3}
    names = (*table, "hit", "clean")
    first = params = {name: jnp.ones(4) for name in names}
    plain, tx = make(), olm.with_name_multipliers(make(), table)
    plain_state = state = tx.init(params)
    for _ in range(30):
        gradients = {n: rng.normal(size=4).astype("float32") for n in names}
        for name in ("still", "slow_hit", "hit"):
            if rng.random() < 1 / 3:
                gradients[name][rng.integers(4)] = rng.choice(BAD)
        gradients = jax.tree.map(jnp.asarray, gradients)
        with jax.disable_jit():
            updates, state = tx.update(gradients, state, params)
            theirs, plain_state = plain.update(gradients, plain_state, params)
        chex.assert_trees_all_equal(state, plain_state)
        for name in names:
            factor = np.float32(table.get(name, 1))
            with np.errstate(invalid="ignore"):
                expected = factor * np.asarray(theirs[name]) if factor else np.zeros(4)
            np.testing.assert_array_equal(updates[name], expected)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params["still"], first["still"])
    for name in ("slow_clean", "clean"):
        assert np.isfinite(params[name]).all()
        assert (params[name] != first[name]).all()


def test_a_run_killed_between_save_and_rename_goes_on_bit_for_bit(
    tmp_path: Path,
) -> None:
    (whole := tmp_path / "whole").mkdir()
    (killed := tmp_path / "killed").mkdir()
    command = [sys.executable, str(interrupted_run.__file__), str(killed), "5"]
    path = os.pathsep.join([str(Path(olm.__file__).parents[1]), *sys.path])
    # A process that is killed leaves half a file of what it covered.
    rest = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    died = subprocess.run(command, env={**rest, "PYTHONPATH": path})
    assert died.returncode == -signal.SIGKILL
    assert (killed / "saving").exists()
    data = (killed / "run.msgpack").read_bytes()
    last = flax.serialization.from_bytes(interrupted_run.beginning(), data)
    assert last["step"] == 4
    resumed, straight = map(interrupted_run.trained, (killed, whole))
    chex.assert_trees_all_equal(resumed, straight)
    assert straight["step"] == interrupted_run.STEPS
