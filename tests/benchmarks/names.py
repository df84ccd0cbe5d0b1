"""How long names and rules take to meet, in large models with long tables."""

import re
from typing import Any

import jax

import optax_lrmult as olm
from tests.benchmarks import trees
from tests.benchmarks.measure import best
from tests.benchmarks.tables import Row


def names(is_quick: bool) -> list[Row]:
    """Processor seconds of one assignment, by kind of pattern: the best of several."""
    sizes = [(100, 10)] if is_quick else [(1_000, 1_000), (10_000, 100)]
    return [assignment(leaves, rules) for leaves, rules in sizes]


def assignment(leaves: int, rules: int) -> Row:
    """A rule for each block, and a hundred leaves in a block."""
    inside = {f"layer_{i}": trees.dense(1, 1) for i in range(leaves // rules // 2)}
    tree = {"encoder": {f"block_{index}": inside for index in range(rules)}}
    row = {"leaves": len(jax.tree.leaves(tree)), "rules": rules}
    return row | {
        kind: best(lambda table=table: olm.assign(tree, table), 3)
        for kind, table in tables(rules).items()
    }


def tables(rules: int) -> dict[str, Any]:
    indices = range(rules)
    regex = r"encoder/block_{}/layer_\d+/(kernel|bias)"
    return {
        "str": {f"block_{i}/": 0.5 for i in indices},
        "glob": {olm.glob(f"**/block_{i}/*/kernel"): 0.5 for i in indices},
        "prefix": {olm.prefix(f"encoder/block_{i}"): 0.5 for i in indices},
        "regex": {re.compile(regex.format(i)): 0.5 for i in indices},
    }
