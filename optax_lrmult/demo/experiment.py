"""The experiment: R-Net fine-tuned with one rate, and with a multiplier per layer."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import optax_lrmult as olm
from optax_lrmult.demo.rnet import Params, accuracy, logits, with_new_head

QUARTERS = 4
"""The classes of the task: turned by 0, 90, 180 and 270 degrees."""
MULTIPLIERS = {"conv1": 0.03, "conv2": 0.06, "conv3": 0.1, "fc4": 0.3, "head": 1.0}
"""Chosen by hand: each layer two to three times as slow as the one above it."""
UNIFORM = dict.fromkeys(MULTIPLIERS, 1.0)
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
Step = Callable[..., tuple[Any, optax.OptState]]


class Task(NamedTuple):
    """Turned faces to learn from, and turned faces of others to be tested on."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class Results(NamedTuple):
    """Accuracies of two strategies on unseen faces, each `(learning rate, seed)`.

    Seed i is the same task and the same new head in both, so they can be paired.
    """

    learning_rates: Sequence[float]
    uniform: np.ndarray
    multiplied: np.ndarray


def load_faces() -> np.ndarray:
    """100 faces of "Labeled Faces in the Wild", `(100, 24, 24, 3)` in [-1, 1].

    They come with scikit-image, cut and scaled as R-Net saw faces in its training:
    https://github.com/ipazc/mtcnn takes (x - 127.5) / 128 of a byte x.
    """
    from skimage.data import lfw_subset

    gray = lfw_subset()[:100, :24, :24, None]
    return np.repeat((255 * gray - 127.5) / 128, 3, axis=-1).astype(np.float32)


def which_way_up(faces: np.ndarray, seed: int, per_class: int = 5) -> Task:
    """Each training image is another face, turned one of four ways.

    Each of the other faces is in the test set four times, turned all four ways.
    """
    order = np.random.default_rng(seed).permutation(len(faces))
    known, unseen = np.split(order, [QUARTERS * per_class])
    train_labels = np.repeat(np.arange(QUARTERS), per_class)
    test_labels = np.repeat(np.arange(QUARTERS), len(unseen))
    return Task(
        train_images=_turned(faces[known], train_labels),
        train_labels=train_labels,
        test_images=_turned(faces[np.tile(unseen, QUARTERS)], test_labels),
        test_labels=test_labels,
    )


def _turned(images: np.ndarray, quarters: np.ndarray) -> np.ndarray:
    pairs = zip(images, quarters, strict=True)
    return np.stack([np.rot90(image, quarter) for image, quarter in pairs])


def new_network(rnet: Params, seed: int) -> Params:
    """R-Net with a random head for the four ways a face can be turned."""
    return with_new_head(rnet, QUARTERS, jax.random.key(seed))


def compare(rnet: Params, faces: np.ndarray, seeds: int, steps: int) -> Results:
    """Trains with both strategies at each rate, seed by seed, behind a progress bar."""
    from tqdm import tqdm

    tasks = [which_way_up(faces, seed) for seed in range(seeds)]
    runs = list(product(LEARNING_RATES, range(seeds)))
    accuracies: list[np.ndarray] = []
    with tqdm(total=2 * len(runs), desc="Training", unit="run") as bar:
        for multipliers in UNIFORM, MULTIPLIERS:
            step, found = _make_step(multipliers), []
            for rate, seed in runs:
                trained = _train(
                    step, new_network(rnet, seed), tasks[seed], rate, steps
                )
                task = tasks[seed]
                found.append(
                    float(accuracy(trained, task.test_images, task.test_labels))
                )
                bar.update()
            accuracies.append(np.reshape(found, (len(LEARNING_RATES), seeds)))
    return Results(LEARNING_RATES, *accuracies)


def _make_step(multipliers: Mapping[str, float]) -> Step:
    """A training step, compiled once for all learning rates."""

    @jax.jit
    def step(
        params: Params,
        opt_state: optax.OptState,
        learning_rate: jax.Array,
        images: jax.Array,
        labels: jax.Array,
    ) -> tuple[Any, optax.OptState]:
        def loss(params: Params) -> jax.Array:
            predicted = logits(params, images)
            return optax.softmax_cross_entropy_with_integer_labels(
                predicted, labels
            ).mean()

        tx = olm.adam(learning_rate, amsgrad=True, multipliers=multipliers)
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return step


def _train(
    step: Step, params: Params, task: Task, learning_rate: float, steps: int
) -> Params:
    opt_state = olm.adam(learning_rate, amsgrad=True).init(params)
    images, labels = jax.device_put((task.train_images, task.train_labels))
    # A loop in Python: XLA runs convolutions in lax.scan much slower on a CPU.
    for _ in range(steps):
        params, opt_state = step(params, opt_state, learning_rate, images, labels)
    return params
