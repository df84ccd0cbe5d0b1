"""Rows of a benchmark as text, and what they were measured on."""

import importlib.metadata
import json
import os
from collections.abc import Sequence
from typing import Any

import jax

Row = dict[str, Any]


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


def machine() -> str:
    """What the numbers were measured on, without the machine's name."""
    device = jax.devices()[0]
    where = f"{device.device_kind}, {len(jax.devices())} device"
    if device.platform == "cpu":
        where = f"{os.cpu_count()} cores of a CPU"
    versions = [f"{n} {importlib.metadata.version(n)}" for n in ("jax", "optax")]
    return f"On {where}, {', '.join(versions)}."


def as_json(results: dict[str, Any]) -> str:
    """A row a line, and numbers to six digits."""
    parts = [f"{json.dumps(name)}: {_lines(rows)}" for name, rows in results.items()]
    return "{" + ",\n".join(parts) + "}\n"


def _lines(rows: Any) -> str:
    if not isinstance(rows, list):
        return json.dumps(rows)
    return "[\n" + ",\n".join(json.dumps(_rounded(row)) for row in rows) + "]"


def _rounded(row: Row) -> Row:
    def rounded(value: Any) -> Any:
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return {name: rounded(value) for name, value in row.items()}
