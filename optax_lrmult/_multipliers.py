"""Where names meet rules: the assignment, which everything else reads."""

import inspect
import warnings
from typing import Any, Literal, NamedTuple, get_args

import jax

from optax_lrmult._diagnosis import (
    dead_rules,
    explain_dead,
    explain_shadowed,
    overridden,
)
from optax_lrmult._matching import first_matches
from optax_lrmult._names import ParamLabels, PyTree, names_of, shape_and_dtype
from optax_lrmult._packed_tree import is_packed
from optax_lrmult._rules import Rule, Rules, RulesLike
from optax_lrmult._values import Multiplier, PerLayer, shown

_NOT_THE_USERS = ("optax_lrmult.", "optax.", "flax.", "jax.")

OnUnmatched = Literal["error", "warn", "ignore"]


class Assignment(NamedTuple):
    """What one parameter gets.

    Attributes:
      name: the parameter's name, such as `block_0/attn/kernel`.
      shape: its shape.
      dtype: its dtype.
      rule: the first rule that matches the name, or `None`.
      multiplier: that rule's multiplier, or 1.0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    rule: Rule | None
    multiplier: Multiplier


def assign(
    params: PyTree, multipliers: RulesLike, *, param_labels: ParamLabels = None
) -> list[Assignment]:
    """The rule and the multiplier of each parameter.

    The transformations, the preview and the checks all read this one function, so that
    what is shown is what runs.

    Args:
      params: a pytree of arrays, or of `jax.ShapeDtypeStruct` (see `jax.eval_shape`).
      multipliers: a table of rules; see `Rules`.
      param_labels: the names, if not those of `path_labels`: a function from a pytree
        to a pytree of strings, or such a pytree.

    Returns:
      One `Assignment` for each leaf, in the order of `jax.tree.leaves(params)`.

    Raises:
      TypeError: a leaf is not an array, or a rule is of a wrong type.
      ValueError: two parameters have one name, or the length of a `per_layer` does not
        fit a parameter.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"stem": {"kernel": jnp.ones((2, 3))}, "head": jnp.ones(3)}
      >>> for row in assign(params, {"stem": 0.1}):
      ...     print(row.name, row.shape, row.rule, row.multiplier)
      head (3,) None 1.0
      stem/kernel (2, 3) 'stem' 0.1
    """
    if is_packed(params):
        raise ValueError(
            "A table of rules stands inside of packed, where parameters have no names. "
            "Put it around: with_name_multipliers(packed(tx), multipliers), or as a "
            "link behind it, optax.chain(packed(tx), constrain_by_name(constraints))."
        )
    names = names_of(params, param_labels)
    matches = first_matches(Rules(multipliers), names)
    rows = zip(names, jax.tree.leaves(params), matches, strict=True)
    return [_assignment(name, leaf, *match) for name, leaf, match in rows]


def _assignment(
    name: str, leaf: Any, rule: Rule | None, multiplier: Multiplier
) -> Assignment:
    shape, dtype = shape_and_dtype(name, leaf)
    if isinstance(multiplier, PerLayer):
        _check_length(name, shape, rule, multiplier)
    return Assignment(name, shape, dtype, rule, multiplier)


def _check_length(
    name: str, shape: tuple[int, ...], rule: Rule | None, multiplier: PerLayer
) -> None:
    axis, length = multiplier.axis, len(multiplier.values)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"Rule {rule} gives one multiplier for each slice along axis {axis}, but "
            f"the parameter {shown(name)} has the shape {shape}. Give it a rule of its "
            "own."
        )
    if shape[axis] != length:
        raise ValueError(
            f"Rule {rule} gives {length} multipliers for the slices along axis {axis}, "
            f"but the parameter {shown(name)} of shape {shape} has {shape[axis]} of "
            "them."
        )


def check_rules(
    params: PyTree,
    multipliers: RulesLike,
    *,
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "error",
) -> None:
    """Raises if a rule matches no parameter; warns if an earlier rule shadows it.

    No warning if a table in front of the rule's own, joined by `+`, takes its names.
    The transformations run this check in `init`. It is skipped for a tree without
    leaves, or with some of them hidden by `optax.masked` or `optax.partition`: run it
    by hand on the whole tree then.

    Args:
      params: a pytree of arrays, or of `jax.ShapeDtypeStruct`.
      multipliers: a table of rules; see `Rules`.
      param_labels: the names, if not those of `path_labels`.
      on_unmatched: `"error"`, `"warn"` or `"ignore"` (says nothing at all).

    Raises:
      ValueError: a rule matches no parameter; the text has the nearest names.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"layer_1": {"kernel": jnp.ones(2)}}
      >>> check_rules(params, {"layr_1": 0.1})
      Traceback (most recent call last):
        ...
      ValueError: Rule 'layr_1' (multiplier 0.1) matches none of the 1 parameters.
      Nearest: 'layer_1', as in 'layer_1/kernel'. ...
    """
    check_on_unmatched(on_unmatched)
    checked_assignments(params, Rules(multipliers), param_labels, on_unmatched)


def checked_assignments(
    params: PyTree, rules: Rules, param_labels: ParamLabels, on_unmatched: OnUnmatched
) -> list[Assignment]:
    """What `assign` returns, after the check of `check_rules`."""
    assignments = assign(params, rules, param_labels=param_labels)
    if on_unmatched != "ignore" and assignments and not _hides_leaves(params):
        _report(rules, assignments, on_unmatched)
    return assignments


def check_on_unmatched(on_unmatched: str) -> None:
    """Raises where the mistake is made, in the factory."""
    if on_unmatched not in get_args(OnUnmatched):
        raise ValueError(
            f"on_unmatched must be one of {get_args(OnUnmatched)}, not "
            f"{shown(on_unmatched)}."
        )


def _report(
    rules: Rules, assignments: list[Assignment], on_unmatched: OnUnmatched
) -> None:
    dead, shadowed = dead_rules(rules, assignments)
    for rule in shadowed:
        if not overridden(rule, rules, assignments):
            _warn(explain_shadowed(rule, assignments))
    texts = explain_dead(dead, assignments)
    if texts and on_unmatched == "warn":
        _warn("\n".join(texts))
    elif texts:
        hint = "To allow this, pass on_unmatched='warn' or on_unmatched='ignore'."
        raise ValueError("\n".join([*texts, hint]))


def _warn(text: str) -> None:
    """Warns at the line of the user's that led here, through optax and Flax or not."""
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_globals.get("__name__", "").startswith(_NOT_THE_USERS):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def _hides_leaves(params: PyTree) -> bool:
    """True under `optax.masked` and `optax.partition`, which hide other leaves."""
    nodes = jax.tree.leaves(params, is_leaf=_is_masked)
    return any(map(_is_masked, nodes))


def _is_masked(node: Any) -> bool:
    return type(node).__name__ == "MaskedNode"
