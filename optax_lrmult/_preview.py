"""The assignment, to be read before the first step."""

import csv
import dataclasses
import io
import sys
from typing import Any, TextIO

from optax_lrmult._diagnosis import describe, likely_mistakes
from optax_lrmult._html import as_html
from optax_lrmult._multipliers import Assignment, assign
from optax_lrmult._names import ParamLabels, PyTree, natural_order
from optax_lrmult._rows import (
    Section,
    frozen_size,
    parameter_section,
    rule_text,
    size,
    total_section,
)
from optax_lrmult._rules import Rules, RulesLike
from optax_lrmult._text import as_text, columns_of, takes_colour
from optax_lrmult._values import Multiplier, PerLayer, is_number


@dataclasses.dataclass(frozen=True)
class Preview:
    """The assignment of multipliers to parameters, printable.

    `str` and `repr` are plain text without a limit of width, and a notebook shows a
    table; `show` prints for a terminal.

    Attributes:
      assignments: one for each parameter, sorted by name, numbers by their value.
      notes: sentences on what is likely a mistake.
      full: whether parameters that count up are shown one by one.
    """

    assignments: tuple[Assignment, ...]
    notes: tuple[str, ...]
    full: bool = False

    def __str__(self) -> str:
        """The table of parameters, the totals of each rule, and the notes."""
        return self.to_text()

    def __repr__(self) -> str:
        """The same text, so that a prompt shows it."""
        return self.to_text()

    def _repr_html_(self) -> str:
        """The same tables for a notebook, in its light or dark colours."""
        return as_html(self._sections(), self.notes)

    def show(self, file: TextIO | None = None) -> None:
        """Prints, in a terminal to its width and in colour, anywhere else plain text.

        Args:
          file: where to; by default `sys.stdout`. The environment variables `NO_COLOR`
            and `FORCE_COLOR` have the last word on colour.

        Example:
          >>> preview({"stem": 1.0, "head": 2.0}, {"stem": 0.1}).show()
          name  shape  rule    multiplier
          head  ()     -                1
          stem  ()     'stem'         0.1
          ...
        """
        stream = file or sys.stdout
        text = self.to_text(columns_of(stream), takes_colour(stream))
        print(text, file=stream)

    def to_text(self, width: int | None = None, colour: bool = False) -> str:
        """The text that `show` prints.

        Args:
          width: the most columns of a line of a table; longer cells are cut in the
            middle. By default only rules of more than 40 characters are.
          colour: with ANSI codes, a colour for what a multiplier does: faint for
            frozen, cyan for slower, yellow for faster, red for negative, magenta for
            what is not one number.

        Returns:
          Lines, without a line break at the end.

        Example:
          >>> shown = preview({"encoder_stem": 1.0}, {"stem": 0.1})
          >>> print(shown.to_text(width=36).splitlines()[1])
          encode...em  ()     'stem'         0.1
        """
        return as_text(self._sections(), self.notes, width, colour)

    def to_dict(self) -> dict[str, Any]:
        """Every parameter as plain data, for JSON.

        Returns:
          `parameters`, a list of dictionaries with `name`, `shape`, `dtype`, `size`,
          `rule` (the text of the preview, or `None`) and `multiplier` (a number, a list
          for `per_layer`, the text of anything else); the counts `total` and
          `frozen`; and `notes`.

        Example:
          >>> preview({"stem": 1.0}, {"stem": 0.1}).to_dict()["parameters"]
          [{'name': 'stem', 'shape': [], 'dtype': 'float32', 'size': 1,
            'rule': "'stem'", 'multiplier': 0.1}]
        """
        return {
            "parameters": [_as_dict(row) for row in self.assignments],
            "total": sum(map(size, self.assignments)),
            "frozen": sum(map(frozen_size, self.assignments)),
            "notes": list(self.notes),
        }

    def to_csv(self) -> str:
        """Every parameter as a line of comma-separated values, below a header.

        Returns:
          Text with the columns `name`, `shape`, `dtype`, `size`, `rule` and
          `multiplier`; a parameter without a rule has an empty cell there.

        Example:
          >>> print(preview({"stem": 1.0}, {"stem": 0.1}).to_csv(), end="")
          name,shape,dtype,size,rule,multiplier
          stem,,float32,1,'stem',0.1
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("name", "shape", "dtype", "size", "rule", "multiplier"))
        for row in self.assignments:
            shape = "x".join(map(str, row.shape))
            rule = rule_text(row) if row.rule else ""
            cells = row.name, shape, row.dtype, size(row), rule
            writer.writerow((*cells, _as_number_or_text(row.multiplier)))
        return text.getvalue()

    def _sections(self) -> list[Section]:
        return [
            parameter_section(self.assignments, full=self.full),
            total_section(self.assignments, full=self.full),
        ]


def preview(
    params: PyTree,
    multipliers: RulesLike,
    *,
    param_labels: ParamLabels = None,
    full: bool = False,
) -> Preview:
    """Which rule and multiplier each parameter gets, as a table to print.

    Shows what `scale_by_name_multiplier` will run, before it runs: it reads the same
    `assign`. A rule that matches nothing is a note here, not an error.

    Three or more parameters whose names count up share a row, as
    `block_{0..11}/attn/kernel`: those of one rule and multiplier, and those that have a
    rule each and multipliers that rise or fall, shown by the first and the last one.
    Nothing frozen shares a row with anything else, and rules with different multipliers
    have a line each in the second table.

    Args:
      params: a pytree of arrays, or of shapes from `jax.eval_shape`; no array is read.
      multipliers: a table of rules; see `Rules`.
      param_labels: the names, if not those of `path_labels`.
      full: shows every parameter in a row of its own, and every value of `per_layer`.

    Returns:
      A `Preview`: print it, `show()` it in colour, or leave it as the last line of a
      notebook's cell; `to_csv()` and `to_dict()` for anything else.

    Raises:
      TypeError: a leaf is not an array, or a rule is of a wrong type.
      ValueError: two parameters have one name, or a `per_layer` does not fit.

    Example:
      >>> import jax
      >>> kernels = {f"layer_{i}": {"kernel": (3, 4)} for i in (1, 2, 10, 11, 12)}
      >>> params = jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, "float32"),
      ...                       kernels, is_leaf=lambda x: isinstance(x, tuple))
      >>> preview(params, {"layer_1/": 0, "layer_2": 0.5})
      name                   shape   rule        multiplier
      layer_1/kernel         (3, 4)  'layer_1/'           0
      layer_2/kernel         (3, 4)  'layer_2'          0.5
      layer_{10..12}/kernel  (3, 4)  -                    1
      <BLANKLINE>
      rule        multiplier  parameters   share
      'layer_1/'           0          12   20.0%
      'layer_2'          0.5          12   20.0%
      -                    1          36   60.0%
      all                             60  100.0%
      frozen                          12   20.0%
    """
    rules = Rules(multipliers)
    assignments = assign(params, rules, param_labels=param_labels)
    notes = likely_mistakes(rules, assignments)
    ordered = sorted(assignments, key=lambda row: natural_order(row.name))
    return Preview(tuple(ordered), tuple(notes), full)


def _as_dict(row: Assignment) -> dict[str, Any]:
    return {
        "name": row.name,
        "shape": list(row.shape),
        "dtype": str(row.dtype),
        "size": size(row),
        "rule": rule_text(row) if row.rule else None,
        "multiplier": _as_data(row.multiplier),
    }


def _as_number_or_text(multiplier: Multiplier) -> str:
    """A number with all its digits; anything else as the preview shows it."""
    return repr(multiplier) if is_number(multiplier) else describe(multiplier)


def _as_data(multiplier: Multiplier) -> Any:
    if isinstance(multiplier, PerLayer) and isinstance(multiplier.values, tuple):
        return [_as_data(value) for value in multiplier.values]
    return multiplier if is_number(multiplier) else describe(multiplier)
