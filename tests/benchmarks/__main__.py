"""The benchmark's command line: `python -m tests.benchmarks --help`.

`--part compilers --out tests/benchmarks/results/compilers.json` keeps what the README
quotes, of all targets or of the one that is named; so does `--part pod` in `pod.json`.
"""

import argparse
import inspect
import json
from collections.abc import Sequence
from pathlib import Path

import jax

from tests.benchmarks import costs
from tests.benchmarks.compilers import broken, compilers
from tests.benchmarks.growth import growth
from tests.benchmarks.names import names
from tests.benchmarks.pod import more_talk, pod
from tests.benchmarks.steps import steps
from tests.benchmarks.tables import Row, as_json, machine, text_table
from tests.benchmarks.targets import TARGETS, versions

PARTS = {"steps": steps, "growth": growth, "names": names}
"""Measured on the machine that is here: what runs if no part is named."""
COMPILED = {
    "compilers": (compilers, broken, list(TARGETS)),
    "pod": (pod, more_talk, ["TPU v5e", "H100"]),
}
"""Counted in what compilers make for machines that may be elsewhere, with what checks
the promises, and the machines if none are named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts asked for, prints a table of each, and counts broken promises."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--part", choices=[*PARTS, *COMPILED], action="append", help="may be repeated")
    add("--quick", action="store_true", help="tiny sizes: does it run at all?")
    add("--target", choices=TARGETS, action="append", help="a machine to compile for")
    add("--out", type=Path, help="a file for the results as JSON, beside others in it")
    add("--costs", action="store_true", help="the README's table and its picture")
    options = parser.parse_args(arguments)
    if options.costs:
        rows = costs.kept("compilers")
        print(costs.readme_table(rows))
        costs.draw(rows).savefig(costs.PICTURE)
        return 0
    parts = options.part or PARTS
    if not set(parts) & set(PARTS):
        # Or JAX looks for the GPU that the compiler is for, and warns.
        jax.config.update("jax_platforms", "cpu")
    print(machine())
    failures: list[str] = []
    for part in parts:
        if part in PARTS:
            function, rows = PARTS[part], PARTS[part](options.quick)
        else:
            function, check, targets = COMPILED[part]
            rows = function(options.quick, options.target or targets)
            failures += check(rows)
        print(f"\n{part}: {inspect.getdoc(function)}\n{text_table(rows)}", flush=True)
        if options.out:
            keep(options.out, part, rows)
    print("\n".join(failures))
    return min(1, len(failures))


def keep(path: Path, part: str, rows: Sequence[Row]) -> None:
    """Rows in place of those of the same part and target that the file has."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    new = {row.get("target") for row in rows}
    old = [row for row in found.get(part, []) if row.get("target") not in new]
    found |= {"versions": versions(), part: [*old, *rows]}
    path.write_text(as_json(found), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
