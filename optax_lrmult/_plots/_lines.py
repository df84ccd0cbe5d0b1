"""The effective learning rate of each rule over training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from optax_lrmult._multipliers import assign
from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._plots._axes import Family, add_legend, axes_or_new, families_of
from optax_lrmult._rates import entries_of
from optax_lrmult._rules import Rules, RulesLike
from optax_lrmult._scaling import at_step
from optax_lrmult._values import as_scalar, is_schedule, is_static

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_MOST_SAMPLES = 200
_ROOM_BELOW = 20.0  # The smallest of the peaks, over the end of the axis.
_HEIGHT = 3.8
_THICKEST, _THINNEST = 3.4, 1.4


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
      ax: matplotlib axes to draw on; by default those of a new figure. The legend
        stands outside of them: make their figure with `layout="constrained"`.

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
    entries = entries_of(rules, assign(params, rules, param_labels=param_labels))
    samples = np.unique(np.linspace(0, steps - 1, _MOST_SAMPLES).astype(int))
    rate = _over_training(learning_rate, samples)
    rates: dict[str, dict[str, np.ndarray]] = {}
    for key, rule, multiplier in entries:
        rates.setdefault(rule, {})[key] = _over_training(multiplier, samples) * rate
    ax = axes_or_new(ax, _HEIGHT)
    families = families_of(rates)
    handles, labels = [], []
    for index, family in enumerate(families):
        curves = {k: r for rule in family.members for k, r in rates[rule].items()}
        style = _style(family, index / max(1, len(families) - 1), len(samples))
        handles.append(_draw(ax, samples, curves, 0.015 + 0.02 * index, style))
        labels.append(family.label + _remark(list(curves.values())))
    _finish(ax, samples, [r for curves in rates.values() for r in curves.values()])
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


def _over_training(value: Any, steps: np.ndarray) -> np.ndarray:
    """A number or a schedule at each of the steps; NaN for a traced scalar."""
    if not is_schedule(value):
        return np.full(len(steps), float(value) if is_static(value) else np.nan)
    with jax.ensure_compile_time_eval():
        return np.array([float(at_step(value, int(step))) for step in steps])


def _style(family: Family, progress: float, samples: int) -> dict[str, Any]:
    """The first families are thicker, so that lines that coincide all show."""
    return {
        "color": family.colour,
        "linewidth": _THICKEST + progress * (_THINNEST - _THICKEST),
        "marker": "o" if samples == 1 else "",
    }


def _draw(
    ax: "Axes",
    steps: np.ndarray,
    curves: Mapping[str, np.ndarray],
    bottom: float,
    style: Mapping[str, Any],
) -> "Line2D":
    """The lines of a family, the later the stronger; returns the last one."""
    lines = []
    for number, (key, rates) in enumerate(curves.items(), 1):
        strength = 0.35 + 0.65 * number / len(curves)
        own_style: dict[str, Any] = {**style, "label": key, "alpha": strength}
        if not rates.any():
            across = ax.get_xaxis_transform()
            level = np.full(len(steps), bottom)
            lines += ax.plot(steps, level, ":", transform=across, **own_style)
        if (rates < 0).any():
            size = np.where(rates > 0, np.nan, -rates)
            lines += ax.plot(steps, size, "--", **own_style)
        if (rates > 0).any() or np.isnan(rates).all():
            lines += ax.plot(steps, np.where(rates < 0, np.nan, rates), **own_style)
    return lines[-1]


def _remark(curves: Sequence[np.ndarray]) -> str:
    """What the legend says behind a name."""
    if np.isnan(curves).all():
        return " (traced)"
    if not np.any(curves):
        return " (0)"
    return " (negative)" if np.nanmin(curves) < 0 else ""


def _finish(ax: "Axes", steps: np.ndarray, curves: Sequence[np.ndarray]) -> None:
    from matplotlib.ticker import MaxNLocator

    sizes = [float(abs(r[np.isfinite(r)]).max(initial=0)) for r in curves]
    peaks = [size for size in sizes if size > 0]
    ax.set_yscale("log", nonpositive="clip")
    ax.set_ylim(min(peaks, default=1.0) / _ROOM_BELOW, max(peaks, default=1.0) * 2)
    ax.margins(x=0 if len(steps) > 1 else None)
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5], integer=True))
    ax.set_xlabel("step")
    ax.set_ylabel("effective learning rate")
    ax.grid(axis="y", alpha=0.3)
