"""What is likely a mistake in a table of rules, and what to write instead."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from optax_lrmult._rules import Rule, Rules
from optax_lrmult._values import PerLayer, is_number, shortened, shown

_MOST_CANDIDATES = 2000  # Keeps the search for near names quick on huge trees.
_MOST_SHOWN = 3
_MOST_EXPLAINED = 10


def dead_rules(
    rules: Rules, assignments: Sequence[Any]
) -> tuple[list[Rule], list[Rule]]:
    """Rules that no parameter gets: those that match nothing, and the shadowed ones."""
    used = {id(row.rule) for row in assignments}
    names = [row.name for row in assignments]
    dead, shadowed = [], []
    for rule in rules:
        if id(rule) not in used:
            matches = any(rule.multiplier_of(name) is not None for name in names)
            (shadowed if matches else dead).append(rule)
    return dead, shadowed


def overridden(rule: Rule, rules: Rules, assignments: Sequence[Any]) -> bool:
    """True for a rule whose names a table in front of its own takes, joined by `+`."""
    number = {id(r): n for n, table in enumerate(rules.tables) for r in table}
    rows = _matched(rule, assignments)
    return any(number[id(row.rule)] < number[id(rule)] for row in rows)


def _matched(rule: Rule, assignments: Sequence[Any]) -> list[Any]:
    return [row for row in assignments if rule.multiplier_of(row.name) is not None]


def explain_dead(dead: Sequence[Rule], assignments: Sequence[Any]) -> list[str]:
    """A sentence for each rule that matches nothing; the last one counts the rest."""
    names = [row.name for row in assignments]
    if dead and not names:
        return ["There are no parameters for the rules to match."]
    texts = [_explain_dead(rule, names) for rule in dead[:_MOST_EXPLAINED]]
    rest = [str(rule) for rule in dead[_MOST_EXPLAINED:]]
    if rest:
        texts.append(f"{len(rest)} more match nothing: {few(rest)}.")
    return texts


def _explain_dead(rule: Rule, names: Sequence[str]) -> str:
    """Why a rule matches nothing, as far as its pattern tells."""
    if callable(rule.pattern):
        return (
            f"The function {rule} gives no multiplier to any of the {len(names)} "
            f"parameters: {_listed(names)}."
        )
    return (
        f"Rule {rule} (multiplier {describe(rule.multiplier)}) matches none of the "
        f"{len(names)} parameters. {_nearest(rule, names)}{_hint(rule, names)}"
    )


def explain_shadowed(rule: Rule, assignments: Sequence[Any]) -> str:
    """Which earlier rules take all that a rule matches."""
    rows = _matched(rule, assignments)
    takers = list(dict.fromkeys(str(row.rule) for row in rows))
    take = "takes" if len(takers) == 1 else "take"
    return (
        f"Rule {rule} (multiplier {describe(rule.multiplier)}) never applies: the "
        f"first rule that matches wins, and {' and '.join(takers)} in front of it "
        f"{take} {_listed([row.name for row in rows])}. If it should win, move it to "
        "the front."
    )


def likely_mistakes(rules: Rules, assignments: Sequence[Any]) -> list[str]:
    """Sentences on what may not be meant, for the preview."""
    dead, shadowed = dead_rules(rules, assignments)
    notes = explain_dead(dead, assignments)
    notes += [explain_shadowed(rule, assignments) for rule in shadowed]
    for rule in rules:
        names = [row.name for row in assignments if row.rule is rule]
        notes += _cut_number(rule, names)
        if is_number(rule.multiplier) and rule.multiplier < 0 and names:
            notes.append(
                f"Rule {rule} has the negative multiplier {describe(rule.multiplier)}: "
                "its parameters climb the loss."
            )
    return notes


def describe(multiplier: Any) -> str:
    """A multiplier in a few characters; a schedule by its name or its repr."""
    if is_number(multiplier):
        return f"{multiplier:g}"
    if isinstance(multiplier, PerLayer):
        return shortened(repr(multiplier))
    if hasattr(multiplier, "aval"):
        return f"traced {multiplier.dtype}"
    name = getattr(multiplier, "__qualname__", None)
    return name.replace(".<locals>", "") if name else shown(multiplier)


def _cut_number(rule: Rule, names: Sequence[str]) -> list[str]:
    """`layer_1` is a substring of `layer_10`: told if the rule takes both."""
    pattern = rule.pattern
    if not isinstance(pattern, str) or not pattern[-1:].isdigit():
        return []
    whole = re.compile(re.escape(pattern) + r"(?!\d)")
    longer = re.compile(re.escape(pattern) + r"\d+")
    cut = [name for name in names if not whole.search(name)]
    if not cut or len(cut) == len(names):
        return []
    others = sorted(
        {match[0] for name in cut for match in [longer.search(name)] if match}
    )
    return [
        f"Rule {rule} also takes {_listed(others)}: a str matches anywhere in the "
        f"name. For the one layer write {pattern + '/'!r} or by_prefix({{{pattern!r}: "
        f"{describe(rule.multiplier)}}})."
    ]


def _nearest(rule: Rule, names: Sequence[str]) -> str:
    """The pieces of names that look most like the pattern, and where they occur."""
    text = _without_syntax(rule)
    if not any("." in name for name in names):
        text = text.replace(".", "/")
    depth = text.count("/") + 1
    pieces: dict[str, str] = {}
    for name in names:
        keys = name.split("/")
        for start in range(max(1, len(keys) - depth + 1)):
            pieces.setdefault("/".join(keys[start : start + depth]), name)
        if len(pieces) > _MOST_CANDIDATES:
            break
    near = difflib.get_close_matches(text, pieces, n=_MOST_SHOWN, cutoff=0.5)
    if not near:
        return f"The parameters are {_listed(names)}."
    texts = [
        shown(p) if p == pieces[p] else f"{shown(p)}, as in {shown(pieces[p])}"
        for p in near
    ]
    return f"Nearest: {'; '.join(texts)}."


def _without_syntax(rule: Rule) -> str:
    """The pattern without the stars of a glob and the signs of an expression."""
    if not isinstance(rule.pattern, re.Pattern):
        return rule.text
    return re.sub(r"\*\*/|\.?[*+?]+|\\", "", rule.text)


def _hint(rule: Rule, names: Sequence[str]) -> str:
    """What to write instead, if the pattern says what was meant."""
    text = rule.text
    if isinstance(rule.pattern, re.Pattern):
        part = next((name for name in names if rule.pattern.search(name)), None)
        if part is not None:
            return (
                f" It matches a part of {shown(part)}, but a compiled pattern must "
                "match "
                "the whole name: add '.*' (in a glob '**') where anything may stand."
            )
        return " A compiled pattern must match the whole name."
    if any(text.lower() in name.lower() for name in names):
        return " It differs in letter case only."
    if any(mark in text for mark in ("^", "$", "|", "\\", "+", "(", ".*")):
        return (
            f" A str is a plain substring: for a regex write re.compile({shown(text)})."
        )
    if any(mark in text for mark in "*?["):
        return f" A str is a plain substring: for a glob write glob({shown(text)})."
    rest = text.partition("/")[2]
    if rest and any(rest in name for name in names):
        return f" Without {shown(text.removesuffix(rest))} it would match."
    if "." in text and not any("." in name for name in names):
        return " Names are joined by '/', not by '.'."
    if text.endswith("/value"):
        return " The box of an nnx.Variable is no part of a name: drop '/value'."
    return " A str must be a substring of the name, and letter case counts."


def _listed(names: Sequence[str]) -> str:
    return few([shown(name) for name in names])


def few(texts: Sequence[str]) -> str:
    """The first three texts, and how many more there are."""
    shown = ", ".join(texts[:_MOST_SHOWN])
    more = len(texts) - _MOST_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
