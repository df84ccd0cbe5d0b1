"""The effective learning rate of each rule over training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from optax_lrmult._multipliers import Assignment, assign
from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._plots._axes import Family, add_legend, axes_or_new, families_of
from optax_lrmult._rates import rates_of_rules
from optax_lrmult._rules import Rules, RulesLike
from optax_lrmult._values import as_scalar, is_schedule, is_static

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_MOST_SAMPLES = 200
_ROOM_BELOW = 20.0  # The smallest of the peaks, over the end of the axis.
_HEIGHT = 3.8
_THICKEST, _THINNEST = 3.4, 1.4  # Lines that coincide all show.


def plot_schedule(
    params: PyTree,
    multipliers: RulesLike,
    learning_rate: optax.ScalarOrSchedule,
    steps: int,
    *,
    param_labels: ParamLabels = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """The effective learning rate of each rule over training, on a log axis.

    A line for each entry of `learning_rates`; rules whose texts count up share a
    colour, the later the stronger. A negative rate is a dashed line at its size. A log
    axis has no 0: a line that falls to 0 leaves the picture at the bottom, and a rule
    that is 0 throughout is a dotted line there. A traced multiplier has an entry in the
    legend only.

    Args:
      params: a pytree of arrays, or of `jax.ShapeDtypeStruct`; no array is read.
      multipliers: a table of rules; see `Rules`.
      learning_rate: a real number or a schedule.
      steps: the number of steps of the training, at least 1.
      param_labels: the names, if not those of `path_labels`.
      ax: matplotlib axes to draw on; by default those of a new figure.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: a leaf is not an array, or a rule, the rate or `steps` is of a wrong
        type.
      ValueError: `steps` is less than 1, the rate is not finite, or what `assign`
        raises.

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
    _check(learning_rate, steps)
    rules = Rules(multipliers)
    rows = assign(params, rules, param_labels=param_labels)
    known = [row for row in rows if is_static(row.multiplier)]
    samples = np.unique(np.linspace(0, steps - 1, _MOST_SAMPLES).astype(int))
    with jax.ensure_compile_time_eval():
        at = [rates_of_rules(rules, known, learning_rate, int(s)) for s in samples]
        rates = {key: np.array([float(row[key]) for row in at]) for key in at[0]}
    ax = axes_or_new(ax, _HEIGHT)
    families = families_of(rates)
    widths = np.linspace(_THICKEST, _THINNEST, len(families))
    handles = [
        _draw(ax, samples, rates, family, index, width)
        for index, (family, width) in enumerate(zip(families, widths, strict=True))
    ]
    labels = [_label(family, rates) for family in families]
    for text in _traced(rows):
        handles += ax.plot([], [], color="none", label=text)
        labels.append(f"{text} (traced)")
    _finish(ax, samples, rates)
    add_legend(ax, handles, labels)
    return ax


def _check(learning_rate: Any, steps: Any) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
        raise TypeError(
            f"steps must be an integer, not {steps!r} ({type(steps).__name__})."
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}.")
    if not is_schedule(learning_rate) and not is_static(
        as_scalar(learning_rate, "learning_rate")
    ):
        raise TypeError(
            "plot_schedule draws numbers, but learning_rate is traced: call it outside "
            "of jit, with the number."
        )


def _traced(rows: Sequence[Assignment]) -> list[str]:
    texts = [r.rule.text for r in rows if r.rule and not is_static(r.multiplier)]
    return list(dict.fromkeys(texts))


def _draw(
    ax: "Axes",
    steps: np.ndarray,
    rates: Mapping[str, np.ndarray],
    family: Family,
    index: int,
    width: float,
) -> "Line2D":
    """The lines of a family, and the last of them."""
    lines = []
    for member, key in enumerate(family.members, 1):
        style = {
            "label": key,
            "color": family.colour,
            "linewidth": width,
            "alpha": 0.35 + 0.65 * member / len(family.members),
            "marker": "o" if len(steps) == 1 else "",
        }
        lines += _lines(ax, steps, rates[key], index, style)
    return lines[-1]


def _lines(
    ax: "Axes",
    steps: np.ndarray,
    rates: np.ndarray,
    index: int,
    style: dict[str, Any],
) -> list["Line2D"]:
    if not rates.any():
        level = np.full(len(steps), 0.015 + 0.02 * index)
        bottom = ax.get_xaxis_transform()
        return ax.plot(steps, level, linestyle=":", transform=bottom, **style)
    lines = []
    if (rates > 0).any():
        lines += ax.plot(steps, np.where(rates < 0, np.nan, rates), **style)
    if (rates < 0).any():
        size = np.where(rates > 0, np.nan, -rates)
        lines += ax.plot(steps, size, linestyle="--", **style)
    return lines


def _label(family: Family, rates: Mapping[str, np.ndarray]) -> str:
    values = [rates[key] for key in family.members]
    if not np.any(values):
        return f"{family.label} (0)"
    return f"{family.label} (negative)" if np.min(values) < 0 else family.label


def _finish(ax: "Axes", steps: np.ndarray, rates: Mapping[str, np.ndarray]) -> None:
    peaks = [np.abs(series).max() for series in rates.values() if series.any()]
    ax.set_yscale("log", nonpositive="clip")
    ax.set_ylim(min(peaks, default=1.0) / _ROOM_BELOW, max(peaks, default=1.0) * 2)
    ax.set_xlim(0, max(steps[-1], 1))
    ax.set_xlabel("step")
    ax.set_ylabel("effective learning rate")
    ax.grid(axis="y", alpha=0.3)
