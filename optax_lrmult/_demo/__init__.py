"""The demo: a pretrained network learns a new task, with and without multipliers."""

import os
import sys
import textwrap
from importlib import util
from pathlib import Path

import jax
import numpy as np

import optax_lrmult
from optax_lrmult._demo._experiment import MULTIPLIERS, Results, compare, new_network
from optax_lrmult._demo._photographs import Photographs, load_photographs
from optax_lrmult._demo._report import figure, table
from optax_lrmult._demo._rnet import Params, accuracy, load_rnet
from optax_lrmult._demo._verdict import verdict

_PACKAGES = {
    "joblib": "joblib",
    "lz4": "lz4",
    "matplotlib": "matplotlib",
    "mtcnn": "mtcnn==1.0.0",
    "skimage": "scikit-image",
    "tqdm": "tqdm",
}


def run(
    output: str | Path = "optax_lrmult_demo.png", seeds: int = 5, steps: int = 60
) -> int:
    """Fine-tunes R-Net on real photographs, prints what came out and draws a figure.

    Args:
      output: where the figure goes, a path that ends in `.png`.
      seeds: how often each training is repeated.
      steps: how many steps each training takes.

    Returns:
      The exit status: 0, or 1 after a line on stderr that says what is wrong.
    """
    path = Path(output)
    try:
        rnet, photographs = _prepare(path, seeds, steps)
    except (ImportError, OSError, ValueError) as error:
        return _refuse(error)
    _show_zero_shot(rnet, photographs)
    _show_task(new_network(rnet, seed=0))
    results = compare(rnet, photographs.faces, seeds, steps)
    try:
        _show_results(results, path)
    except OSError as error:
        return _refuse(error)
    return 0


def _prepare(path: Path, seeds: int, steps: int) -> tuple[Params, Photographs]:
    """Finds what is wrong before the training, then loads what it needs."""
    _check_numbers(seeds, steps)
    _check_packages()
    _check_path(path)
    return load_rnet(), load_photographs()


def _refuse(error: Exception) -> int:
    reason = " ".join(str(error).split())
    print(f"optax_lrmult demo: {reason}", file=sys.stderr)
    return 1


def _show_zero_shot(rnet: Params, photographs: Photographs) -> None:
    size = sum(leaf.size for leaf in jax.tree.leaves(rnet))
    faces, others = photographs
    images = np.concatenate([faces, others])
    labels = np.repeat([1, 0], [len(faces), len(others)])
    right = float(accuracy(rnet, images, labels))
    print(f"R-Net of MTCNN, pretrained: {size:,} parameters, sha256 as expected.")
    print(f"Photographs: {len(faces)} of faces, {len(others)} of something else.")
    print(f"Face or not, with R-Net's own head and no training: accuracy {right:.3f}.")


def _show_task(network: Params) -> None:
    print("\nA new task: which way up is the face? 4 ways, 5 training images of each.")
    print("R-Net gets a new head, and the lower a layer, the slower it learns:\n")
    optax_lrmult.preview(network, MULTIPLIERS).show()
    print("\nTraining with AMSGrad, with these multipliers and with a uniform rate.")


def _show_results(results: Results, path: Path) -> None:
    n = results.uniform.shape[1]
    print(
        f"\nAccuracy on unseen faces: mean ± standard deviation over seeds (n = {n})."
    )
    print("Difference: multipliers minus uniform, paired by seed, ± standard error.")
    print(f"\n{table(results)}\n")
    figure(results).savefig(path, dpi=150)
    print(f"Figure: {path}\n")
    print(textwrap.fill(verdict(results), width=80))


def _check_numbers(seeds: int, steps: int) -> None:
    if seeds < 1 or steps < 1:
        raise ValueError(f"seeds and steps start at 1, got {seeds} and {steps}")


def _check_packages() -> None:
    missing = [module for module in _PACKAGES if not util.find_spec(module)]
    if missing:
        remedy = " ".join(_PACKAGES[module] for module in missing)
        raise ImportError(
            f"not installed: {', '.join(missing)}. Try: pip install {remedy}"
        )


def _check_path(path: Path) -> None:
    """Tells now what saving the figure would tell after a minute of training."""
    if path.suffix.lower() != ".png" and not path.is_dir():
        raise ValueError(f"the figure is a PNG, but the path is {str(path)!r}")
    is_new = not os.path.lexists(path)
    try:
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise OSError(f"cannot write {str(path)!r}: {error.strerror}") from error
