"""Axes to draw on, and the colours and the legend of rules."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from optax_lrmult._folding import folded, unfolded
from optax_lrmult._names import natural_order
from optax_lrmult._rates import NO_RULE
from optax_lrmult._text import cut
from optax_lrmult._values import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 6.4  # Inches; 640 pixels in a notebook.
_GREY = "#8a8a8a"
# Okabe and Ito's colours, which colour-blind readers tell apart, without the yellow.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_LONGEST_LABEL = 34
_MOST_LABELS = 10
_LEGEND_WIDTH = 75  # Characters, with 10 for the sample of each column.


class Family(NamedTuple):
    """Rules of one colour: a rule, or several whose texts count up.

    Attributes:
      label: the text, such as `block_{0..11}`.
      colour: as matplotlib reads it.
      members: the texts of its rules, numbers by their value.
    """

    label: str
    colour: Any
    members: Sequence[str]


def axes_or_new(ax: "Axes | None", height: float) -> "Axes":
    """The caller's axes, or those of a new figure, which a notebook then shows.

    Args:
      ax: axes, or `None`.
      height: of the new figure, in inches.

    Raises:
      ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "The plots need matplotlib: pip install 'optax-lrmult[plot]'"
        ) from error
    if ax is None:
        _, ax = pyplot.subplots(figsize=(WIDTH, height), layout="constrained")
    if not hasattr(ax, "spines"):
        raise TypeError(
            f"ax must be the axes of a figure, not {shown(ax)} ({type(ax).__name__}): "
            "figure, ax = matplotlib.pyplot.subplots()."
        )
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def families_of(texts: Iterable[str]) -> list[Family]:
    """The rules' texts by colour, in the order of their first members."""
    order = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    named = ((text, text) for text in sorted(order, key=natural_order))
    found = folded(unfolded(named), lambda item: None, [lambda *rows: True])
    found.sort(key=lambda family: min(order[text] for text in family.items))
    colours = iter(_colours(sum(family.text != NO_RULE for family in found)))
    return [
        Family(f.text, _GREY if f.text == NO_RULE else next(colours), f.items)
        for f in found
    ]


def add_legend(ax: "Axes", handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One entry for each label above the axes; of many, the first ones and a count."""
    shown = [written(label, _LONGEST_LABEL) for label in labels[:_MOST_LABELS]]
    if len(labels) > _MOST_LABELS:
        shown[-1] = f"... and {len(labels) - _MOST_LABELS + 1} more"
    columns = _LEGEND_WIDTH // (max(map(len, shown), default=0) + 10)
    ax.legend(
        handles[: len(shown)],
        shown,
        loc="lower left",
        bbox_to_anchor=(0, 1.02),
        ncols=max(1, min(columns, 3, len(shown))),
        frameon=False,
        borderaxespad=0,
        fontsize="small",
    )


def written(text: str, width: int) -> str:
    """A text that matplotlib shows as it is: no formula, and not too wide."""
    return cut(text, width).replace("$", r"\$")


def _colours(count: int) -> Sequence[Any]:
    """Distinct colours, or where these do not suffice, steps of a scale."""
    from matplotlib import colormaps

    if count <= len(_COLOURS):
        return _COLOURS[:count]
    return [colormaps["viridis"](0.9 * index / (count - 1)) for index in range(count)]
