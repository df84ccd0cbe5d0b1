"""Where names meet rules: the assignment, which everything else reads."""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from optax_lrmult.core.expect import expect, few, nearest
from optax_lrmult.core.names import ParamLabels, PyTree, is_hidden, named_leaves
from optax_lrmult.core.rules import FunctionRule, Rule, Rules, RulesLike, as_rules
from optax_lrmult.core.values import check_fits, describe

OnUnmatched = Literal["error", "warn", "ignore"]
_ADVICE = "To allow this, pass on_unmatched='warn' or on_unmatched='ignore'."
_NAME_THEM = " In place of a list's numbers, give names by param_labels=, or a dict."


class Assignment(NamedTuple):
    """What one parameter gets.

    Attributes:
      name: the parameter's name, such as `block_0/attn/kernel`.
      shape: its shape.
      dtype: its dtype.
      rule: the first rule that takes the name, or `None`.
      value: that rule's value, or `None`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    rule: Rule | FunctionRule | None
    value: Any

    def value_or(self, default: Any) -> Any:
        """The value, or what a name without a rule has."""
        return default if self.rule is None else self.value


def assign(
    params: PyTree,
    rules: RulesLike,
    *,
    param_labels: ParamLabels = None,
    on_unmatched: OnUnmatched = "ignore",
    argument: str = "rules",
    advice: str = _ADVICE,
) -> list[Assignment]:
    """The rule and the value of each parameter.

    The transformations, the preview and the checks all read this one function, so that
    what is shown is what runs.

    Args:
      params: a pytree of arrays, or of `jax.ShapeDtypeStruct` (see `jax.eval_shape`).
        What `optax.masked` or `optax.partition` hides of it has a name, and no row.
      rules: a table of rules; see `Rules`.
      param_labels: the names, if not those of `path_labels`: a function from a pytree
        to a pytree of strings, or such a pytree.
      on_unmatched: what to do about a rule that matches no name: `"error"`, `"warn"`
        or `"ignore"`. A tree without any leaf is not asked.
      argument: what an error calls the table.
      advice: what the error about rules that match no name says last.

    Returns:
      One `Assignment` for each leaf, in the order of `jax.tree.leaves(params)`.

    Raises:
      ValueError: two parameters have one name; the length of a `per_layer` does not
        fit a parameter; or a rule matches none, with the nearest names in the text.

    Example:
      >>> params = {"stem": {"kernel": jnp.ones((2, 3))}, "head": jnp.ones(3)}
      >>> for row in assign(params, {"stem": 0.1}):
      ...     print(row.name, row.shape, row.rule, row.value)
      head (3,) None None
      stem/kernel (2, 3) 'stem' 0.1
      >>> assign(params, {"stam": 0.1}, on_unmatched="error")
      Traceback (most recent call last):
      ValueError: Rule 'stam' (0.1) of rules matches none of the 2 parameters.
      Nearest: 'stem', as in 'stem/kernel'. ...
    """
    words = get_args(OnUnmatched)
    expect(on_unmatched in words, "on_unmatched", f"one of {words}", on_unmatched)
    table = as_rules(rules, f"The table {argument}")
    lost = getattr(params, "names_are_lost", None)  # As inside of packed.
    if table and lost:
        raise ValueError(f"The table {argument} can't be used here. {lost}")
    named = named_leaves(params, param_labels)
    rows = [_assigned(*pair, table) for pair in named if not is_hidden(pair[1])]
    if named and on_unmatched != "ignore":
        dead = _dead(table, named, argument)
        if dead and on_unmatched == "warn":
            warnings.warn("\n".join(dead), stacklevel=3)
        elif dead:
            raise ValueError("\n".join([*dead, advice]).rstrip())
    return rows


def _assigned(name: str, leaf: Any, rules: Rules) -> Assignment:
    is_number = isinstance(leaf, int | float | complex)
    is_array = is_number or hasattr(leaf, "dtype")
    wanted = (
        "an array (take them first, for example by equinox.filter(model, "
        "equinox.is_array) or flax.nnx.state(model, flax.nnx.Param))"
    )
    expect(is_array, f"The parameter {name!r}", wanted, leaf, TypeError)
    rule, value = rules.find(name)
    shape = np.shape(leaf)  # JAX's own does not take a ShapeDtypeStruct everywhere.
    check_fits(value, shape, rule, name)
    dtype = jnp.result_type(leaf) if is_number else leaf.dtype
    return Assignment(name, shape, dtype, rule, value)


def _dead(rules: Rules, named: Sequence[tuple[str, Any]], argument: str) -> list[str]:
    """Why each rule that matches no name matches none, of the first ten."""
    names = [name for name, _ in named]
    # A bare hidden node is the whole tree.
    hidden = tuple(f"{name}/".lstrip("/") for name, leaf in named if is_hidden(leaf))
    dead = (
        rule
        for rule in rules
        if not any(map(rule.takes, names)) and not _goes_below(rule, hidden)
    )
    return [_explained(rule, names, argument) for rule in itertools.islice(dead, 10)]


def _goes_below(rule: Rule | FunctionRule, hidden: tuple[str, ...]) -> bool:
    """True if a rule names what is below a node that a mask hides as a whole."""
    texts = rule.pattern.texts if isinstance(rule, Rule) else ("",)
    return any(text.startswith(hidden) for text in texts)


def _explained(rule: Rule | FunctionRule, names: Sequence[str], argument: str) -> str:
    """Why a rule matches nothing, as far as its pattern tells."""
    if isinstance(rule, FunctionRule):
        return f"Function {rule} of {argument} has no value for any of {few(names)}."
    text = rule.pattern.texts[0]
    return (
        f"Rule {rule} ({describe(rule.value)}) of {argument} matches none of the "
        f"{len(names)} parameters. {_nearest(text, names)} "
        f"{_hint(rule.pattern.kind, text, names)}"
    )


def _nearest(text: str, names: Sequence[str]) -> str:
    """The pieces of names that look most like the pattern, and where they occur."""
    depth, pieces = text.count("/") + 1, {}
    for name in names:
        keys = name.split("/")
        for start in range(max(1, len(keys) - depth + 1)):
            pieces.setdefault("/".join(keys[start : start + depth]), name)
    near = nearest(text, list(pieces)[:2000], most=3)
    if not near:
        are_numbers = all(name.replace("/", "").isdigit() for name in names)
        return f"The parameters are {few(names)}.{_NAME_THEM if are_numbers else ''}"
    return f"Nearest: {'; '.join(f'{p!r}, as in {pieces[p]!r}' for p in near)}."


def _hint(kind: str, text: str, names: Sequence[str]) -> str:
    """What to write instead, if the pattern says what was meant."""
    if kind == "prefix":
        return "A prefix is whole segments from the beginning of a name."
    if kind != "contains":
        return f"A {kind} must match the whole name."
    if any(text.lower() in name.lower() for name in names):
        return "It differs in letter case only."
    if any(mark in text for mark in ("^", "$", "|", "\\", "(", ".*")):
        return f"A str is a plain substring: for a regex write re.compile({text!r})."
    if any(mark in text for mark in "*?["):
        return f"A str is a plain substring: for a glob write glob({text!r})."
    return "A str must be a substring of the name, and letter case counts."
