"""The benchmark runs, all of its parts, on tiny sizes."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import PARTS, main
from tests.benchmarks.tables import text_table


def test_every_part_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--out", str(tmp_path / "results.json")])
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert list(results) == ["versions", *PARTS]
    del results["versions"]
    for part, rows in results.items():
        assert f"\n{part}: " in printed
        assert rows
    of = {row["optimizer"]: row for row in results["steps"]}
    assert of["plain"]["step"] == of["plain"]["compile"] == 1
    assert of["static 2"]["kernels"] == of["plain"]["kernels"]
    assert of["static 2"]["state leaves"] == of["plain"]["state leaves"] == 5


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.12345, "0.123"), (12345.6, "12346"), (7, "7")]
)
def test_a_table_shows_three_digits(value: object, text: str) -> None:
    table = text_table([{"name": "a", "value": value}, {"name": "long name"}])
    assert table.splitlines()[1:] == [f"a          {text}", "long name  -"]
