"""What grows with the number of leaves and of groups."""

from tests.benchmarks import contenders, trees
from tests.benchmarks.contenders import Make
from tests.benchmarks.measure import compiled_steps
from tests.benchmarks.tables import Row
from tests.benchmarks.trees import PyTree


def growth(is_quick: bool) -> list[Row]:
    """Milliseconds of processor time until the step runs: trace, lower, compile."""
    if is_quick:
        return [until_it_runs("leaves", 4, trees.leaves(4, 10), 2, 1)]
    vit = trees.vit(*trees.VIT_S)
    return [
        *(
            until_it_runs("leaves", n, trees.leaves(n, 100), 2, 1)
            for n in (100, 300, 1000, 3000)
        ),
        *(until_it_runs("groups", n, vit, n, 3) for n in (2, 14, 24, 50)),
    ]


def until_it_runs(what: str, n: int, tree: PyTree, groups: int, repeats: int) -> Row:
    makes: dict[str, Make] = {
        "plain": contenders.plain,
        "static": contenders.static(groups),
        "multi_transform": contenders.multi_transform(groups),
        "masked chain": contenders.masked_chain(groups),
    }
    compiled = compiled_steps(makes, tree, repeats)
    return {"grows": what, "to": n} | {
        f"{name} ms": 1e3 * cost.until_it_runs for name, (_, cost) in compiled.items()
    }
