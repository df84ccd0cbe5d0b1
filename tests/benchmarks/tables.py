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
    """Ratios of the step, and how the time until it runs grows."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(11, 5), layout="constrained")
    left, right = canvas.subplots(1, 2)
    rows = [row for row in results.get("steps", []) if row["tree"] == README_TREE]
    for row in rows:
        left.plot(row["step"], row["optimizer"], "o", color="tab:blue")
    left.set(title=f"{README_TREE}: a step", xlabel="times plain Adam", xlim=(0, None))
    grown = [row for row in results.get("growth", []) if row["grows"] == "groups"]
    for name in [column for column in (grown or [{}])[0] if column.endswith(" ms")]:
        sizes = [row["to"] for row in grown]
        right.plot(sizes, [row[name] for row in grown], "o-", label=name[:-3])
    right.set(title="Until the step runs", xlabel="groups", ylabel="ms", ylim=(0, None))
    if grown:
        right.legend()
    canvas.savefig(path)
