"""The README's first command: a pretrained network learns a new task."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import optax_lrmult as olm
from optax_lrmult.demo.experiment import (
    LEARNING_RATES,
    MULTIPLIERS,
    Results,
    compare,
    load_faces,
    new_network,
)
from optax_lrmult.demo.rnet import load_rnet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TASK = """\
R-Net is the second of the three small networks of MTCNN, a face detector. Pretrained,
it tells a face from something else. Here it learns which way up a face is, from 20
photographs (five for each of four ways), with a new head. The multipliers are chosen by
hand: each layer is about two to three times as slow as the one above it."""


def run(output: Path, seeds: int = 5, steps: int = 60) -> None:
    """Fine-tunes R-Net on real photographs, prints what came out and draws a figure.

    Args:
      output: where the figure goes.
      seeds: how often each training is repeated.
      steps: how many steps each training takes.
    """
    if seeds < 1 or steps < 1 or output.suffix != ".png":
        raise ValueError("Seeds and steps start at 1, and the output ends in .png.")
    try:
        from matplotlib.figure import Figure

        rnet, faces = load_rnet(), load_faces()
    except ImportError as error:
        raise ImportError(f"{error}: install the extra 'demo'") from None
    output.open("ab").close()  # What is wrong with it is told before the training.
    print(f"{_TASK}\n\nR-Net with a new head:\n")
    olm.preview(new_network(rnet, seed=0), MULTIPLIERS).show()
    rates = ", ".join(f"{rate:g}" for rate in LEARNING_RATES)
    print(f"\nAMSGrad trains at the rates {rates}: one rate for all, then multipliers.")
    print("With 5 seeds and 60 steps this takes about a minute on two busy cores.")
    results = compare(rnet, faces, seeds, steps)
    print(f"\n{textwrap.fill(verdict(results), 88)}\n")
    print(f"Accuracy on unseen faces: mean ± standard deviation, {seeds} seeds.\n")
    print(f"{table(results)}\n")
    drawing = Figure(figsize=(7, 4.5), layout="constrained")
    draw(results, drawing.add_subplot())
    drawing.savefig(output, dpi=150)
    print(f"Figure: {output}")


def verdict(results: Results) -> str:
    """What the numbers say: how much a large rate costs, and the difference at best."""
    means = [100 * a.mean(axis=1) for a in (results.uniform, results.multiplied)]
    losses = [mean.max() - mean[-1] for mean in means]
    best = [a[a.mean(axis=1).argmax()] for a in (results.uniform, results.multiplied)]
    gains = 100 * (best[1] - best[0])
    error = "" if len(gains) < 2 else f" ± {gains.std(ddof=1) / len(gains) ** 0.5:.1f}"
    return (
        f"At the rate {results.learning_rates[-1]:g}, one rate for all layers is "
        f"{losses[0]:.1f} points of accuracy below its best rate, and multipliers are "
        f"{losses[1]:.1f} points below theirs. Each at its best rate, multipliers are "
        f"ahead by {gains.mean():.1f}{error} points (paired by seed, ± standard error)."
    )


def table(results: Results) -> str:
    """Mean and standard deviation of each strategy at each learning rate, as text."""
    rows = [
        ("learning rate", [f"{rate:g}" for rate in results.learning_rates]),
        ("one rate", [_spread(a) for a in results.uniform]),
        ("multipliers", [_spread(a) for a in results.multiplied]),
    ]
    return "\n".join(
        f"{name:<13}" + "".join(f"{cell:>16}" for cell in cells) for name, cells in rows
    )


def draw(results: Results, axes: "Axes") -> None:
    """Accuracy against learning rate, both strategies with error bars."""
    rates = np.asarray(results.learning_rates)
    curves = {"one rate for all layers": (0.97, results.uniform, "#d55e00", "s--")}
    curves["multipliers"] = (1.03, results.multiplied, "#0072b2", "o-")
    for label, (shift, values, color, fmt) in curves.items():
        bars = [_deviation(of_seeds) for of_seeds in values]
        mean = values.mean(axis=1)  # Side by side, or one error bar hides the other.
        axes.errorbar(
            shift * rates, mean, bars, label=label, color=color, fmt=fmt, capsize=4
        )
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    axes.set_xlabel("learning rate (log scale)")
    axes.set_ylabel("accuracy on unseen faces")
    axes.set_title("Which way up is the face? R-Net fine-tuned on 20 photographs")
    title = f"mean ± standard deviation, {results.uniform.shape[1]} seeds"
    axes.legend(title=title, loc="best", frameon=False, alignment="left")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _deviation(values: np.ndarray) -> float:
    """The standard deviation; 0 of a single value, which has none."""
    return float(values.std(ddof=1)) if values.size > 1 else 0.0


def _spread(accuracies: np.ndarray) -> str:
    mean = f"{accuracies.mean():.3f}"
    return mean if len(accuracies) < 2 else f"{mean} ± {_deviation(accuracies):.3f}"
