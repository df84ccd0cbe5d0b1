"""The main job: real weights, real photographs, and a report that claims no more."""

import pickle
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.container import ErrorbarContainer

from optax_lrmult import _demo
from optax_lrmult._demo import _experiment, _report, _rnet, _verdict
from optax_lrmult._demo._experiment import MULTIPLIERS, UNIFORM, Results, make_train
from optax_lrmult._demo._photographs import load_photographs, turned, which_way_up


@pytest.fixture(autouse=True)
def broadcasting_biases():
    """A plain network adds a vector to a batch, which the strict setting refuses."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def rnet():
    return _rnet.load_rnet()


@pytest.fixture(scope="module")
def photographs():
    return load_photographs()


def refusal(capsys, *args, **kwargs) -> str:
    """The one line of a run that must end with status 1 before it trains."""
    assert _demo.run(*args, **kwargs) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("optax_lrmult demo: ")
    return printed.err


# The pretrained network


def test_rnet_tells_all_faces_from_all_others_without_training(rnet, photographs):
    images, labels = np.concatenate(photographs), np.repeat([1, 0], 100)
    assert float(_rnet.accuracy(rnet, images, labels)) == 1.0


def test_rnet_is_sure_of_every_photograph(rnet, photographs):
    # A wrong layout, a wrong scale or a wrong slope would still tell most faces.
    says = _rnet.logits(rnet, jnp.concatenate(photographs))
    margins = np.repeat([1, -1], 100) * (says[:, 1] - says[:, 0])
    assert margins.min() == pytest.approx(1.93, abs=0.01)


def test_rnet_is_read_without_importing_mtcnn(rnet):
    assert {layer: list(leaves) for layer, leaves in rnet.items()} == {
        "conv1": ["kernel", "bias", "alpha"],
        "conv2": ["kernel", "bias", "alpha"],
        "conv3": ["kernel", "bias", "alpha"],
        "fc4": ["kernel", "bias", "alpha"],
        "head": ["kernel", "bias"],
    }
    assert "mtcnn" not in sys.modules


def test_importing_the_demo_imports_none_of_its_packages():
    names = "joblib lz4 matplotlib mtcnn skimage tqdm"
    code = (
        "import sys, optax_lrmult._demo; "
        f"print([name for name in {names.split()} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("[]\n", "")


# Weights that are not the expected ones


def install_mtcnn(folder: Path, content: bytes, weights: str = _rnet.WEIGHTS_FILE):
    """A distribution called mtcnn with a weight file of any content."""
    for name, text in {
        weights: content,
        "mtcnn-1.0.0.dist-info/METADATA": b"Name: mtcnn\nVersion: 1.0.0\n",
        "mtcnn-1.0.0.dist-info/RECORD": f"{weights},,\n".encode(),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)


class Trap:
    """An object that, when unpickled, makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def test_a_wrong_pickle_is_refused_before_it_is_opened(tmp_path, monkeypatch, capsys):
    sprung = tmp_path / "sprung"
    content = pickle.dumps(Trap(sprung))
    pickle.loads(content)
    assert sprung.exists()
    sprung.rmdir()

    install_mtcnn(tmp_path / "site", content)
    monkeypatch.syspath_prepend(tmp_path / "site")
    line = refusal(capsys, tmp_path / "figure.png")
    assert not sprung.exists()
    assert "sha256" in line
    assert f"expected {_rnet.WEIGHTS_SHA256}" in line
    assert "mtcnn==1.0.0" in line


def test_the_expected_weights_are_found_on_the_path(tmp_path, monkeypatch, rnet):
    weights = metadata.distribution("mtcnn").locate_file(_rnet.WEIGHTS_FILE)
    install_mtcnn(tmp_path, Path(str(weights)).read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    assert jax.tree.all(jax.tree.map(np.array_equal, _rnet.load_rnet(), rnet))


def test_an_mtcnn_without_weights_is_refused(tmp_path, monkeypatch, capsys):
    install_mtcnn(tmp_path / "site", b"", weights="mtcnn/other.npy")
    monkeypatch.syspath_prepend(tmp_path / "site")
    line = refusal(capsys, tmp_path / "figure.png")
    assert f"mtcnn 1.0.0 comes without {_rnet.WEIGHTS_FILE}" in line


# Other bad input


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("joblib", "joblib"),
        ("lz4", "lz4"),
        ("matplotlib", "matplotlib"),
        ("mtcnn", "mtcnn==1.0.0"),
        ("skimage", "scikit-image"),
        ("tqdm", "tqdm"),
    ],
)
def test_a_missing_package_is_named(module, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    line = refusal(capsys, tmp_path / "figure.png")
    assert line.endswith(f"not installed: {module}. Try: pip install {package}\n")


def test_mtcnn_as_a_mere_folder_is_refused(tmp_path, monkeypatch, capsys):
    def not_found(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", not_found)
    line = refusal(capsys, tmp_path / "figure.png")
    assert "mtcnn is not installed" in line
    assert "mtcnn==1.0.0" in line


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("folder.png", "cannot write '{}': Is a directory"),
        ("folder", "cannot write '{}': Is a directory"),
        ("file/figure.png", "cannot write '{}': Not a directory"),
        ("nowhere/figure.png", "cannot write '{}': No such file or directory"),
        ("figure.jpg", "the figure is a PNG, but the path is '{}'"),
    ],
)
def test_an_unwritable_path_is_refused_at_once(output, reason, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    path = tmp_path / output
    assert refusal(capsys, path).endswith(f"{reason.format(path)}\n")


def test_a_refused_run_leaves_the_folder_as_it_was(tmp_path, monkeypatch, capsys):
    (tmp_path / "old.png").write_bytes(b"old")
    monkeypatch.setattr(_rnet, "WEIGHTS_SHA256", "0")
    refusal(capsys, tmp_path / "old.png")
    refusal(capsys, tmp_path / "new.png")
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


def test_a_figure_that_can_not_be_saved_is_one_line(tmp_path, monkeypatch, capsys):
    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(_demo, "compare", lambda *_: None)
    monkeypatch.setattr(_demo, "_show_results", full_disk)
    assert _demo.run(tmp_path / "figure.png") == 1
    assert capsys.readouterr().err == "optax_lrmult demo: No space left on device\n"


@pytest.mark.parametrize("numbers", [{"seeds": 0}, {"steps": 0}])
def test_nothing_to_train_is_refused(numbers, tmp_path, capsys):
    line = refusal(capsys, tmp_path / "figure.png", **numbers)
    assert "seeds and steps start at 1" in line


# The task


def test_images_are_turned_counterclockwise():
    image = np.array([[1, 2], [3, 4]])
    assert turned(np.stack([image] * 4), np.arange(4)).tolist() == [
        [[1, 2], [3, 4]],
        [[2, 4], [1, 3]],
        [[4, 3], [2, 1]],
        [[3, 1], [4, 2]],
    ]


def test_labels_tell_how_far_each_face_is_turned():
    upright = np.array([[1, 2], [3, 4]])[None, :, :, None]
    task = which_way_up(np.repeat(upright, 30, axis=0), seed=0)
    corner = {1: 0, 2: 1, 4: 2, 3: 3}
    for images, labels in [task[:2], task[2:]]:
        assert [corner[number] for number in images[:, 0, 0, 0]] == labels.tolist()


def test_no_face_is_both_trained_on_and_tested_on():
    faces = np.arange(100).repeat(4).reshape(100, 2, 2, 1)
    train, train_labels, test, test_labels = which_way_up(faces, seed=3)
    trained_on, tested_on = train[:, 0, 0, 0].tolist(), test[:, 0, 0, 0].tolist()
    assert np.bincount(train_labels).tolist() == [5] * 4
    assert np.bincount(test_labels).tolist() == [80] * 4
    assert len(set(trained_on)) == 20
    assert sorted(trained_on * 4 + tested_on) == sorted(list(range(100)) * 4)
    assert len(set(zip(tested_on, test_labels, strict=True))) == 320


def test_a_seed_picks_the_faces():
    faces = np.arange(100).repeat(4).reshape(100, 2, 2, 1)
    first, again, other = (which_way_up(faces, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_real_faces_keep_their_pixels_in_the_scale_of_rnet(photographs):
    assert photographs.faces.shape == photographs.others.shape == (100, 24, 24, 3)
    both = np.concatenate(photographs)
    assert both.min() == np.float32(-127.5 / 128)
    assert both.max() == np.float32(127.5 / 128)


# Training


def moved(layer: str, before, after) -> float:
    return float(np.linalg.norm(after[layer]["kernel"] - before[layer]["kernel"]))


@pytest.fixture(scope="module")
def trains():
    return make_train(UNIFORM), make_train(MULTIPLIERS)


def test_the_first_step_is_as_large_as_the_multiplier_says(rnet, photographs, trains):
    network = _experiment.new_network(rnet, seed=0)
    task = which_way_up(photographs.faces, seed=0)
    uniform, multiplied = (train(network, task, 1e-2, 1) for train in trains)
    shares = {
        layer: moved(layer, network, multiplied) / moved(layer, network, uniform)
        for layer in network
    }
    assert shares == pytest.approx(MULTIPLIERS, rel=1e-3)


def test_training_learns_and_leaves_the_stem_near_where_it_was(
    rnet, photographs, trains
):
    network = _experiment.new_network(rnet, seed=0)
    task = which_way_up(photographs.faces, seed=0)
    uniform, multiplied = (train(network, task, 3e-3, 30) for train in trains)
    assert moved("conv1", network, multiplied) < moved("conv1", network, uniform) / 5
    assert _experiment.accuracy_on(task, network) < 0.5
    assert _experiment.accuracy_on(task, multiplied) > 0.9


def small_logits(params, images):
    """A network small enough to compile at once."""
    return images[:, 8, 8:11, 0] @ sum(layer["kernel"] for layer in params.values())


def small_network():
    return {layer: {"kernel": jnp.zeros((3, 4))} for layer in MULTIPLIERS}


def test_multipliers_of_one_are_plain_amsgrad(monkeypatch, photographs):
    def loss(params):
        logs = jax.nn.log_softmax(small_logits(params, task.train_images))
        return -jnp.mean(logs[jnp.arange(20), task.train_labels])

    task = which_way_up(photographs.faces, seed=0)
    plain, params = optax.amsgrad(0.3), small_network()
    state = plain.init(params)
    for _ in range(10):
        updates, state = plain.update(jax.grad(loss)(params), state)
        params = jax.tree.map(jnp.add, params, updates)
    monkeypatch.setattr(_experiment, "logits", small_logits)
    trained = make_train(UNIFORM)(small_network(), task, 0.3, 10)
    assert np.allclose(trained["head"]["kernel"], params["head"]["kernel"], rtol=1e-4)


def test_one_compilation_serves_all_learning_rates(monkeypatch, photographs):
    traces = []

    def counted(params, images):
        traces.append(images.shape)
        return small_logits(params, images)

    monkeypatch.setattr(_experiment, "logits", counted)
    train = make_train(MULTIPLIERS)
    for seed, rate in enumerate(_experiment.LEARNING_RATES):
        train(small_network(), which_way_up(photographs.faces, seed), rate, 2)
    assert traces == [(20, 24, 24, 3)]


def test_each_run_lands_in_its_own_place(monkeypatch, rnet, photographs):
    def make_fake_train(table):
        return lambda seed, task, rate, steps: steps * table["conv1"] * rate + seed

    monkeypatch.setattr(_experiment, "make_train", make_fake_train)
    monkeypatch.setattr(_experiment, "new_network", lambda rnet, seed: seed)
    monkeypatch.setattr(_experiment, "accuracy_on", lambda task, trained: trained)
    results = _experiment.compare(rnet, photographs.faces, seeds=3, steps=7)
    rates, seeds = np.array([[3e-4], [1e-3], [3e-3], [1e-2]]), np.arange(3)
    assert results.learning_rates == (3e-4, 1e-3, 3e-3, 1e-2)
    assert results.uniform == pytest.approx(7 * rates + seeds)
    assert results.multiplied == pytest.approx(7 * 0.03 * rates + seeds)


# The report

RATES = (0.001, 0.01)
LEVEL = [[0.90, 0.91, 0.92], [0.90, 0.91, 0.92]]
DROPS = [[0.90, 0.91, 0.92], [0.70, 0.71, 0.73]]
STARTS_LOW = [[0.70, 0.71, 0.73], [0.90, 0.91, 0.92]]
STARTS_HIGH = [[0.95, 0.96, 0.98], [0.70, 0.71, 0.73]]
HIGHER = [[0.95, 0.96, 0.98], [0.95, 0.96, 0.98]]
NOISY = [[0.88, 0.95, 0.91], [0.93, 0.89, 0.92]]


def made_up(uniform, multiplied) -> Results:
    return Results(RATES, np.array(uniform), np.array(multiplied))


TOLERANCE = "tolerance of a large learning rate"
NO_DIFFERENCE = "make no clear difference here, at the largest rate or the best."
LARGEST = "accuracy at the largest learning rate"


@pytest.mark.parametrize(
    ("uniform", "multiplied", "conclusion"),
    [
        (DROPS, LEVEL, f"buy {TOLERANCE} here, not a higher best accuracy."),
        (DROPS, HIGHER, f"buy {TOLERANCE} and a higher best accuracy here."),
        (LEVEL, HIGHER, f"buy {LARGEST} and a higher best accuracy here."),
        (STARTS_HIGH, LEVEL, f"buy {TOLERANCE} here, and pay for it in best accuracy."),
        (HIGHER, LEVEL, f"lose {LARGEST} and best accuracy here."),
        (LEVEL, DROPS, f"lose {LARGEST} here."),
        (LEVEL, NOISY, NO_DIFFERENCE),
        (LEVEL, LEVEL, NO_DIFFERENCE),
        (LEVEL, STARTS_LOW, NO_DIFFERENCE),
    ],
)
def test_the_verdict_follows_the_numbers(uniform, multiplied, conclusion):
    found = _verdict.verdict(made_up(uniform, multiplied))
    assert found.endswith(f". So multipliers {conclusion}")


def test_a_verdict_in_full():
    assert _verdict.verdict(made_up(DROPS, LEVEL)) == (
        "At the largest learning rate multipliers are ahead (+0.197 ± 0.003). "
        "From rate to rate their mean accuracy varies by 0.000, that of the "
        "uniform rate by 0.197. "
        "Each at its best rate in hindsight, multipliers make no clear difference "
        "(+0.000 ± 0.000, within two standard errors). "
        "So multipliers buy tolerance of a large learning rate here, "
        "not a higher best accuracy."
    )


def test_the_verdict_names_the_rates_at_which_multipliers_are_behind():
    found = _verdict.verdict(made_up(LEVEL, STARTS_LOW))
    assert "They are behind at the rate 0.001." in found
    assert "behind" not in _verdict.verdict(made_up(DROPS, LEVEL))


def test_one_seed_claims_nothing():
    one = made_up([[0.9], [0.5]], [[0.9], [0.9]])
    assert _verdict.verdict(one).startswith("One seed has no standard error")


def test_a_difference_is_paired():
    found = _verdict.difference(np.array([0.3, 0.7, 0.9]), np.array([0.2, 0.5, 0.9]))
    assert found == pytest.approx((0.1, 0.1 / 3**0.5))
    assert not found.is_clear


def test_the_table_in_full():
    assert _report.table(made_up(DROPS, HIGHER)) == (
        "learning rate           0.001            0.01\n"
        "uniform rate    0.910 ± 0.010   0.713 ± 0.015\n"
        "multipliers     0.963 ± 0.015   0.963 ± 0.015\n"
        "difference     +0.053 ± 0.003  +0.250 ± 0.000"
    )


def test_the_figure_shows_both_strategies_with_error_bars():
    axes = _report.figure(made_up(DROPS, HIGHER)).axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "learning rate (log scale)"
    assert axes.get_ylabel() == "accuracy on unseen faces"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.001", "0.01"]
    bars = [drawn for drawn in axes.containers if isinstance(drawn, ErrorbarContainer)]
    uniform, multiplied = bars
    assert [drawn.has_yerr for drawn in bars] == [True, True]
    assert [drawn.get_label() for drawn in bars] == ["uniform rate", "multipliers"]
    assert uniform.lines[0].get_ydata() == pytest.approx([0.91, 0.71333], abs=1e-4)
    assert multiplied.lines[0].get_ydata() == pytest.approx([0.96333] * 2, abs=1e-4)


# All of it


def test_a_short_run_from_end_to_end(tmp_path, capsys):
    output = tmp_path / "figure.png"
    assert _demo.run(output, seeds=1, steps=2) == 0
    printed = capsys.readouterr()
    assert "no training: accuracy 1.000." in printed.out
    assert "mean ± standard deviation over seeds (n = 1)." in printed.out
    assert "conv1/kernel  (3, 3, 3, 28)   'conv1'        0.03\n" in printed.out
    assert "\nlearning rate          0.0003 " in printed.out
    assert "\ndifference " in printed.out
    assert f"Figure: {output}\n" in printed.out
    assert printed.out.endswith("cannot tell the strategies apart.\n")
    assert "8/8" in printed.err
    content = output.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000
