"""What converters return where a source sets the weight decay too."""

import re
from typing import NamedTuple

from optax_lrmult._rules import Rules


class GroupRules(NamedTuple):
    r"""Two tables, as PyTorch's parameter groups carry them.

    With the multipliers $m$ of the rate and $d$ of the decay, PyTorch's AdamW makes

    $$p \leftarrow p - m \eta \, (u + d \lambda p)$$

    so the rate multiplies the decay too. The same chain here is the core,
    `add_decayed_weights_by_name(weight_decay, tables.weight_decay)`,
    `scale_by_name_multiplier(tables.learning_rate)` and
    `optax.scale_by_learning_rate(learning_rate)`. In PyTorch's SGD and Adam the decay
    goes through the core: put it in front there.

    Attributes:
      learning_rate: the table of multipliers of the learning rate.
      weight_decay: the table of multipliers of the weight decay.
    """

    learning_rate: Rules
    weight_decay: Rules


def exactly(name: str) -> re.Pattern[str]:
    """The pattern that takes one name and no other."""
    return re.compile(re.escape(name))
