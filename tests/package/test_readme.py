"""Every block of the README runs: in its order in one namespace, or in another file."""

import doctest
import shlex
from pathlib import Path
from typing import Any

import jax
import pytest
from flax.traverse_util import flatten_dict
from safetensors.flax import save_file

from optax_lrmult.__main__ import main
from tests.package.readme import BLOCKS, ELSEWHERE, ROOT, package_of

PREVIEW = "python -m optax_lrmult preview "
# test_demo.py runs the first command on tiny sizes, .ci/run the second as it stands.
COMMANDS = """\
pip install '.[demo]' && python -m optax_lrmult demo
pip install '.[test]' && python -m pytest
"""


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def test_there_are_blocks_of_known_kinds_only() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "toml", "yaml", "pycon", "python"}
    assert len(BLOCKS) >= 10


HERE = [
    index
    for index, (kind, text) in enumerate(BLOCKS)
    if kind != "yaml" and not (kind == "python" and package_of(text))
]


def test_the_other_blocks_run_in_other_files() -> None:
    """One of each package, by that file's own call."""
    packages = [package_of(text) for kind, text in BLOCKS if kind == "python"]
    assert sorted(filter(None, packages)) == sorted(ELSEWHERE)
    assert len(HERE) == len(BLOCKS) - len(ELSEWHERE) - 1
    for package, file in ELSEWHERE.items():
        assert f'readme.block("{package}")' in (ROOT / file).read_text()
    assert "readme.yaml()" in (ROOT / ELSEWHERE["levanter"]).read_text()


# Later blocks use the names of earlier ones.
@pytest.mark.parametrize("index", HERE)
def test_block_runs(
    index: int,
    namespace: dict[str, Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, text = BLOCKS[index]
    monkeypatch.chdir(folder)
    if "import keras" in text:  # Read once, by the import, which writes into its home.
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        monkeypatch.setenv("KERAS_HOME", str(folder))
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
        assert text == COMMANDS
    else:
        # Keras broadcasts its biases.
        with jax.numpy_rank_promotion("allow" if "import keras" in text else "raise"):
            exec(text, namespace)


def test_the_injected_multiplier_changes_without_a_compilation() -> None:
    """What the block on `optax.inject_hyperparams` says of itself."""
    text = next(text for _, text in BLOCKS if "inject_hyperparams\n" in text)
    names: dict[str, Any] = {}
    exec("import jax, jax.numpy as jnp, optax, optax_lrmult as olm", names)
    names["params"] = {"stem": names["jnp"].ones(2), "head": names["jnp"].ones(2)}
    for example in doctest.DocTestParser().get_examples(text):
        exec(example.source, names)
    jax, tx, state = names["jax"], names["tx"], names["opt_state"]
    step = jax.jit(tx.update)
    ratios = []
    _, state = step(names["params"], state, names["params"])
    for multiplier in 0.01, 0.5:
        state.hyperparams["stem"] = names["jnp"].float32(multiplier)
        updates, state = step(names["params"], state, names["params"])
        ratios.append(float(updates["stem"][0] / updates["head"][0]))
    assert ratios == pytest.approx([0.01, 0.5], rel=1e-5)
    assert step._cache_size() == 1
