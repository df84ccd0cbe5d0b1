"""Trajectories recorded from other implementations; see `tests/data/*/README.md`."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

DATA = Path(__file__).parents[1] / "data"


class Case:
    """One recorded run, its arrays as dictionaries from name to array."""

    def __init__(self, path: Path) -> None:
        self.raw = json.loads(path.read_text(encoding="utf-8"))
        self.config: dict[str, Any] = self.raw["config"]
        self.variables: list[dict[str, Any]] = self.raw["variables"]

    @functools.cached_property
    def initial_params(self) -> dict[str, jax.Array]:
        return self.tree(self.raw["initial_params"])

    @functools.cached_property
    def gradients(self) -> list[dict[str, jax.Array]]:
        return [self.tree(step) for step in self.raw["gradients"]]

    @functools.cached_property
    def params(self) -> list[dict[str, jax.Array]]:
        return [self.tree(step) for step in self.raw["params"]]

    def tree(self, flat: list[list[float]]) -> dict[str, jax.Array]:
        rows = zip(self.variables, flat, strict=True)
        return {v["name"]: _array(values, v["shape"]) for v, values in rows}


def _array(values: list[float], shape: list[int]) -> jax.Array:
    return jnp.asarray(np.asarray(values, np.float32).reshape(shape))


def cases(folder: str) -> dict[str, Case]:
    return {path.stem: Case(path) for path in sorted((DATA / folder).glob("*.json"))}


def stepper(tx: optax.GradientTransformation) -> Any:
    def step(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


def assert_follows(step: Any, state: Any, case: Case, first: int = 0) -> Any:
    """Goes on from step `first` and compares after each; returns the last state."""
    params = case.params[first - 1] if first else case.initial_params
    for index in range(first, len(case.gradients)):
        params, state = step(case.gradients[index], state, params)
        assert_within_tolerance(params, case.params[index], f"after step {index}")
    return state


def assert_within_tolerance(params: Any, recorded: Any, where: str) -> None:
    """The tolerance that the recordings advise: 2e-6 + 1e-5 |p|."""
    for name, expected in recorded.items():
        np.testing.assert_allclose(
            np.asarray(params[name], np.float64),
            np.asarray(expected, np.float64),
            rtol=1e-5,
            atol=2e-6,
            err_msg=f"{name} {where}",
        )


def keras_weights_after(case: Case, steps: int) -> list[np.ndarray]:
    """`[iterations] + ms + vs + vhats`: as recorded, else from the formulas."""
    b1, b2 = (float(np.float32(case.config[k])) for k in ("beta_1", "beta_2"))
    rows = [[np.zeros(v["shape"]) for v in case.variables] for _ in range(3)]
    ms, vs, vhats = rows
    for gradients in case.gradients[:steps]:
        for i, g in enumerate(np.asarray(x, np.float64) for x in gradients.values()):
            ms[i] = b1 * ms[i] + (1 - b1) * g
            vs[i] = b2 * vs[i] + (1 - b2) * g**2
            vhats[i] = np.maximum(vhats[i], vs[i])
    if not case.config["amsgrad"]:
        vhats = [np.zeros(1) for _ in vhats]
    for mine, key in [(ms, "m"), (vs, "v"), (vhats, "vhat")]:
        if case.raw.get(key):
            recorded = case.tree(case.raw[key][steps - 1]).values()
            for i, array in enumerate(recorded):
                np.testing.assert_allclose(mine[i], array, 1e-4, 1e-9)
                mine[i] = np.asarray(array)
    return [np.array(steps, np.int64), *ms, *vs, *vhats]
