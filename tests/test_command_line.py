"""`python -m optax_lrmult preview`: what it prints, writes, and exits with."""

import contextlib
import csv
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_lrmult as olm
from optax_lrmult import _command_line, _demo
from optax_lrmult.__main__ import main

jax.devices()  # The command would restrict JAX to the CPU if nothing is decided yet.

PARAMS = {
    "stem": {"kernel": jnp.ones((3, 8))},
    **{f"block_{i}": {"kernel": jnp.ones((8, 8))} for i in range(12)},
    "head": {"kernel": jnp.ones((8, 2)), "bias": jnp.ones(2)},
}
TABLE = {"stem": 0.0, "bias": 2.0}
RULES = """
[[rules]]
contains = "stem"
multiplier = 0

[[rules]]
contains = "bias"
multiplier = 2
"""
DEAD = '[[rules]]\ncontains = "blok_1"\nmultiplier = 0.5\n'


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a model and rules, so that arguments are bare names."""
    monkeypatch.chdir(tmp_path)
    Path("model.msgpack").write_bytes(flax.serialization.to_bytes(PARAMS))
    Path("rules.toml").write_text(RULES)
    Path("dead.toml").write_text(DEAD)


def run(capsys: Any, *words: str) -> tuple[int, str, list[str]]:
    """The exit status, the standard output, and the lines of the standard error."""
    status = main(["preview", *words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err.splitlines()


def line(capsys: Any, *words: str) -> str:
    """The one line on standard error of a run that must print nothing else."""
    status, out, err = run(capsys, *words)
    assert (status, out, len(err)) == (2, "", 1), err
    assert err[0].startswith("optax_lrmult preview: ")
    return err[0].removeprefix("optax_lrmult preview: ")


class TestTable:
    def test_it_is_the_preview_of_the_model_in_memory(self, capsys: Any) -> None:
        status, out, err = run(capsys, "model.msgpack", "--rules", "rules.toml")
        assert (status, err) == (0, [])
        assert out == f"{olm.preview(PARAMS, TABLE)}\n"
        assert "block_{0..11}/kernel" in out

    def test_full_shows_each_parameter(self, capsys: Any) -> None:
        _, out, _ = run(capsys, "model.msgpack", "--rules", "rules.toml", "--full")
        assert out == f"{olm.preview(PARAMS, TABLE, full=True)}\n"
        assert "block_7/kernel" in out

    def test_without_rules_it_shows_the_names_to_write_rules_for(
        self, capsys: Any
    ) -> None:
        status, out, err = run(capsys, "model.msgpack")
        assert (status, err) == (0, [])
        assert out == f"{olm.preview(PARAMS, {})}\n"

    def test_rules_in_json(self, capsys: Any) -> None:
        Path("rules.json").write_text(json.dumps(olm.rules_to_config(TABLE)))
        _, out, _ = run(capsys, "model.msgpack", "--rules", "rules.json")
        assert out == f"{olm.preview(PARAMS, TABLE)}\n"

    def test_names_of_a_flat_file_are_split(self, capsys: Any) -> None:
        np.savez("model.npz", **{"a.b": np.ones(2), "a.c": np.ones(3)})
        _, out, _ = run(capsys, "model.npz", "--separator", ".")
        assert out == f"{olm.preview({'a': {'b': np.ones(2), 'c': np.ones(3)}}, {})}\n"

    def test_notes_of_the_preview_are_printed_and_no_errors(self, capsys: Any) -> None:
        Path("rules.toml").write_text(RULES.replace("stem", "block_1"))
        status, out, err = run(capsys, "model.msgpack", "--rules", "rules.toml")
        assert (status, err) == (0, [])
        assert "note: Rule 'block_1' also takes 'block_10', 'block_11'" in out

    def test_what_is_no_array_of_numbers_is_told(self, capsys: Any) -> None:
        np.savez("model.npz", w=np.ones(2), text=np.array("text"))
        status, out, err = run(capsys, "model.npz")
        assert (status, "text" in out) == (0, False)
        assert err == [
            "optax_lrmult preview: 'model.npz': left out, no arrays of numbers: "
            "text (<U4)"
        ]

    def test_escapes_do_not_reach_the_terminal(self, capsys: Any) -> None:
        tree = {"a\x1b[2J": {"w\n\u202e": jnp.ones(2)}}
        Path("bad.msgpack").write_bytes(flax.serialization.to_bytes(tree))
        rule = '[[rules]]\nregex = "a\\u001b.*"\nmultiplier = 0'
        Path("bad.toml").write_text(rule)
        status, out, err = run(capsys, "bad.msgpack", "--rules", "bad.toml")
        assert status == 1
        assert r"a\x1b[2J/w\n\u202e" in out
        for text in [*out.splitlines(), *err]:
            assert text.isprintable()


class TestSelection:
    @pytest.fixture(autouse=True)
    def states(self, in_folder: None) -> None:
        moments = {"count": jnp.int32(1), "mu": PARAMS}
        state = {"step": 3, "params": PARAMS, "opt_state": {"0": moments}}
        Path("state.msgpack").write_bytes(flax.serialization.to_bytes(state))

    def test_of_a_train_state_the_parameters_are_taken_and_it_is_told(
        self, capsys: Any
    ) -> None:
        status, out, err = run(capsys, "state.msgpack", "--rules", "rules.toml")
        assert (status, out) == (0, f"{olm.preview(PARAMS, TABLE)}\n")
        assert err == [
            "optax_lrmult preview: names are those below 'params'; --select '' takes "
            "all: step, params, opt_state"
        ]

    @pytest.mark.parametrize("keys", ["params", "opt_state/0/mu", "/opt_state/0/mu/"])
    def test_keys_select_a_part_and_names_are_relative_to_it(
        self, keys: str, capsys: Any
    ) -> None:
        status, out, err = run(capsys, "state.msgpack", "--select", keys)
        assert (status, out, err) == (0, f"{olm.preview(PARAMS, {})}\n", [])

    def test_no_keys_select_all(self, capsys: Any) -> None:
        status, out, err = run(capsys, "state.msgpack", "--select", "", "--full")
        assert (status, err) == (0, [])
        for name in ("step", "params/head/bias", "opt_state/0/mu/block_3/kernel"):
            assert f"\n{name} " in out

    def test_keys_that_are_not_there(self, capsys: Any) -> None:
        text = line(capsys, "state.msgpack", "--select", "opt_state/0/mux")
        assert (
            "nothing in it is below 'opt_state/0/mux'. Nearest: 'opt_state/0/mu'"
            in text
        )
        text = line(capsys, "state.msgpack", "--select", "weights")
        assert "It has: 'params', 'opt_state'" in text
        assert "nothing in it is below 'para'" in line(
            capsys, "state.msgpack", "--select", "para"
        )


class TestDeadRules:
    def test_the_table_is_printed_and_the_nearest_names_are_an_error(
        self, capsys: Any
    ) -> None:
        status, out, err = run(capsys, "model.msgpack", "--rules", "dead.toml")
        assert status == 1
        assert out == f"{olm.preview(PARAMS, {})}\n"
        assert len(err) == 1
        assert "Rule 'blok_1' (multiplier 0.5) matches none of the 15" in err[0]
        assert "Nearest: 'block_1', as in 'block_1/kernel'" in err[0]

    def test_a_shadowed_rule_is_a_note(self, capsys: Any) -> None:
        Path("rules.toml").write_text(RULES + RULES)
        status, out, err = run(capsys, "model.msgpack", "--rules", "rules.toml")
        assert (status, err) == (0, [])
        assert "note: Rule 'stem' (multiplier 0) never applies" in out

    def test_a_file_is_not_written(self, capsys: Any) -> None:
        Path("out.csv").write_text("old")
        words = "model.msgpack", "--rules", "dead.toml", "--write", "out.csv"
        status, _, err = run(capsys, *words)
        assert (status, err[-1]) == (
            1,
            "optax_lrmult preview: 'out.csv' is not written.",
        )
        assert Path("out.csv").read_text() == "old"


class TestWriting:
    def write(self, capsys: Any, path: str = "out.csv") -> tuple[int, str, list[str]]:
        words = "model.msgpack", "--rules", "rules.toml", "--write", path
        return run(capsys, *words)

    def test_a_row_for_each_parameter(self, capsys: Any) -> None:
        status, out, err = self.write(capsys)
        assert (status, err) == (0, [])
        assert out == f"{olm.preview(PARAMS, TABLE)}\n"
        rows = list(csv.DictReader(io.StringIO(Path("out.csv").read_text())))
        assert {row["name"]: float(row["multiplier"]) for row in rows} == {
            row.name: row.multiplier for row in olm.assign(PARAMS, TABLE)
        }

    def test_an_old_file_is_replaced_with_its_mode_and_behind_its_link(
        self, capsys: Any
    ) -> None:
        Path("real.csv").write_text("old\n" * 1000)
        Path("real.csv").chmod(0o640)
        Path("out.csv").symlink_to("real.csv")
        assert self.write(capsys)[0] == 0
        assert Path("out.csv").is_symlink()
        assert Path("real.csv").read_text().startswith("name,")
        assert "old" not in Path("real.csv").read_text()
        assert stat.S_IMODE(Path("real.csv").stat().st_mode) == 0o640

    def test_a_write_that_fails_leaves_the_old_file_and_no_draft(
        self, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path, text: str, **options: Any) -> None:
            path.write_bytes(text[:10].encode())
            raise OSError(28, "No space left on device")

        Path("out.csv").write_text("old")
        before = set(os.listdir())
        monkeypatch.setattr(Path, "write_text", full)
        words = "model.msgpack", "--rules", "rules.toml", "--write", "out.csv"
        assert line(capsys, *words) == "'out.csv': No space left on device"
        assert Path("out.csv").read_bytes() == b"old"
        assert set(os.listdir()) == before

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("nowhere/out.csv", "No such file or directory"),
            ("rules.toml/out.csv", "Not a directory"),
            ("folder.csv", "Is a directory"),
            ("model.msgpack", "the name of a file to write ends in .csv"),
        ],
    )
    def test_a_place_that_can_not_be_written(
        self, path: str, reason: str, capsys: Any
    ) -> None:
        Path("folder.csv").mkdir()
        before = Path("model.msgpack").read_bytes()
        assert line(capsys, "model.msgpack", "--write", path) == f"{path!r}: {reason}"
        assert Path("model.msgpack").read_bytes() == before


class TestFilesThatAreNone:
    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("a.toml", "rules = [", "not valid TOML: "),
            ("a.toml", "", "The config has no key 'rules'"),
            ("a.toml", "a = " + "[" * 9999, "not valid TOML: "),
            ("a.toml", "\xff", "not valid TOML: 'utf-8' codec"),
            ("a.toml", "[[rules]]\ncontain = 'a'", "rules[0]: The key 'contain' of"),
            ("a.toml", "rules = 3", "A config is {'rules': [...]}"),
            ("a.toml", "[[rules]]\nregex='('\nmultiplier=1", "rules[0]: The regex '('"),
            ("a.json", "", "not valid JSON: "),
            ("a.json", "[" * 100_000, "not valid JSON: "),
            ("a.json", '{"rules": [{"glob": "*", "multiplier": NaN}]}', "rules[0]: "),
            ("a.yaml", "", "rules are a .toml or a .json file"),
            ("a\x1b\n.toml", "", "The config has no key 'rules'"),
        ],
    )
    def test_rules(self, name: str, content: str, reason: str, capsys: Any) -> None:
        Path(name).write_bytes(content.encode("latin-1"))
        text = line(capsys, "model.msgpack", "--rules", name)
        assert text.startswith(f"{name!r}: {reason}")
        assert text.isprintable()

    def test_huge_rules_are_not_read(self, capsys: Any) -> None:
        with Path("huge.toml").open("wb") as file:
            file.truncate(10**11)
        text = line(capsys, "model.msgpack", "--rules", "huge.toml")
        assert text == "'huge.toml': rules have at most 10,000,000 bytes"

    @pytest.mark.parametrize(
        "words", [["gone.npz"], ["model.msgpack", "--rules", "gone.toml"]]
    )
    def test_a_file_that_is_missing(self, words: list[str], capsys: Any) -> None:
        assert line(capsys, *words) == f"{words[-1]!r}: No such file or directory"

    @pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.msgpack"])
    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\xff" * 99])
    def test_checkpoints(self, name: str, content: bytes, capsys: Any) -> None:
        Path(name).write_bytes(content)
        assert line(capsys, name).startswith(f"{name!r}: no whole {name[2:]} file")

    def test_a_missing_package(
        self, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "msgpack", None)
        text = line(capsys, "model.msgpack")
        assert text.endswith("needs the package msgpack: pip install msgpack")

    def test_a_list_of_multipliers_that_does_not_fit(self, capsys: Any) -> None:
        Path("a.toml").write_text("[[rules]]\ncontains='stem'\nmultiplier=[1, 2]")
        text = line(capsys, "model.msgpack", "--rules", "a.toml")
        assert "Rule 'stem' gives 2 multipliers for the slices along axis 0" in text

    @pytest.mark.parametrize(
        "words", [[], ["preview"], ["show", "a"], ["preview", "--no"]]
    )
    def test_wrong_words(self, words: list[str], capsys: Any) -> None:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert "usage: python -m optax_lrmult" in capsys.readouterr().err


class TestDemo:
    def test_its_options_reach_it(
        self, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = []

        def noted(*words: Any, **options: Any) -> int:
            runs.append((*words, options))
            return 1

        monkeypatch.setattr(_demo, "run", noted)
        assert main(["demo"]) == 1
        assert main(["demo", "--output", "a.png", "--seeds", "2", "--steps", "3"]) == 1
        assert runs == [
            ("optax_lrmult_demo.png", {"seeds": 5, "steps": 60}),
            ("a.png", {"seeds": 2, "steps": 3}),
        ]

    def test_what_it_refuses_is_one_line(self, capsys: Any) -> None:
        assert main(["demo", "--seeds", "0"]) == 1
        assert capsys.readouterr().err.startswith("optax_lrmult demo: seeds and steps")


class TestProcess:
    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        root = Path(olm.__file__).parent.parent
        environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "optax_lrmult", *words]
        pipe = subprocess.PIPE
        streams = {"stdout": pipe, "stderr": pipe} | options
        return subprocess.Popen(command, env=environment, **streams)

    def test_a_reader_that_stops_is_no_error(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        process = self.start("preview", "model.msgpack", stdout=writing)
        os.close(writing)
        assert process.communicate()[1] == b""
        assert process.returncode == 0

    def test_a_full_disk_is_one_line(self) -> None:
        with open("/dev/full", "wb") as full:
            process = self.start("preview", "model.msgpack", stdout=full)
            err = process.communicate()[1].decode()
        assert err.count("\n") == 1
        assert "No space left on device" in err
        assert process.returncode == 2

    def test_names_that_the_terminal_does_not_have_are_escaped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        np.savez("model.npz", **{"é": np.ones(2)})
        out, err = self.start("preview", "model.npz").communicate()
        assert err == b""
        assert rb"\xe9" in out

    def test_ctrl_c_ends_with_130_and_no_word(
        self, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*args: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(_command_line, "read_shapes", interrupted)
        assert run(capsys, "model.msgpack") == (130, "", [])

    def test_standard_output_may_be_another_object(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(["preview", "model.msgpack"]) == 0
        assert out.getvalue().startswith("name ")

    def test_a_process_without_standard_output(
        self, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdout", None)
        assert main(["preview", "model.msgpack", "--write", "out.csv"]) == 0
        assert Path("out.csv").read_text().startswith("name,")

    def test_it_imports_no_reader_that_the_file_does_not_need(self) -> None:
        code = (
            "import sys, optax_lrmult.__main__ as m\n"
            "m.main(['preview', 'model.npz'])\n"
            "names = 'msgpack orbax safetensors flax matplotlib rich tensorstore'\n"
            "print([n for n in names.split() if n in sys.modules], file=sys.stderr)"
        )
        np.savez("model.npz", w=np.ones(2))
        root = Path(olm.__file__).parent.parent
        environment = os.environ | {"PYTHONPATH": str(root)}
        command = [sys.executable, "-c", code]
        found = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert found.stderr == "[]\n"
