"""Layer-wise learning-rate decay: the lower a block, the smaller its steps."""

import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._recipes._arguments import Patterns, as_patterns
from optax_lrmult._recipes._blocks import Stack, find_stacks
from optax_lrmult._recipes._exact import Group, common_length, exact_patterns
from optax_lrmult._recipes._roles import Role, role_of
from optax_lrmult._recipes._stacked import (
    Shapes,
    listed,
    shapes_of,
    stacked_layers,
)
from optax_lrmult._rules import Pattern, Rule, Rules
from optax_lrmult._values import Multiplier, per_layer, shown

Norm = Literal["last", "head"]


def layer_decay(
    decay: float,
    params_or_names: PyTree,
    *,
    stem: Patterns = (),
    head: Patterns = (),
    norm: Norm = "last",
    min_scale: float = 0.0,
    freeze_below: float = 0.0,
    stacked: Mapping[Pattern, int] | None = None,
    blocks: str | re.Pattern[str] | None = None,
    param_labels: ParamLabels = None,
) -> Rules:
    r"""Multipliers that fall by the factor `decay` with each block below the head.

    $$m_\text{head} = 1, \quad m_{\text{block } i} = d^{\,n-i}, \quad
      m_\text{stem} = d^{\,n+1}, \quad i = 0, \dots, n - 1$$

    A *scanned* model, in which one array holds all the layers, gets one multiplier for
    each slice, so that its step is, layer by layer, that of the unrolled model:
    `stacked={"encoderblock": 0}` says that the arrays whose names contain
    `encoderblock` hold the layers along axis 0.

    Else blocks are found by the numbers in names, as in `encoderblock_3`, `block3`,
    `blocks/3`, `h/3`: behind words that end in block, layer, stage, group or cell, with
    or without an s. Their order is that of the numbers, not of the tree, and a missing
    block shifts no other; if there is a 1 but no 0, they count from 1. Each stack (a
    path and a word) has its own scale, as in two towers. A number right behind another
    one, if it is not always the same, ranks blocks within a stage (`layers/0/blocks/1`,
    but not layers within a block, `block/0/layer/1`); the rest of the stage counts with
    its last block.

    A parameter outside the blocks belongs to the stack with which it shares the longest
    path. The first segment that says something decides: words such as `embedding`,
    `patch`, `position`, `cls_token`, `stem` or `conv_init` say stem; `norm` or `ln_f`
    say the final norm; `head`, `classifier`, `pooler` and whatever is left say head.

    Args:
      decay: the factor d from each block to the one below, in (0, 1].
      params_or_names: a pytree of arrays or of `jax.ShapeDtypeStruct`, or a list of the
        parameters' names.
      stem: patterns (see `Rule`) of parameters outside the blocks that are stem. They
        win over the words; one that takes a whole stack makes it stem.
      head: the same for the head; `stem` wins over it.
      norm: the final norm counts with the `"last"` block, as in timm (d), or with the
        `"head"`, as in MAE and BEiT (1).
      min_scale: no multiplier is smaller, except 0; in [0, 1].
      freeze_below: multipliers $d^k$ smaller than this become 0, before `min_scale` is
        applied to the others; in [0, 1].
      stacked: for scanned models, the axis of the layers for each pattern; it takes
        parameters before `blocks` does.
      blocks: a regular expression to search for in names instead, whose group is the
        number, as in `r"unit(\d+)"`; a second group is the number within a stage.
      param_labels: the names, if not those of `path_labels`.

    Returns:
      The rules of each stack from the stem to the head, exact for these parameters, and
      none of them dead.

    Raises:
      TypeError: an argument is of a wrong type.
      ValueError: `decay`, `min_scale`, `freeze_below` or `norm` has another value than
        those above; there are no numbered blocks; a pattern matches nothing; or the
        parameters of one pattern in `stacked` differ in the number of layers.

    Source: Clark et al. 2020, ELECTRA, https://arxiv.org/abs/2003.10555 (its code has
    one power more: https://github.com/google-research/electra/issues/51); Bao et al.
    2021, BEiT, https://arxiv.org/abs/2106.08254. The numbers are those of timm's
    `param_groups_layer_decay`, MAE's `util/lr_decay.py` and BEiT's `optim_factory.py`.

    Example:
      >>> names = ["embed/w", "block_0/w", "block_1/w", "norm/scale", "head/w"]
      >>> for rule in layer_decay(0.5, names):
      ...     print(rule, rule.multiplier)
      prefix 'embed' 0.125
      prefix 'block_0' 0.25
      prefix 'block_1' 0.5
      prefix 'norm' 0.5
      prefix 'head' 1.0
      >>> import jax.numpy as jnp
      >>> scanned = {"embed": jnp.ones(4), "blocks": {"w": jnp.ones((2, 4, 4))}}
      >>> for rule in layer_decay(0.5, scanned, stacked={"blocks": 0}):
      ...     print(rule, rule.multiplier)
      prefix 'embed' 0.125
      prefix 'blocks' per_layer([0.25, 0.5])
    """
    decayed = _Decayed(
        _fraction(decay, "decay"),
        _fraction(min_scale, "min_scale"),
        _fraction(freeze_below, "freeze_below"),
    )
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be one of {get_args(Norm)}, not {shown(norm)}.")
    shapes = shapes_of(params_or_names, param_labels)
    said = [*_said(stem, "stem"), *_said(head, "head")]
    stacks = _stacks(shapes, said, stacked, blocks)
    outside = _outside(shapes, stacks, said)
    rows = [
        row
        for stack, names in zip(stacks, outside, strict=True)
        for row in _rows(stack, names, decayed, norm)
    ]
    patterns = exact_patterns([group for group, _ in rows])
    return Rules(zip(patterns, (multiplier for _, multiplier in rows), strict=True))


_Said = tuple[Rule, Role]  # A pattern of the caller's, and what it takes.


class _Decayed(NamedTuple):
    """The multiplier at a distance from the head."""

    decay: float
    min_scale: float
    freeze_below: float

    def at(self, distance: int) -> float:
        multiplier = self.decay**distance
        if multiplier < self.freeze_below:
            return 0.0
        return max(multiplier, self.min_scale)


def _rows(
    stack: Stack, outside: Mapping[Role, list[str]], decayed: _Decayed, norm: Norm
) -> list[tuple[Group, Multiplier]]:
    """Groups of names and their multipliers, from the stem to the head."""
    of_norm = decayed.at(1 if norm == "last" else 0)
    rows = [
        (Group(outside["stem"]), decayed.at(stack.stem_distance)),
        *_block_rows(stack, decayed),
        (Group(outside["norm"]), of_norm),
        (Group(outside["head"]), decayed.at(0)),
    ]
    return [(group, multiplier) for group, multiplier in rows if group.names]


def _block_rows(stack: Stack, decayed: _Decayed) -> list[tuple[Group, Multiplier]]:
    if stack.axis is not None:
        slices = map(decayed.at, range(stack.stem_distance - 1, 0, -1))
        group = Group(list(stack.distances), stack.cut)
        return [(group, per_layer(slices, stack.axis))]
    names_at: dict[int, list[str]] = {}
    for name, distance in stack.distances.items():
        names_at.setdefault(distance, []).append(name)
    return [
        (Group(names_at[distance], stack.cut), decayed.at(distance))
        for distance in sorted(names_at, reverse=True)
    ]


def _stacks(
    shapes: Shapes,
    said: Sequence[_Said],
    stacked: Mapping[Pattern, int] | None,
    blocks: str | re.Pattern[str] | None,
) -> list[Stack]:
    scanned = stacked_layers(stacked, shapes)
    taken = {name for stack in scanned for name in stack.distances}
    left = [name for name in shapes if name not in taken]
    numbered = find_stacks(left, blocks)
    free = [s for s in numbered if not any(_takes(rule, s) for rule, _ in said)]
    if not free and (blocks is not None or not scanned):
        how = "" if blocks is None else f" by blocks={shown(blocks)}"
        raise ValueError(
            f"Found no numbered blocks{how} in the names {listed(left)}. Say where the "
            r"number stands, as in blocks=r'unit(\d+)', or which arrays hold all the "
            "layers, and along which axis, as in stacked={'encoderblock': 0}."
        )
    return scanned + free


def _takes(rule: Rule, stack: Stack) -> bool:
    """True if a caller's pattern for the stem or the head takes the whole stack."""
    return all(rule.multiplier_of(name) for name in stack.distances)


def _outside(
    names: Iterable[str], stacks: Sequence[Stack], said: Sequence[_Said]
) -> list[dict[Role, list[str]]]:
    """For each stack the names outside its blocks that belong to it, by role."""
    inside = {name for stack in stacks for name in stack.distances}
    outside = [name for name in names if name not in inside]
    for rule, role in said:
        if not any(map(rule.multiplier_of, outside)):
            raise ValueError(
                f"The pattern {rule} of {role}= matches no parameter outside the "
                f"blocks. There are {listed(outside)}."
            )
    found: list[dict[Role, list[str]]] = [
        {"stem": [], "norm": [], "head": []} for _ in stacks
    ]
    for name in outside:
        path = tuple(name.split("/"))
        shared = [common_length(stack.path, path) for stack in stacks]
        role = _said_role(name, said) or role_of(path[max(shared) :])
        found[shared.index(max(shared))][role].append(name)
    return found


def _said_role(name: str, said: Sequence[_Said]) -> Role | None:
    return next((role for rule, role in said if rule.multiplier_of(name)), None)


def _said(patterns: Any, role: Role) -> list[_Said]:
    return [(Rule(pattern, 1.0), role) for pattern in as_patterns(patterns)]


def _fraction(value: Any, owner: str) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{owner} must be a number, not {shown(value)}.")
    number: Any = value  # Real has no order for type checkers.
    if not 0 <= number <= 1 or (number == 0 and owner == "decay"):
        allowed = "(0, 1]" if owner == "decay" else "[0, 1]"
        raise ValueError(f"{owner} must be in {allowed}, not {shown(value)}.")
    return float(number)
