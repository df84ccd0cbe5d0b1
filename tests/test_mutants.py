"""Mutants that live are explained, and the explanations are of the code as it is."""

from pathlib import Path

import mutants
import pytest

import optax_lrmult

PACKAGE = Path(optax_lrmult.__file__).parent


@pytest.mark.parametrize("module", mutants.TESTS)
def test_a_module_is_tried_with_tests_that_there_are(module: str) -> None:
    source, *tests = mutants.test_files(module)
    assert (PACKAGE.parent / source).is_file()
    for file in tests:
        assert (mutants.ROOT / file).is_file()


@pytest.mark.parametrize("row", mutants.explained(), ids=lambda row: row["becomes"])
def test_a_survivor_is_a_line_of_its_module(row: dict[str, str]) -> None:
    lines = (PACKAGE / f"{row['module']}.py").read_text("utf-8").splitlines()
    assert row["is"] in [line.strip() for line in lines]
    assert row["becomes"] != row["is"]
    assert row["why"]


def test_a_changed_line_is_read_from_a_diff() -> None:
    diff = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-  a < b\n"
    assert mutants.changed_line(diff) == ("a < b", "")
    assert mutants.changed_line(diff + "+  a > b\n") == ("a < b", "a > b")
