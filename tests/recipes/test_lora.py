"""LoRA+ against the groups of the official implementation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import optax_lrmult as olm
from optax_lrmult.recipes import by_kind, freeze, lora_plus

# As named_parameters() of a PEFT model says them, with the group of the official
# implementation: A, B (lr * ratio), or E (loraplus_lr_embedding).
PEFT = {
    "model/layers/0/q_proj/lora_A/default/weight": ((8, 64), "A"),
    "model/layers/0/q_proj/lora_B/default/weight": ((64, 8), "B"),
    "model/layers/0/q_proj/lora_B/default/bias": ((64,), "B"),
    "model/layers/0/q_proj/bias": ((64,), "B"),
    "model/layers/0/norm/weight": ((64,), "B"),
    "model/embed_tokens/lora_embedding_A/default": ((8, 100), "E"),
    "model/embed_tokens/lora_embedding_B/default": ((64, 8), "E"),
    "score/weight": ((2, 64), "A"),
}


def test_has_the_groups_of_the_official_implementation() -> None:
    rate, embedding_rate, ratio = 2e-4, 1e-6, 16.0
    params = {
        n: jax.ShapeDtypeStruct(shape, "float32") for n, (shape, _) in PEFT.items()
    }
    table = lora_plus(ratio, embedding=embedding_rate / rate)
    table += by_kind(params, bias=ratio, norm=ratio)
    official = {"A": rate, "B": rate * ratio, "E": embedding_rate}
    for row in olm.assign(params, table, on_unmatched="error"):
        group = PEFT[row.name][1]
        np.testing.assert_allclose(rate * row.value_or(1.0), official[group])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("q/lora_A/default/weight", 1),  # PEFT
        ("q/lora_B/default/weight", 16),
        ("embed/lora_embedding_B/default", 16),
        ("lora_a", 1),  # Flax NNX
        ("layers/0/lora_b", 16),
        ("q_proj/w_lora_a", 1),  # Qwix
        ("gate_proj/kernel_lora_b", 16),
        ("dense/lora_kernel_a", 1),  # Keras
        ("dense/lora_kernel_b", 16),
        ("embedding/lora_embeddings_b", 16),
        ("mlp/linear_lora_b", 16),  # openpi
        ("q/weight", None),
        ("lora_block/w", None),
        ("lora_alpha", None),
        ("lorab", None),
        ("b", None),
    ],
)
def test_finds_the_matrices_of_known_libraries(name: str, expected: Any) -> None:
    assert lora_plus(16).find(name)[1] == expected
    # There is a rule for A, too, so that the rest can be frozen.
    assert (lora_plus(16) + freeze("")).find(name)[1] == (expected or 0)


def test_in_flax_b_is_what_starts_at_zero() -> None:
    layer = nnx.LoRA(3, 2, 4, rngs=nnx.Rngs(0))
    rows = olm.assign(nnx.state(layer), lora_plus(8), on_unmatched="error")
    for row, array in zip(rows, [layer.lora_a, layer.lora_b], strict=True):
        is_b = not np.any(np.asarray(array[...]))
        assert row.value == (8 if is_b else 1), row.name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embed/lora_a", 0.5),
        ("token_embedding/lora/lora_b", 0.5),
        ("embedder/input_embedding_lora_a", 0.5),
        ("embedding/lora_embeddings_a", 0.5),
        ("embedder/layers/0/q/lora_b", 4),
        ("attn/lora_b", 4),
    ],
)
def test_takes_an_embedding_by_the_module_above(name: str, expected: float) -> None:
    assert lora_plus(4, embedding=0.5).find(name)[1] == expected


def test_takes_other_names() -> None:
    table = lora_plus(2, a="down", b=olm.glob("**/up")) + freeze("")
    names = "x/down", "x/up", "x/upper"
    assert [table.find(name)[1] for name in names] == [1, 2, 0]


def test_ratio_may_be_traced() -> None:
    def of_b(ratio: Any) -> Any:
        tx = olm.scale_by_name_multiplier(lora_plus(ratio))
        return tx.update({"lora_a": 1.0, "lora_b": 1.0}, tx.init({}))[0]["lora_b"]

    np.testing.assert_array_equal(jax.vmap(of_b)(jnp.arange(2.0)), [0, 1])


def test_is_plain_data() -> None:
    table = lora_plus(16, embedding=0.5)
    again = olm.Rules.from_config(table.to_config())
    assert repr(again) == repr(table)
    for name in PEFT:
        assert again.find(name)[1] == table.find(name)[1]
