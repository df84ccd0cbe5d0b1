"""Whole training steps: of large decoders on 256 chips, and of one on a GPU."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_lrmult as olm
from tests.benchmarks import contenders
from tests.benchmarks.decoder import Decoder, on_mesh, train_step
from tests.benchmarks.hlo import program
from tests.benchmarks.measure import compiled_for
from tests.benchmarks.tables import Row
from tests.benchmarks.targets import PODS, TARGETS
from tests.benchmarks.trees import PyTree, parameters

COLLECTIVES = (
    *("all-gather", "all-reduce", "reduce-scatter"),
    *("all-to-all", "collective-permute"),
)
MESHES = {"FSDP": (256, 1), "FSDP x tensor": (16, 16)}
"""Chips that cut parameters and examples, and chips that cut matrices the other way."""
LARGE = {
    "5.3 B": Decoder(32, 4096, 11008),
    "7 B": Decoder(32, 4096, 11008, is_gated=True),
}
SMALL = Decoder(16, 2048, 5632, is_gated=True, is_scanned=False)
"""For one GPU: a billion parameters, and a leaf for each matrix of each block."""
TINY = Decoder(2, 512, 1024, words=512)
Make = Callable[[PyTree], Any]


def pod(is_quick: bool, targets: Sequence[str]) -> list[Row]:
    """A whole training step, plain and with a table, minutes of compilation each."""
    return [row for target in targets for row in compiled_on(target, is_quick)]


def compiled_on(target: str, is_quick: bool) -> Iterator[Row]:
    if not TARGETS[target].is_installed:
        yield {"target": target, "missing": TARGETS[target].install}
        return
    for words, makes in (on_pod if target in PODS else on_one)(target, is_quick):
        for name, compiles in makes.items():
            jax.clear_caches()
            yield {"target": target, **words, "optimizer": name} | counted(compiles)


Cases = Iterator[tuple[Row, dict[str, Callable[[], tuple[Any, Any]]]]]
"""What is compiled, in words, and the contenders."""


def on_one(target: str, is_quick: bool) -> Cases:
    """The memory of a step, in which the optimizer's kernels decide what lives on."""
    decoder = dataclasses.replace(TINY, is_scanned=False) if is_quick else SMALL
    makes = {
        "plain": contenders.plain,
        "static 14": contenders.static(14),
        "shared vector 14": contenders.shared_vector(14),
    }
    params = decoder.shapes()
    yield (
        {"decoder": f"{parameters(params) / 1e9:.1f} B", "sharding": "-"},
        {
            name: functools.partial(compiled_alone, target, decoder, make(params))
            for name, make in makes.items()
        },
    )


def compiled_alone(
    target: str, decoder: Decoder, tx: optax.GradientTransformation
) -> tuple[Any, Any]:
    params = decoder.shapes()
    tokens = jax.ShapeDtypeStruct((8, 1025), jnp.int32)
    state = jax.eval_shape(tx.init, params)
    arguments = TARGETS[target].placed((params, state, tokens))
    step = jax.jit(train_step(decoder, tx), donate_argnums=(0, 1))
    return compiled_for((TARGETS[target].platform,), step, *arguments)


def on_pod(target: str, is_quick: bool) -> Cases:
    topology = topologies.TopologyDescription(PODS[target].devices())
    large = {"tiny": TINY} if is_quick else LARGE
    meshes = {
        name: topologies.make_mesh(topology, shape, ("fsdp", "model"))
        for name, shape in MESHES.items()
    }
    for sharding, mesh in meshes.items():
        for words, decoder in large.items():
            makes: dict[str, Make] = {"plain": plain, "layer decay": layer_decay}
            if sharding == "FSDP" and not decoder.is_gated:
                makes["packed"] = packed
            yield _case(words, sharding, mesh, decoder, makes)
    words, decoder = next(iter(large.items()))
    makes = {"plain": adapters_alone, "mask_frozen": mask_frozen}
    decoder = dataclasses.replace(decoder, rank=16)
    yield _case(f"{words} and LoRA", "FSDP", meshes["FSDP"], decoder, makes)


def _case(
    words: str, sharding: str, mesh: Mesh, decoder: Decoder, makes: dict[str, Make]
) -> Any:
    decoder = dataclasses.replace(decoder, mesh=mesh)
    return {"decoder": words, "sharding": sharding}, {
        name: functools.partial(compiled_together, decoder, mesh, make)
        for name, make in makes.items()
    }


def compiled_together(decoder: Decoder, mesh: Mesh, make: Make) -> tuple[Any, Any]:
    params = decoder.shapes()
    tx = make(params)
    # As users do, with axes of type Auto: there `init` can't see shardings.
    state = jax.eval_shape(jax.jit(tx.init), params)
    params, state = on_mesh(params, state, mesh)
    examples = NamedSharding(mesh, PartitionSpec("fsdp"))
    tokens = jax.ShapeDtypeStruct((256, 513), jnp.int32, sharding=examples)
    step = jax.jit(train_step(decoder, tx), donate_argnums=(0, 1))
    return compiled_for(("tpu",), step, params, state, tokens)


def plain(params: PyTree) -> Any:
    return optax.adamw(1e-3)


def layer_decay(params: PyTree) -> Any:
    table = olm.recipes.layer_decay(0.75, params, stacked={"layers": 0})
    return olm.adamw(1e-3, multipliers=table)


def packed(params: PyTree) -> Any:
    """The norms in one buffer, and matrices, which the mesh cuts, left alone."""
    table = olm.recipes.layer_decay(0.75, params, stacked={"layers": 0})
    cut = olm.by_name({"norm": False, "": True})
    inner = olm.packed(optax.adamw(1e-3), max_size=2**20, keep=cut)
    return olm.with_name_multipliers(inner, table)


def mask_frozen(params: PyTree) -> Any:
    table = olm.recipes.lora_plus(16) + {"": 0}
    return olm.adamw(1e-3, multipliers=table, mask_frozen=True)


def adapters_alone(params: PyTree) -> Any:
    """What the table of `mask_frozen` comes to by optax's own means."""
    is_frozen = olm.by_name({"lora": False, "": True})
    return optax.chain(
        optax.masked(optax.adamw(1e-3), lambda p: _inverse(is_frozen(p))),
        optax.masked(optax.set_to_zero(), is_frozen),
    )


def _inverse(mask: PyTree) -> PyTree:
    return jax.tree.map(lambda value: not value, mask)


def counted(compiles: Callable[[], tuple[Any, Any]]) -> Row:
    compiled, cost = compiles()
    found, memory = program(compiled.as_text()), compiled.memory_analysis()
    return {
        "kernels": found.kernels,
        **{kind: found.collectives.get(kind, 0) for kind in COLLECTIVES},
        "arguments GB": memory.argument_size_in_bytes / 1e9,
        "temporary GB": memory.temp_size_in_bytes / 1e9,
        "cycles": found.cycles,
        "lower s": cost.trace + cost.lower,
        "compile s": cost.compile,
    }


def more_talk(rows: Sequence[Row]) -> list[str]:
    """Where a table brings collectives that the plain optimizer does without."""
    found, plain = [], {}
    for row in rows:
        if "missing" in row:
            found.append(f"{row['target']}: nothing was compiled: {row['missing']}")
            continue
        case = (row["target"], row["decoder"], row["sharding"])
        base = plain.setdefault(case, row)
        found += [
            f"{', '.join((*case, row['optimizer']))}: {row[kind]} x {kind}, and the "
            f"plain optimizer has {base[kind]}"
            for kind in COLLECTIVES
            if row[kind] > base[kind]
        ]
    return found
