"""The command line: `python -m optax_lrmult preview` and `demo`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optax_lrmult import __version__
from optax_lrmult._command_line import show_preview


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      arguments: the words after `python -m optax_lrmult`; those of the process if
        `None`.

    Returns:
      The exit status: 0; 1 if a rule matches nothing, or if the demo said what is
      wrong; 2 if a word or a file can't be used; 130 after Ctrl-C.
    """
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        return command(**options)
    except KeyboardInterrupt:
        return 130


def _demo(output: str, seeds: int, steps: int) -> int:
    from optax_lrmult._demo import run

    return run(output, seeds=seeds, steps=steps)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m optax_lrmult",
        description="Per-parameter learning-rate multipliers for JAX and Optax.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_preview(commands)
    _add_demo(commands)
    return parser


def _add_preview(commands: Any) -> None:
    preview = commands.add_parser(
        "preview",
        help="show which rule and multiplier each parameter of a checkpoint gets",
        description="Shows which rule and multiplier each parameter of a checkpoint "
        "gets. Only names and shapes are read.",
        epilog="Exit status: 1 if a rule matches nothing, 2 if a file can't be used.",
    )
    add = preview.add_argument
    add(
        "checkpoint",
        type=Path,
        help="a .safetensors (or its .index.json), .npz or .msgpack file, or a folder "
        "of Orbax",
    )
    add("--rules", type=Path, metavar="FILE", help="rules in .toml or .json")
    add("--write", type=Path, metavar="OUT.csv", help="write the table, one by one")
    add("--full", action="store_true", help="show names that count up one by one")
    add(
        "--select",
        metavar="KEYS",
        help="the keys that lead to the parameters, joined by '/' (default: params, if "
        "there is one; '' takes all)",
    )
    add(
        "--separator",
        metavar="TEXT",
        help="what stands between the keys in the names of a flat file (default: '.' "
        "in .safetensors, '/' in .npz; '' leaves names as they are)",
    )
    preview.set_defaults(command=show_preview)


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="fine-tune a pretrained network on photographs, in under a minute",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--output", default="optax_lrmult_demo.png", help="the picture")
    demo.add_argument("--seeds", type=int, default=5, help="repetitions of each run")
    demo.add_argument("--steps", type=int, default=60, help="steps of each run")
    demo.set_defaults(command=_demo)


if __name__ == "__main__":
    sys.exit(main())
