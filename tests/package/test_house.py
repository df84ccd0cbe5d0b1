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
# A room imports itself and those of lower rank; keras may import two of its own rank's.
RANKS = {"core": 1, "transforms": 2, "recipes": 2, "report": 2, "keras": 3}
TOP = 4  # The package itself, the demo and the command line.
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imported_modules(path: Path) -> Iterator[str]:
    """The modules of this package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names = [node.module or ""]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "optax_lrmult")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    rank = RANKS.get(room, TOP)
    for module in imported_modules(path):
        other = [*module.split("."), ""][1]
        if rank == TOP or other == room:
            continue
        assert other in RANKS, f"{path.name} imports {module}"
        assert RANKS[other] < rank, f"{path.name} imports {module}"


def test_no_module_imports_itself_in_a_circle() -> None:
    names = {
        "optax_lrmult." + ".".join(p.relative_to(PACKAGE).with_suffix("").parts): p
        for p in MODULES
        if p.stem != "__init__"
    }
    graph = {
        n: [m for m in imported_modules(p) if m in names] for n, p in names.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' > '.join((*path, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_rooms_are_small_and_their_names_are_plain() -> None:
    for room in {*RANKS, "demo"}:
        files = [path for path in MODULES if room_of(path) == room]
        assert 0 < len(files) <= 8, f"{room} has {len(files)} files"
    names = {path.stem for path in MODULES} - {"__init__", "__main__"}
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("room", RANKS)
def test_each_room_lists_what_is_public_in_it(room: str) -> None:
    """By lines `from module import name as name`, and by nothing else."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    docstring, *imports = tree.body
    assert isinstance(docstring, ast.Expr)
    for node in imports:
        assert isinstance(node, ast.ImportFrom)
        assert all(alias.asname == alias.name for alias in node.names)


OPTIONAL = ["flax", "equinox", "haiku", "keras", "matplotlib", "orbax", "safetensors"]


def test_an_import_brings_no_optional_package_along() -> None:
    code = (
        f"import sys, optax_lrmult; print(sorted(set({OPTIONAL}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_core_knows_no_optax() -> None:
    for path in MODULES:
        if room_of(path) == "core":
            text = path.read_text(encoding="utf-8")
            assert "import optax\n" not in text
            assert "from optax " not in text
