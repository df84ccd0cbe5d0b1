"""The command line: `python -m optax_lrmult preview` and `demo`."""

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optax_lrmult as olm
from optax_lrmult.checkpoints import Shapes, read_shapes
from optax_lrmult.core.expect import few


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


def _preview(
    checkpoint: Path,
    rules: Path | None,
    write: Path | None,
    full: bool,
    select: str | None,
    separator: str | None,
) -> int:
    about = rules
    try:
        tables: dict[str, Any] = {"multipliers": olm.Rules()}
        tables = tables if rules is None else _tables(rules)
        about = checkpoint
        shapes = _selected(read_shapes(checkpoint, separator), select)
        about = write
        shown = olm.preview(shapes, **tables, full=full, on_unmatched="ignore")
        dead = _dead(shapes, tables)
        shown.show()
        if write is not None and not dead:
            shown.to_csv(write)
    except (ImportError, OSError, TypeError, ValueError) as error:
        return _say(f"{str(about)!r}: {getattr(error, 'strerror', None) or error}", 2)
    return _say(dead, 1) if dead else 0


def _selected(shapes: Shapes, keys: str | None) -> Shapes:
    """The arrays below some keys, by the rest of their names; below `params` if any."""
    prefix = "params/" if keys is None else f"{keys.strip('/')}/".lstrip("/")
    inside = {
        n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)
    }
    if not inside and keys is not None:
        raise ValueError(f"nothing in it is below {keys!r}; it has {few(list(shapes))}")
    return inside or shapes


def _dead(shapes: Any, tables: Mapping[str, olm.Rules]) -> str:
    """What the transformations would say of the rules that match nothing."""
    for name, table in tables.items():
        try:
            olm.assign(shapes, table, on_unmatched="error", argument=name)
        except ValueError as error:
            return str(error).rpartition("\n")[0]  # No arguments can be passed here.
    return ""


def _say(text: str, status: int) -> int:
    print(f"optax_lrmult: {' '.join(text.split())}", file=sys.stderr)
    return status


def _tables(path: Path) -> dict[str, olm.Rules]:
    """A table of multipliers, or those of a parameter table."""
    loads = {".toml": tomllib.loads, ".json": _loads_json}.get(path.suffix.lower())
    if loads is None:
        raise ValueError("rules are a .toml or a .json file")
    data = loads(path.read_text(encoding="utf-8"))
    if isinstance(data, dict) and "groups" in data:
        return olm.groups(data["groups"])
    rules = olm.Rules.from_config(data["rules"] if isinstance(data, dict) else data)
    if any(isinstance(rule.value, Mapping) for rule in rules):
        return olm.groups(rules)
    return {"multipliers": rules}


def _loads_json(text: str) -> Any:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"the key {key!r} stands twice in one object")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=distinct)


def _demo(output: Path, seeds: int, steps: int) -> int:
    from optax_lrmult.demo import run

    try:
        run(output, seeds=seeds, steps=steps)
    except (ImportError, OSError, ValueError) as error:
        return _say(f"demo: {error}", 1)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m optax_lrmult",
        description="Parameter groups for JAX and Optax, by parameter name.",
    )
    parser.add_argument("--version", action="version", version=olm.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    preview = commands.add_parser(
        "preview",
        help="show what a file of rules gives to each parameter of a checkpoint",
        description="Shows what a file of rules gives to each parameter of a file.",
        epilog="Exit status: 1 if a rule matches nothing, 2 if a file can't be used.",
    )
    add = preview.add_argument
    add(
        "checkpoint",
        type=Path,
        help="a .safetensors (or its .index.json), .npz or .msgpack file, or a folder "
        "of Orbax",
    )
    add(
        "--rules",
        type=Path,
        metavar="FILE",
        help="a .toml or .json file: 'rules', the rows of Rules.from_config, or "
        "'groups', a parameter table",
    )
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
    preview.set_defaults(command=_preview)
    demo = commands.add_parser(
        "demo",
        help="fine-tune a pretrained network on photographs",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = demo.add_argument
    add(
        "--output", type=Path, default=Path("optax_lrmult_demo.png"), help="the picture"
    )
    add("--seeds", type=int, default=5, help="repetitions of each run")
    add("--steps", type=int, default=60, help="steps of each run")
    demo.set_defaults(command=_demo)
    return parser


if __name__ == "__main__":
    sys.exit(main())
