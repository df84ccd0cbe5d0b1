"""The benchmark's command line."""

import argparse
import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.growth import growth
from tests.benchmarks.names import names
from tests.benchmarks.steps import steps
from tests.benchmarks.tables import machine, text_table

PARTS = {"steps": steps, "growth": growth, "names": names}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the parts asked for, and prints a table of each."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--part", choices=PARTS, action="append", help="one part; may be repeated")
    add("--quick", action="store_true", help="tiny sizes: does it run at all?")
    add("--out", type=Path, help="a file for the results as JSON")
    options = parser.parse_args(arguments)
    results = {}
    print(machine())
    for part in options.part or PARTS:
        results[part] = PARTS[part](options.quick)
        doc = inspect.getdoc(PARTS[part])
        print(f"\n{part}: {doc}\n{text_table(results[part])}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
