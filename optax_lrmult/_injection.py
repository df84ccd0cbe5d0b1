"""Multipliers that live in the optimizer's state, to be changed between steps."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from optax_lrmult._hyperparameters import is_transformation
from optax_lrmult._multipliers import Assignment
from optax_lrmult._names import is_box_type
from optax_lrmult._notation import notation_of
from optax_lrmult._rules import Rule, Rules
from optax_lrmult._scaling import at_step
from optax_lrmult._values import (
    Multiplier,
    PerLayer,
    as_scalar,
    needs_step,
    per_layer,
    shown,
)


class ScaleByNameMultiplierState(NamedTuple):
    """The state of `scale_by_name_multiplier` with a schedule or with `inject=True`.

    Attributes:
      count: the number of steps taken, an int32 scalar.
      multipliers: with `inject=True` a float scalar for each rule's text (a vector for
        a `per_layer`), schedules left out; otherwise empty.
    """

    count: jax.Array
    multipliers: dict[str, jax.Array]


def check_injectable(rules: Rules) -> None:
    """Raises if a state can't hold one multiplier for each rule."""
    texts = [rule.text for rule in rules]
    for rule in rules:
        if callable(rule.pattern):
            raise TypeError(
                f"inject=True needs a table of rules, not the function {rule}: the "
                "state holds one multiplier for each rule."
            )
        if texts.count(rule.text) > 1:
            raise ValueError(
                "inject=True needs rules of different texts, by which they are set; "
                f"{shown(rule.text)} occurs twice. Write one of them another way, as "
                "re.compile('.*bias.*') for 'bias', or leave it out."
            )


def injected_shapes(rules: Rules) -> dict[str, tuple[int, ...]]:
    """The shape of each multiplier that a state holds, by the text of its rule."""
    return {
        rule.text: (len(m.values),) if isinstance(m, PerLayer) else ()
        for rule in rules
        if not needs_step(m := rule.multiplier)
    }


def initial_multipliers(rules: Rules) -> dict[str, jax.Array]:
    """The multipliers of a table as arrays, by the text of their rules."""
    static = [rule for rule in rules if not needs_step(rule.multiplier)]
    return {rule.text: at_step(rule.multiplier, None) for rule in static}


def with_injected(
    rows: Sequence[Assignment], injected: Mapping[str, jax.Array]
) -> list[Assignment]:
    """The assignment, with the multipliers that a state holds.

    Args:
      rows: what each leaf gets, in the tree's order.
      injected: the multipliers of a state, by the text of their rules.
    """
    rules = {row.rule.text: row.rule for row in rows if row.rule}
    new = {
        text: _injected(rules[text], value)
        for text, value in injected.items()
        if text in rules
    }
    return [
        row._replace(multiplier=new[row.rule.text])
        if row.rule and row.rule.text in new
        else row
        for row in rows
    ]


def _injected(rule: Rule, value: jax.Array) -> Multiplier:
    if isinstance(rule.multiplier, PerLayer):
        return dataclasses.replace(rule.multiplier, values=value)
    return value


def set_multipliers(
    opt_state: optax.OptState, multipliers: Mapping[str | re.Pattern[str], Any]
) -> optax.OptState:
    """Changes injected multipliers, without a new compilation of the step.

    Args:
      opt_state: an optimizer's state that holds that of `scale_by_name_multiplier(...,
        inject=True)`, in any nesting; of several such, all that have the rule.
      multipliers: the new value for each rule, by its pattern or the pattern's text as
        it was written (`**/bias` of a glob, `stem` of a prefix): a real number or a
        traced scalar, without unit; for a `per_layer` rule one for each slice.

    Returns:
      The state with the new values, in the dtype of the old ones.

    Raises:
      TypeError: a value is not a real number, or `multipliers` is no mapping.
      ValueError: no rule of that text is injected, or a value's shape does not fit.

    Example:
      >>> params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
      >>> from optax_lrmult import scale_by_name_multiplier
      >>> tx = scale_by_name_multiplier({"stem": 0.1}, inject=True)
      >>> state = set_multipliers(tx.init(params), {"stem": 0.5})
      >>> print(tx.update(params, state)[0]["stem"])
      [0.5 0.5]
    """
    if not isinstance(multipliers, Mapping):
        raise TypeError(
            "set_multipliers takes a mapping from a rule's text to its new value, not "
            f"{shown(multipliers)} ({type(multipliers).__name__})."
        )
    if is_transformation(opt_state):
        raise TypeError(
            "set_multipliers changes a state, and this is a transformation: pass the "
            "opt_state that init or update has returned."
        )
    texts = {_text(pattern): value for pattern, value in multipliers.items()}
    settable: set[str] = set()

    def with_new(node: Any) -> Any:
        if not _is_state(node):
            return node
        settable.update(node.multipliers)
        new = {
            text: _like(old, texts[text], text)
            for text, old in node.multipliers.items()
            if text in texts
        }
        return node._replace(multipliers={**node.multipliers, **new})

    changed = jax.tree.map(with_new, opt_state, is_leaf=_is_state)
    for text in texts:
        if text not in settable:
            _refuse(text, settable)
    return changed


def _is_state(node: Any) -> bool:
    return isinstance(node, ScaleByNameMultiplierState)


def _text(pattern: Any) -> str:
    is_regex = isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str)
    text = notation_of(pattern).text if is_regex else pattern
    if not isinstance(text, str):
        raise TypeError(
            "set_multipliers finds a rule by the text of its pattern, a str, not by "
            f"{shown(pattern)} ({type(pattern).__name__})."
        )
    return text


def _like(old: Any, value: Any, text: str) -> Any:
    """The new value in the place of the old one, which may be in a box."""
    (inside,), treedef = jax.tree.flatten(old)
    if is_box_type(type(inside)):  # Of flax < 0.11, where a box is a leaf.
        return inside.replace(_new_value(inside.value, value, text))
    return jax.tree.unflatten(treedef, [_new_value(inside, value, text)])


def _new_value(old: Any, value: Any, text: str) -> jax.Array:
    owner = f"rule {shown(text)}"
    values = _for_each_layer(value, owner) if old.ndim else [as_scalar(value, owner)]
    if len(values) != old.size:
        raise ValueError(
            f"The injected multiplier of {owner} has the shape {old.shape}, and "
            f"{len(values)} values do not fit."
        )
    new = jnp.stack([jnp.asarray(v, old.dtype) for v in values])
    return _placed_like(old, new.reshape(old.shape))


def _for_each_layer(value: Any, owner: str) -> list[Any]:
    try:
        layers = value if isinstance(value, PerLayer) else per_layer(value)
    except (TypeError, ValueError) as error:
        error.add_note(f"Raised by the new value of {owner}.")
        raise
    return [as_scalar(v, f"layer {i} of {owner}") for i, v in enumerate(layers.values)]


def _placed_like(old: Any, new: jax.Array) -> jax.Array:
    """On the devices of the old value, or `jit` would compile the step once more."""
    is_placed = not isinstance(old, Tracer) and getattr(old, "committed", False)
    return jax.device_put(new, old.sharding) if is_placed else new


def _refuse(text: str, settable: set[str]) -> None:
    if not settable:
        raise ValueError(
            "The optimizer's state holds no injected multipliers. Build it with "
            "scale_by_name_multiplier(multipliers, inject=True)."
        )
    near = difflib.get_close_matches(text, settable, n=1, cutoff=0.0)
    raise ValueError(
        f"No injected multiplier belongs to a rule of the text {shown(text)}; there "
        f"are {shown(sorted(settable))}. Did you mean {shown(near[0])}? (Scheduled "
        "rules can't be set.)"
    )
