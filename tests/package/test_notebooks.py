"""Each notebook runs from a clean kernel, and shows what is saved in it."""

import ast
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
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

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
R_NET = ["mtcnn==1.0.0", "scikit-image"]
INSTALLS = {
    "01_quickstart": ["matplotlib"],
    "02_finetune_flax": ["flax", "matplotlib", *R_NET],
    "03_tune_multipliers": ["matplotlib", *R_NET],
    "04_from_keras_and_pytorch": ["matplotlib"],
    "05_scale_out": ["flax", "matplotlib"],
    "06_width_transfer": ["matplotlib", "scikit-learn"],
}
# What a package is called on PyPI, if not by its module's name.
OF_MODULES = {"scikit-learn": "sklearn"}
OWN_DEPENDENCIES = {"jax", "numpy", "optax"}
FLAX = tuple(int(part) for part in metadata.version("flax").split(".")[:2])
NEED_FLAX_0_11 = {"02_finetune_flax"}
RUN_HERE = sorted(INSTALLS.keys() - (NEED_FLAX_0_11 if FLAX < (0, 11) else set()))

every_notebook = pytest.mark.parametrize("name", INSTALLS)


def saved(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def assert_clean(cell: Any) -> None:
    """No error, no warning (those go to stderr), and no path of a machine."""
    for output in cell.outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        assert not output.get("metadata")
        for text in texts(output):
            assert not re.search(r"/(tmp|root|home|usr|Users)/|site-packages", text)


def texts(output: Any) -> Iterator[str]:
    """What is printed, and tables without their style."""
    yield output.get("text", "")
    for kind, data in sorted(output.get("data", {}).items()):
        if kind.startswith("text/"):
            yield re.sub(r"<style>.*?</style>|<[^<>]*>", " ", data, flags=re.DOTALL)


def test_all_notebooks_are_known() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(INSTALLS)


@every_notebook
def test_starts_with_a_question_and_names_no_address(name: str) -> None:
    title, question = saved(name).cells[0].source.split("\n\n")
    assert re.match(r"# [^\n]+$", title)
    assert re.match(r"\*\*[^*]+\?\*\*", question)
    written = "".join(cell.source for cell in saved(name).cells)
    assert "colab" not in written.replace("# On Colab, write here", "").lower()
    assert set(re.findall(r"\w+://\S*", written)) == {'https://...".'}


@every_notebook
def test_is_saved_as_of_one_run_small_and_without_clutter(name: str) -> None:
    path, notebook = NOTEBOOKS / f"{name}.ipynb", saved(name)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert not any(cell.metadata for cell in notebook.cells)
    assert 10 <= len(notebook.cells) <= 25
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", ())}
    assert {"image/png", "text/html"} <= kinds
    for cell in cells:
        assert_clean(cell)


@every_notebook
def test_imports_public_names_of_what_the_first_cell_installs(name: str) -> None:
    modules = [
        module
        for cell in code_cells(saved(name))[1:]
        for node in ast.walk(ast.parse(cell.source))
        for module in modules_of(node)
    ]
    assert not [module for module in modules if "._" in f".{module}"]
    others = {module.split(".")[0] for module in modules} - sys.stdlib_module_names
    installed = {OF_MODULES.get(package, package) for package in INSTALLS[name]}
    assert others <= OWN_DEPENDENCIES | {"optax_lrmult", *installed}


def modules_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


# What a run shows.


# One test for each, so that each runs in one process, once.
@pytest.mark.parametrize("name", RUN_HERE)
def test_runs_and_shows_what_is_saved(name: str, tmp_path: Path) -> None:
    # The first import of matplotlib on a machine says that it looks for fonts; that was
    # here, and is not in the notebook.
    assert matplotlib.font_manager.fontManager
    notebook = saved(name)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=300,
        coalesce_streams=True,
        iopub_timeout=60,
        raise_on_iopub_timeout=True,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute(env=environment())
    pairs = zip(code_cells(notebook), code_cells(saved(name)), strict=True)
    for fresh, before in pairs:
        assert_clean(fresh)
        assert shown(fresh) == shown(before), fresh.source
    assert CLAIMS[name](lambda start: row(notebook, start))


def shown(cell: Any) -> list[Any]:
    """Kinds and words of what is shown, and digits unless they come from a training."""
    trained = "learn(" in cell.source or any("text" in o for o in cell.outputs)
    return [
        (
            output.output_type,
            sorted(output.get("data", ())),
            *(
                (NUMBER.sub("0", text) if trained else text).split()
                for text in texts(output)
            ),
        )
        for output in cell.outputs
    ]


NUMBER = re.compile(r"-?\d[\d.,]*(?:e[+-]?\d+)?")


def row(notebook: Any, start: str) -> list[float]:
    """The numbers of the last line that starts so."""
    printed = [
        o.text for cell in code_cells(notebook) for o in cell.outputs if "text" in o
    ]
    lines = [line for text in printed for line in text.splitlines()]
    line = [line for line in lines if line.startswith(start)][-1].removeprefix(start)
    return [float(number.replace(",", "")) for number in NUMBER.findall(line)]


# What the texts say of the numbers, of those of a fresh run.
LINES = {of: [f"{of}, {n}:" for n in ("fc4", "head")] for of in ("guess", "one rate")}
COMPILED = "all-gather,all-reduce,leaves of state,bytes of state".split(",")
CLAIMS: dict[str, Callable[[Callable[[str], list[float]]], bool]] = {
    "01_quickstart": lambda of: all(np.greater(of("multipliers"), of("one rate"))),
    "02_finetune_flax": lambda of: (
        min(of("layer decay")[-1], of("blocks 1, 2 frozen")[-1]) > of("one rate")[-1]
    ),
    "03_tune_multipliers": lambda of: (
        of("guess")[-1]
        > 3 * max(of("one rate") + of("two learned") + of("five learned"))
        and all(2 * last > first for first, last in map(of, LINES["guess"]))
        and all(5 * last < first for first, last in map(of, LINES["one rate"]))
    ),
    "04_from_keras_and_pytorch": lambda of: (
        of("losses")[-1] < 1e-6 and of("weights after 30 steps")[-1] < 1e-5
    ),
    "05_scale_out": lambda of: (
        all(of(name)[0] == of(name)[1] > 0 for name in COMPILED)
        and of("largest difference")[0] < 1e-3
    ),
    "06_width_transfer": lambda of: (
        4 * of("rate, standard")[2] <= of("rate, standard")[0]
        and 8 * of("rate, one rule")[2] <= of("rate, one rule")[0]
        and all(
            max(rates) <= 2 * min(rates)
            for rates in (of("rate, mup"), of("rate of its input layer"))
        )
        # At width 1,024: at the best rate, and at the best one of width 64.
        and of("loss, standard")[1] > 1.5 * of("loss, standard")[0]
        and of("loss, mup")[1] < 1.1 * of("loss, mup")[0]
        and max(of("loss, mup")[1], of("loss, one rule")[2]) < of("loss, standard")[0]
        and of("loss, one rule")[2] < 1.2 * of("loss, mup")[0]
    ),
}


# What the first cell installs.


@every_notebook
@pytest.mark.parametrize("where", ["a clone", "elsewhere", "a repository"])
@pytest.mark.parametrize("present", ["none", "optax_lrmult", "all"])
def test_first_cell_installs_what_is_missing_and_no_more(
    name: str,
    present: str,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    installed: list[str] = []

    class Shell:
        def run_line_magic(self, magic: str, line: str) -> None:
            assert (magic, line[:11]) == ("pip", "install -q ")
            # IPython puts in the values of what stands in braces.
            installed.extend(eval(line[11:].strip("{}"), namespace).split())

    namespace: dict[str, Any] = {"get_ipython": Shell}
    cell = TransformerManager().transform_cell(code_cells(saved(name))[0].source)
    if where == "a repository":
        cell = cell.replace('REPOSITORY = ""', 'REPOSITORY = "git+https://mine"')
    (tmp_path / "notebooks").mkdir()
    if where == "a clone":
        (tmp_path / "optax_lrmult").mkdir()
        (tmp_path / "optax_lrmult/__init__.py").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module: present in (module, "all") or None
    )
    if (where, present) == ("elsewhere", "none"):
        with pytest.raises(ModuleNotFoundError, match="Set REPOSITORY"):
            exec(cell, namespace)
        return
    exec(cell, namespace)
    own = {"a clone": "..", "a repository": "git+https://mine"}.get(where, "")
    wanted = {"none": [own, *INSTALLS[name]], "optax_lrmult": INSTALLS[name], "all": []}
    assert installed == wanted[present]


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


def test_the_saved_keras_optimizer_and_its_run_are_the_recorded_ones() -> None:
    case, model, run = cases("keras")["training"], written("saved"), written("recorded")
    config = case.config | {
        "multipliers": dict(case.config["multipliers"]),
        "epsilon": case.raw["epsilon_used"],
    }
    keras_name = "Adam_lr_mult"
    assert model["optimizer_config"] == {"class_name": keras_name, "config": config}
    assert model["names"] == list(case.initial_params)
    assert_same(model["weights"], case.params[9].values())
    assert_same(model["optimizer_weights"], keras_weights_after(case, 10))
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
