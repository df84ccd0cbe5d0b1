"""Trajectories recorded from other implementations; see `tests/data/*/README.md`."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DATA = Path(__file__).parent / "data"


class Case:
    """One recorded run, its arrays as dictionaries from name to array."""

    def __init__(self, path: Path) -> None:
        self.raw = json.loads(path.read_text(encoding="utf-8"))
        self.config: dict[str, Any] = self.raw["config"]
        self.variables: list[dict[str, Any]] = self.raw["variables"]
        self.initial_params = self.tree(self.raw["initial_params"])
        self.gradients = [self.tree(step) for step in self.raw["gradients"]]
        self.params = [self.tree(step) for step in self.raw["params"]]

    def tree(self, flat: list[list[float]]) -> dict[str, jax.Array]:
        rows = zip(self.variables, flat, strict=True)
        return {v["name"]: _array(values, v["shape"]) for v, values in rows}


def _array(values: list[float], shape: list[int]) -> jax.Array:
    return jnp.asarray(np.asarray(values, np.float32).reshape(shape))


def cases(folder: str) -> dict[str, Case]:
    return {path.stem: Case(path) for path in sorted((DATA / folder).glob("*.json"))}


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
