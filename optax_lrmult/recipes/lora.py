"""LoRA+: the B matrices of low-rank adapters learn faster than the A matrices."""

import dataclasses
import re
from typing import Any

from optax_lrmult.core.patterns import Pattern, as_pattern, regex
from optax_lrmult.core.rules import Rules
from optax_lrmult.recipes.unfreezing import positive


def _named(text: str, words: str) -> Pattern:
    return dataclasses.replace(regex(text), words=words)


_A = _named(r".*lora_(embedding_)?[aA](?![a-z]).*", "LoRA A")
_B = _named(r".*lora_(embedding_)?[bB](?![a-z]).*", "LoRA B")
_OF_EMBEDDINGS = _named(
    r".*(lora_embedding|embed.*/lora)_[aAbB](?![a-z]).*", "LoRA of embeddings"
)


def lora_plus(
    ratio: Any = 16.0,
    *,
    a: str | re.Pattern[str] | Pattern = _A,
    b: str | re.Pattern[str] | Pattern = _B,
    embedding: Any = None,
) -> Rules:
    r"""LoRA+: the adapters' B matrices learn `ratio` times as fast as their A.

    $$\Delta W = A B, \quad m_B = \mathrm{ratio}, \quad m_A = 1$$

    B is the matrix that starts at zero, on the side of the output (`lora_b` in Flax and
    Qwix, `lora_B` in PEFT). What is no adapter has no rule; `+ freeze("")` freezes it.

    Args:
      ratio: multiplier of B, a positive number without unit or a traced scalar.
      a: pattern of A's names; `lora_a` or `lora_A` anywhere, by default.
      b: pattern of B's names.
      embedding: multiplier of both matrices of an embedding's adapter
        (`lora_embedding_A`, or `lora_a` under a segment with `embed`). They are A and B
        like others if `None`. The official implementation gives them the rate 1e-6,
        which is the multiplier 1e-6 / learning rate.

    Returns:
      The rules for embeddings, B and A, in this order.

    Source: Hayou, Ghosh and Yu 2024, https://arxiv.org/abs/2402.12354 and
    https://github.com/nikhil-ghosh-berkeley/loraplus

    Example:
      >>> lora_plus(16) + {"": 0}
      Rules([(LoRA B, 16.0), (LoRA A, 1.0), ('', 0)])
    """
    table = Rules([(as_pattern(b), positive(ratio, "ratio")), (as_pattern(a), 1.0)])
    if embedding is None:
        return table
    return Rules([(_OF_EMBEDDINGS, positive(embedding, "embedding"))]) + table
