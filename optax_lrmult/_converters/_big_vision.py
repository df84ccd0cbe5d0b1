"""The `lr_mults` of big_vision."""

from collections.abc import Iterable
from typing import Any

from optax_lrmult._config import compiled
from optax_lrmult._rules import Rule, Rules
from optax_lrmult._values import as_multiplier, is_number, shown


def from_big_vision(lr_mults: Iterable[tuple[str, float | None]] | None) -> Rules:
    """The table that big_vision's `config.lr_mults` says.

    The same as there: a regular expression must match the name in full, the first one
    that does wins, a name that none matches has 1. Frozen parameters are no multipliers
    there but rows `(pattern, None)` of `config.schedule`: such rows may stand among the
    others here, and are 0. (There a name that no row of `config.schedule` matches is an
    error; here it has 1.)

    In big_vision's chain the multipliers stand in front of weight decay, which is not
    multiplied then. Frozen parameters do not decay: give `optax.add_decayed_weights`
    the mask `trainable(table)`.

    Args:
      lr_mults: the pairs `(regular expression, multiplier)`, in their order. `wd_mults`
        are of the same form, but there a name without a row does not decay: end the
        pairs with `(".*", None)`.

    Returns:
      The rules, in the same order.

    Raises:
      TypeError: a row is no pair, or of wrong types.
      ValueError: a multiplier is not positive, an expression does not compile, or it
        begins with `/`, which no name does.

    Source: `make` in https://github.com/google-research/big_vision, big_vision/optax.py

    Example:
      >>> from_big_vision([("encoder/.*", 0.1), (".*/frozen", None), (".*", 0.5)])
      Rules([(re.compile('encoder/.*'), 0.1), (re.compile('.*/frozen'), 0.0),
             (re.compile('.*'), 0.5)])
    """
    if not isinstance(lr_mults, Iterable | None):
        raise TypeError(
            "from_big_vision takes a list of pairs (regular expression, multiplier), "
            f"not {shown(lr_mults)} ({type(lr_mults).__name__})."
        )
    return Rules([_rule(row) for row in lr_mults or ()])


def _rule(row: Any) -> Rule:
    if not isinstance(row, tuple | list) or len(row) != 2:
        raise TypeError(
            "from_big_vision takes pairs (regular expression, multiplier), not "
            f"{shown(row)} ({type(row).__name__})."
        )
    text, value = row
    if not isinstance(text, str):
        raise TypeError(
            "A pattern of big_vision is the text of a regular expression, not "
            f"{shown(text)} ({type(text).__name__})."
        )
    if text.startswith("/"):
        raise ValueError(
            f"The pattern {shown(text)} begins with '/', which no name does."
        )
    return Rule(compiled(text), 0.0 if value is None else _positive(value, text))


def _positive(value: Any, text: str) -> float:
    multiplier = as_multiplier(value, f"pattern {shown(text)}")
    if not is_number(multiplier) or multiplier <= 0:
        raise ValueError(
            f"The multiplier of {shown(text)} must be a positive number, as in "
            f"big_vision, not {shown(value)}. To freeze parameters write None."
        )
    return multiplier
