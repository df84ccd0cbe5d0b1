"""Multipliers and learning rates as figures; a call that draws imports matplotlib."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optax_lrmult.core.columns import column
from optax_lrmult.core.names import ParamLabels, PyTree
from optax_lrmult.core.rules import RulesLike
from optax_lrmult.core.values import Schedule, at_step, is_schedule
from optax_lrmult.report.folding import folded
from optax_lrmult.report.rates import entries_of
from optax_lrmult.report.table import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers tell apart, without the yellow.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_GREY = "#8a8a8a"
_RED, _BLUE, _ORANGE = "#d55e00", "#0072b2", "#e69f00"
_MOST_NUMBERS, _MOST_NAMES = 40, 16
_MOST_SAMPLES = 200


def plot_multipliers(
    params: PyTree,
    multipliers: RulesLike,
    *,
    param_labels: ParamLabels = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """A bar for each rule, from 1 to its multiplier on a log axis.

    Rules stand in the order of their table, which for `layer_decay` is the depth from
    the stem to the head. Slower than 1 is blue and to the left, faster is orange and to
    the right, and a negative multiplier is red, at its size. A multiplier of 0, which a
    log axis can't hold, is hatched down to the end of the axis. A schedule is drawn as
    it is at step 0, and a `per_layer` has a bar for each layer.

    Args:
      params: a pytree of arrays, or of their shapes from `jax.eval_shape`.
      multipliers: a table of rules; see `Rules`.
      param_labels: the names, if not those of `path_labels`.
      ax: matplotlib axes to draw on; those of a new figure, if none are given.

    Returns:
      The axes.

    Example:
      >>> params = {f"block_{i}": np.ones(2) for i in range(3)}
      >>> ax = plot_multipliers(params, {"block_0": 0.1, "block_1": 0.5})
      >>> [label.get_text() for label in ax.get_yticklabels()]
      ['block_0', 'block_1', '(no rule)']
      >>> [f"{bar.get_x() + bar.get_width():.3g}" for bar in ax.patches]
      ['0.1', '0.5', '1']
    """
    table = column("multipliers", multipliers, param_labels)
    entries = entries_of(table.rules, table.rows(params), each_layer=True)
    values = [_curve(value, [0])[0] for value, _ in entries.values()]
    ax = _axes(ax, min(8.0, 1.3 + 0.22 * len(values)), "Multiplier of each rule")
    sizes = [1.0, *(abs(value) for value in values if value)]
    lowest, highest = min(sizes) / 2, max(sizes) * 2
    # Numbers stand to the right of the bars, and of the line at 1.
    every = math.ceil(len(values) / _MOST_NUMBERS) or 1
    for row, (value, entry) in enumerate(zip(values, entries.values(), strict=True)):
        colour = _BLUE if abs(value) < 1 else _ORANGE
        end = abs(value) or lowest
        ax.barh(row, end - 1, left=1, color=colour if value > 0 else _RED)
        if not value:
            ax.patches[-1].set(facecolor="none", edgecolor=_GREY, hatch="////")
        if every == 1:
            text = f" {value:.3g}{' at step 0' if is_schedule(entry[0]) else ''}"
            ax.text(max(end, 1), row, text, va="center", fontsize="small")
    ax.axvline(1, color="0.5", linewidth=0.8)
    ax.set(xscale="log", xlim=(lowest, highest), xlabel="multiplier (log scale)")
    ax.xaxis.set_major_formatter("{x:g}")
    names = [_written(key) for key in entries]
    ax.set_yticks(range(0, len(names), every), names[::every])
    ax.set_ylim(len(names) - 0.4, -0.6)
    return ax


def plot_schedule(
    params: PyTree,
    multipliers: RulesLike,
    learning_rate: float | Schedule,
    steps: int,
    *,
    param_labels: ParamLabels = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """The learning rate of each rule over training, on a log axis.

    Lines are those of `learning_rates`. Rules whose texts differ in a number have one
    colour and one name, the later the stronger. A negative rate is dashed, at its size.
    A rate that is 0 throughout, which a log axis can't hold, is named at the bottom.

    Args:
      params: a pytree of arrays, or of their shapes from `jax.eval_shape`.
      multipliers: a table of rules; see `Rules`.
      learning_rate: a number or a schedule.
      steps: how many steps the training has.
      param_labels: the names, if not those of `path_labels`.
      ax: matplotlib axes to draw on; those of a new figure, if none are given.

    Returns:
      The axes.

    Example:
      >>> params = {"stem": np.ones(3), "head": np.ones(3)}
      >>> ax = plot_schedule(params, {"stem": 0.25}, lambda step: 1 / (1 + step), 10)
      >>> for line in ax.lines:
      ...     print(line.get_label(), line.get_ydata()[[0, -1]])
      stem [0.25  0.025]
      (no rule) [1.  0.1]
    """
    table = column("multipliers", multipliers, param_labels)
    entries = entries_of(table.rules, table.rows(params), each_layer=True)
    at = np.unique(np.linspace(0, steps - 1, min(steps, _MOST_SAMPLES)).astype(int))
    base = _curve(learning_rate, at)
    curves = {key: _curve(value, at) * base for key, (value, _) in entries.items()}
    ax = _axes(ax, 3.8, "Learning rate of each rule")
    colours, still, ends = itertools.cycle(_COLOURS), [], []
    moves = [bool(rates.any()) for rates in curves.values()]
    for text, places in folded(list(curves), alike=moves):
        keys, name = [list(curves)[place] for place in places], _written(text)
        if not moves[places[0]]:
            still.append(name)
            continue
        colour = _GREY if keys == ["(no rule)"] else next(colours)
        for number, key in enumerate(keys, 1):
            style = "--" if curves[key].min() < 0 else "-"
            alpha = 0.3 + 0.7 * number / len(keys)
            ax.plot(at, abs(curves[key]), style, color=colour, alpha=alpha, label=key)
            ax.lines[-1].set_marker("o" if len(at) == 1 else "")
        middle = abs(curves[keys[len(keys) // 2]])
        ends.append((middle[-1], middle.max(), name, colour))
    peaks = [peak for _, peak, _, _ in ends] or [1.0]
    ax.set(yscale="log", ylim=(min(peaks) / 20, max(peaks) * 1.5))
    ax.set(xlabel="step", ylabel="learning rate", xlim=(0, max(1, steps - 1)))
    if still:
        text = f"always 0: {', '.join(still)}"
        ax.text(0.01, 0.02, text, transform=ax.transAxes, color=_GREY)
    _name_lines(ax, sorted(ends))
    return ax


def _name_lines(ax: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names behind the lines, the lowest first, apart from each other."""
    ends = ends[:: math.ceil(len(ends) / _MOST_NAMES) or 1]
    gap, (bottom, top) = 1 / _MOST_NAMES, np.log(ax.get_ylim())
    heights = [(np.log(max(end, 1e-99)) - bottom) / (top - bottom) for end, *_ in ends]
    for i, (_, _, name, colour) in enumerate(ends):
        lowest = heights[i - 1] + gap if i else 0.0
        # Never so high that those above it leave the axes.
        heights[i] = min(max(heights[i], lowest), 1 - gap * (len(ends) - 1 - i))
        at = 1.02, heights[i]
        ax.text(*at, name, color=colour, va="center", transform=ax.transAxes)


def _axes(ax: "Axes | None", height: float, title: str) -> "Axes":
    from matplotlib import pyplot

    if ax is None:
        _, ax = pyplot.subplots(figsize=(6.4, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(title, loc="left", fontsize="medium")
    return ax


def _curve(value: Any, steps: Iterable[int]) -> np.ndarray:
    """The value at each of the steps."""
    if is_schedule(value):
        return np.array([float(at_step(value, step)) for step in steps])
    return np.array([float(value) for _ in steps])


def _written(text: str) -> str:
    """A text that matplotlib shows as it is: no formula, and not too wide."""
    return shortened(text, 28).replace("$", r"\$")
