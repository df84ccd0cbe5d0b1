"""An ordered table of name patterns and multipliers, and which rule a name gets."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

from optax_lrmult._backtracking import check_backtracking
from optax_lrmult._hyperparameters import is_transformation
from optax_lrmult._notation import notation_of
from optax_lrmult._values import (
    Multiplier,
    as_multiplier,
    check_takes_one,
    is_schedule,
    needs_step,
    printable,
    shortened,
    shown,
)

Pattern = str | re.Pattern[str]
NameFn = Callable[[str], Any]
RulesLike = Mapping[Any, Any] | Iterable[Any] | NameFn | None
"""A mapping or pairs from pattern to multiplier, `Rules`, or a function of the name."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One row of the table: a pattern, and the multiplier of the names it matches.

    Attributes:
      pattern: a `str` matches every name that contains it (case counts), a compiled
        `re.Pattern` every name that it matches in full. A function of the name is a
        whole table: it returns the name's multiplier, or `None`.
      multiplier: a finite real number, a schedule, a traced scalar or `per_layer(...)`;
        `None` if the pattern is a function.

    Raises:
      TypeError: the pattern or the multiplier is of another type.
      ValueError: the multiplier is not finite, or the expression can backtrack without
        end, as `(a+)+` does.

    Example:
      >>> Rule("stem", 0.1).multiplier_of("stem/conv/kernel")
      0.1
      >>> Rule(re.compile("stem"), 0.1).multiplier_of("stem/conv/kernel") is None
      True
    """

    pattern: Pattern | NameFn
    multiplier: Multiplier = None

    def __post_init__(self) -> None:
        """Checks the pattern and the multiplier, where the mistake is made."""
        if is_schedule(self.pattern) and self.multiplier is None:
            check_takes_one(self.pattern, f"The function {self}", "the name")
            return
        _check_pattern(self.pattern)
        multiplier = as_multiplier(self.multiplier, f"rule {self}")
        object.__setattr__(self, "multiplier", multiplier)

    def __str__(self) -> str:
        """The pattern as it was written, shortened.

        `'stem'`, `glob '**/bias'`, `prefix 'stem'`, `kind 'bias'` of `by_kind`,
        `/block_.*/` for another regular expression, or `rate` for a function.
        """
        if isinstance(self.pattern, re.Pattern):
            kind, text = notation_of(self.pattern)
            if kind == "regex":
                return f"/{printable(shortened(text))}/"
            return f"{kind} {shown(text)}"
        return (
            shown(self.pattern)
            if isinstance(self.pattern, str)
            else shortened(self.text)
        )

    @property
    def text(self) -> str:
        """The pattern's text as it was written, by which a multiplier is set."""
        if isinstance(self.pattern, re.Pattern):
            return notation_of(self.pattern).text
        if isinstance(self.pattern, str):
            return self.pattern
        name = getattr(self.pattern, "__qualname__", repr(self.pattern))
        return name.rpartition("<locals>.")[2]

    def multiplier_of(self, name: str) -> Multiplier:
        """The multiplier that this rule gives to a name; `None` if it gives none."""
        if isinstance(self.pattern, str):
            return self.multiplier if self.pattern in name else None
        if isinstance(self.pattern, re.Pattern):
            return self.multiplier if self.pattern.fullmatch(name) else None
        return self._called(self.pattern, name)

    def _called(self, function: NameFn, name: str) -> Multiplier:
        try:
            value = function(name)
        except Exception as error:
            error.add_note(f"Raised by the function {self} for the name {shown(name)}.")
            raise
        if value is None:
            return None
        multiplier = as_multiplier(value, f"the function {self} for {shown(name)}")
        if needs_step(multiplier):
            raise TypeError(
                f"The function {self} returned a schedule for {shown(name)}. Write "
                "schedules into a table of rules instead: {pattern: schedule}."
            )
        return multiplier


class Rules(tuple[Rule, ...]):
    """A table of rules: the first one that matches a name gives its multiplier.

    `a + b` is the table `a` in front of the table `b`, so that `a` overrides. A name
    that no rule matches has the multiplier 1.

    Args:
      rules: a mapping from pattern to multiplier, read in its own order; `(pattern,
        multiplier)` pairs or `Rule`s; another `Rules`; or a function from a name to a
        multiplier or `None`.

    Raises:
      TypeError: `rules`, a pattern or a multiplier is of another type.
      ValueError: a multiplier is not finite.

    Example:
      >>> table = Rules({"bias": 2}) + {"stem": 0.1, "": 0.5}
      >>> [table.find(name)[1] for name in ("stem/bias", "stem/kernel", "head/kernel")]
      [2.0, 0.1, 0.5]
      >>> table
      Rules([('bias', 2.0), ('stem', 0.1), ('', 0.5)])
    """

    _starts: tuple[int, ...]

    def __new__(cls, rules: RulesLike = ()) -> "Rules":
        """Reads and checks the table."""
        self = super().__new__(cls, _read(rules))
        self._starts = rules._starts if isinstance(rules, Rules) else (0,)
        return self

    def __add__(self, other: Any) -> "Rules":
        """This table in front of another."""
        behind = Rules(other)
        both = Rules((*self, *behind))
        both._starts = self._starts + tuple(
            len(self) + start for start in behind._starts
        )
        return both

    def __radd__(self, other: Any) -> "Rules":
        """Another table in front of this one."""
        return Rules(other) + self

    def __repr__(self) -> str:
        rows = [
            f"({rule.pattern!r}, {rule.multiplier!r})"
            if rule.multiplier is not None
            else repr(rule)
            for rule in self
        ]
        return f"Rules([{', '.join(rows)}])"

    @property
    def tables(self) -> list[tuple[Rule, ...]]:
        """The rules of each table that `+` joined; it may override those behind it."""
        ends = (*self._starts[1:], len(self))
        return [self[a:b] for a, b in zip(self._starts, ends, strict=True)]

    @property
    def need_step(self) -> bool:
        """True if a multiplier is a schedule."""
        return any(needs_step(rule.multiplier) for rule in self)

    def find(self, name: str) -> tuple[Rule | None, Multiplier]:
        """The first rule that matches a name, and the name's multiplier."""
        for rule in self:
            multiplier = rule.multiplier_of(name)
            if multiplier is not None:
                return rule, multiplier
        return None, 1.0


def _read(rules: RulesLike) -> Iterable[Rule]:
    if rules is None or isinstance(rules, Rules):
        return rules or ()
    if isinstance(rules, Mapping):
        return [Rule(pattern, multiplier) for pattern, multiplier in rules.items()]
    if is_schedule(rules):
        return [Rule(rules)]
    is_text_or_unordered = isinstance(rules, str | bytes | set | frozenset)
    if is_text_or_unordered or is_transformation(rules) or not _is_iterable(rules):
        raise TypeError(
            "multipliers must be a mapping {pattern: multiplier}, a sequence of "
            "(pattern, multiplier) pairs, Rules, or a function from a name to a "
            f"multiplier, not {shown(rules)} ({type(rules).__name__})."
        )
    return [_read_row(row) for row in rules]


def _is_iterable(rules: Any) -> TypeGuard[Iterable[Any]]:
    return isinstance(rules, Iterable) and not hasattr(rules, "dtype")


def _read_row(row: Any) -> Rule:
    if isinstance(row, Rule):
        return row
    if isinstance(row, tuple | list) and len(row) == 2:
        return Rule(row[0], row[1])
    if isinstance(row, Rules):
        raise TypeError(
            "This is a sequence of tables, not a table. Of GroupRules take "
            ".learning_rate or .weight_decay; tables are joined by +."
        )
    hint = " Rows of a config: rules_from_config." if isinstance(row, Mapping) else ""
    raise TypeError(
        f"Each rule must be a (pattern, multiplier) pair or a Rule, not {shown(row)} "
        f"({type(row).__name__}).{hint}"
    )


def _check_pattern(pattern: Any) -> None:
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        check_backtracking(pattern)
        return
    if not isinstance(pattern, str):
        raise TypeError(
            f"The pattern of a rule must be a str (a substring of the name) or a "
            f"compiled regular expression of str, not {shown(pattern)} "
            f"({type(pattern).__name__}). Write one rule for each pattern."
        )
