"""The command line: `python -m optax_lrmult demo`."""

import argparse
import sys
from collections.abc import Sequence

from optax_lrmult import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      arguments: the words after `python -m optax_lrmult`; those of the process if
        `None`.

    Returns:
      The exit status: 0, or 1 if the command said what is wrong.
    """
    options = _parser().parse_args(arguments)
    from optax_lrmult._demo import run

    return run(options.output, seeds=options.seeds, steps=options.steps)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m optax_lrmult",
        description="Per-parameter learning-rate multipliers for JAX and Optax.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="fine-tune a pretrained network on photographs, in under a minute",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--output", default="optax_lrmult_demo.png", help="the picture")
    demo.add_argument("--seeds", type=int, default=5, help="repetitions of each run")
    demo.add_argument("--steps", type=int, default=60, help="steps of each run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
