"""What came out, as a table and as a figure."""

from typing import TYPE_CHECKING

import numpy as np

from optax_lrmult._demo._experiment import Results
from optax_lrmult._demo._verdict import deviation, differences, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def table(results: Results) -> str:
    """Mean and standard deviation of each strategy at each learning rate, as text."""
    rows = [
        ["learning rate", *(f"{rate:g}" for rate in results.learning_rates)],
        ["uniform rate", *map(_mean_and_deviation, results.uniform)],
        ["multipliers", *map(_mean_and_deviation, results.multiplied)],
        ["difference", *map(str, differences(results))],
    ]
    return "\n".join(
        f"{name:<13}" + "".join(f"{cell:>16}" for cell in cells)
        for name, *cells in rows
    )


def _mean_and_deviation(accuracies: np.ndarray) -> str:
    return with_error(accuracies.mean(), deviation(accuracies), "")


def figure(results: Results) -> "Figure":
    """Accuracy against learning rate, both strategies with error bars."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7, 4.5), layout="constrained")
    axes = drawing.add_subplot()
    rates = np.asarray(results.learning_rates)
    # Side by side, or one error bar would hide the other.
    _draw(axes, rates * 0.97, results.uniform, "uniform rate", "#d55e00", "s--")
    _draw(axes, rates * 1.03, results.multiplied, "multipliers", "#0072b2", "o-")
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    axes.set_xlabel("learning rate (log scale)")
    axes.set_ylabel("accuracy on unseen faces")
    axes.set_title("Which way up is the face? R-Net fine-tuned on 20 photographs")
    title = f"mean ± standard deviation over seeds (n = {results.uniform.shape[1]})"
    axes.legend(title=title, loc="best", frameon=False, alignment="left")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return drawing


def _draw(
    axes: "Axes", x: np.ndarray, values: np.ndarray, label: str, color: str, fmt: str
) -> None:
    y, bars = values.mean(axis=1), [deviation(of_seeds) for of_seeds in values]
    axes.errorbar(x, y, bars, label=label, color=color, fmt=fmt, capsize=4)
