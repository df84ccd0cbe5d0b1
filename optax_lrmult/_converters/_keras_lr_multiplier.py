"""The multipliers of keras-lr-multiplier."""

import re
from collections.abc import Mapping
from typing import Any

from optax_lrmult._rules import Rules
from optax_lrmult._values import shown


def from_keras_lr_multiplier(multipliers: Mapping[str, Any]) -> Rules:
    """The table that `LRMultiplier` of keras-lr-multiplier reads out of a dictionary.

    The same as there: a key takes every name that starts with it, so `Dense` takes
    `Dense_10/kernel` as well as `Dense/kernel`; of several keys the longest wins; a
    name without a key has 1; the empty key has no effect (and is left out). A function
    of the step, counted from 0, is a schedule here. For whole segments use `by_prefix`.

    Args:
      multipliers: multiplier for each prefix of a name.

    Returns:
      The rules, the longest prefix first.

    Raises:
      TypeError: `multipliers` is no mapping, or a key or a value is of a wrong type.
      ValueError: a multiplier is not finite.

    Source: `LRMultiplier` in https://github.com/CyberZHG/keras-lr-multiplier

    Example:
      >>> table = from_keras_lr_multiplier({"Dense": 0.5, "Dense_1": 2})
      >>> names = "Dense/kernel", "Dense_2/kernel", "Dense_10/kernel", "Output/kernel"
      >>> [table.find(name)[1] for name in names]
      [0.5, 0.5, 2.0, 1.0]
    """
    if not isinstance(multipliers, Mapping):
        raise TypeError(
            "from_keras_lr_multiplier takes the dictionary {prefix: multiplier}, not "
            f"{shown(multipliers)} ({type(multipliers).__name__})."
        )
    for prefix in multipliers:
        if not isinstance(prefix, str):
            raise TypeError(f"A prefix must be a str, not {shown(prefix)}.")
    longest_first = sorted(filter(None, multipliers), key=len, reverse=True)
    return Rules([(_starting_with(p), multipliers[p]) for p in longest_first])


def _starting_with(prefix: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(prefix)}.*", re.DOTALL)
