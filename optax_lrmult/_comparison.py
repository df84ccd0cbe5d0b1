"""What changed between two assignments, for the log of a resumed run."""

import dataclasses
from collections import Counter
from collections.abc import Iterable

from optax_lrmult._diagnosis import describe
from optax_lrmult._multipliers import Assignment
from optax_lrmult._names import natural_order
from optax_lrmult._values import Multiplier, PerLayer, as_cell, shown


@dataclasses.dataclass(frozen=True)
class AssignmentDiff:
    """The changes from one assignment to another, printable; false if there are none.

    Attributes:
      added: rows of parameters that are new, sorted by name, numbers by their value.
      removed: rows of parameters that are gone.
      changed: the row before and the row after, of parameters whose shape, dtype, rule
        or multiplier is another.
    """

    added: tuple[Assignment, ...]
    removed: tuple[Assignment, ...]
    changed: tuple[tuple[Assignment, Assignment], ...]

    def __bool__(self) -> bool:
        """True if anything changed."""
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        """One line for each parameter: `+` added, `-` removed, `~` changed."""
        lines = [f"+ {as_cell(row.name)}: {_listed(_texts(row))}" for row in self.added]
        lines += [
            f"- {as_cell(row.name)}: {_listed(_texts(row))}" for row in self.removed
        ]
        for before, after in self.changed:
            lines.append(f"~ {as_cell(after.name)}: {_listed(_changes(before, after))}")
        return "\n".join(lines) or "no change"

    def __repr__(self) -> str:
        """The same text, so that a prompt shows it."""
        return str(self)


def assignment_diff(
    before: Iterable[Assignment], after: Iterable[Assignment]
) -> AssignmentDiff:
    """What changed between two assignments, by name.

    Rules may change between runs that share a checkpoint; this is for the log of the
    run that resumes. Schedules are the same if they are equal, or, where their class
    leaves equality to identity, if they have the same `repr`. The order of the
    parameters and of the rules does not count.

    Args:
      before: what `assign` returned for the old parameters and rules.
      after: what it returns for the new ones.

    Returns:
      An `AssignmentDiff`; print it. It says `no change` if there is none.

    Raises:
      TypeError: an argument holds something else than `Assignment`s.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_lrmult import assign
      >>> before = assign({"stem": jnp.ones(2), "old": jnp.ones(2)}, {"stem": 0})
      >>> after = assign({"stem": jnp.ones(2), "head": jnp.ones(3)}, {"stem": 0.1})
      >>> assignment_diff(before, after)
      + head: shape (3,), dtype float32, rule -, multiplier 1
      - old: shape (2,), dtype float32, rule -, multiplier 1
      ~ stem: multiplier 0 -> 0.1
    """
    old, new = _by_name(before, "before"), _by_name(after, "after")
    common = _sorted(key for key in old if key in new)
    pairs = [(old[key], new[key]) for key in common]
    return AssignmentDiff(
        added=tuple(new[key] for key in _sorted(new.keys() - old.keys())),
        removed=tuple(old[key] for key in _sorted(old.keys() - new.keys())),
        changed=tuple((a, b) for a, b in pairs if _changes(a, b)),
    )


_Key = tuple[str, int]


def _by_name(rows: Iterable[Assignment], owner: str) -> dict[_Key, Assignment]:
    """Rows by name and occurrence: with `param_labels` a name may stand twice."""
    seen: Counter[str] = Counter()
    found: dict[_Key, Assignment] = {}
    for row in rows if isinstance(rows, Iterable) else [rows]:
        if not isinstance(row, Assignment):
            raise TypeError(
                f"assignment_diff: {owner} must be what assign(params, multipliers) "
                f"returns, but holds {shown(row)} ({type(row).__name__})."
            )
        found[row.name, seen[row.name]] = row
        seen[row.name] += 1
    return found


def _sorted(keys: Iterable[_Key]) -> list[_Key]:
    return sorted(keys, key=lambda key: (natural_order(key[0]), key))


def _texts(row: Assignment) -> dict[str, str]:
    return {
        "shape": str(row.shape),
        "dtype": str(row.dtype),
        "rule": "-" if row.rule is None else str(row.rule),
        "multiplier": describe(row.multiplier),
    }


def _changes(before: Assignment, after: Assignment) -> dict[str, str]:
    """From each field that changed to how it did."""
    old, new = _texts(before), _texts(after)
    changed = [
        field for field in ("shape", "dtype", "rule") if old[field] != new[field]
    ]
    if "rule" not in changed and _pattern(before) != _pattern(after):  # Shortened.
        changed.append("rule")
    if not _same(before.multiplier, after.multiplier):
        changed.append("multiplier")
        if old["multiplier"] == new["multiplier"]:
            old["multiplier"] = _exact(before.multiplier)
            new["multiplier"] = _exact(after.multiplier)
    return {field: f"{old[field]} -> {new[field]}" for field in changed}


def _pattern(row: Assignment) -> str:
    return row.rule.text if row.rule else ""


def _same(a: Multiplier, b: Multiplier) -> bool:
    if a is b:
        return True
    if type(a) is not type(b) or hasattr(a, "aval"):
        return False
    if isinstance(a, PerLayer) and isinstance(b, PerLayer):
        same_layout = a.axis == b.axis and len(a.values) == len(b.values)
        return same_layout and all(map(_same, a.values, b.values))
    if type(a).__eq__ is object.__eq__:
        return repr(a) == repr(b)
    return bool(a == b)


def _exact(multiplier: Multiplier) -> str:
    """With all its digits, where six of them do not tell two multipliers apart."""
    if isinstance(multiplier, PerLayer):
        return f"per_layer({list(multiplier.values)!r}, axis={multiplier.axis})"
    return repr(multiplier)


def _listed(texts: dict[str, str]) -> str:
    return ", ".join(f"{field} {text}" for field, text in texts.items())
