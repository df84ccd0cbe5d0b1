"""What the numbers say: differences with their standard errors, and a verdict."""

import math
from typing import NamedTuple

import numpy as np

from optax_lrmult._demo._experiment import Results


class Difference(NamedTuple):
    """A mean difference, paired by seed, and its standard error (NaN of one seed)."""

    mean: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether the mean is more than two standard errors away from 0."""
        return abs(self.mean) > 2 * self.error

    @property
    def is_gain(self) -> bool:
        """Whether the difference is clear and above 0."""
        return self.is_clear and self.mean > 0

    @property
    def is_loss(self) -> bool:
        """Whether the difference is clear and below 0."""
        return self.is_clear and self.mean < 0

    def __str__(self) -> str:
        return with_error(self.mean, self.error, "+")


def difference(multiplied: np.ndarray, uniform: np.ndarray) -> Difference:
    """The difference of two strategies whose accuracies are given seed by seed."""
    paired = multiplied - uniform
    return Difference(float(paired.mean()), deviation(paired) / paired.size**0.5)


def differences(results: Results) -> list[Difference]:
    """Multipliers minus uniform rate at each learning rate."""
    pairs = zip(results.multiplied, results.uniform, strict=True)
    return [difference(multiplied, uniform) for multiplied, uniform in pairs]


def deviation(values: np.ndarray) -> float:
    """The standard deviation, NaN of a single value."""
    return float(values.std(ddof=1)) if values.size > 1 else float("nan")


def with_error(mean: float, error: float, sign: str) -> str:
    """A mean and its error as text, the mean alone where the error is unknown."""
    shown = f"{mean:{sign}.3f}"
    return shown if math.isnan(error) else f"{shown} ± {error:.3f}"


def verdict(results: Results) -> str:
    """What the numbers say, and no more than that, in a few sentences.

    A difference counts as clear if it is more than two standard errors.
    """
    if results.uniform.shape[1] < 2:
        return "One seed has no standard error, so it cannot tell the strategies apart."
    at_rates = dict(zip(results.learning_rates, differences(results), strict=True))
    at_largest = at_rates.pop(max(at_rates))
    at_best = difference(_at_best(results.multiplied), _at_best(results.uniform))
    range_, uniform_range = _range(results.multiplied), _range(results.uniform)
    behind = [f"{rate:g}" for rate, found in at_rates.items() if found.is_loss]
    sentences = [
        f"At the largest learning rate multipliers {_standing(at_largest)}.",
        f"From rate to rate their mean accuracy varies by {range_:.3f}, that of the",
        f"uniform rate by {uniform_range:.3f}.",
        f"Each at its best rate in hindsight, multipliers {_standing(at_best)}.",
        *([f"They are behind at the rate {' and '.join(behind)}."] if behind else []),
        _conclusion(at_largest, at_best, steadier=range_ < uniform_range),
    ]
    return " ".join(sentences)


def _at_best(accuracies: np.ndarray) -> np.ndarray:
    """The accuracies, seed by seed, at the rate with the highest mean."""
    return accuracies[accuracies.mean(axis=1).argmax()]


def _range(accuracies: np.ndarray) -> float:
    """How much the mean accuracy varies over the learning rates."""
    return float(np.ptp(accuracies.mean(axis=1)))


def _standing(found: Difference) -> str:
    if found.is_gain:
        return f"are ahead ({found})"
    if found.is_loss:
        return f"are behind ({found})"
    return f"make no clear difference ({found}, within two standard errors)"


def _conclusion(at_largest: Difference, at_best: Difference, steadier: bool) -> str:
    large = "tolerance of a large learning rate"
    if not steadier:
        large = "accuracy at the largest learning rate"
    gains = [large] * at_largest.is_gain + ["a higher best accuracy"] * at_best.is_gain
    losses = ["accuracy at the largest learning rate"] * at_largest.is_loss
    losses += ["best accuracy"] * at_best.is_loss
    bought, paid = " and ".join(gains), " and ".join(losses)
    if gains and losses:
        return f"So multipliers buy {bought} here, and pay for it in {paid}."
    if losses:
        return f"So multipliers lose {paid} here."
    if gains and not at_best.is_gain:
        return f"So multipliers buy {bought} here, not a higher best accuracy."
    if gains:
        return f"So multipliers buy {bought} here."
    return (
        "So multipliers make no clear difference here, at the largest rate or the best."
    )
