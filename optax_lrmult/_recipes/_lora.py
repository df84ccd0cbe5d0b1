"""LoRA+: the B matrices of low-rank adapters learn faster than the A matrices."""

import re
from typing import Any

from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._recipes._arguments import positive
from optax_lrmult._recipes._named import rules_by_name, shapes_by_name
from optax_lrmult._rules import Pattern, Rules

_A = re.compile(r".*lora_(embedding_)?[aA](?![a-z]).*")
_B = re.compile(r".*lora_(embedding_)?[bB](?![a-z]).*")
_OF_EMBEDDINGS = re.compile(r".*(lora_embedding|embed.*/lora)_[aAbB](?![a-z]).*")


def lora_plus(
    ratio: Any = 16.0,
    *,
    a: Pattern = _A,
    b: Pattern = _B,
    embedding: Any = None,
    vectors_of: PyTree = None,
    param_labels: ParamLabels = None,
) -> Rules:
    r"""LoRA+: the adapters' B matrices learn `ratio` times faster than their A.

    $$\Delta W = A B, \quad m_B = \mathrm{ratio}, \quad m_A = 1$$

    B is the matrix that starts at zero, on the side of the output (`lora_b` in Flax,
    `lora_B` in PEFT). All else has no rule and learns like A: biases, norms, and the
    base weights, which `+ freeze("")` freezes.

    Args:
      ratio: multiplier of B, a positive real number without unit or a traced scalar.
      a: pattern of A's names; `lora_a` or `lora_A` anywhere, by default.
      b: pattern of B's names.
      embedding: multiplier of both matrices of an embedding's adapter
        (`lora_embedding_A`, or `lora_a` under a segment with `embed`); they are A and B
        like others if `None`. The official implementation gives them the rate 1e-6: the
        multiplier 1e-6 / learning rate.
      vectors_of: the parameters, or their shapes from `jax.eval_shape`. If they are
        given, those of one axis (biases, norms) are as fast as B, as in the official
        implementation.
      param_labels: the names of `vectors_of`, if not those of `path_labels`.

    Returns:
      The rules for embeddings, B, vectors and A, in this order.

    Raises:
      TypeError: a number or a pattern is of a wrong type.
      ValueError: `ratio` or `embedding` is not positive and finite.

    Source: Hayou, Ghosh and Yu 2024, https://arxiv.org/abs/2402.12354 and
    https://github.com/nikhil-ghosh-berkeley/loraplus

    Example:
      >>> table = lora_plus(16, a="lora_a", b="lora_b") + {"": 0}
      >>> table
      Rules([('lora_b', 16.0), ('lora_a', 1.0), ('', 0.0)])
    """
    ratio = positive(ratio, "ratio")
    fast = Rules([(b, ratio)])
    if embedding is not None:
        fast = {_OF_EMBEDDINGS: positive(embedding, "embedding")} + fast
    return fast + _vectors(vectors_of, param_labels, ratio, fast) + [(a, 1.0)]


def _vectors(
    params: PyTree, param_labels: ParamLabels, multiplier: Any, in_front: Rules
) -> Rules:
    if params is None:
        return Rules()
    shapes = shapes_by_name(params, param_labels)
    is_vector = {
        name: len(shape) == 1 and in_front.find(name)[0] is None
        for name, shape in shapes.items()
    }
    return rules_by_name(is_vector, {True: multiplier})
