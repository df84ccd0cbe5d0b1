"""The public names, and that each says what it does, with an example."""

import inspect
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_lrmult as olm
from tests.promises.typed_example import train

PUBLIC = {
    "optax_lrmult": """
        path_labels Rule Rules glob prefix per_layer groups assign Assignment preview
        scale_by_name_multiplier with_name_multipliers trainable by_name
        add_decayed_weights_by_name scale_by_adam adam adamw
        packed packed_state unpacked_state move_state
    """,
    "recipes": """
        layer_decay discriminative unfreeze_at unfreeze_from_top lora_plus mup by_kind
        no_decay freeze hidden_matrices from_big_vision from_torch_param_groups
    """,
    "report": """
        Preview preview learning_rates update_ratios plot_multipliers plot_schedule diff
        effective_multipliers
    """,
    "keras": """
        adam_lr_mult scale_by_adam AdamLRMultConfig state_from_weights
        constrain_by_name max_norm non_negative unit_norm
    """,
}
NAMES = [(room, name) for room, names in PUBLIC.items() for name in names.split()]


def module(room: str) -> Any:
    return olm if room == "optax_lrmult" else getattr(olm, room)


@pytest.mark.parametrize("room", PUBLIC)
def test_these_names_are_public_and_no_others(room: str) -> None:
    found = {n for n, v in vars(module(room)).items() if not n.startswith("_")}
    found = {n for n in found if not inspect.ismodule(getattr(module(room), n))}
    assert found == set(PUBLIC[room].split())


@pytest.mark.parametrize(("room", "name"), NAMES)
def test_each_has_a_docstring_with_an_example(room: str, name: str) -> None:
    doc = inspect.getdoc(getattr(module(room), name)) or ""
    assert doc.split("\n")[0].endswith(".")
    if name not in ("Assignment", "Preview"):
        assert ">>> " in doc


@pytest.mark.parametrize(("room", "name"), NAMES)
def test_the_arguments_of_a_docstring_are_those_of_the_signature(
    room: str, name: str
) -> None:
    public = getattr(module(room), name)
    found = re.search(r"^Args:\n((?:  .*\n|\n)+)", inspect.getdoc(public) or "", re.M)
    entries = re.findall(r"^  (\*{0,2}\w[\w, ]*):", found[1] if found else "", re.M)
    named = {word.strip(" *") for entry in entries for word in entry.split(",")}
    if named:
        assert named <= parameters(room, name)


def test_the_version_is_the_changelogs() -> None:
    text = (Path(olm.__file__).parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE)[0] == olm.__version__


def test_what_a_type_checker_reads_runs_too() -> None:
    assert list(train()) == ["stem", "stack[0]", "stack[1]", "head"]


# Two leaves that would both be called `block_0/w`, and labels that tell them apart.
EQUAL = {"block_0/w": jnp.ones(2), "block_0": {"w": jnp.ones(2)}}
LABELS = {"block_0/w": "block_0/x", "block_0": {"w": "block_1/y"}}
X = {"x": 0.5}


def run(tx: Any) -> Any:
    return tx.update(EQUAL, tx.init(EQUAL), EQUAL)


TAKES_LABELS: dict[str, Any] = {
    "assign": lambda **k: olm.assign(EQUAL, X, **k),
    "preview": lambda **k: olm.preview(EQUAL, X, b2=X, labels=X, **k),
    "scale_by_name_multiplier": lambda **k: run(olm.scale_by_name_multiplier(X, **k)),
    "with_name_multipliers": lambda **k: run(
        olm.with_name_multipliers(optax.sgd(0.1), {"x": 0}, mask_frozen=True, **k)
    ),
    "trainable": lambda **k: olm.trainable(X, **k)(EQUAL),
    "by_name": lambda **k: olm.by_name(X, 1, **k)(EQUAL),
    "add_decayed_weights_by_name": lambda **k: run(
        olm.add_decayed_weights_by_name(X | {"": 0}, **k)
    ),
    "scale_by_adam": lambda **k: run(olm.scale_by_adam(X, X, X, **k)),
    "adam": lambda **k: run(olm.adam(0.1, X, multipliers=X, **k)),
    "adamw": lambda **k: run(olm.adamw(0.1, X, weight_decay=X | {"": 0}, **k)),
    "layer_decay": lambda **k: olm.recipes.layer_decay(0.5, EQUAL, **k),
    "mup": lambda **k: olm.recipes.mup(EQUAL, EQUAL, readout="plain", **k),
    "by_kind": lambda **k: olm.recipes.by_kind(EQUAL, bias=2, **k),
    "no_decay": lambda **k: olm.recipes.no_decay(EQUAL, **k),
    "hidden_matrices": lambda **k: olm.recipes.hidden_matrices(EQUAL, **k),
    "from_big_vision": lambda **k: olm.recipes.from_big_vision([], EQUAL, **k),
    "from_torch_param_groups": lambda **k: olm.recipes.from_torch_param_groups(
        [{"params": "block_0.x"}], 1.0, params=EQUAL, **k
    ),
    "learning_rates": lambda **k: olm.report.learning_rates(EQUAL, X, 1.0, **k),
    "update_ratios": lambda **k: olm.report.update_ratios(EQUAL, EQUAL, X, **k),
    "plot_multipliers": lambda **k: olm.report.plot_multipliers(EQUAL, X, **k),
    "plot_schedule": lambda **k: olm.report.plot_schedule(EQUAL, X, 1.0, 2, **k),
    "effective_multipliers": lambda **k: olm.report.effective_multipliers(
        lambda t: olm.adam(1.0, multipliers=t, **k), X, EQUAL, **k
    ),
    "adam_lr_mult": lambda **k: run(
        olm.keras.adam_lr_mult(
            multipliers={"x": 0}, mask_frozen=True, verbose=True, **k
        )
    ),
    "constrain_by_name": lambda **k: run(
        olm.keras.constrain_by_name({"x": olm.keras.non_negative()}, **k)
    ),
}


def test_these_functions_take_labels_and_no_others() -> None:
    takes = {name for room, name in NAMES if "param_labels" in parameters(room, name)}
    assert takes == TAKES_LABELS.keys()


def parameters(room: str, name: str) -> set[str]:
    return set(inspect.signature(getattr(module(room), name)).parameters)


@pytest.mark.parametrize("name", TAKES_LABELS)
def test_labels_tell_apart_what_has_one_name(name: str) -> None:
    with pytest.raises(ValueError, match="Two parameters have the name 'block_0/w'"):
        TAKES_LABELS[name]()
    TAKES_LABELS[name](param_labels=LABELS)
    TAKES_LABELS[name](param_labels=lambda tree: jax.tree.map(str, LABELS))
