"""The assignment as text, to be read before the first step."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from optax_lrmult._diagnosis import describe, likely_mistakes
from optax_lrmult._multipliers import Assignment, assign
from optax_lrmult._names import ParamLabels, PyTree, natural_order
from optax_lrmult._rules import Rules, RulesLike
from optax_lrmult._values import PerLayer, is_frozen, printable

_NO_RULE = "-"
_WIDEST_RULE = 40


@dataclasses.dataclass(frozen=True)
class Preview:
    """The assignment of multipliers to parameters, printable.

    Attributes:
      assignments: one for each parameter, sorted by name, numbers by their value.
      notes: sentences on what is likely a mistake.
    """

    assignments: tuple[Assignment, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """The table of parameters, the totals of each rule, and the notes."""
        rows = [("name", "shape", "rule", "multiplier")]
        rows += [_row(assignment) for assignment in self.assignments]
        parts = [_aligned(rows, "<<<>"), _aligned(self._totals(), "<>>>")]
        notes = "\n".join(f"note: {note}" for note in self.notes)
        return "\n\n".join([*parts, notes] if notes else parts)

    def __repr__(self) -> str:
        """The same text, so that a prompt shows it."""
        return str(self)

    def _totals(self) -> list[tuple[str, ...]]:
        groups: dict[tuple[str, str], list[Assignment]] = {}
        for row in self.assignments:
            groups.setdefault(_row(row)[2:], []).append(row)
        total = sum(map(_size, self.assignments))
        frozen = sum(map(_frozen_size, self.assignments))
        rows = [("rule", "multiplier", "parameters", "share")]
        for (rule, multiplier), members in groups.items():
            size = sum(map(_size, members))
            rows.append((rule, multiplier, f"{size:,}", _share(size, total)))
        rows.append(("all", "", f"{total:,}", _share(total, total)))
        rows.append(("frozen", "", f"{frozen:,}", _share(frozen, total)))
        return rows


def preview(
    params: PyTree, multipliers: RulesLike, *, param_labels: ParamLabels = None
) -> Preview:
    """Which rule and multiplier each parameter gets, as a table to print.

    Shows what `scale_by_name_multiplier` will run, before it runs: it reads the same
    `assign`. A rule that matches nothing is a note here, not an error.

    Args:
      params: a pytree of arrays, or of shapes from `jax.eval_shape`; no array is read.
      multipliers: a table of rules; see `Rules`.
      param_labels: the names, if not those of `path_labels`.

    Returns:
      A `Preview`; print it, or leave it as the last line of a notebook's cell.

    Raises:
      TypeError: a leaf is not an array, or a rule is of a wrong type.
      ValueError: two parameters have one name, or a `per_layer` does not fit.

    Example:
      >>> import jax
      >>> kernels = {f"layer_{i}": {"kernel": (3, 4)} for i in (1, 2, 10)}
      >>> params = jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, "float32"),
      ...                       kernels, is_leaf=lambda x: isinstance(x, tuple))
      >>> preview(params, {"layer_1/": 0, "layer_2": 0.5})
      name             shape   rule        multiplier
      layer_1/kernel   (3, 4)  'layer_1/'           0
      layer_2/kernel   (3, 4)  'layer_2'          0.5
      layer_10/kernel  (3, 4)  -                    1
      <BLANKLINE>
      rule        multiplier  parameters   share
      'layer_1/'           0          12   33.3%
      'layer_2'          0.5          12   33.3%
      -                    1          12   33.3%
      all                             36  100.0%
      frozen                          12   33.3%
    """
    rules = Rules(multipliers)
    assignments = assign(params, rules, param_labels=param_labels)
    notes = likely_mistakes(rules, assignments)
    ordered = sorted(assignments, key=lambda row: natural_order(row.name))
    return Preview(tuple(ordered), tuple(notes))


def _row(row: Assignment) -> tuple[str, str, str, str]:
    rule = _NO_RULE if row.rule is None else _shortened(str(row.rule))
    return printable(row.name), str(row.shape), rule, describe(row.multiplier)


def _shortened(rule: str) -> str:
    """A long regular expression cut, or one rule would push all columns apart."""
    if len(rule) <= _WIDEST_RULE:
        return rule
    return f"{rule[: _WIDEST_RULE - 4]}...{rule[-1]}"


def _size(row: Assignment) -> int:
    return math.prod(row.shape)


def _frozen_size(row: Assignment) -> int:
    if isinstance(row.multiplier, PerLayer) and isinstance(
        row.multiplier.values, tuple
    ):
        still = sum(map(is_frozen, row.multiplier.values))
        return _size(row) * still // len(row.multiplier.values)
    return _size(row) if is_frozen(row.multiplier) else 0


def _share(part: int, whole: int) -> str:
    return f"{part / whole if whole else 0:.1%}"


def _aligned(rows: Sequence[Iterable[str]], alignments: str) -> str:
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = (
        "  ".join(
            f"{cell:{how}{width}}"
            for cell, how, width in zip(row, alignments, widths, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
