"""The rooms of the package: which may import which, and what an import brings along."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import optax_lrmult as olm
from tests.promises.processes import environment

PACKAGE = Path(olm.__file__).parent
# A module imports its own room and rooms of lower rank; keras does without recipes.
RANKS = {"core": 1, "transforms": 2, "recipes": 2, "report": 2, "keras": 3}
TOP = 4  # The package itself, its demo and its command line import everything.
MODULES = {
    ".".join(("optax_lrmult", *p.relative_to(PACKAGE).with_suffix("").parts)): p
    for p in sorted(PACKAGE.rglob("*.py"))
}


def room_of(module: str) -> str:
    """The folder of a module; of those that lie in none their own name."""
    return [*module.split("."), ""][1]


def imported(path: Path) -> Iterator[str]:
    """The modules that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield node.module or ""


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    room = room_of(module)
    allowed = {r for r, rank in RANKS.items() if rank < RANKS.get(room, TOP)} | {room}
    if room == "keras":
        allowed -= {"recipes"}
    for other in imported(MODULES[module]):
        if room in RANKS and other.split(".")[0] == "optax_lrmult":
            assert room_of(other) in allowed, f"{module} imports {other}"
        if room == "core":
            known = sys.stdlib_module_names | {"jax", "numpy", "optax_lrmult"}
            assert other.split(".")[0] in known, f"{module} imports {other}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        module: [other for other in imported(path) if other in MODULES]
        for module, path in MODULES.items()
        if path.stem != "__init__"
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' > '.join((*path, module))}"
        if module not in done:
            for other in graph.get(module, []):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_rooms_are_small_and_their_names_are_plain() -> None:
    for room in {*RANKS, "demo"}:
        files = [module for module in MODULES if room_of(module) == room]
        assert 0 < len(files) <= 8, f"{room} has {len(files)} files"
    parts = {part for module in MODULES for part in module.split(".")}
    assert {part for part in parts if part[0] == "_"} == {"__init__", "__main__"}


@pytest.mark.parametrize("room", RANKS)
def test_each_room_lists_what_is_public_in_it(room: str) -> None:
    """By lines `from module import name as name`, and by nothing else."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    docstring, *imports = tree.body
    assert isinstance(docstring, ast.Expr)
    for node in imports:
        assert isinstance(node, ast.ImportFrom)
        assert all(alias.asname == alias.name for alias in node.names)


def printed(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=True
    ).stdout


def test_an_import_brings_nothing_optional_and_touches_no_device() -> None:
    """Nor does building an optimizer."""
    code = """
import jax, optax, sys
before = set(sys.modules)
import optax_lrmult as olm
new = {module.split(".")[0] for module in set(sys.modules) - before}
print(*(new - sys.stdlib_module_names))
olm.adamw(1e-3, b2={"a": 0.9}, multipliers={"a": olm.per_layer([1, 2])})
olm.keras.adam_lr_mult(multipliers={"a": 0.5}, clipnorm=1.0)
from jax._src import xla_bridge
print(len(xla_bridge._backends))
"""
    assert printed(code).split() == ["optax_lrmult", "0"]


def test_types_are_announced() -> None:
    assert (PACKAGE / "py.typed").is_file()
