"""An ordered table of patterns and values, and which of them a name gets."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from optax_lrmult.core.expect import expect, nearest
from optax_lrmult.core.patterns import KINDS, Pattern, as_pattern
from optax_lrmult.core.values import describe, from_plain, to_plain

NameFn = Callable[[str], Any]
RulesLike = Mapping[Any, Any] | Iterable[Any] | None
"""A mapping or pairs from pattern to value, or `Rules`; `None` for an empty table."""


class _NoValue:
    def __repr__(self) -> str:
        return "no value"


NO_VALUE = _NoValue()
"""The value of a rule whose names get none, though later rules would take them."""

_KEYS = (*KINDS, "words", "value")  # Of a row of plain data.


@dataclasses.dataclass(frozen=True)
class Rule:
    """One row of a table: a pattern, and the value of the names that it takes.

    Attributes:
      pattern: a `str` takes every name that contains it, a compiled expression every
        name that it matches in full, `glob(...)` and `prefix(...)` what they say.
      value: what it means is for the reader of the table to say.

    Example:
      >>> Rule("bias", 2).takes("stem/bias")
      True
    """

    pattern: Pattern
    value: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", as_pattern(self.pattern))

    def takes(self, name: str) -> bool:
        """True if the rule would give the name a value, were it the only one."""
        return self.pattern.matches(name)

    def map(self, function: Callable[[Any, "Rule"], Any]) -> "Rule":
        """The rule with another value, `function(value, rule)`."""
        value = self.value
        return Rule(self.pattern, value if value is NO_VALUE else function(value, self))

    def to_config(self) -> dict[str, Any]:
        """Its row in `Rules.to_config`."""
        value = to_plain(self.value, f"The value of rule {self}")
        is_row = isinstance(self.value, Mapping) and value and not {*_KEYS} & {*value}
        return {**self.pattern.to_config(), **(value if is_row else {"value": value})}

    def __str__(self) -> str:
        return str(self.pattern)


@dataclasses.dataclass(frozen=True)
class FunctionRule:
    """A function from a name to its value, or to `None`, as a row of a table."""

    function: NameFn
    value: None = dataclasses.field(default=None, init=False)  # It has no single one.

    def takes(self, name: str) -> bool:
        """True if the function has a value for the name."""
        return self.function(name) is not None

    def map(self, function: Callable[[Any, "FunctionRule"], Any]) -> "FunctionRule":
        """The rule with another function behind its own."""

        @functools.wraps(self.function)
        def mapped(name: str) -> Any:
            value = self.function(name)
            return None if value is None else function(value, self)

        return FunctionRule(mapped)

    def to_config(self) -> dict[str, Any]:
        """A function has no row."""
        raise ValueError(f"A function of the name, {self}, can't stand in a config.")

    def __str__(self) -> str:
        return describe(self.function)


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Rules:
    """A table of rules: the first one that takes a name gives its value.

    `a + b` is the table `a` in front of the table `b`, so that `a` overrides. A table
    does not know what its values mean: multipliers, decays, labels or dimensions.

    Args:
      rules: a mapping from pattern to value, read in its own order; `(pattern, value)`
        pairs, `Rule`s, or rows of plain data as in `from_config`; another `Rules`; or a
        function from a name to a value, or to `None` for a name that it leaves to later
        rules. Others raise a `TypeError`.

    Example:
      >>> table = Rules({"bias": 2}) + {"stem": 0.1, "": 0.5}
      >>> [table.find(name)[1] for name in ("stem/bias", "stem/kernel", "head/kernel")]
      [2, 0.1, 0.5]
    """

    rules: tuple[Rule | FunctionRule, ...]

    def __init__(self, rules: RulesLike | NameFn = None) -> None:
        rows = () if rules is None else rules
        rows = rows.items() if isinstance(rows, Mapping) else rows
        rows = [FunctionRule(rows)] if callable(rows) else rows
        expect(
            isinstance(rows, Iterable)
            and not isinstance(rows, str | bytes | set)
            and not hasattr(rows, "dtype"),
            "A table of rules",
            "a mapping {pattern: value}, pairs of them, or Rules",
            rules,
            TypeError,
        )
        object.__setattr__(self, "rules", tuple(map(_as_rule, rows)))

    def __iter__(self) -> Iterator[Rule | FunctionRule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __add__(self, other: RulesLike) -> "Rules":
        return Rules((*self, *as_rules(other, "The table behind +")))

    def __radd__(self, other: RulesLike) -> "Rules":
        return as_rules(other, "The table in front of +") + self

    def __repr__(self) -> str:
        rows = [
            f"({rule}, {rule.value!r})" if isinstance(rule, Rule) else str(rule)
            for rule in self
        ]
        return f"Rules([{', '.join(rows)}])"

    def find(self, name: str) -> tuple[Rule | FunctionRule | None, Any]:
        """The first rule that takes a name, and its value; else `(None, None)`."""
        rule = next((rule for rule in self.rules if rule.takes(name)), None)
        if rule is None or rule.value is NO_VALUE:
            return None, None
        return rule, rule.value if isinstance(rule, Rule) else rule.function(name)

    def map(self, function: Callable[[Any, Any], Any]) -> "Rules":
        """The table with other values, `function(value, rule)` for each rule."""
        return Rules([rule.map(function) for rule in self])

    @classmethod
    def from_config(cls, rows: RulesLike) -> "Rules":
        """A table from plain data, as JSON, TOML and YAML hold it.

        Args:
          rows: mappings with one of the keys `contains`, `glob`, `prefix` and `name`,
            which is a text or a list of them, or `regex`, which is one text, and
            `value`: for a stacked parameter `{"per_layer": [0.5, 1], "axis": 0}`. In
            place of `value` there may be the keys of a row of `groups`.

        Raises:
          ValueError: a row has an unknown key, or not exactly one pattern and a value.

        Example:
          >>> Rules.from_config([{"contains": "bias", "value": 2}])
          Rules([('bias', 2)])
        """
        return cls(rows)

    def to_config(self) -> list[dict[str, Any]]:
        """The plain data that `from_config` reads back as a table for the same names.

        A rule that is a function, or whose value is no plain data, is a `ValueError`.

        Example:
          >>> Rules({"bias": 2, "": 1}).to_config()
          [{'contains': 'bias', 'value': 2}, {'contains': '', 'value': 1}]
        """
        return [rule.to_config() for rule in self]


def as_rules(table: RulesLike, owner: str) -> Rules:
    """The table of an argument, where a function would be a schedule to optax."""
    expect(
        isinstance(table, Rules) or not callable(table),
        owner,
        "a table of rules (write a function of the name as Rules(function), and a "
        'schedule for all parameters as {"": schedule})',
        table,
        TypeError,
    )
    return Rules(table)


def _as_rule(row: Any) -> Rule | FunctionRule:
    if isinstance(row, Rule | FunctionRule):
        return row
    if isinstance(row, Mapping):
        return _from_config(row)
    is_pair = isinstance(row, tuple | list) and len(row) == 2
    wanted = "a (pattern, value) pair or a Rule"
    expect(is_pair, "A row of a table", wanted, row, TypeError)
    return Rule(*row)


def _from_config(row: Mapping[str, Any]) -> Rule:
    kinds = [key for key in KINDS if key in row]
    rest = {key: value for key, value in row.items() if key not in _KEYS}
    for key in rest:
        if "value" in row or nearest(key, ["value"] if kinds else _KEYS):
            near = nearest(key, _KEYS)
            raise ValueError(f"The row {row} has an unknown key {key!r}. Near: {near}.")
    value = row.get("value", rest)
    is_whole = len(kinds) == 1 and ("value" in row or rest)
    expect(bool(is_whole), "A row", f"one of {[*KINDS]} and a value", row)
    texts = row[kinds[0]]
    pattern = KINDS[kinds[0]](*([texts] if isinstance(texts, str) else texts))
    pattern = dataclasses.replace(pattern, words=row.get("words", ""))
    return Rule(pattern, from_plain(value))
