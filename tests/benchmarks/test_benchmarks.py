"""The benchmark runs from a clone's root, all of its parts, on tiny sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import PARTS
from tests.benchmarks.tables import README_ROWS, readme_table, text_table

ROOT = Path(__file__).parent.parent.parent


def test_every_part_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--out", tmp_path]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == list(PARTS)
    for part, rows in results.items():
        assert f"\n{part}: " in done.stdout
        assert rows
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    plain = next(row for row in results["steps"] if row["optimizer"] == "plain")
    assert plain["step"] == plain["compile"] == 1
    assert plain["state leaves"] == 5


def test_the_table_of_the_readme() -> None:
    row = {"step": 1.0, "trace": 1.5, "compile": 2.0, "kernels": 9, "state leaves": 5}
    rows = [
        {"tree": "ViT-S", "optimizer": name, **row} for name in ["plain", *README_ROWS]
    ]
    lines = readme_table(rows).splitlines()
    assert lines[2] == "| `optax.adam` | 1.00 | 1.50 | 2.00 | 9 | 5 |"
    assert len(lines) == len(README_ROWS) + 5


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.12345, "0.123"), (12345.6, "12346"), (7, "7")]
)
def test_a_table_shows_three_digits(value: object, text: str) -> None:
    table = text_table([{"name": "a", "value": value}, {"name": "long name"}])
    assert table.splitlines()[1:] == [f"a          {text}", "long name  -"]
