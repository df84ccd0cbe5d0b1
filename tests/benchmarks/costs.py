"""What the README says of costs, from results that are kept: a table and a picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.benchmarks.tables import Row

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[2] / "notebooks" / "images" / "costs.png"
MACHINES = ("H100", "TPU v5e", "CPU")
TREES = {"ViT-S": "ViT-S", "1000 leaves": "1,000 arrays of 1,000"}
WORDS = {
    "plain": "optax.adam",
    "static 14": "14 multipliers",
    "scheduled 14": "14 schedules",
    "injected 14": "14 injected numbers",
    "Adam by name 14": "14 rows of betas, eps, decay",
    "mask_frozen 9/10": "mask_frozen, 9/10 frozen",
    "packed 14": "packed, 14 multipliers",
    "multi_transform 14": "optax.partition, 14 groups",
    "masked chain 14": "14 x optax.masked",
    "shared vector 14": "14 in a shared vector (a trial)",
}
"""What the README and the picture call trees and contenders."""
README = {
    "ViT-S": [
        *("plain", "static 14", "Adam by name 14"),
        *("mask_frozen 9/10", "packed 14", "multi_transform 14"),
    ],
    "1000 leaves": ["plain", "static 14", "packed 14"],
}
"""The contenders that the README shows."""


def kept(part: str) -> list[Row]:
    """The rows of a part that `--out` has written."""
    return json.loads((RESULTS / f"{part}.json").read_text(encoding="utf-8"))[part]


def readme_table(rows: Sequence[Row]) -> str:
    """The README's table: kernels, and bytes a parameter that these read and write."""
    found = {(r["tree"], r["optimizer"], r["target"]): r for r in rows}
    lines = [["", *(f"{machine}: kernels, bytes" for machine in MACHINES)]]
    lines.append(["---"] * len(lines[0]))
    for tree, optimizers in README.items():
        for optimizer in optimizers:
            of_each = [found[tree, optimizer, machine] for machine in MACHINES]
            counts = [f"{r['kernels']:,}, {r['bytes/parameter']:.2f}" for r in of_each]
            lines.append([f"{TREES[tree]}, {WORDS[optimizer]}", *counts])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw(rows: Sequence[Row], machine: str = "H100") -> Figure:
    """Bars of kernels and of bytes for each contender, a row of bars for each tree."""
    shown = {
        tree: [
            row
            for row in rows
            if (row["target"], row["tree"]) == (machine, tree)
            and row["optimizer"] in WORDS
        ]
        for tree in TREES
    }
    figure = Figure(figsize=(8.6, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    columns = {
        "kernels": "{}: kernels on an {}",
        "bytes/parameter": "{}: bytes a parameter",
    }
    panels: Any = figure.subplots(
        *(len(TREES), len(columns)),
        sharey="row",
        height_ratios=[len(found) for found in shown.values()],
    )
    for pair, (tree, found) in zip(panels, shown.items(), strict=True):
        for axes, (column, words) in zip(pair, columns.items(), strict=True):
            names = [WORDS[row["optimizer"]] for row in found]
            values = [row[column] for row in found]
            colours = ["#777777" if n == WORDS["plain"] else "#3b7dd8" for n in names]
            style = "{:,.0f}" if column == "kernels" else "{:.2f}"
            bars = axes.barh(names, values, color=colours)
            axes.bar_label(bars, fmt=style, padding=3, fontsize=9)
            axes.axvline(values[0], color="#777777", linewidth=0.8, linestyle=":")
            axes.set_title(words.format(TREES[tree], machine), fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
            axes.margins(x=0.18)
        pair[0].invert_yaxis()
    return figure
