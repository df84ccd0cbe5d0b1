"""Discriminative fine-tuning: rates that grow from the lowest group to the top one."""

from collections.abc import Iterable
from typing import Any

from optax_lrmult._recipes._arguments import Patterns, as_groups, positive
from optax_lrmult._rules import Rules


def discriminative(groups: Iterable[Patterns], lo: Any, hi: Any = 1.0) -> Rules:
    r"""Multipliers in geometric steps, from the lowest group of layers to the top one.

    $$m_i = \mathrm{lo} \, (\mathrm{hi} / \mathrm{lo})^{i / (k - 1)},
      \quad i = 0, \dots, k - 1$$

    ULMFiT trains each layer 2.6 times slower than the one above it: `lo=2.6**-(k - 1)`
    for k groups. fastai's `slice(lo, hi)` has the same steps in learning rates.

    Args:
      groups: the groups, the lowest (nearest to the input) first. Each is a pattern of
        a rule, or a list of patterns.
      lo: multiplier of the lowest group, a positive real number without unit.
      hi: multiplier of the top group, the only one if there is one group.

    Returns:
      The rules, the top group first: the first rule that matches wins, so `"block_10"`
      keeps its own names from `"block_1"` below it, and `""` as the lowest group takes
      what the others leave.

    Raises:
      TypeError: `groups` is no list of patterns, or `lo` or `hi` is no number.
      ValueError: there are no groups, or `lo` or `hi` is not positive and finite.

    Source: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146; fastai's
    `even_mults`, https://docs.fast.ai

    Example:
      >>> discriminative(["stem", ["block_1", "norm_1"], "head"], lo=0.01)
      Rules([('head', 1.0), ('block_1', 0.1), ('norm_1', 0.1), ('stem', 0.01)])
    """
    rows = as_groups(groups)
    lo, hi = positive(lo, "lo"), positive(hi, "hi")
    last = max(len(rows) - 1, 1)
    heights = [1 - below / last for below in range(len(rows))]
    return Rules(
        [
            # Both ends are exact in this form.
            (pattern, hi**height * lo ** (1 - height))
            for group, height in zip(reversed(rows), heights, strict=True)
            for pattern in group
        ]
    )
