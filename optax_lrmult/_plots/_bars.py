"""The multipliers along the depth of the network."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from optax_lrmult._multipliers import assign
from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._plots._axes import add_legend, axes_or_new, families_of, written
from optax_lrmult._plots._groups import Group, groups_of
from optax_lrmult._rules import RulesLike
from optax_lrmult._scaling import at_step
from optax_lrmult._values import Multiplier, is_number, is_schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

_TALLEST = 8.0  # Inches.
_ENDLESS = 1e99
_MOST_NAMES = 40
_ROOM = 2.5  # Beside the shortest bar and behind the longest, as a factor.
_LONGEST_NAME = 24


def plot_multipliers(
    params: PyTree,
    multipliers: RulesLike,
    *,
    param_labels: ParamLabels = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """A bar for each group of parameters, from the stem down to the head.

    The length is the size of the multiplier, on a log axis; the number stands behind
    the bar, with its sign. The colour is the rule's, and rules whose texts count up
    share one. A multiplier of 0, which a log axis can't hold, is a hatched bar across
    the whole axis. A schedule is drawn as it is at step 0, and a traced scalar as an
    empty bar. A stacked parameter has a bar for each slice of its `per_layer`.

    Parameters form a group if the first segments of their names, the rule and the
    multiplier are the same; of large models fewer segments count.

    Args:
      params: a pytree of arrays, or of `jax.ShapeDtypeStruct`; no array is read.
      multipliers: a table of rules; see `Rules`.
      param_labels: the names, if not those of `path_labels`.
      ax: matplotlib axes to draw on; by default those of a new figure. The legend
        stands outside of them: make their figure with `layout="constrained"`.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: a leaf is not an array, or a rule is of a wrong type.
      ValueError: two parameters have one name, or a `per_layer` does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {f"block_{i}": {"kernel": jnp.ones(2)} for i in range(3)}
      >>> ax = plot_multipliers(params, {"block_0": 0, "block_1": 0.1})
      >>> [(label.get_text(), float(bar.get_width()), bar.get_hatch())
      ...  for label, bar in zip(ax.get_yticklabels(), ax.patches)][1:]
      [('block_1/kernel', 0.1, None), ('block_2/kernel', 1.0, None)]
    """
    groups = groups_of(assign(params, multipliers, param_labels=param_labels))
    ax = axes_or_new(ax, min(_TALLEST, 1.5 + 0.24 * len(groups)))
    values = [_value(group.multiplier) for group in groups]
    families = families_of(group.rule for group in groups)
    colours = {rule: family.colour for family in families for rule in family.members}
    bars: dict[str, Rectangle] = {}
    for row, (group, value) in enumerate(zip(groups, values, strict=True)):
        bar = _bar(ax, row, group, value, colours[group.rule])
        bars.setdefault(group.rule, bar)
    _finish(ax, groups, values)
    handles = [bars[family.members[0]] for family in families]
    add_legend(ax, handles, [family.label for family in families])
    return ax


def _value(multiplier: Multiplier) -> float:
    """The number; of a schedule the one at step 0, of a traced scalar NaN."""
    if is_schedule(multiplier):
        with jax.ensure_compile_time_eval():
            return float(at_step(multiplier, 0))
    return multiplier if is_number(multiplier) else math.nan


def _bar(ax: "Axes", row: int, group: Group, value: float, colour: Any) -> "Rectangle":
    """A bar of the value's size; across all of the axis if it has none there."""
    size = abs(value) if abs(value) > 0 else _ENDLESS
    (bar,) = ax.barh(row, size, color=colour, edgecolor=colour, linewidth=0.8)
    if not abs(value) > 0:
        bar.set(facecolor="none", hatch="" if math.isnan(value) else "////")
    if math.isnan(value):
        bar.set_linestyle("--")
    elif is_schedule(group.multiplier) and value:
        bar.set_facecolor((bar.get_facecolor()[:3], 0.4))
    return bar


def _finish(ax: "Axes", groups: Sequence[Group], values: Sequence[float]) -> None:
    sizes = [abs(value) for value in values if abs(value) > 0]
    _scale(ax, min([1.0, *sizes]) / _ROOM, max([1.0, *sizes]) * _ROOM)
    every = math.ceil(len(groups) / _MOST_NAMES) or 1
    rows = range(0, len(groups), every)
    ax.set_yticks(rows, [_row_name(groups, row, every) for row in rows])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(max(len(groups), 1) - 0.4, -0.6)
    if every == 1:
        for row, (group, value) in enumerate(zip(groups, values, strict=True)):
            _write(ax, row, group.multiplier, value)


def _scale(ax: "Axes", lowest: float, highest: float) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.set_xlim(lowest, highest)
    digits = (1.0, 2.0, 5.0) if highest / lowest < 300 else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=digits))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.axvline(1, color="0.5", linewidth=0.8, zorder=0)
    ax.set_xlabel("multiplier of the learning rate (log scale)")


def _row_name(groups: Sequence[Group], row: int, every: int) -> str:
    """The name, unless the bar above has it too."""
    repeats = every == 1 and row > 0 and groups[row - 1].name == groups[row].name
    return "" if repeats else written(groups[row].name, _LONGEST_NAME)


def _write(ax: "Axes", row: int, multiplier: Multiplier, value: float) -> None:
    """The number behind a bar, or in front of one that has no end."""
    has_end = abs(value) > 0
    ax.annotate(
        _number(multiplier, value),
        (abs(value) if has_end else 0, row),
        xycoords="data" if has_end else ax.get_yaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        verticalalignment="center",
        fontsize="x-small",
        bbox={"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 0.8},
    )


def _number(multiplier: Multiplier, value: float) -> str:
    text = "traced" if math.isnan(value) else f"{value:.3g}"
    if is_schedule(multiplier):
        return f"{text} at step 0"
    if value < 0:
        return f"{text}, climbs"
    return text if value else "0, frozen"
