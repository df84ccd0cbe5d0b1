"""The command line: `python -m optax_lrmult preview` and `demo`."""

import argparse
import functools
import json
import logging
import os
import sys
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import optax_lrmult as olm
from optax_lrmult.checkpoints import read_shapes
from optax_lrmult.core.expect import few
from optax_lrmult.demo import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command: that of the process, if no arguments are given.

    The exit status is 0; 1 behind a line about a rule that matches nothing or a file
    that can't be used; 130 after Ctrl-C.
    """
    options = vars(_parser().parse_args(arguments))
    try:
        options.pop("command")(**options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # A reader such as `head` has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"optax_lrmult: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _preview(
    checkpoint: Path,
    rules: Path | None,
    write: Path | None,
    full: bool,
    select: str | None,
    separator: str | None,
) -> None:
    # It needs no accelerator, and Orbax warns of metadata that few checkpoints have.
    jax.config.update("jax_platforms", "cpu")
    logging.getLogger("absl").setLevel(logging.ERROR)
    if write is not None and write.suffix != ".csv":
        raise ValueError(f"The table is written into a .csv file, not {str(write)!r}.")
    tables = {"multipliers": olm.Rules()} if rules is None else _tables(rules)
    shapes = read_shapes(checkpoint, separator)
    start = "params/" if select is None else f"{select.strip('/')}/".lstrip("/")
    below = {n.removeprefix(start): x for n, x in shapes.items() if n.startswith(start)}
    if select and not below:
        raise ValueError(f"Nothing is below {select!r}; there are {few(shapes)}.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shown = olm.preview(below or shapes, **tables, full=full, on_unmatched="warn")
    shown.show()
    dead = [str(w.message) for w in caught if w.category is UserWarning]
    if dead:  # All columns of a parameter table have the same rules: one tells.
        raise ValueError(dead[0])
    if write is not None:
        shown.to_csv(write)


def _tables(path: Path) -> Mapping[str, Any]:
    """A table of multipliers, or the columns of a parameter table."""
    try:
        of_json = functools.partial(json.loads, object_pairs_hook=_once)
        loads = {".json": of_json, ".toml": tomllib.loads}.get(path.suffix)
        if loads is None:
            raise ValueError("it must be a .toml or a .json file")
        data: Any = loads(path.read_text(encoding="utf-8"))
        data = {"rules": data} if isinstance(data, list) else data
        if [*data] not in (["rules"], ["groups"]):
            raise ValueError("it must hold 'rules' or 'groups', and nothing else")
        table = olm.Rules.from_config(*data.values())
        is_parameter_table = any(isinstance(rule.value, Mapping) for rule in table)
        return olm.groups(table) if is_parameter_table else {"multipliers": table}
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} can't be used: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which a key that stands twice would hide a rule."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"a key stands twice among {[key for key, _ in pairs]}")
    return dict(pairs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m optax_lrmult")
    parser.add_argument("--version", action="version", version=olm.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    preview = commands.add_parser("preview", help="show what rules do to a checkpoint")
    add = preview.add_argument
    add("checkpoint", type=Path, help=".safetensors, .npz, .msgpack, folder of Orbax")
    add("--rules", type=Path, help="a .toml or .json file of 'rules' or 'groups'")
    add("--write", type=Path, help="a .csv file for a line of each parameter")
    add("--full", action="store_true", help="show each parameter in a line of its own")
    add("--select", help="keys that lead to the parameters (default: params; '': all)")
    add("--separator", help="of keys in names (default: '.' in .safetensors, else '/')")
    preview.set_defaults(command=_preview)
    demo = commands.add_parser("demo", help="fine-tune a pretrained network")
    picture = Path("optax_lrmult_demo.png")
    demo.add_argument("--output", type=Path, default=picture, help=f"({picture})")
    demo.add_argument("--seeds", type=int, default=5, help="repetitions of a run (5)")
    demo.add_argument("--steps", type=int, default=60, help="steps of a run (60)")
    demo.set_defaults(command=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
