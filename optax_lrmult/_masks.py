"""Which parameters train at all, as a mask."""

from collections.abc import Callable, Sequence

import jax

from optax_lrmult._multipliers import (
    Assignment,
    OnUnmatched,
    check_on_unmatched,
    checked_assignments,
)
from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._rules import Rules, RulesLike
from optax_lrmult._values import is_frozen


def trainable(
    multipliers: RulesLike,
    *,
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "error",
) -> Callable[[PyTree], PyTree]:
    """The mask function that is True where the multiplier is not a static 0.

    For `optax.masked` and its friends, so that frozen parameters carry no moments.
    `optax.masked` lets the gradients of the others through, so put the multipliers
    around it: `with_name_multipliers(optax.masked(tx, trainable(table)), table)`.

    Args:
      multipliers: a table of rules; see `scale_by_name_multiplier`.
      param_labels: the names, if not those of `path_labels`.
      on_unmatched: what happens if a rule matches no parameter.

    Returns:
      A function from a pytree to a pytree of `bool` of the same structure.

    Raises:
      TypeError: a rule is of a wrong type.
      ValueError: a multiplier is not finite; from the mask function, a rule matches no
        parameter.

    Example:
      >>> trainable({"stem": 0, "head": 0.5})({"stem": 1.0, "body": 1.0, "head": 1.0})
      {'body': True, 'head': True, 'stem': False}
    """
    rules = Rules(multipliers)
    check_on_unmatched(on_unmatched)

    def mask_fn(params: PyTree) -> PyTree:
        rows = checked_assignments(params, rules, param_labels, on_unmatched)
        return mask_of(params, rows)

    return mask_fn


def mask_of(params: PyTree, rows: Sequence[Assignment]) -> PyTree:
    """The mask from what each leaf gets, in the tree's order."""
    mask = [not is_frozen(row.multiplier) for row in rows]
    return jax.tree.unflatten(jax.tree.structure(params), mask)
