"""The package as a whole: public names, import floors, what an import brings along."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import optax_lrmult as olm

PACKAGE = Path(olm.__file__).parent
PUBLIC = """
path_labels per_layer Rule Rules by_prefix glob rules_from_config rules_to_config
layer_decay discriminative unfreeze_at unfreeze_from_top lora_plus mup
by_kind freeze no_decay
GroupRules from_big_vision from_keras_lr_multiplier from_mmengine
from_torch_param_groups
Assignment assign check_rules Preview preview
AssignmentDiff assignment_diff learning_rates
plot_multipliers plot_schedule
scale_by_name_multiplier with_name_multipliers
ScaleByNameMultiplierState set_multipliers
trainable add_decayed_weights_by_name constrain_by_name max_norm non_negative unit_norm
packed packed_state unpacked_state
effective_multipliers
adam adamw scale_by_keras_adam adam_lr_mult AdamLRMultConfig state_from_keras_weights
""".split()
# Imports go down only, from a later floor to an earlier one.
FLOORS = [
    ["_values", "_expressions", "_notation"],
    ["_names", "_backtracking", "_hyperparameters", "_packed_tree"],
    ["_rules", "_layout"],
    ["_patterns", "_diagnosis", "_matching", "_recipes", "_folding"],
    ["_config", "_multipliers"],
    ["_scaling", "_rows", "_masks", "_comparison", "_converters"],
    ["_injection", "_rates", "_text", "_html", "_packed", "_packed_state"],
    ["_preview", "_plots", "_wrapped_state"],
    ["_table"],
    ["_transform", "_adam", "_effective", "_constraints"],
    ["_decay", "_optimizers", "_keras"],
    ["_keras_config", "_keras_weights"],
    ["__init__"],
    ["_checkpoints", "_demo"],
    ["_command_line"],
    ["__main__"],
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}


def test_the_public_names_stand_in_the_order_of_the_flow() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert [alias.asname for node in imports for alias in node.names] == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_has_a_docstring_with_an_example(name: str) -> None:
    doc = inspect.getdoc(getattr(olm, name)) or ""
    assert doc.split("\n")[0].endswith(".")
    if name not in (
        "Assignment",
        "AssignmentDiff",
        "GroupRules",
        "Preview",
        "ScaleByNameMultiplierState",
    ):
        assert ">>> " in doc
    if inspect.isfunction(getattr(olm, name)):
        assert "Returns:" in doc or name == "check_rules"
        assert "Args:" in doc or name == "non_negative"
    assert getattr(olm, name).__module__.startswith("optax_lrmult._")


def modules() -> dict[str, Path]:
    found = {path.stem: path for path in PACKAGE.glob("*.py")}
    inside = {f"{p.parent.name}/{p.stem}": p for p in PACKAGE.glob("*/*.py")}
    return found | inside


def imported(path: Path) -> set[str]:
    """Modules that a file imports, also those imported inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_only(module: str) -> None:
    floor = FLOOR[module.split("/")[0]]
    for name in imported(modules()[module]):
        if match := re.match(r"optax_lrmult\.(_\w+)", name):
            target = match[1]
            if target in FLOOR and target != module.split("/")[0]:
                assert FLOOR[target] < floor, f"{module} imports {target}"


def test_names_and_rules_know_neither_optax_nor_a_framework() -> None:
    without_jax = (
        "_values _expressions _backtracking _rules _patterns _matching _diagnosis"
    )
    for module in without_jax.split():
        for name in imported(PACKAGE / f"{module}.py"):
            root = name.split(".")[0]
            assert root in sys.stdlib_module_names | {"optax_lrmult"}, (module, name)
    for name in imported(PACKAGE / "_names.py"):
        root = name.split(".")[0]
        assert root in sys.stdlib_module_names | {"jax", "optax_lrmult"}


def test_an_import_brings_no_framework_and_touches_no_device() -> None:
    code = (
        "import jax, optax, sys; before = set(sys.modules)\n"
        "import optax_lrmult\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names))\n"
        "from jax._src import xla_bridge; print(len(xla_bridge._backends))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.split() == ["optax_lrmult", "0"], out.stderr


def test_building_an_optimizer_touches_no_device() -> None:
    code = (
        "import optax_lrmult as olm\n"
        "olm.adam_lr_mult(multipliers={'a': olm.per_layer([1, 2])}, clipnorm=1.0)\n"
        "olm.adam(1e-3, amsgrad=True, max_of='raw', multipliers={'a': 0.5})\n"
        "olm.scale_by_name_multiplier({'a': 0.5}, inject=True)\n"
        "from jax._src import xla_bridge; print(len(xla_bridge._backends))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.split() == ["0"], out.stderr


def test_the_changelog_has_the_version_on_top() -> None:
    text = (PACKAGE / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE)[0] == olm.__version__


def test_types_are_announced() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("module", modules())
def test_a_module_is_short_and_says_what_it_is(module: str) -> None:
    text = modules()[module].read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 250
