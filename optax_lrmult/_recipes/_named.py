"""Names with their shapes, and rules from one multiplier for each name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from optax_lrmult._names import ParamLabels, PyTree, names_of
from optax_lrmult._rules import Rules
from optax_lrmult._values import shown

Shape = tuple[int, ...]


def shapes_by_name(params: PyTree, param_labels: ParamLabels) -> dict[str, Shape]:
    """The shape of each parameter, in the order of `jax.tree.leaves(params)`."""
    names, leaves = names_of(params, param_labels), jax.tree.leaves(params)
    shapes: dict[str, Shape] = {}
    for name, leaf in zip(names, leaves, strict=True):
        if name in shapes:
            raise ValueError(
                f"Two parameters have the name {shown(name)}. A recipe that reads "
                "shapes writes rules for names, and needs distinct ones."
            )
        shapes[name] = _shape(name, leaf)
    return shapes


def _shape(name: str, leaf: Any) -> Shape:
    if isinstance(leaf, int | float | complex):
        return ()
    if not hasattr(leaf, "shape"):
        raise TypeError(
            f"The parameter {shown(name)} is of type {type(leaf).__name__}, which has "
            "no shape. Pass arrays, or shapes from jax.eval_shape."
        )
    return tuple(leaf.shape)


def rules_by_name(labels: Mapping[str, Any], multipliers: Mapping[Any, Any]) -> Rules:
    r"""Rules that give each name the multiplier of its label, short enough to be read.

    Names that differ in their numbers only share a rule, as in `block_\d+/kernel` or
    `block_(0|1)/kernel`, where no name of another label comes under it.

    Args:
      labels: what each parameter counts as, by its name, for all parameters.
      multipliers: the multiplier for each label, in the order of the table; names of
        other labels get no rule.
    """
    groups: dict[tuple[Any, str], list[str]] = {}
    for name, label in labels.items():
        groups.setdefault((label, re.sub(_NUMBER, "0", name)), []).append(name)
    rows = [
        (pattern, multiplier)
        for wanted, multiplier in multipliers.items()
        for (label, _), names in groups.items()
        if label == wanted
        for pattern in _patterns(names, labels)
    ]
    return Rules(rows)


_NUMBER = r"(\d+)"


def _patterns(names: Sequence[str], all_names: Iterable[str]) -> list[re.Pattern[str]]:
    """One pattern for names that differ in their numbers, or one for each name."""
    columns = zip(*(re.split(_NUMBER, name) for name in names), strict=True)
    distinct = [list(dict.fromkeys(column)) for column in columns]
    for numbers in (lambda found: r"\d+", lambda found: f"({'|'.join(found)})"):
        pieces = [numbers(d) if len(d) > 1 else re.escape(d[0]) for d in distinct]
        common = re.compile("".join(pieces))
        if sum(map(bool, map(common.fullmatch, all_names))) == len(names):
            return [common]
    return [re.compile(re.escape(name)) for name in names]
