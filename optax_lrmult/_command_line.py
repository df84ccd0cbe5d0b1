"""The command `preview`: what a table of rules does to the names in a checkpoint."""

import contextlib
import dataclasses
import difflib
import io
import json
import os
import shutil
import sys
import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax

from optax_lrmult._checkpoints import read_shapes
from optax_lrmult._config import rules_from_config
from optax_lrmult._diagnosis import dead_rules, explain_dead, few
from optax_lrmult._preview import Preview, preview
from optax_lrmult._rules import Rules
from optax_lrmult._values import printable

_PARAMS = "params"  # Where a TrainState and Linen's variables have the parameters.
_LARGEST_CONFIG = 10_000_000  # Bytes.
_MOST_SHOWN = 3

Arrays = dict[str, jax.ShapeDtypeStruct]


def show_preview(
    checkpoint: Path,
    rules: Path | None = None,
    *,
    write: Path | None = None,
    full: bool = False,
    select: str | None = None,
    separator: str | None = None,
) -> int:
    """Prints which rule and multiplier each parameter of a checkpoint gets.

    Args:
      checkpoint: what `read_shapes` reads.
      rules: a `.toml` or `.json` file for `rules_from_config`; no rules if `None`.
      write: a file for the table as comma-separated values, replaced as a whole, and
        left alone if a rule is dead.
      full: show each parameter in a row of its own.
      select: the keys that lead to the parameters; if `None`, `params` if the
        checkpoint has it.
      separator: what stands between keys in the names of a flat file.

    Returns:
      The exit status: 0, 1 if a rule matches nothing, 2 if a file can't be used.
    """
    try:
        table = _read_rules(rules)
        arrays = _read_arrays(checkpoint, select, separator)
        shown = preview(arrays, table, full=full)
        dead = explain_dead(dead_rules(table, shown.assignments)[0], shown.assignments)
        if write is not None and not dead:
            _write(write, shown.to_csv())
        _show(shown, without=dead)
    except (OSError, ValueError) as error:
        _say(str(error))
        return 2
    for text in dead:
        _say(text)
    if dead and write is not None:
        _say(f"{str(write)!r} is not written.")
    return 1 if dead else 0


def _say(text: str) -> None:
    line = printable(" ".join(text.split()))
    print(f"optax_lrmult preview: {line}", file=sys.stderr)


@contextlib.contextmanager
def _about(path: Path) -> Generator[None]:
    """Errors that begin with the file they are about."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{str(path)!r}: {error.strerror or error}") from None
    except (ImportError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r}: {error}") from None


def _read_rules(path: Path | None) -> Rules:
    if path is None:
        return Rules()
    with _about(path):
        return rules_from_config(_read_config(path))


def _read_config(path: Path) -> Any:
    loads = {".toml": tomllib.loads, ".json": json.loads}.get(path.suffix.lower())
    if loads is None:
        raise ValueError("rules are a .toml or a .json file")
    with path.open("rb") as file:
        content = file.read(_LARGEST_CONFIG + 1)
    if len(content) > _LARGEST_CONFIG:
        raise ValueError(f"rules have at most {_LARGEST_CONFIG:,} bytes")
    try:
        return loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid {path.suffix[1:].upper()}: {error}") from None


def _read_arrays(path: Path, select: str | None, separator: str | None) -> Arrays:
    with _about(path):
        arrays, notes = read_shapes(path, separator)
        inside = _inside(_PARAMS if select is None else select.strip("/"), arrays)
        if select and not inside:
            raise ValueError(
                f"nothing in it is below {select!r}. {_near(select, arrays)}"
            )
    for note in notes:
        _say(f"{str(path)!r}: {note}")
    if select is None and inside:
        parts = list(dict.fromkeys(name.split("/")[0] for name in arrays))
        _say(f"names are those below {_PARAMS!r}; --select '' takes all: {few(parts)}")
    return inside or arrays


def _inside(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays whose first keys are those of the prefix, named by the rest."""
    if not prefix:
        return arrays
    start = f"{prefix}/"
    return {
        name.removeprefix(start): array
        for name, array in arrays.items()
        if name.startswith(start)
    }


def _near(select: str, arrays: Arrays) -> str:
    paths = (name.split("/")[:-1] for name in arrays)
    known = {"/".join(keys[:n]): n for keys in paths for n in range(1, len(keys) + 1)}
    near = difflib.get_close_matches(select, known, n=_MOST_SHOWN, cutoff=0.5)
    shown = near or sorted(known, key=lambda prefix: known[prefix])[:_MOST_SHOWN]
    return f"{'Nearest' if near else 'It has'}: {', '.join(map(repr, shown))}."


def _write(path: Path, text: str) -> None:
    """Replaces a file as a whole: a write that fails leaves the old one."""
    with _about(path):
        if path.suffix.lower() != ".csv":
            raise ValueError("the name of a file to write ends in .csv")
        target = Path(os.path.realpath(path))
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            draft.write_text(text, encoding="utf-8", newline="")
            if target.exists():
                shutil.copymode(target, draft)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


def _show(shown: Preview, without: list[str]) -> None:
    """Prints the tables, and the notes that will not be printed as errors."""
    notes = tuple(note for note in shown.notes if note not in without)
    if sys.stdout is None:  # A process may have none.
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        dataclasses.replace(shown, notes=notes).show()
        sys.stdout.flush()
    except BrokenPipeError:  # A reader such as `head` that has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
