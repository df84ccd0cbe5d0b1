"""A training step's update on models of several sizes, as ratios to plain Adam."""

import gc
from collections.abc import Mapping

import jax

from tests.benchmarks import contenders, trees
from tests.benchmarks.contenders import Make
from tests.benchmarks.measure import (
    Cost,
    compiled_steps,
    copy_step,
    interleaved,
    ratios,
    running,
)
from tests.benchmarks.tables import Row
from tests.benchmarks.trees import PyTree

FLOATS = 7
"""Read and written for each parameter: gradient, parameter and two moments, and all but
the first of them."""


def steps(is_quick: bool) -> list[Row]:
    """A step of Adam and its compilation, as multiples of the plain optimizer's."""
    layers = {"plain": contenders.plain, "per_layer": contenders.per_layer}
    if is_quick:
        stacked = {"blocks": trees.array(2, 8), "head": trees.array(8)}
        return compared("two leaves", stacked, {**several(2), **layers}, 3, 1)
    return [
        *compared("ViT-S", trees.vit(*trees.VIT_S), several(14) | more(), 25, 5),
        *compared("ViT-B", trees.vit(*trees.VIT_B), several(14), 15, 1),
        *compared("scanned ViT-S", trees.scanned_vit(*trees.VIT_S), layers, 25, 5),
        *compared("1000 leaves", trees.leaves(1000, 1000), several(14), 40, 1),
        *compared("4 leaves", trees.leaves(4, 5_000_000), several(4), 25, 5),
    ]


def several(groups: int) -> dict[str, Make]:
    """Contenders for every tree; their names end in the number of groups."""
    return {
        "plain": contenders.plain,
        f"static {groups}": contenders.static(groups),
        f"packed {groups}": contenders.packed(groups),
        f"multi_transform {groups}": contenders.multi_transform(groups),
        f"masked chain {groups}": contenders.masked_chain(groups),
    }


def more() -> dict[str, Make]:
    return {
        "static 50": contenders.static(50),
        "scheduled 14": contenders.scheduled(14),
        "injected 14": contenders.injected(14),
        "mask_frozen 9/10": contenders.frozen(0.9),
        "multi_transform 50": contenders.multi_transform(50),
    }


def compared(
    title: str, tree: PyTree, makes: Mapping[str, Make], rounds: int, repeats: int
) -> list[Row]:
    """A row for each contender, and one for what the memory's speed allows.

    Args:
      title: the name of the tree.
      tree: the shapes of the parameters.
      makes: the contenders, with `plain` among them.
      rounds: how often each takes a step, in turn with the others.
      repeats: how often each is compiled.
    """
    compiled = compiled_steps(makes, tree, repeats)
    gradients, runs = trees.filled(tree), {}
    for name, (run, _) in compiled.items():
        params = trees.filled(tree)
        state = jax.jit(makes[name](tree).init)(params)
        runs[name] = running(run, params, state, gradients)
    seconds = interleaved({**runs, "copy": copy_step(trees.parameters(tree))}, rounds)
    runs.clear()
    gc.collect()  # Before the next tree's parameters are made.
    # A copy moves two floats for each element.
    seconds["floor"] = [FLOATS / 2 * copying for copying in seconds.pop("copy")]
    costs = {name: cost for name, (_, cost) in compiled.items()}
    return [
        {"tree": title, "optimizer": name}
        | step_columns(each, seconds["plain"])
        | cost_columns(costs.get(name), costs["plain"], trees.parameters(tree))
        for name, each in seconds.items()
    ]


def step_columns(seconds: list[float], plain: list[float]) -> Row:
    middle, low, high = ratios(seconds, plain)
    return {"ms": 1e3 * sorted(seconds)[len(seconds) // 2]} | {
        "step": middle,
        "quartiles": f"{low:.2f}-{high:.2f}",
    }


def cost_columns(cost: Cost | None, plain: Cost, parameters: int) -> Row:
    if cost is None:
        return {}
    traffic, temporary = cost.bytes_accessed, cost.temporary_bytes
    return {
        "trace": cost.trace / plain.trace,
        "lower": cost.lower / plain.lower,
        "compile": cost.compile / plain.compile,
        "kernels": cost.kernels,
        "bytes/parameter": None if traffic is None else traffic / parameters,
        "temporary MB": None if temporary is None else temporary / 1e6,
        "state leaves": cost.state_leaves,
        "state MB": cost.state_bytes / 1e6,
    }
