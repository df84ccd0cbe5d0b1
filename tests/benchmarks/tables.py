"""Rows of a benchmark as text, and the table of the README."""

import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

Row = dict[str, Any]
README_TREE = "ViT-S"
README_ROWS = {
    "static 14": "14 multipliers",
    "scheduled 14": "14 schedules",
    "injected 14": "14 injected multipliers",
    "mask_frozen 9/10": "`mask_frozen`, 90% frozen",
    "multi_transform 14": "`optax.multi_transform`, 14 groups",
    "multi_transform 50": "`optax.multi_transform`, 50 groups",
    "masked chain 14": "a chain of 14 `optax.masked`",
}
README_COLUMNS = ("step", "trace", "compile", "kernels", "state leaves")


def text_table(rows: Sequence[Row]) -> str:
    """Columns in the order of their first use, numbers to three digits."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *[[cell(row.get(c)) for c in columns] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True))
        for line in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def readme_table(rows: Sequence[Row]) -> str:
    """The rows of one tree in Markdown, with plain Adam's counts in front."""
    of_tree = {row["optimizer"]: row for row in rows if row["tree"] == README_TREE}
    names = {"plain": "`optax.adam`"} | README_ROWS
    lines = ["| | " + " | ".join(README_COLUMNS) + " |", "|---" * 6 + "|"]
    lines += [
        f"| {title} | " + " | ".join(readme_cells(of_tree[name])) + " |"
        for name, title in names.items()
    ]
    return "\n".join([*lines, "", machine()])


def readme_cells(row: Row) -> list[str]:
    values = [row[column] for column in README_COLUMNS]
    return [f"{v:.2f}" if isinstance(v, float) else str(v) for v in values]


def machine() -> str:
    """What the numbers were measured on, without the machine's name."""
    device = jax.devices()[0]
    where = f"{device.device_kind}, {len(jax.devices())} device"
    if device.platform == "cpu":
        where = f"{os.cpu_count()} cores of a CPU"
    versions = [f"{n} {importlib.metadata.version(n)}" for n in ("jax", "optax")]
    return f"On {where}, {', '.join(versions)}."


def figure(results: Mapping[str, Sequence[Row]], path: Any) -> None:
    """Of `steps` the ratios of a step, of `growth` how long it takes until it runs."""
    from matplotlib.figure import Figure

    panels = {"steps": step_panel, "growth": growth_panel}
    drawn = [part for part in panels if results.get(part)]
    canvas = Figure(figsize=(5.5 * max(1, len(drawn)), 5), layout="constrained")
    for number, part in enumerate(drawn, 1):
        panels[part](canvas.add_subplot(1, len(drawn), number), results[part])
    canvas.savefig(path)


def step_panel(ax: Any, rows: Sequence[Row]) -> None:
    """The medians on the README's tree, with their quartiles."""
    tree = README_TREE if any(r["tree"] == README_TREE for r in rows) else None
    shown = [row for row in rows if tree in (None, row["tree"])][::-1]
    for row in shown:
        ends = [float(end) for end in row["quartiles"].split("-")]
        ax.plot(ends, [row["optimizer"]] * 2, color="tab:blue", alpha=0.4, linewidth=4)
        ax.plot(row["step"], row["optimizer"], "o", color="tab:blue")
    ax.axvline(1, color="0.8", zorder=0)
    title = f"{shown[0]['tree']}: a step, and its quartiles"
    ax.set(title=title, xlabel="times plain Adam", xlim=(0, None))


def growth_panel(ax: Any, rows: Sequence[Row]) -> None:
    """By the number of groups, which is where contenders differ most."""
    grown = [row for row in rows if row["grows"] == "groups"]
    for name in [column for column in grown[0] if column.endswith(" ms")]:
        sizes = [row["to"] for row in grown]
        ax.plot(sizes, [row[name] for row in grown], "o-", label=name[:-3])
    ax.set(title="Until the step runs", xlabel="groups", ylabel="ms", ylim=(0, None))
    ax.legend()
