"""Every block of the README runs, in its order, in one namespace."""

import doctest
import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from flax.traverse_util import flatten_dict
from safetensors.flax import save_file

from optax_lrmult.__main__ import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FLAX = tuple(int(part) for part in metadata.version("flax").split(".")[:2])
PREVIEW = "python -m optax_lrmult preview "
NEEDS_FLAX_0_11 = "optimizer.update(model, "


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def test_there_are_blocks_of_known_kinds_only() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "toml", "pycon", "python"}
    assert len(BLOCKS) >= 10


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_block_runs(
    index: int,
    namespace: dict[str, Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, text = BLOCKS[index]
    monkeypatch.chdir(folder)
    if kind == "pycon":
        text = text.replace("\n\n", "\n<BLANKLINE>\n")  # None stands between examples.
        test = doctest.DocTestParser().get_doctest(text, namespace, "README", None, 0)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, clear_globs=False)
        namespace.update(test.globs)
        assert runner.summarize(verbose=False).failed == 0
    elif kind == "toml":
        Path("rules.toml").write_text(text)
    elif text.startswith(PREVIEW):
        params = flatten_dict(namespace["params"], sep=".")
        save_file(params, "model.safetensors")
        assert main(shlex.split(text)[3:]) == 0
        assert len(Path("out.csv").read_text().splitlines()) == 1 + len(params)
    elif kind == "sh":
        assert text.splitlines()[0] in COMMANDS
    elif NEEDS_FLAX_0_11 in text and FLAX < (0, 11):
        with pytest.raises(TypeError, match="positional arguments"):
            exec(text, namespace)
    else:
        exec(text, namespace)


# `test_demo.py` runs the first's command, `test_benchmarks.py` the second, on tiny
# sizes, and `.ci/run` the third as it stands here.
COMMANDS = [
    "pip install '.[demo]' && python -m optax_lrmult demo",
    "python -m tests.benchmarks",
    "pip install '.[test]' && python -m pytest",
]


def test_the_glance_shows_every_public_name() -> None:
    import optax_lrmult

    block = next(text for kind, text in BLOCKS if "import path_labels" in text)
    shown = set(re.findall(r"\w+", re.sub(r"#.*|from \w+ import", "", block)))
    assert shown == {name for name in dir(optax_lrmult) if not name.startswith("_")}
