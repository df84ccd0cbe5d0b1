"""The experiment: R-Net fine-tuned with one rate, and with a multiplier per layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import jax
import numpy as np
import optax

import optax_lrmult
from optax_lrmult._demo._photographs import QUARTERS, Task, which_way_up
from optax_lrmult._demo._rnet import Params, accuracy, logits, with_new_head

MULTIPLIERS = {"conv1": 0.03, "conv2": 0.06, "conv3": 0.1, "fc4": 0.3, "head": 1.0}
UNIFORM = dict.fromkeys(MULTIPLIERS, 1.0)
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)

Train = Callable[[Params, Task, float, int], Params]
"""From parameters, a task, a learning rate and steps to the trained parameters."""


@dataclass(frozen=True)
class Results:
    """Accuracies of two strategies on unseen faces, each `(learning rate, seed)`.

    Seed i is the same task and the same new head in both, so they can be paired.
    """

    learning_rates: Sequence[float]
    uniform: np.ndarray
    multiplied: np.ndarray


def new_network(rnet: Params, seed: int) -> Params:
    """R-Net with a random head for the four ways a face can be turned."""
    return with_new_head(rnet, QUARTERS, jax.random.key(seed))


def make_train(multipliers: Mapping[str, float]) -> Train:
    """A function that trains with AMSGrad, compiled once for all learning rates."""

    def optimizer(learning_rate: float) -> optax.GradientTransformationExtraArgs:
        return optax_lrmult.adam(learning_rate, amsgrad=True, multipliers=multipliers)

    @jax.jit
    def step(
        params: Params,
        opt_state: optax.OptState,
        learning_rate: float,
        images: jax.Array,
        labels: jax.Array,
    ) -> tuple[optax.Params, optax.OptState]:
        grads = jax.grad(_loss)(params, images, labels)
        updates, opt_state = optimizer(learning_rate).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def train(params: Params, task: Task, learning_rate: float, steps: int) -> Params:
        opt_state = optimizer(learning_rate).init(params)
        images, labels = jax.device_put((task.train_images, task.train_labels))
        # A loop in Python: XLA runs convolutions in lax.scan much slower on a CPU.
        for _ in range(steps):
            params, opt_state = step(params, opt_state, learning_rate, images, labels)
        return params

    return train


def _loss(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    predicted = logits(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(predicted, labels).mean()


def compare(rnet: Params, faces: np.ndarray, seeds: int, steps: int) -> Results:
    """Trains with both strategies at each rate, seed by seed, behind a progress bar.

    Args:
      rnet: the pretrained network.
      faces: upright faces in the form that R-Net takes.
      seeds: how often to repeat, with other training faces and another new head.
      steps: how many steps each run takes.

    Returns:
      The accuracies on the faces not trained on.
    """
    from tqdm import tqdm

    tasks = [which_way_up(faces, seed) for seed in range(seeds)]
    runs = list(product(LEARNING_RATES, range(seeds)))
    with tqdm(total=2 * len(runs), desc="Training", unit="run") as bar:

        def accuracies(multipliers: Mapping[str, float]) -> np.ndarray:
            train, found = make_train(multipliers), []
            for rate, seed in runs:
                trained = train(new_network(rnet, seed), tasks[seed], rate, steps)
                found.append(accuracy_on(tasks[seed], trained))
                bar.update()
            return np.reshape(found, (len(LEARNING_RATES), seeds))

        return Results(LEARNING_RATES, accuracies(UNIFORM), accuracies(MULTIPLIERS))


def accuracy_on(task: Task, params: Params) -> float:
    """The share of the unseen faces whose turn the network tells right."""
    return float(accuracy(params, task.test_images, task.test_labels))
