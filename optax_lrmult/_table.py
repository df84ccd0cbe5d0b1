"""What a transformation knows: its rules, and what each tree of parameters gets."""

import dataclasses
import logging
import sys
from collections.abc import Mapping
from typing import Any

import jax

from optax_lrmult._hyperparameters import check_flag
from optax_lrmult._injection import with_injected
from optax_lrmult._masks import mask_of
from optax_lrmult._multipliers import (
    Assignment,
    OnUnmatched,
    assign,
    check_on_unmatched,
    check_rules,
)
from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._preview import Preview, preview
from optax_lrmult._rules import Rules
from optax_lrmult._scaling import scale_by_assignment
from optax_lrmult._values import is_static

_MOST_TREES = 16
_logger = logging.getLogger("optax_lrmult")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rules, and what `init` does about them; a value, so that it can be compared."""

    rules: Rules
    param_labels: ParamLabels
    on_unmatched: OnUnmatched
    verbose: bool
    _seen: dict[Any, list[Assignment]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_on_unmatched(self.on_unmatched)
        check_flag(self.verbose, "verbose")

    def __hash__(self) -> int:
        """By identity where a traced multiplier or a tree of labels has no hash."""
        try:
            return hash((self.rules, self.param_labels, self.on_unmatched))
        except TypeError:
            return id(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies without what was seen: a tree's structure can't be."""
        arguments = self.rules, self.param_labels, self.on_unmatched, self.verbose
        return Table, arguments

    def inspect(self, params: PyTree) -> None:
        """Checks the rules against the parameters, and shows the assignment."""
        labels = self.param_labels
        check_rules(
            params, self.rules, param_labels=labels, on_unmatched=self.on_unmatched
        )
        if self.verbose and jax.tree.leaves(params):
            _log(preview(params, self.rules, param_labels=labels))

    def scale(
        self,
        updates: PyTree,
        step: Any = None,
        injected: Mapping[str, jax.Array] | None = None,
    ) -> PyTree:
        """Each update times the multiplier of its name.

        Args:
          updates: a pytree of arrays.
          step: the number of steps taken, an int32 scalar, for schedules.
          injected: multipliers by the text of their rules, instead of the table's.
        """
        rows = self.assignments(updates)
        if injected:
            rows = with_injected(rows, injected)
        return scale_by_assignment(updates, rows, step)

    def trainable(self, tree: PyTree) -> PyTree:
        """The mask that `_masks.trainable` makes, without a check of the rules."""
        return mask_of(tree, self.assignments(tree))

    def assignments(self, updates: PyTree) -> list[Assignment]:
        """What each leaf gets; names and rules are read once for a tree's structure."""
        leaves, treedef = jax.tree.flatten(updates)
        key = treedef, *map(_shape_and_dtype, leaves)
        rows = self._seen.get(key)
        if rows is None:
            rows = assign(updates, self.rules, param_labels=self.param_labels)
            self._remember(key, rows)
        return rows

    def _remember(self, key: Any, rows: list[Assignment]) -> None:
        # What a function of the name returns may be a tracer of this trace only.
        own = {id(rule.multiplier) for rule in self.rules}
        if all(id(r.multiplier) in own or is_static(r.multiplier) for r in rows):
            for oldest in list(self._seen)[: 1 - _MOST_TREES]:
                self._seen.pop(oldest, None)  # Another thread may have been here.
            self._seen[key] = rows


def _shape_and_dtype(leaf: Any) -> tuple[Any, Any]:
    return getattr(leaf, "shape", None), getattr(leaf, "dtype", type(leaf))


def _log(shown: Preview) -> None:
    if _logger.isEnabledFor(logging.INFO):
        _logger.info("The assignment of multipliers:\n%s", shown)
    else:
        shown.show(sys.stderr)
