"""Tables of rules as plain data, for a file in JSON, TOML or YAML."""

import difflib
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

from optax_lrmult._notation import notation_of, regex_of_prefix
from optax_lrmult._patterns import by_prefix, glob
from optax_lrmult._rules import NameFn, Pattern, Rule, Rules, RulesLike
from optax_lrmult._values import (
    Multiplier,
    PerLayer,
    is_number,
    needs_step,
    per_layer,
    shown,
)

_PATTERN_KEYS = ("contains", "regex", "glob", "prefix")
_ROW_KEYS = (*_PATTERN_KEYS, "multiplier", "axis", "flags")
_FLAGS = {
    "a": re.ASCII,
    "i": re.IGNORECASE,
    "m": re.MULTILINE,
    "s": re.DOTALL,
    "x": re.VERBOSE,
}


def rules_from_config(config: Any) -> Rules:
    """A table of rules from plain data.

    Each row has one pattern and its multiplier. The rows keep their order, and the
    first one that matches a name wins. Text is never run as code.

    | key | takes |
    | --- | --- |
    | `contains` | names that contain it |
    | `regex` | names that it matches in full; `flags` holds letters of `aimsx` for it |
    | `glob` | names that the glob matches in full; see `glob` |
    | `prefix` | names that begin with it, as whole segments; see `by_prefix` |

    Args:
      config: `{"rules": rows}`, or the list of rows itself. A row is a mapping with one
        of the keys above and `multiplier`, a number, or a list of numbers with one for
        each slice along `axis` (0 if missing) of a stacked parameter.

    Returns:
      The rules.

    Raises:
      TypeError: the config, a row or a value is of another type.
      ValueError: a row has a key that is not known, not exactly one pattern, or no
        multiplier; an expression does not compile; or a number is not finite.

    Example:
      >>> rules_from_config({"rules": [
      ...     {"contains": "bias", "multiplier": 2},
      ...     {"prefix": "encoder", "multiplier": [0.25, 0.5], "axis": 0},
      ... ]})
      Rules([('bias', 2.0),
             (re.compile('encoder(?:/.*)?', re.DOTALL), per_layer([0.25, 0.5]))])
    """
    rows = config
    if isinstance(config, Mapping):
        check_keys(config, ["rules"], "the config")
        if "rules" not in config:
            raise ValueError("The config has no key 'rules', the list of its rows.")
        rows = config["rules"]
    if not isinstance(rows, list | tuple):
        raise TypeError(
            "A config is {'rules': [...]} or the list of its rows, as in [{'contains': "
            f"'bias', 'multiplier': 2.0}}], not {shown(rows)} ({type(rows).__name__})."
        )
    return Rules([_read(row, f"rules[{index}]") for index, row in enumerate(rows)])


def _read(row: Any, where: str) -> Rule:
    try:
        return _rule(row)
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _rule(row: Any) -> Rule:
    if not isinstance(row, Mapping):
        raise TypeError(
            "A row is a mapping, as in {'contains': 'bias', 'multiplier': 2.0}, not "
            f"{shown(row)} ({type(row).__name__})."
        )
    check_keys(row, _ROW_KEYS, "the row")
    kinds = [key for key in _PATTERN_KEYS if key in row]
    if len(kinds) != 1:
        raise ValueError(
            f"A row has exactly one of the keys {_listed(_PATTERN_KEYS)}; this one has "
            f"{_listed(kinds) or 'none'}."
        )
    if "multiplier" not in row:
        raise ValueError("The key 'multiplier' is missing.")
    if "flags" in row and "regex" not in row:
        raise ValueError("The key 'flags' belongs to a 'regex'.")
    return Rule(_pattern(kinds[0], row), _multiplier(row))


def _pattern(kind: str, row: Mapping[str, Any]) -> Pattern | NameFn:
    text = row[kind]
    if not isinstance(text, str):
        raise TypeError(
            f"The value of {shown(kind)} must be text, not {shown(text)} "
            f"({type(text).__name__})."
        )
    if kind == "regex":
        return compiled(text, _flags(row.get("flags", "")))
    if kind == "prefix":
        return by_prefix({text: 1.0})[0].pattern
    return glob(text) if kind == "glob" else text


def _flags(letters: Any) -> int:
    if not isinstance(letters, str) or not set(letters) <= set(_FLAGS):
        raise ValueError(
            f"The value of 'flags' is made of the letters {''.join(_FLAGS)!r}, not "
            f"{shown(letters)}."
        )
    return sum(_FLAGS[letter] for letter in set(letters))


def _multiplier(row: Mapping[str, Any]) -> Multiplier:
    value = row["multiplier"]
    if isinstance(value, list | tuple):
        return per_layer(map(_number, value), row.get("axis", 0))
    if "axis" in row:
        raise ValueError("The key 'axis' belongs to a list of multipliers.")
    return _number(value)


def _number(value: Any) -> Any:
    if isinstance(value, numbers.Real):
        return value
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.I):
        hint = " YAML reads 1e-3 as text: write 1.0e-3."
    raise TypeError(
        "The value of 'multiplier' must be a number, or a list of numbers (one for "
        f"each layer), not {shown(value)} ({type(value).__name__}).{hint}"
    )


def rules_to_config(rules: RulesLike) -> dict[str, list[dict[str, Any]]]:
    """A table of rules as plain data, which `rules_from_config` reads back as equal.

    A glob or a prefix is a compiled expression by now, and comes out as `regex`, with
    the letters of its flags in `flags`.

    Args:
      rules: a table of rules; see `Rules`.

    Returns:
      `{"rules": rows}`, made of dictionaries, lists, strings and numbers only.

    Raises:
      TypeError: a rule is of a wrong type.
      ValueError: a rule is a function, or its multiplier is a schedule or traced.

    Example:
      >>> from optax_lrmult import glob, per_layer
      >>> table = {"bias": 2, glob("block_*/w"): per_layer([0.5, 1])}
      >>> for row in rules_to_config(table)["rules"]:
      ...     print(row)
      {'contains': 'bias', 'multiplier': 2.0}
      {'glob': 'block_*/w', 'multiplier': [0.5, 1.0], 'axis': 0}
    """
    return {"rules": [_row_of(rule) for rule in Rules(rules)]}


def _row_of(rule: Rule) -> dict[str, Any]:
    pattern = rule.pattern
    if isinstance(pattern, str):
        return {"contains": pattern, **_value_of(rule)}
    if not isinstance(pattern, re.Pattern):
        raise ValueError(
            f"The function {rule} can't stand in a config, which holds no code. Write "
            "its table as patterns and numbers, or add it in the code."
        )
    kind, text = notation_of(pattern)
    if kind == "glob" or (
        kind == "prefix" and regex_of_prefix(text) == pattern.pattern
    ):
        return {kind: text, **_value_of(rule)}
    letters = [letter for letter, flag in _FLAGS.items() if pattern.flags & flag]
    flags = {"flags": "".join(letters)} if letters else {}
    return {"regex": pattern.pattern, **flags, **_value_of(rule)}


def _value_of(rule: Rule) -> dict[str, Any]:
    multiplier = rule.multiplier
    if is_number(multiplier):
        return {"multiplier": multiplier}
    if isinstance(multiplier, PerLayer) and all(map(is_number, multiplier.values)):
        return {"multiplier": list(multiplier.values), "axis": multiplier.axis}
    kind = "a schedule" if needs_step(multiplier) else "a traced value"
    raise ValueError(
        f"The multiplier of rule {rule} is {kind}, {shown(multiplier)}, and a config "
        "holds numbers only. Leave this rule out of the config and add it in the "
        "code, in front: {pattern: multiplier} + rules_from_config(config)."
    )


def check_keys(mapping: Mapping[Any, Any], known: Iterable[str], owner: str) -> None:
    """Raises if a mapping has a key that is not known, with the nearest one."""
    known = list(known)
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"The key {shown(key)} of {owner} is none of {_listed(known)}.{hint}"
            )


def compiled(text: str, flags: int = 0) -> re.Pattern[str]:
    """The regular expression, or a `ValueError` that says what is wrong with it."""
    try:
        return re.compile(text, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"The regex {shown(text)} does not compile: {error}."
        ) from None


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(map(repr, keys))
