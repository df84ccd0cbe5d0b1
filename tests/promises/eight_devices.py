"""A network on eight CPU devices, sharded as in FSDP, and what a step of it does.

As a script it prints one JSON object for each check, mesh and optimizer.
test_devices.py launches it, so that its own process keeps one device.
"""

import collections
import contextlib
import functools
import itertools
import json
import pkgutil
import re
import traceback
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as Spec

import optax_lrmult

RATE = 0.01
SHAPES = {
    "embed": {"kernel": (16, 8)},
    "blocks": {"kernel": (8, 8, 8), "bias": (8, 8)},
    "head": {"kernel": (8, 8), "bias": (8,)},
}
SPECS = {
    "embed": {"kernel": Spec("fsdp")},
    "blocks": {"kernel": Spec("fsdp"), "bias": Spec("fsdp")},
    "head": {"kernel": Spec(None, "fsdp"), "bias": Spec()},
}
# Inside shard_map a slice of the layers has no multipliers of its own.
SPECS_OF_WHOLE_LAYERS = {
    "embed": {"kernel": Spec("fsdp")},
    "blocks": {"kernel": Spec(None, "fsdp"), "bias": Spec(None, "fsdp")},
    "head": {"kernel": Spec("fsdp"), "bias": Spec()},
}
COLLECTIVE = re.compile(
    r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)


def first_of(*names: str) -> Any:
    """What this version of jax has under the first name that it knows."""
    for name in names:
        with contextlib.suppress(ImportError, AttributeError):
            return pkgutil.resolve_name(name)
    raise ImportError(f"jax {jax.__version__} has none of {names}.")


reshard = first_of("jax.sharding:reshard", "jax.experimental.shard:reshard")
shard_map = first_of("jax:shard_map", "jax.experimental.shard_map:shard_map")


# The optimizers.


def rising(step: Any) -> Any:
    return 0.25 * (step + 1)


LAYERS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
TABLE = {
    "embed": 0.1,
    "blocks": optax_lrmult.per_layer(LAYERS),
    "head/kernel": optax_lrmult.per_layer(LAYERS, axis=-1),
    "head/bias": 0.0,
}
OPTIMIZERS = {
    "plain": optax.adam(RATE),
    "by_name": optax_lrmult.adam(RATE, b2={"embed": 0.999}, multipliers=TABLE),
    "chain": optax.chain(
        optax.scale_by_adam(),
        optax_lrmult.scale_by_name_multiplier({**TABLE, "embed": rising}),
        optax.scale_by_learning_rate(RATE),
    ),
}


# A network that gathers its parameters for each step, as FSDP does.


def host_arrays() -> tuple[Any, Any]:
    """Parameters, and a batch of inputs and targets."""
    random = np.random.default_rng(0)

    def normal(shape: tuple[int, ...]) -> np.ndarray:
        return random.normal(0, 0.5, shape).astype(np.float32)

    shapes, treedef = jax.tree.flatten(SHAPES, lambda node: isinstance(node, tuple))
    params = jax.tree.unflatten(treedef, map(normal, shapes))
    return params, (normal((16, 16)), normal((16, 8)))


def loss(params: Any, batch: Any) -> Any:
    inputs, targets = batch
    hidden = jnp.tanh(inputs @ params["embed"]["kernel"])
    hidden = jnp.einsum("bi,lij->blj", hidden, params["blocks"]["kernel"])
    hidden = jnp.tanh(hidden + params["blocks"]["bias"][None]).mean(1)
    outputs = hidden @ params["head"]["kernel"] + params["head"]["bias"][None]
    return jnp.mean((outputs - targets) ** 2)


def step_of(tx: Any, mesh: Mesh | None = None) -> Any:
    """A step of training that may reuse the memory of parameters and state."""

    def gather(param: Any) -> Any:
        if mesh is None:
            return param
        everywhere = NamedSharding(mesh, Spec(*[None] * param.ndim))
        is_explicit = mesh.axis_types == (AxisType.Explicit,)
        move = reshard if is_explicit else jax.lax.with_sharding_constraint
        return move(param, everywhere)

    def step(params: Any, state: Any, batch: Any) -> Any:
        grads = jax.grad(lambda p: loss(jax.tree.map(gather, p), batch))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def mesh_of(devices: int, kind: str) -> Mesh:
    # The default is Auto up to jax 0.7.2, and Explicit in newer versions.
    return jax.make_mesh((devices,), ("fsdp",), axis_types=(AxisType[kind],))


def placed(tree: Any, mesh: Mesh, specs: Any) -> Any:
    """Arrays of the host on the devices of a mesh, of several processes even."""

    def place(array: np.ndarray, spec: Spec) -> jax.Array:
        sharding = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    return jax.tree.map(place, tree, specs)


def placed_arrays(mesh: Mesh) -> tuple[Any, Any]:
    params, batch = host_arrays()
    specs = (SPECS, (Spec("fsdp"), Spec("fsdp")))
    return placed((params, batch), mesh, specs)


# What is measured.


def like_params(tx: Any, params: Any, of_params: Any, of_others: Any) -> Any:
    """A tree like the state: one thing for moments, another for everything else."""
    return optax.tree_utils.tree_map_params(
        tx,
        lambda _, thing: thing,
        jax.eval_shape(tx.init, params),
        of_params,
        transform_non_params=lambda _: of_others,
    )


def is_sharded_like(params: Any, state: Any) -> bool:
    """Whether both moments are where the parameters are."""
    moments = [
        optax.tree_utils.tree_get(state, "mu"),
        optax.tree_utils.tree_get(state, "nu"),
    ]
    return all(
        leaf.sharding.is_equivalent_to(param.sharding, param.ndim)
        for moment in moments
        for param, leaf in zip(*map(jax.tree.leaves, (params, moment)), strict=True)
    )


def jitted_init(tx: Any, params: Any, mesh: Mesh) -> Any:
    shardings = jax.tree.map(lambda param: param.sharding, params)
    shardings = like_params(tx, params, shardings, NamedSharding(mesh, Spec()))
    return jax.jit(tx.init, out_shardings=shardings)(params)


def farthest(tree: Any, other: Any) -> float:
    """The largest difference, in units of the learning rate."""
    pairs = zip(*map(jax.tree.leaves, (tree, other)), strict=True)
    return (
        float(max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs)) / RATE
    )


@functools.cache
def trained(name: str, steps: int) -> Any:
    """The parameters after some steps on one device."""
    tx = OPTIMIZERS[name]
    params, batch = jax.tree.map(jnp.asarray, host_arrays())
    state, step = tx.init(params), step_of(tx)
    for _ in range(steps):
        params, state = step(params, state, batch)
    return params


def check_training(name: str, mesh: Mesh) -> dict[str, Any]:
    """Two steps, compiled once, so that they leave the state where it was."""
    tx = OPTIMIZERS[name]
    params, batch = placed_arrays(mesh)
    found: dict[str, Any] = {
        "sharded_by_init": is_sharded_like(params, tx.init(params))
    }
    state = jitted_init(tx, params, mesh)
    found["sharded_by_jitted_init"] = is_sharded_like(params, state)
    step = step_of(tx, mesh)
    given = jax.tree.leaves((params, state))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = step.lower(params, state, batch).compile()
        params, state = compiled(params, state, batch)
    text = compiled.as_text() or ""
    found["warnings"] = [str(warning.message) for warning in caught]
    found["collectives"] = collections.Counter(COLLECTIVE.findall(text))
    found["leaves"] = len(given)
    found["deleted"] = sum(leaf.is_deleted() for leaf in given)
    found["aliases"] = text.splitlines()[0].count("-alias)")
    params, state = compiled(params, state, batch)
    found["sharded_by_step"] = is_sharded_like(params, state)
    found["error"] = farthest(params, trained(name, steps=2))
    return found


def check_shard_map(name: str, mesh: Mesh) -> dict[str, Any]:
    """The first update, where each device computes a part of its own."""
    tx, plain = OPTIMIZERS[name], OPTIMIZERS["plain"]
    params, _ = host_arrays()
    state = jax.tree.map(np.asarray, tx.init(params))
    specs = SPECS_OF_WHOLE_LAYERS
    state_specs = like_params(tx, params, specs, Spec())
    update = shard_map(
        lambda grads, state: tx.update(grads, state)[0],
        mesh=mesh,
        in_specs=(specs, state_specs),
        out_specs=specs,
    )
    updates = jax.jit(update)(*placed((params, state), mesh, (specs, state_specs)))
    plain_updates, _ = plain.update(params, plain.init(params))
    ratios = jax.tree.map(lambda u, p: np.asarray(u) / p, updates, plain_updates)
    names = jax.tree.leaves(optax_lrmult.path_labels(params))
    spans = [[float(r.min()), float(r.max())] for r in jax.tree.leaves(ratios)]
    return {"smallest_and_largest_ratio": dict(zip(names, spans, strict=True))}


CHECKS = {"training": check_training, "shard_map": check_shard_map}
MESHES = ("Auto", "Explicit")


def main() -> None:
    warnings.simplefilter("error")
    jax.config.update("jax_num_cpu_devices", 8)
    for check, kind, name in itertools.product(CHECKS, MESHES, OPTIMIZERS):
        found = {"check": check, "mesh": kind, "optimizer": name}
        try:
            found |= CHECKS[check](name, mesh_of(8, kind))
        except Exception:  # One check that fails leaves the others their results.
            found["failure"] = traceback.format_exc()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
