"""Several devices, and several processes: the state stays where the parameters are."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.promises.eight_devices import MESHES, OPTIMIZERS, trained
from tests.promises.processes import environment
from tests.promises.two_processes import STEPS, flat

ROOT = Path(__file__).parent.parent.parent
SECONDS = 600  # Until a process that hangs is ended.

Find = Callable[[str, str, str], dict[str, Any]]
"""What the script found in a check, on a mesh, with an optimizer."""

every_mesh = pytest.mark.parametrize("mesh", MESHES)
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


@pytest.fixture(scope="module")
def find() -> Find:
    process = subprocess.run(
        [sys.executable, "-m", "tests.promises.eight_devices"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    found = {(row["check"], row["mesh"], row["optimizer"]): row for row in rows}

    def find_one(check: str, mesh: str, name: str) -> dict[str, Any]:
        row = found[check, mesh, name]
        assert "failure" not in row, row["failure"]
        return row

    return find_one


# Eight devices.


@every_mesh
@every_optimizer
@pytest.mark.parametrize("by", ["init", "jitted_init", "step"])
def test_state_is_sharded_as_the_parameters(
    mesh: str, name: str, by: str, find: Find
) -> None:
    assert find("training", mesh, name)[f"sharded_by_{by}"]


@every_mesh
@every_optimizer
def test_step_has_no_collective_that_plain_adam_has_not(
    mesh: str, name: str, find: Find
) -> None:
    plain = find("training", mesh, "plain")["collectives"]
    assert plain["all-gather"] > 0
    found = find("training", mesh, name)["collectives"]
    assert all(found[kind] <= plain.get(kind, 0) for kind in found)


@every_mesh
@every_optimizer
def test_sharded_training_equals_that_on_one_device(
    mesh: str, name: str, find: Find
) -> None:
    assert find("training", mesh, name)["error"] < 1e-3  # of the learning rate


@every_mesh
@every_optimizer
def test_donated_buffers_are_used(mesh: str, name: str, find: Find) -> None:
    row = find("training", mesh, name)
    assert row["warnings"] == []
    assert row["deleted"] == row["leaves"]
    assert row["aliases"] == row["leaves"]


# The smallest and the largest ratio in each parameter.
ONES = {
    "blocks/bias": [1, 1],
    "blocks/kernel": [1, 1],
    "embed/kernel": [1, 1],
    "head/bias": [1, 1],
    "head/kernel": [1, 1],
}
BY_NAME = {
    "blocks/bias": [0, 1.75],
    "blocks/kernel": [0, 1.75],
    "embed/kernel": [0.1, 0.1],
    "head/bias": [0, 0],
    "head/kernel": [0, 1.75],
}
CHAIN = {**BY_NAME, "embed/kernel": [0.25, 0.25]}
RATIOS = {"plain": ONES, "by_name": BY_NAME, "chain": CHAIN}


@every_mesh
@every_optimizer
def test_ratios_to_plain_adam_in_shard_map(mesh: str, name: str, find: Find) -> None:
    ratios = find("shard_map", mesh, name)["smallest_and_largest_ratio"]
    assert ratios == {key: pytest.approx(span) for key, span in RATIOS[name].items()}


# Two processes.


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def launched(command: list[str], log: Path) -> Generator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards, whatever happens."""
    with log.open("wb") as out, log.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=environment(), cwd=ROOT
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def exit_codes(processes: list[subprocess.Popen[bytes]]) -> list[int | None]:
    """Waits for all to end, or for one to fail."""
    deadline = time.monotonic() + SECONDS
    while True:
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes) or time.monotonic() > deadline:
            return codes
        time.sleep(0.1)


@pytest.fixture(scope="module")
def both_outputs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder, port = tmp_path_factory.mktemp("two_processes"), str(free_port())
    command = [sys.executable, "-m", "tests.promises.two_processes", port]
    logs = [folder / f"{process}.out" for process in "01"]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(launched([*command, log.stem], log)) for log in logs
        ]
        codes = exit_codes(running)
    errors = [log.with_suffix(".err").read_text() for log in logs]
    assert codes == [0, 0], "\n".join(errors)
    return [json.loads(log.read_text().splitlines()[-1]) for log in logs]


def test_processes_share_their_devices(both_outputs: list[dict[str, Any]]) -> None:
    assert [output["devices"] for output in both_outputs] == [[4, 2], [4, 2]]


def test_two_processes_equal_one(both_outputs: list[dict[str, Any]]) -> None:
    first, second = (output["params"] for output in both_outputs)
    assert first == second
    expected = flat(trained("chain", STEPS))
    np.testing.assert_allclose(first, expected, rtol=2e-5, atol=1e-7)
