"""Tables by what a parameter is, told by its name, its shape and its place."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from optax import contrib

import optax_lrmult as olm
from optax_lrmult.recipes import by_kind, hidden_matrices, no_decay

VALUES = {"bias": 2.0, "norm": 0.5, "kernel": 3.0, "embedding": 0.1}
MATRIX, VECTOR, SCALE = (8, 4), (8,), (8, 1, 1)
# Names of Flax, Haiku, Keras, PyTorch and Equinox.
KINDS = {
    ("bias", VECTOR): "Dense_0/bias linear/b mlp/~/linear_0/b bias in_proj_bias "
    "conv/offset x/beta abnormal/bias attn/bias normals_head/bias columns/bias "
    "logit_scale scale block/gamma layer_scale1/gamma mixer/D mixer/dt_bias",
    ("bias", MATRIX): "stack/bias stack/in_proj_bias mixer/A_log",
    ("bias", ()): "logit_scale temperature",
    ("bias", SCALE): "ls1/gamma block_0/layer_scale_1 attn/temperature rel_pos",
    ("norm", VECTOR): "LayerNorm_0/scale LayerNorm_0/bias BatchNorm_1/bias ln_f/bias "
    "layer_norm/offset batch_normalization/beta batch_normalization_3/gamma bn1/scale "
    "ln/w pre_ln/bias RMSNorm_0/scale rms_1/w LN_2/bias norm1/weight GroupNorm_0/bias "
    "gn/b group_norm_4/offset enc/final_norm/weight ln",
    ("norm", MATRIX): "stack/LayerNorm_0/scale stack/LayerNorm_0/bias",
    ("embedding", MATRIX): "Embed_0/embedding wte/embedding embed/embeddings "
    "pos_embedding pos_embed embed_tokens/weight TokenEmbed/weight shared/weight "
    "enc/embedding/weight cls_token",
    ("kernel", MATRIX): "Dense_0/kernel conv/w linear/weight patch_embed/proj/weight w "
    "kernel normal/kernel kiln/kernel bnet_0/kernel lora_a attn/query cell/hh "
    # Of modules that are called by a norm, and hold a matrix or are one.
    "norm1/linear/kernel norm1/linear/weight LayerNormMLP_0/wi_kernel norm_proj/weight "
    "LayerNormDenseGeneral_0/kernel norm_attn_norm/attn/Wqkv/weight norm_out/kernel",
}
NAMES = [
    (kind, shape, name) for (kind, shape), t in KINDS.items() for name in t.split()
]
PARAMS = {
    name: jax.ShapeDtypeStruct(shape, "float32")
    for name, shape in {
        "conv_1/kernel": (3, 3, 8),
        "conv_1/bias": (8,),
        "conv_2/kernel": (3, 8, 8),
        "conv_2/extra": (8,),
        "norm/weight": (8,),
        "norm/bias": (8,),
        "temperature": (),
    }.items()
}


def shapes(**sizes: tuple[int, ...]) -> Any:
    return {name: jax.ShapeDtypeStruct(size, "float32") for name, size in sizes.items()}


def found(params: Any, table: olm.Rules) -> dict[str, Any]:
    """What each name has that a rule takes; every rule is alive."""
    rows = olm.assign(params, table, on_unmatched="error")
    return {row.name: row.value for row in rows if row.rule}


@pytest.mark.parametrize(("kind", "shape", "name"), NAMES)
def test_a_name_has_one_kind(kind: str, shape: tuple[int, ...], name: str) -> None:
    params = {name: jax.ShapeDtypeStruct(shape, "float32")}
    assert by_kind(params, **{kind: 2}).find(name)[1] == 2
    for other in VALUES.keys() - {kind}:
        with pytest.raises(ValueError, match=rf"parameters have: \['{kind}'\], not"):
            by_kind(params, **{other: 2})
    assert (len(no_decay(params)) == 1) == (kind in ("bias", "norm"))


class TestByKind:
    def test_a_vector_is_a_bias_whatever_its_name(self) -> None:
        assert found(PARAMS, by_kind(PARAMS, bias=2, norm=0.5)) == {
            "conv_1/bias": 2,
            "conv_2/extra": 2,
            "norm/bias": 0.5,
            "norm/weight": 0.5,
            "temperature": 2,
        }

    def test_a_scale_and_a_bias_alone_in_a_module_are_a_norm_s(self) -> None:
        """In a sequence, modules are called by their numbers."""
        params = shapes(**{"down/0/weight": (8, 4), "down/1/weight": (8,)})
        params |= shapes(**{"down/1/bias": (8,), "gain/scale": (1,), "gain/bias": (1,)})
        params |= shapes(**{"attn/q_bias": (8,), "attn/v_bias": (8,)})
        assert set(found(params, by_kind(params, norm=2))) == {
            "down/1/weight",
            "down/1/bias",
        }

    def test_a_matrix_beside_a_bias_is_no_embedding(self) -> None:
        params = {"class_embed": shapes(weight=(2, 8), bias=(2,))}
        params |= {"token_embed": shapes(weight=(9, 8))}
        assert found(params, by_kind(params, embedding=2)) == {"token_embed/weight": 2}

    def test_prints_the_kinds_and_is_plain_data(self) -> None:
        table = by_kind(PARAMS, kernel=1, bias=2, norm=0.5)
        assert repr(table) == "Rules([(norms, 0.5), (biases, 2), (kernels, 1)])"
        again = olm.Rules.from_config(table.to_config())
        assert repr(again) == repr(table)
        assert found(PARAMS, again) == found(PARAMS, table)

    def test_takes_values_of_all_sorts(self) -> None:
        schedule = optax.constant_schedule(1.0)
        table = by_kind(PARAMS, bias="adam", kernel=schedule)
        assert [rule.value for rule in table] == ["adam", schedule]

    def test_takes_other_labels(self) -> None:
        table = by_kind([jnp.ones(2)], param_labels=["a.w"], bias=2)
        assert table.find("a.w")[1] == 2
        assert table.find("a/w")[1] is None

    def test_takes_nnx_states(self) -> None:
        params = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
        assert found(params, by_kind(params, bias=2)) == {"bias": 2}


class TestNoDecay:
    def test_with_the_rest_is_a_table_of_decays(self) -> None:
        params = {n: jnp.ones((2, 2)) for n in ("a/kernel", "a/bias", "ln/scale")}
        tx = olm.add_decayed_weights_by_name(no_decay(params) + {"": 0.5})
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(zeros, tx.init(params), params)
        assert {n: float(u[0, 0]) for n, u in updates.items()} == {
            "a/bias": 0,
            "a/kernel": 0.5,
            "ln/scale": 0,
        }

    def test_is_empty_where_all_decays(self) -> None:
        assert no_decay(shapes(w=(2, 2))) == olm.Rules()

    def test_prints_what_it_takes(self) -> None:
        assert str(next(iter(no_decay(PARAMS)))) == "vectors and norms"

    def test_takes_the_vectors_of_a_state_space_model(self) -> None:
        """Mamba's `A_log`, `D` and the bias of dt, as its authors train it."""
        mixer = shapes(A_log=(8, 4), D=(8,), dt_bias=(8,))
        mixer |= {"in_proj": shapes(kernel=(8, 8)), "dt_proj": shapes(bias=(8,))}
        still = found({"mixer": mixer}, no_decay({"mixer": mixer}))
        assert set(still) == {f"mixer/{n}" for n in ("A_log", "D", "dt_bias")} | {
            "mixer/dt_proj/bias"
        }


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x += nn.MultiHeadDotProductAttention(2, name="attn")(nn.LayerNorm()(x))
        return x + nn.Dense(4)(nn.Dense(8)(nn.LayerNorm()(x)))


class GPT(nn.Module):
    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(7, 4, name="wte")(tokens)
        for index in range(2):
            x = Block(name=f"block_{index}")(x)
        return nn.Dense(7, name="lm_head")(nn.LayerNorm(name="ln_f")(x))


class TestHiddenMatrices:
    def test_have_the_axes_of_linen_s_kernels(self) -> None:
        tokens = jnp.zeros((1, 3), int)
        params = jax.eval_shape(GPT().init, jax.random.key(0), tokens)["params"]
        axes = found(params, hidden_matrices(params))
        block = {
            "attn/query/kernel": (-3, (-2, -1)),
            "attn/key/kernel": (-3, (-2, -1)),
            "attn/value/kernel": (-3, (-2, -1)),
            "attn/out/kernel": ((-3, -2), -1),
            "Dense_0/kernel": (-2, -1),
            "Dense_1/kernel": (-2, -1),
        }
        expected = {
            f"block_{i}/{n}": pair for i in range(2) for n, pair in block.items()
        }
        assert {name: tuple(pair) for name, pair in axes.items()} == expected

    def test_of_torch_have_the_outputs_in_front(self) -> None:
        params = shapes(**{"h/0/fc/weight": (16, 4), "h/0/fc/bias": (16,)})
        assert tuple(found(params, hidden_matrices(params))["h/0/fc/weight"]) == (
            -1,
            -2,
        )

    def test_are_in_blocks_that_have_a_number_of_their_own(self) -> None:
        """That of a model's name, or of a list of embeddings, tells no block."""
        names = "gpt2/h0/fc gpt2/h1/fc gpt2/layer_11/fc gpt2/lm_head bbox_embed/0/fc/2"
        names += " blocks_token_only/0/fc stem/res0/fc"
        params = shapes(**{f"{name}/kernel": (4, 8) for name in names.split()})
        assert set(found(params, hidden_matrices(params))) == {
            "gpt2/h0/fc/kernel",
            "gpt2/h1/fc/kernel",
            "gpt2/layer_11/fc/kernel",
            "blocks_token_only/0/fc/kernel",
            "stem/res0/fc/kernel",
        }

    def test_of_experts_and_scanned_layers_are_batches(self) -> None:
        params = {
            "layers": shapes(**{"mlp/kernel": (3, 4, 8), "norm/scale": (3, 4)}),
            "blocks_0": {
                "experts": shapes(up=(5, 4, 8)),
                "gate": shapes(kernel=(4, 5)),
            },
        }
        table = hidden_matrices(params)
        assert set(found(params, table)) == {"layers/mlp/kernel", "blocks_0/experts/up"}
        (rule,) = table
        assert str(rule) == "hidden matrices from axis -2 to -1"


if hasattr(contrib, "MuonDimensionNumbers"):  # Not so before optax 0.2.6.

    def test_muon_takes_the_hidden_matrices_and_adam_the_rest() -> None:
        """By its own rule, optax would give Muon to the embedding and the head."""
        params = shapes(**{"wte": (4, 4), "block_0/up/kernel": (4, 4), "head": (4, 4)})
        numbers = olm.by_name(hidden_matrices(params), default=None)
        tx = contrib.muon(0.1, muon_weight_dimension_numbers=numbers)
        states = jax.eval_shape(tx.init, params).inner_states
        nu = optax.tree_utils.tree_get(states["adam"], "nu")
        assert jax.tree.leaves(olm.path_labels(nu)) == ["head", "wte"]
        mu = optax.tree_utils.tree_get(states["muon"], "mu")
        assert jax.tree.leaves(olm.path_labels(mu)) == ["block_0/up/kernel"]
