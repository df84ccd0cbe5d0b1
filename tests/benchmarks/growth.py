"""What grows with what: leaves, groups, rules, parameters."""

import time
from collections.abc import Callable
from typing import Any

import optax_lrmult as olm

from . import contenders, trees
from .contenders import Make
from .measure import compiled_steps
from .steps import Row, step_seconds
from .trees import PyTree


def growth(is_quick: bool) -> list[Row]:
    """Milliseconds until the step runs, of processor time; and of a step."""
    many_leaves = (2, 4) if is_quick else (100, 300, 1000, 3000)
    many_groups = (2, 3) if is_quick else (2, 14, 24, 50)
    many_rules = (1, 10) if is_quick else (10, 100, 1000)
    many_sizes = (10, 100) if is_quick else (10_000, 100_000, 1_000_000, 10_000_000)
    tree = trees.leaves(3, 10) if is_quick else trees.vit(*trees.VIT_S)
    repeats, rounds = (1, 3) if is_quick else (3, 20)
    return [
        *[until_it_runs("leaves", n, trees.leaves(n, 100), 2, 1) for n in many_leaves],
        *[until_it_runs("groups", n, tree, n, repeats) for n in many_groups],
        *[reading_rules(n, tree) for n in many_rules],
        *[a_step(n, rounds) for n in many_sizes],
    ]


def contenders_of(groups: int) -> dict[str, Make]:
    return {
        "plain": contenders.plain,
        "static": contenders.static(groups),
        "multi_transform": contenders.multi_transform(groups),
        "masked chain": contenders.masked_chain(groups),
    }


def until_it_runs(what: str, n: int, tree: PyTree, groups: int, repeats: int) -> Row:
    compiled = compiled_steps(contenders_of(groups), tree, repeats)
    return {"grows": what, "to": n, "measured": "trace, lower, compile"} | {
        f"{name} ms": 1e3 * cost.until_it_runs for name, (_, cost) in compiled.items()
    }


def reading_rules(n: int, tree: PyTree) -> Row:
    """A table of so many rules on one tree, as `init` and the trace read it."""
    table = {f"block_0/{index}": 0.5 for index in range(n)}
    seconds = best(lambda: olm.assign(tree, table))
    row = {"grows": "rules", "to": n, "measured": "reading the table"}
    return row | {"static ms": 1e3 * seconds}


def a_step(size: int, rounds: int) -> Row:
    """Four leaves of so many elements each."""
    makes, tree = contenders_of(4), trees.leaves(4, size)
    compiled = compiled_steps(makes, tree, 1)
    runs = {name: (run, makes[name]) for name, (run, _) in compiled.items()}
    seconds = step_seconds(tree, runs, rounds)
    return {"grows": "parameters", "to": 4 * size, "measured": "a step"} | {
        f"{name} ms": 1e3 * sorted(seconds[name])[rounds // 2] for name in makes
    }


def best(function: Callable[[], Any], times: int = 5) -> float:
    """The shortest of several times, in seconds of processor time."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)
