"""The public API: its signatures are pinned, and each docstring says all it has to.

`python tests/test_api.py` writes `data/api.txt` anew after a wanted change.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typed_example import train

import optax_lrmult as olm

PINNED = Path(__file__).parent / "data" / "api.txt"
NAMES = [name for name in dir(olm) if not name.startswith("_")]


def signature(call: Any) -> str:
    """Names, kinds and defaults; annotations read otherwise in other versions."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(call).parameters.values()
    ]
    text = str(inspect.Signature(parameters))
    return re.sub(r"re\.compile\('(.*?)'\)", r"/\1/", text)


def members(name: str) -> Iterator[tuple[str, Any]]:
    """A public name, and the public methods and fields that its class adds."""
    found = getattr(olm, name)
    yield name, found
    if inspect.isclass(found):
        for member, value in vars(found).items():
            if not member.startswith("_"):
                yield (
                    f"{name}.{member}",
                    getattr(found, member)
                    if callable(getattr(found, member))
                    else value,
                )


def line(name: str, found: Any) -> str:
    return name + (signature(found) if callable(found) else "")


def api() -> str:
    rows = [line(*member) for name in NAMES for member in members(name)]
    return "\n".join(rows) + "\n"


def test_the_public_api_is_the_pinned_one() -> None:
    assert api().splitlines() == PINNED.read_text(encoding="utf-8").splitlines()


DOCUMENTED = [
    member
    for name in NAMES
    for member in members(name)
    if callable(member[1]) and not isinstance(member[1], type)
]
CLASSES = [getattr(olm, name) for name in NAMES if inspect.isclass(getattr(olm, name))]
# What makes these is another function, whose example shows them.
SHOWN_ELSEWHERE = {
    *("Assignment", "AssignmentDiff", "GroupRules", "Preview"),
    "ScaleByNameMultiplierState",
}
RETURN_NOTHING = {"check_rules", "Preview.show"}
TAKE_NO_WRONG_ARGUMENT = {
    *("non_negative", "AdamLRMultConfig.make"),
    *(f"Preview.{way}" for way in ("show", "to_text", "to_dict", "to_csv")),
}
FROM_A_SOURCE = """
layer_decay discriminative unfreeze_from_top lora_plus mup from_big_vision from_mmengine
from_keras_lr_multiplier from_torch_param_groups adam adamw scale_by_keras_adam
adam_lr_mult max_norm unit_norm add_decayed_weights_by_name
""".split()


def section(doc: str, title: str) -> str:
    found = re.search(rf"^{title}:\n((?:(?:  .*)?\n)*(?:  .*)?)", doc, re.MULTILINE)
    return found[1] if found else ""


def entries(text: str) -> list[str]:
    return re.findall(r"^  (\*{0,2}\w+):", text, re.MULTILINE)


def own_parameters(call: Any) -> list[str]:
    found = inspect.signature(call).parameters.values()
    return [str(p).split(":")[0].split("=")[0] for p in found if p.name != "self"]


@pytest.mark.parametrize(("name", "call"), DOCUMENTED, ids=[n for n, _ in DOCUMENTED])
def test_a_docstring_has_every_part(name: str, call: Any) -> None:
    doc = inspect.getdoc(call) or ""
    assert doc.split("\n")[0].endswith(".")
    assert doc.split("\n")[1:2] in ([], [""])
    arguments = entries(section(doc, "Args"))
    if not (name.startswith("Rule") and "." in name):  # One line says it.
        assert arguments == [p.strip() for p in own_parameters(call)]
        assert section(doc, "Returns") or name in RETURN_NOTHING
        assert section(doc, "Raises") or name in TAKE_NO_WRONG_ARGUMENT
        assert "  >>> " in section(doc, "Example")
    assert ("Source: " in doc) == (name in FROM_A_SOURCE)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_says_what_it_holds(cls: type) -> None:
    doc = inspect.getdoc(cls) or ""
    assert doc.split("\n")[0].endswith(".")
    fields = [f for f in getattr(cls, "__annotations__", {}) if f[0] != "_"]
    if fields and cls is not olm.AdamLRMultConfig:  # Its are those of `adam_lr_mult`.
        assert entries(section(doc, "Attributes")) == fields
    assert ">>> " in doc or cls.__name__ in SHOWN_ELSEWHERE


def test_the_typed_example_runs() -> None:
    assert list(train()) == ["stem", "stack[0]", "stack[1]", "head"]


if __name__ == "__main__":
    PINNED.write_text(api(), encoding="utf-8")
