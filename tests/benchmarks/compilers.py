"""What compilers of GPUs and TPUs make of a step, counted without a GPU or a TPU."""

from collections.abc import Iterator, Sequence

import jax
import optax.contrib

from tests.benchmarks import contenders, trees
from tests.benchmarks.contenders import Make
from tests.benchmarks.hlo import program
from tests.benchmarks.measure import compiled_step
from tests.benchmarks.tables import Row
from tests.benchmarks.targets import TARGETS
from tests.benchmarks.trees import PyTree

FLOAT = 4
"""Bytes of a float32."""
MANY = ("1000 leaves", "200 leaves")
"""The trees that `packed` is for, in the whole benchmark and in the quick one."""
Cases = dict[str, tuple[PyTree, dict[str, Make]]]
"""Trees by their titles, each with its contenders."""


def compilers(is_quick: bool, targets: Sequence[str]) -> list[Row]:
    """The update of a step as each machine would run it: counts, and processor time."""
    return [row for target in targets for row in compiled_for(target, is_quick)]


def compiled_for(target: str, is_quick: bool) -> Iterator[Row]:
    """A row for each tree and contender."""
    if not TARGETS[target].is_installed:
        yield {"target": target, "missing": TARGETS[target].install}
        return
    is_whole = target in ("CPU", "H100", "TPU v5e")
    cases = quick() if is_quick else whole() if is_whole else few()
    for title, (tree, makes) in cases.items():
        counts: dict[str, Row] = {}
        for name, make in makes.items():
            counts[name] = counted(target, tree, make)
            over = counts[name]["bytes"] - counts[base(name)]["bytes"]
            row = {"target": target, "tree": title, "optimizer": name}
            row |= {"leaves": len(jax.tree.leaves(tree))}
            yield row | counts[name] | {"bytes over": over}


def counted(target: str, tree: PyTree, make: Make) -> Row:
    jax.clear_caches()  # Or else a contender is traced in the time of another.
    compiled, cost = compiled_step(make(tree), tree, TARGETS[target])
    found = program(compiled.as_text())
    return {
        "kernels": found.kernels,
        "bytes": found.bytes,
        "bytes/parameter": found.bytes / trees.parameters(tree),
        "temporary MB": (cost.temporary_bytes or 0) / 1e6,
        "cycles": found.cycles,
        "prefetches": found.prefetches,
        "lower s": cost.trace + cost.lower,
        "compile s": cost.compile,
    }


def base(optimizer: str) -> str:
    """What an optimizer is compared with: the same without a table."""
    return "muon" if optimizer.startswith("muon") else "plain"


def broken(rows: Sequence[Row]) -> list[str]:
    """What is missing, and where counts are above what is promised; or nothing."""
    found = [
        f"{row['target']}: nothing was compiled. Its compiler comes by {row['missing']}"
        for row in rows
        if "missing" in row
    ]
    there = [row for row in rows if "missing" not in row]
    by_case = {(r["target"], r["tree"], r["optimizer"]): r for r in there}
    for (target, tree, optimizer), row in by_case.items():
        limits = promised(row, by_case[target, tree, base(optimizer)]["kernels"])
        found += [
            f"{target}, {tree}, {optimizer}: {row[count]} {count}, and the promise is "
            f"{limit:.0f} at most"
            for count, limit in limits.items()
            if row[count] > limit
        ]
    return found


def promised(row: Row, kernels: int) -> dict[str, float]:
    """The most that the counts of a row may be, beside a plain optimizer of `kernels`.

    Beside a leaf, a kernel reads the leaf's numbers of the tables. On a GPU, each
    further value of a beta has a kernel of one number, for the correction of its
    moments. From v6e on, TPUs run some pairs of leaves in one kernel, if both have the
    same betas. A TPU prepares a vector of multipliers in two small kernels, whatever
    the number of leaves that read it. Of many small leaves, `packed` has a tenth of the
    kernels on a GPU, and on a TPU one for each four leaves.
    """
    kind, _, groups = row["optimizer"].rpartition(" ")
    leaves, is_tpu = row["leaves"], row["target"].startswith("TPU")
    match kind or groups:
        case "static" | "muon static":
            return {"kernels": kernels, "bytes over": FLOAT * leaves}
        case "per":
            more = 2 if is_tpu else 0
            return {"kernels": kernels + more, "bytes over": FLOAT * 32 * leaves}
        case "Adam by name":
            betas = 2 * (int(groups) - 1)
            most = max(kernels, leaves) if is_tpu else kernels + betas
            scalars = FLOAT * 10 * (leaves + int(groups))
            return {"kernels": most, "bytes over": scalars}
        case "packed" if row["tree"] in MANY and row["target"] != "CPU":
            return {"kernels": (leaves / 4 if is_tpu else kernels / 10) + 2}
        case _:
            return {}


def quick() -> Cases:
    """Small trees, for a test that the promises hold with new compilers."""
    stacked = {"blocks": trees.array(3, 64), "head": trees.array(64)}
    return {
        "ViT": (trees.vit(2, 64), several(4) | muons(4)),
        "stacked": (stacked, layers()),
        MANY[1]: (trees.leaves(200, 1000), several(4)),
    }


def few() -> Cases:
    """What the promises are about."""
    return {
        "ViT-S": (trees.vit(*trees.VIT_S), several(14)),
        "scanned ViT-S": (trees.scanned_vit(*trees.VIT_S), layers()),
    }


def whole() -> Cases:
    (vit, makes), scanned = few().values()
    others = {
        "scheduled 14": contenders.scheduled(14),
        "injected 14": contenders.injected(14),
        "mask_frozen 9/10": contenders.frozen(0.9),
        "multi_transform 14": contenders.multi_transform(14),
        "masked chain 14": contenders.masked_chain(14),
    }
    return {
        "ViT-S": (vit, makes | others | muons(14)),
        "scanned ViT-S": scanned,
        "ViT-B": (trees.vit(*trees.VIT_B), several(14)),
        "GPT": (trees.gpt(*trees.GPT), several(14) | muons(14)),
        "LoRA of 32 layers": (trees.lora(32, 2048), several(14)),
        MANY[0]: (trees.leaves(1000, 1000), several(14)),
    }


def several(groups: int) -> dict[str, Make]:
    """Contenders for every tree; their names end in the number of groups."""
    return {
        "plain": contenders.plain,
        f"static {groups}": contenders.static(groups),
        f"Adam by name {groups}": contenders.adam_by_name(groups),
        f"packed {groups}": contenders.packed(groups),
        f"shared vector {groups}": contenders.shared_vector(groups),
    }


def layers() -> dict[str, Make]:
    return {"plain": contenders.plain, "per layer": contenders.per_layer}


def muons(groups: int) -> dict[str, Make]:
    if not hasattr(optax.contrib, "MuonDimensionNumbers"):
        return {}  # Before optax 0.2.6.
    return {
        "muon": contenders.muon,
        f"muon static {groups}": contenders.muon_static(groups),
    }
