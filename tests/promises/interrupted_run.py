"""A run that saves after each step, and may be killed between save and rename.

python interrupted_run.py FOLDER STEP_THAT_KILLS
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import optax

import optax_lrmult as olm

STEPS = 7
CORE = optax.chain(
    optax.scale_by_adam(),
    olm.scale_by_name_multiplier(
        {"stem": 0.1, "head": olm.recipes.unfreeze_at(4, 0.3)}
    ),
    optax.scale_by_learning_rate(0.1),
)


def beginning() -> dict[str, Any]:
    params = {"stem": jnp.arange(1.0, 4.0), "head": jnp.ones((2, 2))}
    return {"step": 0, "params": params, "state": CORE.init(params)}


@jax.jit
def stepped(run: dict[str, Any]) -> dict[str, Any]:
    gradients = jax.tree.map(lambda p: jnp.sin(p * (1 + run["step"])), run["params"])
    updates, state = CORE.update(gradients, run["state"], run["params"])
    params = optax.apply_updates(run["params"], updates)
    return {"step": run["step"] + 1, "params": params, "state": state}


def trained(folder: Path, killed_at: int | None = None) -> dict[str, Any]:
    """Goes on from the last checkpoint, or begins."""
    file, run = folder / "run.msgpack", beginning()
    if file.exists():
        run = flax.serialization.from_bytes(run, file.read_bytes())
    while run["step"] < STEPS:
        run = stepped(run)
        saved = folder / "saving"
        saved.write_bytes(flax.serialization.to_bytes(run))
        if run["step"] == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        saved.replace(file)
    return run


if __name__ == "__main__":
    trained(Path(sys.argv[1]), int(sys.argv[2]))
