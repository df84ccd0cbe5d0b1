"""A table as a picture: bars for its multipliers, lines for its learning rates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from optax_lrmult.core.assignment import assign
from optax_lrmult.core.columns import column
from optax_lrmult.core.names import ParamLabels, PyTree
from optax_lrmult.core.rules import RulesLike
from optax_lrmult.core.values import at_step, is_number, is_schedule
from optax_lrmult.report.folding import folded_text
from optax_lrmult.report.rates import multipliers_by_rule
from optax_lrmult.report.table import shortened
from optax_lrmult.report.wording import number_text, rule_template

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers tell apart, without the yellow.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_GREY = "#8a8a8a"
_NO_RULE = "(no rule)"
_MOST_SAMPLES = 200


def plot_multipliers(
    params: PyTree,
    multipliers: RulesLike,
    *,
    param_labels: ParamLabels = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """A bar for each rule that takes a parameter, in the order of the table.

    The length of a bar is the size of the multiplier, on a log axis, and the number
    stands behind it. A log axis has no 0, so a frozen rule has a hatched bar across the
    whole axis. A schedule is drawn as it is at step 0. A `per_layer` has a bar for each
    slice. Rules that differ only in a number share a colour.

    Args:
      params: a pytree of arrays, or of their shapes from `jax.eval_shape`.
      multipliers: a table of rules; see `Rules`.
      param_labels: the names, if not those of `path_labels`.
      ax: matplotlib axes to draw on; those of a new figure if `None`.

    Returns:
      The axes. It needs matplotlib.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {f"block_{i}": jnp.ones(2) for i in range(3)}
      >>> ax = plot_multipliers(params, {"block_0": 0.01, "block_1": 0.1})
      >>> [(label.get_text(), float(bar.get_width()))
      ...  for label, bar in zip(ax.get_yticklabels(), ax.patches)]
      [('block_0', 0.01), ('block_1', 0.1), ('(no rule)', 1.0)]
    """
    values = _multipliers(params, multipliers, param_labels)
    axes = _axes(ax, min(8.0, 1.2 + 0.24 * len(values)))
    colours = _colours(list(values))
    numbers = {key: float(_over_training(v, [0])[0]) for key, v in values.items()}
    sizes = [abs(n) for n in numbers.values() if abs(n) > 0]
    low, high = min([1.0, *sizes]) / 3, max([1.0, *sizes]) * 4
    for row, (key, number) in enumerate(numbers.items()):
        is_still = not abs(number) > 0
        width = high if is_still else abs(number)
        (bar,) = axes.barh(row, width, color=colours[key], edgecolor=colours[key])
        if is_still:
            bar.set(facecolor="none", hatch="////")
        text = "0, frozen" if number == 0 else number_text(number)
        text = "traced" if np.isnan(number) else text
        text += " at step 0" if is_schedule(values[key]) else ""
        axes.annotate(
            text,
            (low if is_still else width, row),
            xytext=(4, 0),
            textcoords="offset points",
            verticalalignment="center",
            fontsize="small",
            bbox={"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1},
        )
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="0.5", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(numbers)), [_written(key) for key in numbers])
    axes.invert_yaxis()
    axes.set_xlabel("multiplier of the learning rate (log scale)")
    return axes


def plot_schedule(
    params: PyTree,
    multipliers: RulesLike,
    learning_rate: optax.ScalarOrSchedule,
    steps: int,
    *,
    param_labels: ParamLabels = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """The learning rate of each rule over training, on a log axis.

    There is a line for each key of `learning_rates`. Rules that differ only in a number
    share a colour, the later the stronger. A negative rate is a dashed line at its
    size. A log axis has no 0: a line that falls to 0 leaves the picture at the bottom,
    and a rule that is 0 throughout is a dotted line there.

    Args:
      params: a pytree of arrays, or of their shapes from `jax.eval_shape`.
      multipliers: a table of rules; see `Rules`.
      learning_rate: a number or a schedule.
      steps: the number of steps of the training.
      param_labels: the names, if not those of `path_labels`.
      ax: matplotlib axes to draw on; those of a new figure if `None`.

    Returns:
      The axes. It needs matplotlib.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"stem": jnp.ones(3), "head": jnp.ones(3)}
      >>> rate = optax.linear_schedule(1.0, 0.5, 10)
      >>> ax = plot_schedule(params, {"stem": 0.25}, rate, steps=11)
      >>> for line in ax.lines:
      ...     print(line.get_label(), line.get_ydata()[[0, -1]])
      stem [0.25 0.125]
      (no rule) [1. 0.5]
    """
    samples = np.unique(np.linspace(0, steps - 1, _MOST_SAMPLES).astype(int))
    values = _multipliers(params, multipliers, param_labels)
    base = _over_training(learning_rate, samples)
    curves = {key: _over_training(v, samples) * base for key, v in values.items()}
    axes = _axes(ax, 3.8)
    handles: dict[str, Any] = {}
    for index, (family, keys) in enumerate(_families(list(curves)).items()):
        thick = max(1.4, 3.4 - 0.3 * index)  # So that lines that coincide all show.
        for number, key in enumerate(keys, 1):
            rates = curves[key]
            style = {"color": _colours(list(curves))[key], "linewidth": thick}
            style |= {"label": key, "alpha": 0.35 + 0.65 * number / len(keys)}
            dashes = "--" if np.nanmin(rates, initial=0) < 0 else "-"
            if not np.any(rates):
                where, across = 0.015 + 0.02 * index, axes.get_xaxis_transform()
                level = np.full(len(samples), where)
                lines = axes.plot(samples, level, ":", transform=across, **style)
            else:
                lines = axes.plot(samples, abs(rates), dashes, **style)
            handles[family] = lines[0]
    sizes = [abs(r[np.isfinite(r)]).max(initial=0) for r in curves.values()]
    peaks = [size for size in sizes if size > 0] or [1.0]
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(min(peaks) / 20, max(peaks) * 2)
    axes.margins(x=0)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate (log scale)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(
        handles.values(),
        [_written(family) for family in handles],
        loc="lower left",
        bbox_to_anchor=(0, 1.02),
        ncols=2,
        frameon=False,
        borderaxespad=0,
        fontsize="small",
    )
    return axes


def _axes(ax: "Axes | None", height: float) -> "Axes":
    """The caller's axes, or those of a new figure, which a notebook then shows."""
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(6.4, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _multipliers(
    params: PyTree, multipliers: RulesLike, param_labels: ParamLabels
) -> dict[str, Any]:
    rules = column("multipliers", multipliers).rules
    rows = assign(params, rules, param_labels=param_labels)
    return multipliers_by_rule(rows, rules)


def _over_training(value: Any, steps: Sequence[int] | np.ndarray) -> np.ndarray:
    """A number or a schedule at each of the steps; NaN for a traced scalar."""
    if is_schedule(value):
        with jax.ensure_compile_time_eval():
            return np.array([float(at_step(value, int(step))) for step in steps])
    number = float(value) if is_number(value) or isinstance(value, int) else np.nan
    return np.full(len(steps), number)


def _families(keys: Sequence[str]) -> Mapping[str, list[str]]:
    """The keys that differ only in numbers, by one text for all of them."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(rule_template(key), []).append(key)
    return {folded_text(members): members for members in found.values()}


def _colours(keys: Sequence[str]) -> dict[str, str]:
    colours: dict[str, str] = {}
    for index, members in enumerate(_families(keys).values()):
        colour = _GREY if members == [_NO_RULE] else _COLOURS[index % len(_COLOURS)]
        colours |= dict.fromkeys(members, colour)
    return colours


def _written(text: str) -> str:
    """A text that matplotlib shows as it is: no formula, and not too wide."""
    return shortened(text, 34).replace("$", r"\$")
