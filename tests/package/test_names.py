"""The public names, and that each says what it does, with an example."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import optax_lrmult as olm
from tests.promises.typed_example import train

PUBLIC = {
    "optax_lrmult": """
        path_labels Rule Rules glob prefix per_layer groups assign Assignment preview
        scale_by_name_multiplier with_name_multipliers trainable by_name
        add_decayed_weights_by_name scale_by_adam adam adamw
        packed packed_state unpacked_state
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
        assert named <= set(inspect.signature(public).parameters)


def test_the_version_is_the_changelogs() -> None:
    text = (Path(olm.__file__).parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE)[0] == olm.__version__


def test_what_a_type_checker_reads_runs_too() -> None:
    assert list(train()) == ["stem", "stack[0]", "stack[1]", "head"]
