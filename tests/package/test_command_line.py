"""`python -m optax_lrmult preview`: what a file of rules does to a checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import nnx

import optax_lrmult as olm
from optax_lrmult.__main__ import main
from optax_lrmult.checkpoints import read_shapes

PARAMS = {
    "stem": {"kernel": np.ones((3, 2), "float32"), "bias": np.ones(2, "float16")},
    "head": {"kernel": np.ones((2, 4), ml_dtypes.bfloat16)},
}
NAMES = ["head/kernel", "stem/bias", "stem/kernel"]
TOML = 'rules = [{contains = "stem", value = 0.1}, {glob = "**/kernel", value = 2}]\n'


def flat(separator: str) -> dict[str, Any]:
    names = jax.tree.leaves(olm.path_labels(PARAMS))
    pairs = zip(names, jax.tree.leaves(PARAMS), strict=True)
    return {name.replace("/", separator): leaf for name, leaf in pairs}


def save_npz(path: Path) -> None:
    np.savez(path, **flat("/"))


def save_msgpack(path: Path) -> None:
    train_state = {"params": PARAMS, "step": np.int32(3), "opt_state": {"0": None}}
    path.write_bytes(flax.serialization.to_bytes(train_state))


def save_shards(path: Path) -> None:
    arrays = flat(".")
    weight_map = {}
    for i, (name, array) in enumerate(arrays.items()):
        weight_map[name] = f"part-{i}.safetensors"
        safetensors.numpy.save_file({name: array}, path.parent / weight_map[name])
    path.write_text(json.dumps({"weight_map": weight_map}))


def save_orbax(path: Path) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), {"params": PARAMS, "step": 3})


def save_steps(path: Path) -> None:
    """As a manager of checkpoints does: a folder for each step, the largest counts."""
    save_orbax(path / "9")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((path / "8").absolute(), {"old": np.ones(1)})


FILES: dict[str, Any] = {
    "model.safetensors": lambda p: safetensors.numpy.save_file(flat("."), p),
    "model.safetensors.index.json": save_shards,
    "model.npz": save_npz,
    "state.msgpack": save_msgpack,
    "orbax": save_orbax,
    "steps": save_steps,
}


def run(path: Path, *options: str, rules: str = TOML, suffix: str = ".toml") -> int:
    table = path.parent / f"rules{suffix}"
    table.write_text(rules)
    return main(["preview", str(path), "--rules", str(table), *options])


@pytest.mark.parametrize("name", FILES)
def test_reads_names_shapes_and_dtypes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FILES[name](tmp_path / name)
    out = tmp_path / "out.csv"
    assert run(tmp_path / name, "--write", str(out)) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "stem/kernel" in shown.out
    header, *rows = out.read_text().splitlines()
    assert header.startswith("name,")
    assert sorted(row.split(",")[0] for row in rows) == NAMES
    assert '"[2, 4]",bfloat16,8,2.0' in out.read_text()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    FILES["model.safetensors"](tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_dead_rule_ends_with_status_1_and_the_nearest_names(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    rules = 'rules = [{contains = "stam", value = 0.1}]'
    assert run(model, "--write", str(out), rules=rules) == 1
    shown = capsys.readouterr()
    assert "Rule 'stam' (0.1) of multipliers matches none" in shown.err
    assert "Nearest: 'stem'" in shown.err
    assert shown.err.count("\n") == 1
    assert "stem/kernel" in shown.out
    assert not out.exists()


def test_without_rules_it_shows_the_names(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", str(model)]) == 0
    assert "head/kernel" in capsys.readouterr().out


TABLE = """
[[rules]]
glob = "**/bias"
weight_decay = 0.0
[[rules]]
contains = "stem"
multipliers = 0.1
b2 = 0.95
[[rules]]
contains = ""
multipliers = 1.0
weight_decay = 0.2
b2 = 0.999
"""


def test_a_parameter_table_has_its_columns(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, rules=TABLE) == 0
    header, *rows = capsys.readouterr().out.splitlines()[:4]
    assert header.split() == "name shape rule multiplier decay b2".split()
    assert [row.split()[-3:] for row in rows] == [
        ["1", "0.2", "0.999"],
        ["1", "0", "0.999"],
        ["0.1", "0.2", "0.95"],
    ]


def test_a_parameter_table_is_written_in_several_ways(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"stem": {"multipliers": 0.1}, "": {"multipliers": 1, "weight_decay": 0.2}}
    flat = olm.Rules(rows).to_config()
    nested = [{"contains": key, "value": value} for key, value in rows.items()]
    shown = set()
    for data in {"groups": rows}, {"groups": flat}, {"rules": flat}, flat, nested:
        assert run(model, rules=json.dumps(data), suffix=".json") == 0
        shown.add(capsys.readouterr().out)
    assert len(shown) == 1
    assert "decay" in shown.pop().splitlines()[0]


def test_select_and_separator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_msgpack(tmp_path / "state.msgpack")
    assert main(["preview", str(tmp_path / "state.msgpack"), "--select", ""]) == 0
    assert "params/stem/kernel" in capsys.readouterr().out
    assert main(["preview", str(tmp_path / "state.msgpack"), "--select", "parms"]) == 1
    assert "Nothing is below 'parms'" in capsys.readouterr().err
    safetensors.numpy.save_file({"a.b": np.ones(1)}, tmp_path / "m.safetensors")
    path = str(tmp_path / "m.safetensors")
    assert main(["preview", path, "--separator", ""]) == 0
    assert "a.b" in capsys.readouterr().out


def test_a_parameter_called_value_keeps_its_name_and_a_box_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linen = {"gate": {"value": np.ones(2)}, "dense": {"kernel": np.ones((2, 2))}}
    path = tmp_path / "linen.msgpack"
    path.write_bytes(flax.serialization.to_bytes({"params": linen}))
    assert main(["preview", str(path)]) == 0
    assert "gate/value" in capsys.readouterr().out
    boxed = {"dense": {"kernel": {"value": np.ones((2, 2))}, "bias": np.ones(2)}}
    path.write_bytes(flax.serialization.to_bytes(boxed))
    assert main(["preview", str(path)]) == 0
    assert "dense/kernel " in capsys.readouterr().out

    class Net(nnx.Module):
        """A parameter beside a module, both in boxes."""

        def __init__(self) -> None:
            self.linear = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
            self.position = nnx.Param(np.ones(2, "float32"))

    state = nnx.state(Net(), nnx.Param)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "nnx", state)
    shapes = read_shapes(tmp_path / "nnx")
    names = jax.tree.leaves(olm.path_labels(nnx.to_pure_dict(state)))
    assert sorted(shapes) == sorted(names)
    assert sorted(shapes) == ["linear/bias", "linear/kernel", "position"]


def test_several_trees_of_one_step_have_the_name_of_each_in_front(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees = {"net_1": {"w": np.ones(2)}, "net_2": {"w": np.ones(3)}}
    with ocp.CheckpointManager(tmp_path) as manager:
        for step in 9, 10:
            items = {k: ocp.args.StandardSave(tree) for k, tree in trees.items()}
            manager.save(step, args=ocp.args.Composite(**items))
    for path in tmp_path, tmp_path / "10":
        assert sorted(read_shapes(path)) == ["net_1/w", "net_2/w"]
    caplog.clear()
    assert main(["preview", str(tmp_path)]) == 0
    assert [r.getMessage() for r in caplog.records if r.levelname != "INFO"] == []


def test_only_headers_of_an_npz_are_read_and_no_pickle_is_opened(
    tmp_path: Path,
) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.mkdir, (tmp_path / "sprung",)

    trap = np.array([Trap()], object)
    np.savez_compressed(
        tmp_path / "a.npz", trap=trap, text=np.array("text"), w=np.zeros(10**7, "uint8")
    )
    assert {n: x.shape for n, x in read_shapes(tmp_path / "a.npz").items()} == {
        "w": (10**7,)
    }
    assert not (tmp_path / "sprung").exists()


def test_names_that_a_terminal_would_obey_are_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, **{"a\x1b[2J/w": np.ones(2), "é/w": np.ones(1)})
    assert main(["preview", str(path)]) == 0
    out = capsys.readouterr().out
    assert r"a\x1b[2J/w" in out
    assert "é/w" in out
    assert "\x1b" not in out


def test_the_checkpoint_is_not_overwritten(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()
    assert run(model, "--write", str(model)) == 1
    assert "a .csv file" in capsys.readouterr().err
    assert model.read_bytes() == before


def test_a_reader_such_as_head_may_stop(model: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    root = str(Path(olm.__file__).parent.parent)
    command = [sys.executable, "-m", "optax_lrmult", "preview", str(model)]
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run(
        command, env=environment, stdout=writing, stderr=subprocess.PIPE, check=True
    )
    os.close(writing)
    assert done.stderr == b""


def test_ctrl_c_ends_with_the_status_of_shells(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, separator: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optax_lrmult.__main__.read_shapes", interrupted)
    assert main(["preview", str(model)]) == 130


def test_a_missing_reader_is_told(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert main(["preview", str(model)]) == 1
    assert "install the extra 'checkpoints'" in capsys.readouterr().err


def damaged(make: Any, path: Path) -> None:
    make(path)
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.safetensors", lambda p: damaged(FILES["model.safetensors"], p), "read"),
        ("a.npz", lambda p: damaged(save_npz, p), "can't be read"),
        ("a.msgpack", lambda p: damaged(save_msgpack, p), "can't be read"),
        ("a.msgpack", lambda p: p.write_bytes(b""), "can't be read"),
        ("a.msgpack", lambda p: p.write_bytes(b"\x80"), "holds no array"),
        ("a.pt", lambda p: p.write_bytes(b"x"), "runs code when it is read"),
        ("folder", lambda p: p.mkdir(), "no Orbax checkpoint"),
        ("nowhere.npz", lambda p: None, "No such file"),
        (
            "a.safetensors",
            lambda p: safetensors.numpy.save_file(
                {"a.b": np.ones(2), "a/b": np.ones(2)}, p
            ),
            "two arrays have the name 'a/b'",
        ),
        (
            "gone.safetensors.index.json",
            lambda p: p.write_text('{"weight_map": {"w": "gone.safetensors"}}'),
            "gone.safetensors",
        ),
        ("b.safetensors.index.json", lambda p: p.write_text("[1"), "can't be read"),
        (
            "a.safetensors.index.json",
            lambda p: p.write_text('{"weight_map": {"w": "../other.safetensors"}}'),
            "a file beside its index",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(
    name: str,
    write: Any,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / name)
    assert run(tmp_path / name) == 1
    text = capsys.readouterr().err
    assert words in text
    assert repr(str(tmp_path / name)) in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("suffix", "rules", "words"),
    [
        (".toml", "rules = [", "rules.toml"),
        (".json", '[{"contains": "a", "contains": "b", "value": 1}]', "stands twice"),
        (".json", '[{"contain": "a", "value": 1}]', "'contain'"),
        (".json", '[{"contains": "a", "value": "x"}]', "a real number"),
        (".json", '["stem"]', "can't be used"),
        (".json", '{"rule": []}', "must hold 'rules' or 'groups', and nothing else"),
        (".toml", "rules = []\ngroups = {}", "and nothing else"),
        (".toml", "", "must hold 'rules' or 'groups'"),
        (".toml", "\\xff", "can't be used"),
        (".json", "[" * 100_000, "can't be used"),
        (".toml", "groups = {stem = {multiplier = 1}}", "near: ['multipliers']"),
        (".yaml", "rules: []", "a .toml or a .json file"),
    ],
)
def test_rules_that_cannot_be_read_are_told_in_one_line(
    suffix: str,
    rules: str,
    words: str,
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(model, rules=rules, suffix=suffix) == 1
    text = capsys.readouterr().err
    assert words in text
    assert text.count("\n") == 1


def test_wrong_words_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words, status in ((["preview"], 2), (["--version"], 0), ([], 2)):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == status
    assert olm.__version__ in capsys.readouterr().out


def test_shapes_are_enough_for_a_table(model: Path) -> None:
    shapes = read_shapes(model)
    assert {n: s.shape for n, s in shapes.items()}["stem/kernel"] == (3, 2)
    assert shapes["head/kernel"].dtype == jnp.bfloat16
