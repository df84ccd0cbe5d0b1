"""LoRA+: the B matrices of low-rank adapters learn faster than the A matrices."""

import dataclasses
import re
from typing import Any

from optax_lrmult.core.patterns import Pattern, regex
from optax_lrmult.core.rules import Rules


def _called(words: str, expression: str) -> Pattern:
    return dataclasses.replace(regex(expression), words=words)


# `q/w_lora_a` of Qwix, `lora_a` of NNX, `q/lora_A/default/weight` and
# `lora_embedding_A` of PEFT, `lora_kernel_a` of Keras.
_A = _called("LoRA A", r".*lora_((kernel|embeddings?)_)?[aA](?![a-z]).*")
_B = _called("LoRA B", r".*lora_((kernel|embeddings?)_)?[bB](?![a-z]).*")
_OF_EMBEDDINGS = _called(
    "LoRA of embeddings",
    r".*(lora_embeddings?|embed[^/]*(/lora)?[/_]lora)_[aAbB](?![a-z]).*",
)


def lora_plus(
    ratio: Any = 16.0,
    *,
    a: str | re.Pattern[str] | Pattern = _A,
    b: str | re.Pattern[str] | Pattern = _B,
    embedding: Any = None,
) -> Rules:
    r"""LoRA+: the adapters' B matrices learn `ratio` times as fast as their A matrices.

    $$\Delta W = A B, \quad m_B = \mathrm{ratio}, \quad m_A = 1$$

    B is the matrix that starts at zero, on the side of the output. What is no adapter
    has no rule, so that `+ freeze("")` freezes it. The official implementation lets
    biases and norms learn as fast as B: `+ by_kind(params, bias=16, norm=16)`.

    Args:
      ratio: multiplier of B, a number without unit.
      a: pattern of A's names; by default those of PEFT, NNX, Qwix and Keras.
      b: pattern of B's names.
      embedding: multiplier of both matrices of an embedding's adapter
        (`lora_embedding_A`, or `lora_a` right below a module with `embed` in its name).
        They are A and B like others if `None`. The official implementation gives them
        the rate 1e-6, which is the multiplier 1e-6 / learning rate.

    Returns:
      The rules for embeddings, B and A, in this order.

    Source: Hayou, Ghosh and Yu 2024, https://arxiv.org/abs/2402.12354 and
    https://github.com/nikhil-ghosh-berkeley/loraplus

    Example:
      >>> table = lora_plus(16) + {"": 0}
      >>> table
      Rules([(LoRA B, 16), (LoRA A, 1.0), ('', 0)])
      >>> [table.find(name)[1] for name in ("q/w_lora_a", "q/lora_B/weight", "q/w")]
      [1.0, 16, 0]
    """
    table = Rules([(b, ratio), (a, 1.0)])
    if embedding is None:
        return table
    return Rules([(_OF_EMBEDDINGS, embedding)]) + table
