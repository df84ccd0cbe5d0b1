"""One of two processes that train one network together, on two CPU devices each.

As a module, `tests.promises.two_processes PORT PROCESS`, it prints the trained
parameters as JSON. test_devices.py launches both processes.
"""

import json
import sys
import warnings
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from tests.promises.eight_devices import (
    OPTIMIZERS,
    Spec,
    jitted_init,
    mesh_of,
    placed_arrays,
    step_of,
)

STEPS = 3


def flat(params: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def main(port: str, process: str) -> None:
    warnings.simplefilter("error")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
    devices = [jax.device_count(), jax.local_device_count()]
    mesh, tx = mesh_of(4, "Auto"), OPTIMIZERS["chain"]
    params, batch = placed_arrays(mesh)
    state, step = jitted_init(tx, params, mesh), step_of(tx, mesh)
    for _ in range(STEPS):
        params, state = step(params, state, batch)
    everywhere = NamedSharding(mesh, Spec())
    params = jax.jit(lambda tree: tree, out_shardings=everywhere)(params)
    print(json.dumps({"devices": devices, "params": flat(params).tolist()}))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
