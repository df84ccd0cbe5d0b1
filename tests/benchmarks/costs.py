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
SHOWN = {
    ("ViT-S", "plain"): "`optax.adam`",
    ("ViT-S", "static 14"): "14 multipliers",
    ("ViT-S", "Adam by name 14"): "14 rows, each with betas, eps and decay of its own",
    ("ViT-S", "mask_frozen 9/10"): "9/10 frozen, `mask_frozen=True`",
    ("ViT-S", "multi_transform 14"): "`optax.partition`, 14 groups",
    ("1000 leaves", "plain"): "1,000 small arrays, `optax.adam`",
    ("1000 leaves", "static 14"): "1,000 small arrays, 14 multipliers",
    ("1000 leaves", "packed 14"): "1,000 small arrays, `olm.packed`",
}
"""Trees and contenders, and what the README calls them."""


def kept(part: str) -> list[Row]:
    """The rows of a part that `--out` has written."""
    return json.loads((RESULTS / f"{part}.json").read_text(encoding="utf-8"))[part]


def readme_table(rows: Sequence[Row]) -> str:
    """The README's table: kernels, and bytes a parameter that these read and write."""
    found = {(r["tree"], r["optimizer"], r["target"]): r for r in rows}
    lines = [["", *(f"{machine}: kernels, bytes" for machine in MACHINES)]]
    lines.append(["---"] * len(lines[0]))
    for (tree, optimizer), words in SHOWN.items():
        of_each = [found[tree, optimizer, machine] for machine in MACHINES]
        counts = [f"{r['kernels']:,}, {r['bytes/parameter']:.2f}" for r in of_each]
        lines.append([words, *counts])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw(rows: Sequence[Row], machine: str = "H100", tree: str = "ViT-S") -> Figure:
    """Bars of kernels and of bytes for each contender."""
    shown = [
        row
        for row in rows
        if row["target"] == machine
        and row["tree"] == tree
        and not row["optimizer"].startswith("muon")
    ]
    figure = Figure(figsize=(8, 3.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    columns = {
        "kernels": f"kernels of an update of {tree} on an {machine}",
        "bytes/parameter": "bytes a parameter that they move",
    }
    panels: Any = figure.subplots(1, 2, sharey=True)
    for axes, (column, words) in zip(panels, columns.items(), strict=True):
        names = [row["optimizer"] for row in shown]
        colours = ["#777777" if "plain" in name else "#3b7dd8" for name in names]
        bars = axes.barh(names, [row[column] for row in shown], color=colours)
        axes.bar_label(bars, fmt="{:.3g}", padding=3)
        axes.axvline(shown[0][column], color="#777777", linewidth=0.8, linestyle=":")
        axes.set_title(words, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.15)
    panels[0].invert_yaxis()
    return figure
