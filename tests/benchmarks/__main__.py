"""The benchmark's command line."""

import argparse
import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from .growth import growth
from .names import names
from .steps import adam_steps, amsgrad_steps
from .sweeps import sweeps
from .tables import figure, machine, readme_table, text_table
from .ways import ways

PARTS = {
    "steps": adam_steps,
    "amsgrad": amsgrad_steps,
    "sweeps": sweeps,
    "growth": growth,
    "names": names,
    "ways": ways,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the parts asked for, and prints a table of each."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--part", choices=PARTS, action="append", help="one part; may be repeated")
    add("--quick", action="store_true", help="tiny sizes: does it run at all?")
    add("--out", type=Path, help="folder for results.json and results.png")
    add("--readme", action="store_true", help="print the README's table (of `steps`)")
    options = parser.parse_args(arguments)
    if options.readme and (options.quick or "steps" not in (options.part or PARTS)):
        parser.error("--readme prints the table of `steps`, in full")
    results = {}
    print(machine())
    for part in options.part or PARTS:
        results[part] = PARTS[part](options.quick)
        doc = inspect.getdoc(PARTS[part])
        print(f"\n{part}: {doc}\n{text_table(results[part])}", flush=True)
    if options.readme:
        print(f"\n{readme_table(results['steps'])}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "results.json").write_text(json.dumps(results, indent=1))
        figure(results, options.out / "results.png")


if __name__ == "__main__":
    main()
