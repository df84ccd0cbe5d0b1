"""Which mutants of the core its tests let live: `python tests/mutants.py _rules`.

Needs `pip install --group mutants`, and minutes for each module (all if none is named).
A copy of the project is changed, one operator or constant at a time; every survivor is
explained in `data/survivors.toml`. Annotations are left out: a broken one always fails.
"""

import argparse
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEAST_KILLED = 0.95
TESTS = {
    "_names": "names containers package bad_input",
    "_rules": "rules notation config multipliers bad_input",
    "_multipliers": "api multipliers names preview stacked",
    "_matching": "matching rules multipliers",
    "_table": "table transform retracing",
    "_packed_tree": "packed",
    "_transform": "api transform wrappers mask_frozen injection retracing misplaced",
    "_wrapped_state": "mask_frozen wrappers transform",
    "_adam": "api keras optimizers",
}
CONFIG = """
[cosmic-ray]
module-path = "optax_lrmult/{module}.py"
timeout = 120.0
excluded-modules = []
test-command = {command!r}
distributor.name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = ["core/ReplaceBinaryOperator_BitOr_.*"]
"""
SURVIVORS = "select diff from work_results where test_outcome = 'SURVIVED'"
TRIED = "select count(*) from work_results where test_outcome is not null"


def test_files(module: str) -> list[str]:
    names = TESTS[module].split()
    return [f"optax_lrmult/{module}.py", *(f"tests/test_{name}.py" for name in names)]


def explained() -> list[dict[str, str]]:
    """A module, what its line `is`, what it `becomes`, and why that does no harm."""
    text = (Path(__file__).parent / "data" / "survivors.toml").read_text("utf-8")
    return tomllib.loads(text)["survivor"]


def changed_line(diff: str) -> tuple[str, str]:
    """What the line was, and what it became; nothing if it is gone."""
    lines = [line for line in diff.splitlines() if line[:3] not in ("---", "+++")]
    was, is_now = (
        [line[1:].strip() for line in lines if line[:1] == sign and line[1:].strip()]
        for sign in "-+"
    )
    return was[-1], "".join(is_now)


def survivors_of(module: str, folder: Path) -> tuple[list[tuple[str, str]], int]:
    """The changes that no test noticed, and how many mutants there were."""
    pytest = "-W ignore -m pytest -x -q -p no:cacheprovider"
    command = f"{shlex.quote(sys.executable)} {pytest} {' '.join(test_files(module))}"
    config, session = folder / "mutants.toml", folder / "mutants.sqlite"
    config.write_text(CONFIG.format(module=module, command=command))
    files = str(config), str(session)
    for arguments in (
        ("cosmic-ray", "init", *files),
        ("cr-filter-operators", files[1], files[0]),
        ("cosmic-ray", "baseline", files[0]),
        ("cosmic-ray", "exec", *files),
    ):
        subprocess.run(arguments, cwd=folder, check=True)
    with sqlite3.connect(session) as database:
        diffs = [row[0] for row in database.execute(SURVIVORS)]
        return list(map(changed_line, diffs)), database.execute(TRIED).fetchone()[0]


def is_good(module: str) -> bool:
    """Prints a module's survivors, and says whether they are few and explained."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "copy"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".ci"))
        alive, tried = survivors_of(module, folder)
    rows = [row for row in explained() if row["module"] == module]
    reasons = {(row["is"], row["becomes"]): row["why"] for row in rows}
    for change in alive:
        print(module, *change, reasons.get(change, "NOT EXPLAINED"), sep="\n    ")
    print(f"{module}: {tried - len(alive)} of {tried} killed", flush=True)
    return reasons.keys() >= set(alive) and tried - len(alive) >= LEAST_KILLED * tried


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"some of {' '.join(TESTS)}")
    modules = parser.parse_args().modules or list(TESTS)
    for module in set(modules) - set(TESTS):
        parser.error(f"no tests are listed for {module}")
    good = [is_good(module) for module in modules]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
