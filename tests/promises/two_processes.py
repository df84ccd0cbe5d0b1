"""One of two processes that train one network together, on two CPU devices each.

As a script, `two_processes.py PORT PROCESS`, it prints the trained parameters as JSON,
for each kind of mesh. test_devices.py launches both processes.
"""

import json
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

import optax_lrmult
from tests.promises.eight_devices import (
    LAYERS,
    MESHES,
    Spec,
    host_arrays,
    in_chain,
    jitted_init,
    mesh_of,
    placed_arrays,
    rising,
    step_of,
)

MULTIPLIERS = {
    "embed": rising,
    "blocks/kernel": 0.5,
    "blocks/bias": optax_lrmult.per_layer(LAYERS),
    "head/bias": 0.0,
}


def trained_params(mesh: Mesh | None = None) -> np.ndarray:
    """All parameters after three steps."""
    tx = in_chain(MULTIPLIERS)
    if mesh is None:
        params, batch = jax.tree.map(jnp.asarray, host_arrays())
        state = tx.init(params)
    else:
        params, batch = placed_arrays(mesh)
        state = jitted_init(tx, params, mesh)
    step = step_of(tx, mesh)
    for _ in range(3):
        params, state = step(params, state, batch)
    if mesh is not None:
        everywhere = NamedSharding(mesh, Spec())
        params = jax.jit(lambda tree: tree, out_shardings=everywhere)(params)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def main(port: str, process: str) -> None:
    warnings.simplefilter("error")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
    devices = [jax.device_count(), jax.local_device_count()]
    params = {kind: trained_params(mesh_of(4, kind)).tolist() for kind in MESHES}
    print(json.dumps({"devices": devices, **params}))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
