"""Each notebook runs from a clean kernel, and shows what is saved in it."""

import ast
import functools
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib.font_manager
import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from tests.keras.recorded import cases, keras_weights_after
from tests.promises.processes import environment

NOTEBOOKS = Path(__file__).parent.parent.parent / "notebooks"
INSTALLS = {
    "01_quickstart": ["optax_lrmult"],
    "02_finetune_flax": ["optax_lrmult", "mtcnn"],
    "03_tune_multipliers": ["optax_lrmult", "mtcnn"],
    "04_from_keras_and_pytorch": ["optax_lrmult"],
    "05_scale_out": ["optax_lrmult"],
}
ON_COLAB = {"flax", "jax", "matplotlib", "numpy", "optax"}
FLAX = tuple(int(part) for part in metadata.version("flax").split(".")[:2])
NEED_FLAX_0_11 = {"02_finetune_flax"}
RUN_HERE = sorted(INSTALLS.keys() - (NEED_FLAX_0_11 if FLAX < (0, 11) else set()))

every_notebook = pytest.mark.parametrize("name", INSTALLS)
every_one_that_runs_here = pytest.mark.parametrize("name", RUN_HERE)


def saved(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


@functools.cache
def run(name: str) -> Any:
    """The notebook after a run in a folder of its own."""
    # The first import of matplotlib on a machine says that it looks for fonts; that was
    # here, and is not in the notebook.
    assert matplotlib.font_manager.fontManager
    notebook = saved(name)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=300,
            coalesce_streams=True,
            iopub_timeout=60,
            raise_on_iopub_timeout=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=environment())
    return notebook


def test_all_notebooks_are_known() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(INSTALLS)


# What is saved.


@every_notebook
def test_starts_with_a_question_and_names_no_address(name: str) -> None:
    first = saved(name).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"^\*\*[^*]+\?", first.source, re.MULTILINE)
    text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert not re.search(r"https?://(colab|github)|optax_lrmult\._", text)


@every_notebook
def test_is_valid_small_and_without_clutter(name: str) -> None:
    path, notebook = NOTEBOOKS / f"{name}.ipynb", saved(name)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert not any(cell.metadata for cell in notebook.cells)
    assert not any(output.get("metadata") for output in outputs(notebook))
    assert 10 <= len(notebook.cells) <= 25


@every_notebook
def test_outputs_are_saved_as_of_one_run(name: str) -> None:
    notebook = saved(name)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {kind for output in outputs(notebook) for kind in output.get("data", ())}
    assert {"image/png", "text/html"} <= kinds
    assert_clean(notebook)


def assert_clean(notebook: Any) -> None:
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        for text in texts(output):
            assert not re.search(r"/(tmp|root|home|usr|Users)/|site-packages", text)


def texts(output: Any) -> Iterator[str]:
    """What is printed, and tables without their style."""
    yield output.get("text", "")
    for kind, data in sorted(output.get("data", {}).items()):
        if kind.startswith("text/"):
            yield re.sub(r"<style>.*?</style>|<[^<>]*>", " ", data, flags=re.DOTALL)


# What a run shows.


@every_one_that_runs_here
def test_runs_without_errors_and_warnings(name: str) -> None:
    assert_clean(run(name))


@every_one_that_runs_here
def test_shows_what_is_saved(name: str) -> None:
    pairs = zip(code_cells(run(name)), code_cells(saved(name)), strict=True)
    for fresh, before in pairs:
        assert shown(fresh) == shown(before), fresh.source


def shown(cell: Any) -> list[Any]:
    """The kinds of what is shown, and its words; numbers depend on the machine."""
    return [
        (output.output_type, sorted(output.get("data", ())), *map(words, texts(output)))
        for output in cell.outputs
    ]


def words(text: str) -> list[str]:
    return re.sub(r"-?\d[\d.,]*(?:e[+-]?\d+)?", "0", text).split()


# What the first cell installs.


class Shell:
    """Stands for IPython's, and keeps what it should have installed."""

    def __init__(self) -> None:
        self.installed: list[str] = []

    def run_line_magic(self, magic: str, line: str) -> None:
        assert magic == "pip"
        self.installed.append(line.removeprefix("install -q "))


@every_notebook
@pytest.mark.parametrize("missing", [(), ("mtcnn",), ("optax_lrmult", "mtcnn")])
@pytest.mark.parametrize("where", ["a clone", "elsewhere", "a repository"])
def test_first_cell_installs_what_is_missing_and_no_more(
    name: str,
    missing: tuple[str, ...],
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    shell = Shell()
    cell = code_cells(saved(name))[0].source
    if where == "a repository":
        cell = cell.replace('REPOSITORY = ""', 'REPOSITORY = "git+https://mine"')
    source = TransformerManager().transform_cell(cell)
    wanted = {"optax_lrmult": "..", "mtcnn": "mtcnn==1.0.0"}
    if where == "a repository":
        wanted["optax_lrmult"] = "git+https://mine"
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.util, "find_spec", lambda module: module not in missing or None
        )
        patch.chdir(NOTEBOOKS if where == "a clone" else tmp_path)
        if where == "elsewhere" and "optax_lrmult" in missing:
            with pytest.raises(ModuleNotFoundError, match="Set REPOSITORY"):
                exec(source, {"get_ipython": lambda: shell})
            return
        variables: dict[str, Any] = {"get_ipython": lambda: shell}
        exec(source, variables)
    modules = [module for module in INSTALLS[name] if module in missing]
    # IPython puts in what stands in braces.
    installed = [line.format(**variables) for line in shell.installed]
    assert installed == [wanted[module] for module in modules]


@every_notebook
def test_imports_what_colab_has_or_the_first_cell_installs(name: str) -> None:
    imported = {
        module.split(".")[0]
        for cell in code_cells(saved(name))[1:]
        for node in ast.walk(ast.parse(cell.source))
        for module in modules_of(node)
    }
    others = imported - sys.stdlib_module_names
    assert others <= ON_COLAB | set(INSTALLS[name])


def modules_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


# The recorded numbers in 04_from_keras_and_pytorch.


def written(name: str) -> Any:
    """The value of a variable that is written as JSON."""
    for cell in code_cells(saved("04_from_keras_and_pytorch"))[1:]:
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                return json.loads(ast.literal_eval(node.value.args[0]))
    raise LookupError(name)


def assert_same(written: Any, arrays: Any) -> None:
    for values, array in zip(written, arrays, strict=True):
        np.testing.assert_array_equal(
            np.asarray(values, np.float32), np.asarray(array, np.float32)
        )


def test_the_saved_keras_optimizer_is_the_recorded_one() -> None:
    case, saved_model = cases("keras")["training"], written("saved")
    config = case.config | {
        "multipliers": dict(case.config["multipliers"]),
        "epsilon": case.raw["epsilon_used"],
    }
    assert saved_model["optimizer_config"] == {
        "class_name": "Adam_lr_mult",
        "config": config,
    }
    assert saved_model["names"] == list(case.initial_params)
    assert_same(saved_model["weights"], case.params[9].values())
    assert_same(saved_model["optimizer_weights"], keras_weights_after(case, 10))


def test_the_keras_run_is_the_recorded_one() -> None:
    case, run = cases("keras")["training"], written("recorded")
    assert_same([run["losses"]], [case.raw["losses"]])
    assert_same([np.ravel(run["x"])], [np.ravel(case.raw["x"])])
    assert_same([np.ravel(run["y"])], [np.ravel(case.raw["y"])])
    assert_same(run["final_weights"], case.params[-1].values())


def test_the_pytorch_run_is_the_recorded_one() -> None:
    case, run = cases("torch")["adamw"], written("torch_run")
    steps = [case.initial_params, *case.gradients[:5], case.params[4]]
    written_steps = [run["initial"], *run["gradients"], run["final"]]
    for step, expected in zip(written_steps, steps, strict=True):
        assert list(step) == list(expected)
        assert_same(step.values(), expected.values())
