"""The axes of hidden matrices in models as their own code names and shapes them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from optax import contrib

import optax_lrmult as olm
from optax_lrmult.recipes import hidden_matrices

Pair = tuple[Any, Any]
# In `[in, out]`, and in attention: into heads, out of them.
DENSE, INTO, OUT = (-2, -1), (-3, (-2, -1)), ((-3, -2), -1)
# Tunix 0.1.7, Qwen3-0.6B: einsums BTD,DNH->BTNH and BTNH,NHD->BTD.
QWEN3: dict[str, tuple[tuple[int, ...], Pair | None]] = {
    "embedder/input_embedding": ((151936, 1024), None),
    "layers/0/attn/q_proj/w": ((1024, 16, 128), INTO),
    "layers/0/attn/k_proj/w": ((1024, 8, 128), INTO),
    "layers/0/attn/v_proj/w": ((1024, 8, 128), INTO),
    "layers/0/attn/o_proj/w": ((16, 128, 1024), OUT),
    "layers/0/attn/q_norm/w": ((128,), None),
    "layers/0/attn/k_norm/w": ((128,), None),
    "layers/0/mlp/gate_proj/kernel": ((1024, 3072), DENSE),
    "layers/0/mlp/up_proj/kernel": ((1024, 3072), DENSE),
    "layers/0/mlp/down_proj/kernel": ((3072, 1024), DENSE),
    "layers/0/input_layernorm/w": ((1024,), None),
    "layers/0/post_attention_layernorm/w": ((1024,), None),
    "final_norm/w": ((1024,), None),
}
# Tunix 0.1.7, Gemma3-270M: BTD,NDH->BTNH; BSD,CKDH->CBSKH; BTNH,NHD->BTD.
GEMMA3 = {
    "embedder/input_embedding": ((262144, 640), None),
    "layers/0/attn/q_einsum/w": ((4, 640, 256), (-2, (-3, -1))),
    "layers/0/attn/kv_einsum/w": ((2, 1, 640, 256), (-2, (-4, -3, -1))),
    "layers/0/attn/attn_vec_einsum/w": ((4, 256, 640), OUT),
    "layers/0/attn/_key_norm/scale": ((256,), None),
    "layers/0/attn/_query_norm/scale": ((256,), None),
    "layers/0/mlp/gate_proj/kernel": ((640, 2048), DENSE),
    "layers/0/mlp/up_proj/kernel": ((640, 2048), DENSE),
    "layers/0/mlp/down_proj/kernel": ((2048, 640), DENSE),
    "layers/0/pre_attention_norm/scale": ((640,), None),
    "layers/0/pre_ffw_norm/scale": ((640,), None),
    "final_norm/scale": ((640,), None),
}
# MaxText e591f30, Llama 3 8B and a block of experts: layers on axis 1, and the pairs of
# transform_logic in src/maxtext/utils/muon_utils.py, counted from behind.
MAXTEXT = {
    "token_embedder/embedding": ((128256, 4096), None),
    "decoder/layers/self_attention/query/kernel": ((4096, 32, 32, 128), (-4, (-2, -1))),
    "decoder/layers/self_attention/key/kernel": ((4096, 32, 8, 128), (-4, (-2, -1))),
    "decoder/layers/self_attention/value/kernel": ((4096, 32, 8, 128), (-4, (-2, -1))),
    "decoder/layers/self_attention/out/kernel": ((32, 32, 128, 4096), ((-4, -2), -1)),
    "decoder/layers/mlp/wi_0/kernel": ((4096, 32, 14336), (-3, -1)),
    "decoder/layers/mlp/wi_1/kernel": ((4096, 32, 14336), (-3, -1)),
    "decoder/layers/mlp/wo/kernel": ((14336, 32, 4096), (-3, -1)),
    "decoder/layers/MoeBlock_0/wi_0": ((8, 32, 4096, 14336), (-2, -1)),
    "decoder/layers/MoeBlock_0/wo": ((8, 32, 14336, 4096), (-2, -1)),
    "decoder/layers/pre_self_attention_layer_norm/scale": ((4096, 32), None),
    "decoder/decoder_norm/scale": ((4096,), None),
    "decoder/logits_dense/kernel": ((4096, 128256), None),
}
# openpi 15a9616, src/openpi/models/gemma.py: a tower and an action expert of another
# width in one scanned stack.
PI0 = {
    "PaliGemma/llm/embedder/input_embedding": ((257152, 2048), None),
    "PaliGemma/llm/layers/attn/q_einsum/w": ((18, 8, 2048, 256), (-2, (-3, -1))),
    "PaliGemma/llm/layers/attn/kv_einsum/w": (
        (18, 2, 1, 2048, 256),
        (-2, (-4, -3, -1)),
    ),
    "PaliGemma/llm/layers/attn/attn_vec_einsum/w": ((18, 8, 256, 2048), OUT),
    "PaliGemma/llm/layers/mlp/gating_einsum": ((18, 2, 2048, 16384), (-2, (-3, -1))),
    "PaliGemma/llm/layers/mlp/linear": ((18, 16384, 2048), DENSE),
    "PaliGemma/llm/layers/attn/q_einsum_1/w": ((18, 8, 1024, 256), (-2, (-3, -1))),
    "PaliGemma/llm/layers/attn/kv_einsum_1/w": (
        (18, 2, 1, 1024, 256),
        (-2, (-4, -3, -1)),
    ),
    "PaliGemma/llm/layers/attn/attn_vec_einsum_1/w": ((18, 8, 256, 1024), OUT),
    "PaliGemma/llm/layers/mlp_1/gating_einsum": ((18, 2, 1024, 4096), (-2, (-3, -1))),
    "PaliGemma/llm/layers/mlp_1/linear": ((18, 4096, 1024), DENSE),
    "PaliGemma/llm/layers/pre_attention_norm/scale": ((18, 2048), None),
    "PaliGemma/llm/layers/pre_attention_norm_1/scale": ((18, 1024), None),
    "PaliGemma/llm/layers/pre_ffw_norm_1/scale": ((18, 1024), None),
    "PaliGemma/llm/final_norm_1/scale": ((1024,), None),
    "action_in_proj/kernel": ((32, 1024), None),
    "action_out_proj/kernel": ((1024, 32), None),
}
# What repeats, in other trees: convolutions, a state space, a fused kernel of GPT-2.
OTHERS = {
    "blocks/0/conv1/kernel": ((3, 3, 64, 128), ((-4, -3, -2), -1)),
    "blocks/1/conv1/weight": ((128, 64, 3, 3), ((-3, -2, -1), -4)),
    "blocks/1/mix/weight": ((64, 64, 1), ((-2, -1), -3)),
    "blocks/1/attn/query/kernel": ((64, 1, 64), ((-3, -2), -1)),
    "blocks/0/mixer/in_proj/kernel": ((64, 256), DENSE),
    "blocks/0/mixer/A_log": ((128, 16), None),
    "blocks/1/attn/c_attn/kernel": ((64, 192), DENSE),
    "blocks/1/experts/up": ((8, 64, 128), DENSE),
    "blocks/0/norm/scale": ((64,), None),
    "blocks/1/norm/scale": ((64,), None),
    "lm_head/kernel": ((64, 1000), None),
}


def axes_of(params: Any, **options: Any) -> dict[str, Pair | None]:
    rows = olm.assign(params, hidden_matrices(params, **options))
    return {row.name: row.value and tuple(row.value) for row in rows}


@pytest.mark.parametrize("model", [QWEN3, GEMMA3, MAXTEXT, PI0, OTHERS])
def test_golden_axes(model: dict[str, tuple[tuple[int, ...], Pair | None]]) -> None:
    params = {n: jax.ShapeDtypeStruct(s, "float32") for n, (s, _) in model.items()}
    assert axes_of(params) == {name: pair for name, (_, pair) in model.items()}


class Layer(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, key: Any) -> None:
        self.attention = eqx.nn.MultiheadAttention(2, 8, key=key)
        self.up, self.norm = eqx.nn.Linear(8, 32, key=key), eqx.nn.LayerNorm(8)


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.wte = nnx.Embed(50, 8, rngs=rngs)
        blocks = [nnx.MultiHeadAttention(2, 8, rngs=rngs, decode=False) for _ in "ab"]
        self.blocks = nnx.List(blocks) if hasattr(nnx, "List") else blocks


def test_in_equinox_the_outputs_stand_in_front() -> None:
    layers = [Layer(jax.random.key(index)) for index in range(2)]
    params = eqx.filter({"blocks": layers}, eqx.is_inexact_array)
    matrices = {name for name, pair in axes_of(params).items() if pair == (-1, -2)}
    modules = "query_proj key_proj value_proj output_proj".split()
    paths = [*(f"attention/{module}" for module in modules), "up"]
    assert matrices == {f"blocks/{i}/{path}/weight" for i in (0, 1) for path in paths}


def test_in_nnx() -> None:
    axes = axes_of(nnx.state(Net(nnx.Rngs(0)), nnx.Param))
    assert axes["wte/embedding"] is None
    assert axes["blocks/0/query/kernel"] == INTO
    assert axes["blocks/1/out/kernel"] == OUT


def test_what_is_not_told_is_asked_for() -> None:
    shapes = {"blocks/0/mix/kernel": (8, 3, 8), "blocks/1/mix/kernel": (8, 3, 8)}
    params = {name: jax.ShapeDtypeStruct(s, "float32") for name, s in shapes.items()}
    with pytest.raises(ValueError, match=r"axes of 'blocks/0/mix/kernel'.*axes=\{"):
        hidden_matrices(params)
    axes = axes_of(params, axes={"blocks/0": (0, 2), "mix": ((0, 1), 2)})
    assert axes == dict(zip(shapes, [(0, 2), ((0, 1), 2)], strict=True))
    with pytest.raises(ValueError, match="Rule 'mxi'.* of axes matches none") as error:
        hidden_matrices(params, axes={"mxi": (0, 2)})
    assert "on_unmatched" not in str(error.value)  # It has no such argument.


def test_where_no_block_repeats_they_are_named() -> None:
    sizes = {"Dense_0": (784, 256), "Dense_1": (256, 256), "Dense_2": (256, 10)}
    params = {
        name: {"kernel": jax.ShapeDtypeStruct(size, "float32")}
        for name, size in sizes.items()
    }
    assert not hidden_matrices(params)
    axes = axes_of(params, axes={"Dense_1/kernel": (0, 1)})
    assert [name for name, pair in axes.items() if pair == (0, 1)] == ["Dense_1/kernel"]
    assert list(axes.values()).count(None) == 2


if hasattr(contrib, "MuonDimensionNumbers"):  # Not so before optax 0.2.6.

    @pytest.mark.parametrize(
        ("shape", "flat", "order"),
        [
            ((2, 8, 3, 5), (2, 8, 15), (0, 1, 2, 3)),  # Scanned, into heads.
            ((2, 3, 5, 8), (2, 15, 8), (0, 1, 2, 3)),  # Scanned, out of them.
            ((2, 3, 8, 5), (2, 8, 15), (0, 2, 1, 3)),  # Heads in front.
        ],
    )
    def test_muon_takes_the_matrix_that_is_meant(
        shape: tuple[int, ...], flat: tuple[int, ...], order: tuple[int, ...]
    ) -> None:
        """As it does with two plain matrices of the same numbers."""
        kernel = jax.random.normal(jax.random.key(0), shape)
        rest = {
            "norm": {"scale": jnp.ones((2, 8))},
            "up": {"kernel": jnp.ones((2, 8, 32))},
        }
        params = {"layers": {"mix": {"w": kernel}, **rest}, "wte": jnp.ones((50, 8))}
        numbers = olm.by_name(hidden_matrices(params), default=None)
        tx = contrib.muon(0.1, muon_weight_dimension_numbers=numbers)
        tx = olm.with_name_multipliers(tx, {"mix": 0.5})
        updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
        plain = contrib.muon(0.1)
        for index in (0, 1):
            matrix = {"w": kernel.transpose(order).reshape(flat)[index]}
            alone, _ = jax.jit(plain.update)(matrix, plain.init(matrix), matrix)
            update = updates["layers"]["mix"]["w"].transpose(order).reshape(flat)[index]
            np.testing.assert_allclose(update, 0.5 * alone["w"], rtol=1e-3, atol=1e-5)
