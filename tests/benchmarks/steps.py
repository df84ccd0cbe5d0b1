"""A training step's update on models of several sizes, as ratios to plain Adam."""

import gc
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from . import contenders, trees
from .contenders import Make
from .measure import (
    Cost,
    compiled_steps,
    copy_step,
    interleaved,
    ratios,
    running,
)
from .trees import PyTree

Row = dict[str, Any]
QUICK = {"blocks": trees.array(2, 8), "head": trees.array(8)}
ADAM_FLOATS, AMSGRAD_FLOATS = 7, 9
"""Read and written for each parameter: gradient, parameter and moments, and all but
the first of them."""


def adam_steps(is_quick: bool) -> list[Row]:
    """Adam, on all trees."""
    layers = {"plain": contenders.plain, "per_layer": contenders.per_layer}
    if is_quick:
        return compared("two leaves", QUICK, {**few(2), **layers}, 3, 1, 2)
    return [
        *compared("ViT-S", trees.vit(*trees.VIT_S), everything(), 25, 5, 14),
        *compared("ViT-B", trees.vit(*trees.VIT_B), few(14), 15, 1, 14),
        *compared("small ViT", trees.vit(*trees.VIT_SMALL), few(14), 60, 5, 14),
        *compared("scanned ViT-S", trees.scanned_vit(*trees.VIT_S), layers, 25, 5),
        *compared("1000 leaves", trees.leaves(1000, 1000), few(14), 40, 1, 14),
        *compared("5000 leaves", trees.leaves(5000, 1000), few(14), 20, 1, 14),
        *compared("4 leaves", trees.leaves(4, 5_000_000), few(4), 25, 5, 4),
    ]


def amsgrad_steps(is_quick: bool) -> list[Row]:
    """AMSGrad."""

    def plain(tree: PyTree) -> optax.GradientTransformation:
        return optax.amsgrad(contenders.RATE)

    groups = 2 if is_quick else 14
    makes = {
        "plain": plain,
        "static": contenders.static(groups, amsgrad=True),
        "multi_transform": contenders.multi_transform(groups, optax.amsgrad),
    }
    tree = QUICK if is_quick else trees.vit(*trees.VIT_S)
    rounds, repeats = (3, 1) if is_quick else (25, 3)
    return compared("AMSGrad", tree, makes, rounds, repeats, floats=AMSGRAD_FLOATS)


def everything() -> dict[str, Make]:
    """All contenders; their names end in the number of groups."""
    many = (2, 14, 24, 50)
    return {
        "plain": contenders.plain,
        "static 14": contenders.static(14),
        "static 50": contenders.static(50),
        "scheduled 14": contenders.scheduled(14),
        "injected 14": contenders.injected(14),
        "packed 14": contenders.packed(14),
        "mask_frozen 3/4": contenders.frozen(0.75),
        "mask_frozen 9/10": contenders.frozen(0.9),
        **{f"multi_transform {n}": contenders.multi_transform(n) for n in many},
        **{f"masked chain {n}": contenders.masked_chain(n) for n in many},
    }


def few(groups: int) -> dict[str, Make]:
    return {
        "plain": contenders.plain,
        f"static {groups}": contenders.static(groups),
        f"packed {groups}": contenders.packed(groups),
        "mask_frozen 9/10": contenders.frozen(0.9),
        f"multi_transform {groups}": contenders.multi_transform(groups),
    }


def compared(
    title: str,
    tree: PyTree,
    makes: Mapping[str, Make],
    rounds: int,
    repeats: int,
    torch_groups: int = 0,
    floats: int = ADAM_FLOATS,
) -> list[Row]:
    """One row for each contender, and the floor: what a copy of the bytes takes."""
    compiled = compiled_steps(makes, tree, repeats)
    runs = {name: (run, makes[name]) for name, (run, _) in compiled.items()}
    seconds = step_seconds(tree, runs, rounds, torch_groups)
    costs = {name: cost for name, (_, cost) in compiled.items()}
    # A copy moves two floats for each element.
    seconds["floor"] = [floats / 2 * copying for copying in seconds.pop("copy")]
    return [
        {"tree": title, "optimizer": name}
        | step_columns(each, seconds["plain"])
        | cost_columns(costs.get(name), costs["plain"], trees.parameters(tree))
        for name, each in seconds.items()
    ]


def step_seconds(
    tree: PyTree,
    runs: Mapping[str, tuple[Any, Make]],
    rounds: int,
    torch_groups: int = 0,
) -> dict[str, list[float]]:
    """Seconds of each step in each round.

    Args:
      tree: the shapes of the parameters.
      runs: the compiled step and the optimizer of each contender.
      rounds: how often each takes its turn.
      torch_groups: parameter groups for PyTorch, or 0 to leave it out.
    """
    gradients = trees.filled(tree)
    steps: dict[str, Callable[[], Any]] = {}
    for name, (run, make) in runs.items():
        params = trees.filled(tree)
        state = jax.jit(make(tree).init)(params)
        steps[name] = running(run, params, state, gradients)
    steps["copy"] = copy_step(trees.parameters(tree))
    torch_step = contenders.torch_step(tree, torch_groups) if torch_groups else None
    if torch_step:
        steps[f"torch fused {torch_groups}"] = torch_step
    seconds = interleaved(steps, rounds)
    steps.clear()
    gc.collect()  # Before the next tree's parameters are made.
    return seconds


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
