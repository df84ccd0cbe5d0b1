"""The README's first command: its network, its task, its words and its picture."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from skimage.data import lfw_subset

import optax_lrmult as olm
from optax_lrmult import demo
from optax_lrmult.__main__ import main
from optax_lrmult.demo import experiment, rnet


@pytest.fixture(autouse=True)
def as_a_user_has_it() -> Iterator[None]:
    """The network adds biases to images, as everybody does."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def pretrained() -> rnet.Params:
    return rnet.load_rnet()


def test_the_pretrained_network_tells_faces_from_other_pictures(
    pretrained: Any,
) -> None:
    """So its weights are the right ones, in the right places."""
    gray = lfw_subset()[:, :24, :24, None]
    images = np.repeat((255 * gray - 127.5) / 128, 3, axis=-1).astype(np.float32)
    labels = np.repeat([1, 0], 100)
    assert float(rnet.accuracy(pretrained, images, labels)) == 1.0


def test_weights_of_another_release_are_not_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rnet, "WEIGHTS_SHA256", hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ValueError, match="is a pickle and was not opened"):
        rnet.load_rnet()


def test_the_task_has_no_face_in_training_and_test() -> None:
    faces = experiment.load_faces()
    task = experiment.which_way_up(faces, seed=0)
    assert task.train_images.shape == (20, 24, 24, 3)
    assert task.test_images.shape == (320, 24, 24, 3)
    upright = [np.rot90(x, -q) for x, q in zip(*task[:2], strict=True)]
    for image in upright:
        assert any(np.array_equal(image, face) for face in faces)
        assert not any(np.array_equal(image, t) for t in task.test_images[:80])
    assert np.bincount(task.train_labels).tolist() == [5, 5, 5, 5]


def test_multipliers_fit_the_network(pretrained: Any) -> None:
    network = experiment.new_network(pretrained, seed=0)
    rows = olm.assign(network, experiment.MULTIPLIERS, on_unmatched="error")
    assert {row.value for row in rows} == {0.03, 0.06, 0.1, 0.3, 1.0}
    chosen = list(experiment.MULTIPLIERS.values())
    ratios = np.array(chosen[1:]) / chosen[:-1]
    assert (ratios > 1.6).all()
    assert (ratios < 3.4).all()


def results(uniform: Any, multiplied: Any) -> experiment.Results:
    return experiment.Results((1e-3, 1e-2), np.array(uniform), np.array(multiplied))


def test_the_verdict_says_what_the_numbers_say() -> None:
    found = results([[0.9, 0.8], [0.7, 0.8]], [[0.9, 0.9], [0.9, 0.86]])
    assert demo.verdict(found) == (
        "At the rate 0.01, one rate for all layers is 10.0 points of accuracy below "
        "its best rate, and multipliers are 2.0 points below theirs. Each at its best "
        "rate, multipliers are ahead by 5.0 ± 5.0 points (paired by seed, ± standard "
        "error)."
    )
    same = results([[1], [1]], [[1], [1]])
    assert "ahead by 0.0 points" in demo.verdict(same)
    assert demo.table(found).splitlines() == [
        "learning rate           0.001            0.01",
        "one rate        0.850 ± 0.071   0.750 ± 0.071",
        "multipliers     0.900 ± 0.000   0.880 ± 0.028",
    ]


def test_a_short_run_from_end_to_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in experiment, demo:
        monkeypatch.setattr(module, "LEARNING_RATES", (1e-2,))
    output = tmp_path / "demo.png"
    words = ["demo", "--seeds", "1", "--steps", "2", "--output", str(output)]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "R-Net with a new head:" in shown.out
    assert "At the rate 0.01, one rate for all layers is 0.0 points" in shown.out
    assert "100%" in shown.err
    assert output.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "words", [["--seeds", "0"], ["--output", "a.jpg"], ["--output", "none/a.png"]]
)
def test_what_cannot_be_done_is_told_before_the_training(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *words]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("optax_lrmult: ")
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["joblib", "matplotlib.figure", "skimage.data"])
def test_a_missing_package_is_told_before_the_training(
    module: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", "--output", str(tmp_path / "demo.png")]) == 1
    printed = capsys.readouterr()
    assert (printed.out, list(tmp_path.iterdir())) == ("", [])
    assert "install the extra 'demo'" in printed.err


def test_the_picture_has_both_curves_with_their_error_bars() -> None:
    axes = Figure().add_subplot()
    demo.draw(results([[0.9, 0.8], [0.7, 0.8]], [[0.9, 0.9], [0.9, 0.86]]), axes)
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.001", "0.01"]
    bars = [drawn for drawn in axes.containers if isinstance(drawn, ErrorbarContainer)]
    one_rate, multipliers = bars
    assert one_rate.get_label() == "one rate for all layers"
    assert multipliers.get_label() == "multipliers"
    for drawn, means in (one_rate, [0.85, 0.75]), (multipliers, [0.9, 0.88]):
        assert drawn.has_yerr
        np.testing.assert_allclose(drawn.lines[0].get_ydata(), means)


def test_each_run_lands_in_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that does nothing but add up what it was asked for."""

    def train(step: Any, network: Any, task: Any, rate: float, steps: int) -> Any:
        return step["conv1"] * rate * steps + network

    monkeypatch.setattr(experiment, "_make_step", lambda multipliers: multipliers)
    monkeypatch.setattr(experiment, "_train", train)
    monkeypatch.setattr(experiment, "new_network", lambda rnet, seed: seed)
    monkeypatch.setattr(experiment, "accuracy", lambda trained, images, labels: trained)
    found = experiment.compare({}, np.zeros((30, 2, 2, 1)), seeds=3, steps=7)
    rates, seeds = np.array([[3e-4], [1e-3], [3e-3], [1e-2]]), np.arange(3)
    np.testing.assert_allclose(found.uniform, 7 * rates + seeds)
    np.testing.assert_allclose(found.multiplied, 7 * 0.03 * rates + seeds)


def test_the_first_step_is_as_large_as_the_multiplier_says(pretrained: Any) -> None:
    network = experiment.new_network(pretrained, seed=0)
    gradients = jax.tree.map(jnp.ones_like, network)
    tx = olm.adam(1e-2, amsgrad=True, multipliers=experiment.MULTIPLIERS)
    updates, _ = tx.update(gradients, tx.init(network), network)
    for layer, multiplier in experiment.MULTIPLIERS.items():
        np.testing.assert_allclose(
            updates[layer]["kernel"], -1e-2 * multiplier, rtol=1e-5
        )
