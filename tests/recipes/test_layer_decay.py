"""Layer decay: the numbers of the published code, on real parameter trees."""

import random
import re
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import optax_lrmult as olm
from optax_lrmult.recipes import layer_decay

PyTree = Any

# 0.75 ** (13 - i) for i = 0 ... 13, as MAE's util/lr_decay.py counts a ViT-B.
VIT_B = [
    *(0.023757264018058777, 0.03167635202407837, 0.04223513603210449),
    *(0.056313514709472656, 0.07508468627929688, 0.1001129150390625),
    *(0.13348388671875, 0.177978515625, 0.2373046875, 0.31640625),
    *(0.421875, 0.5625, 0.75, 1.0),
]


def multipliers(params: PyTree, decay: float = 0.5, **options: Any) -> dict[str, Any]:
    """What each name gets; every rule is alive, and each name has one."""
    table = layer_decay(decay, params, **options)
    tree = named(params) if isinstance(params, list) else params
    rows = olm.assign(tree, table, on_unmatched="error")
    assert all(sum(rule.takes(row.name) for rule in table) == 1 for row in rows)
    return {row.name: row.value for row in rows}


def named(names: Iterable[str]) -> PyTree:
    """A tree with these names."""
    return dict.fromkeys(names, jnp.zeros(()))


def by_segments(found: dict[str, Any], *prefixes: str) -> list[Any]:
    """The one multiplier of all names below each prefix."""
    values = []
    for prefix in prefixes:
        below = {m for n, m in found.items() if f"{n}/".startswith(f"{prefix}/")}
        assert len(below) == 1, f"{prefix}: {below}"
        values += below
    return values


class EncoderBlock(nn.Module):
    """As in big_vision, but with the names of the first Linen ViT: MlpBlock_3."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        return x + MlpBlock(name="MlpBlock_3")(nn.LayerNorm()(x + y))


class MlpBlock(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(4)(nn.gelu(nn.Dense(8)(x)))


class Encoder(nn.Module):
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(self.depth):
            x = EncoderBlock(name=f"encoderblock_{index}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class LinenViT(nn.Module):
    depth: int = 12
    pool: bool = False

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        x = nn.Conv(4, (2, 2), strides=2, name="embedding")(image).reshape(1, -1, 4)
        cls = self.param("cls", nn.initializers.zeros, (1, 1, 4))
        x = jnp.concatenate([cls, x], axis=1)
        x += self.param("pos_embedding", nn.initializers.zeros, (1, 5, 4))
        x = Encoder(self.depth, name="Transformer")(x)
        x = MAPHead()(x) if self.pool else x[:, 0]
        return nn.Dense(2, name="head")(x)


class MAPHead(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        probe = self.param("probe", nn.initializers.zeros, (1, 1, 4))
        x = nn.LayerNorm()(nn.MultiHeadDotProductAttention(2)(probe, x))
        return MlpBlock()(x)[:, 0]


class TwoTowers(nn.Module):
    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        t = self.param("t", nn.initializers.zeros, ())
        return LinenViT(3, name="img")(image) + t * LinenViT(2, name="txt")(image)


def linen(model: nn.Module) -> PyTree:
    image = jnp.zeros((1, 4, 4, 3))
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


@pytest.fixture(scope="module")
def vit_b() -> PyTree:
    return linen(LinenViT())


class NNXBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.LayerNorm(4, rngs=rngs)
        self.mlp = nnx.Sequential(
            nnx.Linear(4, 8, rngs=rngs), nnx.gelu, nnx.Linear(8, 4, rngs=rngs)
        )


class NNXViT(nnx.Module):
    """With its blocks in an `nnx.Sequential`, whose list is called `layers`."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.patch_embeddings = nnx.Conv(3, 4, (2, 2), rngs=rngs)
        self.position_embeddings = nnx.Param(jnp.zeros((1, 5, 4)))
        self.cls_token = nnx.Param(jnp.zeros((1, 1, 4)))
        self.encoder = nnx.Sequential(*(NNXBlock(rngs) for _ in range(11)))
        self.final_norm = nnx.LayerNorm(4, rngs=rngs)
        self.classifier = nnx.Linear(4, 2, rngs=rngs)


class EquinoxBlock(eqx.Module):
    norm: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __init__(self, key: jax.Array) -> None:
        self.norm = eqx.nn.LayerNorm(4)
        self.mlp = eqx.nn.MLP(4, 4, 8, 1, key=key)


class EquinoxTransformer(eqx.Module):
    wte: eqx.nn.Embedding
    pos_embed: eqx.nn.Embedding
    blocks: list[EquinoxBlock]
    ln_f: eqx.nn.LayerNorm
    lm_head: eqx.nn.MLP

    def __init__(self, key: jax.Array) -> None:
        self.wte = eqx.nn.Embedding(7, 4, key=key)
        self.pos_embed = eqx.nn.Embedding(9, 4, key=key)
        self.blocks = [EquinoxBlock(key) for _ in range(12)]
        self.ln_f = eqx.nn.LayerNorm(4)
        self.lm_head = eqx.nn.MLP(4, 7, 8, 1, key=key)


class TestPublishedNumbers:
    def test_vit_b_as_timm_counts_it(self, vit_b: PyTree) -> None:
        found = multipliers(vit_b, 0.75)
        blocks = [f"Transformer/encoderblock_{index}" for index in range(12)]
        assert by_segments(found, "embedding", *blocks, "head") == VIT_B
        assert by_segments(found, "cls", "pos_embedding") == VIT_B[:1] * 2
        assert by_segments(found, "Transformer/encoder_norm") == [0.75]
        assert len(found) == 4 + 12 * 16 + 2 + 2

    def test_vit_b_as_mae_and_beit_count_it(self, vit_b: PyTree) -> None:
        found = multipliers(vit_b, 0.75, norm="head")
        blocks = [f"Transformer/encoderblock_{index}" for index in range(12)]
        assert by_segments(found, "embedding", *blocks, "head") == VIT_B
        assert by_segments(found, "Transformer/encoder_norm") == [1.0]

    def test_bert_base_with_electras_decay(self) -> None:
        blocks = [f"bert/encoder/layer/{index}" for index in range(12)]
        parts = ("attention/self/query", "attention/output/LayerNorm", "output/dense")
        names = [f"{block}/{part}/w" for block in blocks for part in parts]
        names += [f"bert/embeddings/{n}/w" for n in ("word_embeddings", "LayerNorm")]
        names += ["bert/pooler/dense/w", "classifier/w"]
        names += ["cls/predictions/transform/LayerNorm/w"]
        found = multipliers(names, 0.8)
        # 0.8 ** (13 - i) for i = 0 ... 13
        expected = [
            *(0.054975581388800036, 0.06871947673600004, 0.08589934592000005),
            *(0.10737418240000006, 0.13421772800000006, 0.1677721600000001),
            *(0.20971520000000007, 0.2621440000000001, 0.32768000000000014),
            *(0.4096000000000001, 0.5120000000000001, 0.6400000000000001, 0.8, 1.0),
        ]
        values = by_segments(found, "bert/embeddings", *blocks, "classifier")
        assert values == pytest.approx(expected, rel=1e-14)
        assert by_segments(found, "bert/pooler", "cls") == [1.0, 1.0]


class TestModels:
    def test_nnx_vit(self) -> None:
        params = nnx.state(nnx.eval_shape(lambda: NNXViT(nnx.Rngs(0))), nnx.Param)
        found = multipliers(params)
        blocks = [f"encoder/layers/{index}" for index in range(11)]
        assert by_segments(found, *blocks) == [2.0**-k for k in range(11, 0, -1)]
        stem = ("patch_embeddings", "position_embeddings", "cls_token")
        assert by_segments(found, *stem) == [0.000244140625] * 3
        assert by_segments(found, "final_norm", "classifier") == [0.5, 1]

    def test_haiku_resnet_counts_the_blocks_of_all_stages(self) -> None:
        model = hk.transform_with_state(lambda x: hk.nets.ResNet18(10)(x, True))
        image = jnp.zeros((1, 32, 32, 3))
        found = multipliers(jax.eval_shape(model.init, jax.random.key(0), image)[0])
        blocks = [
            f"res_net18/~/block_group_{stage}/~/block_{block}"
            for stage in range(4)
            for block in range(2)
        ]
        assert by_segments(found, *blocks) == [2.0**-k for k in range(8, 0, -1)]
        stem = ("res_net18/~/initial_conv", "res_net18/~/initial_batchnorm")
        assert by_segments(found, *stem) == [0.001953125] * 2
        assert by_segments(found, "res_net18/~/logits") == [1]

    def test_haiku_gives_the_first_block_no_number(self) -> None:
        def network(x: jax.Array) -> jax.Array:
            x = hk.Linear(4, name="embed")(x)
            for _ in range(3):
                x = hk.nets.MLP([4], name="block")(x)
            return hk.Linear(2)(x)

        init = hk.transform(network).init
        found = multipliers(jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 4))))
        names = ("embed", "block", "block_1", "block_2", "linear")
        assert by_segments(found, *names) == [0.0625, 0.125, 0.25, 0.5, 1]

    def test_equinox_transformer(self) -> None:
        model = eqx.filter_eval_shape(EquinoxTransformer, jax.random.key(0))
        params = eqx.filter(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
        found = multipliers(params)
        blocks = [f"blocks/{index}" for index in range(12)]
        assert by_segments(found, *blocks) == [2.0**-k for k in range(12, 0, -1)]
        assert by_segments(found, "wte", "pos_embed") == [0.0001220703125] * 2
        assert by_segments(found, "ln_f", "lm_head") == [0.5, 1]
        assert layer_decay(0.5, params) == layer_decay(0.5, sorted(found))

    def test_a_head_with_numbered_blocks_is_a_head(self) -> None:
        found = multipliers(linen(LinenViT(2, pool=True)))
        assert by_segments(found, "MAPHead_0", "embedding") == [1, 0.125]

    def test_two_towers_have_scales_of_their_own(self) -> None:
        table = layer_decay(0.5, linen(TwoTowers()))
        assert [f"{rule} {rule.value}" for rule in table] == [
            "img: stem 0.0625",
            "img: block 1 of 3 0.125",
            "img: block 2 of 3 0.25",
            "img: block 3 of 3 0.5",
            "img: with block 3 of 3 0.5",
            "img: head 1.0",
            "txt: stem 0.125",
            "txt: block 1 of 2 0.25",
            "txt: block 2 of 2 0.5",
            "txt: with block 2 of 2 0.5",
            "txt: head 1.0",
        ]


# Names in the order of their depth, and for each the expected distance from the head.
STACKS: dict[str, str] = {
    "numbers from 1": "conv1/w:5 bn1/w:5 layer1/w:4 layer2/w:3 layer3/w:2 layer4/w:1 "
    "fc:0",
    "10 behind 2": "stem:13 "
    + " ".join(f"block_{index}/w:{12 - index}" for index in range(12)),
    "hidden from below": "stem:13 blocks/7/w:5 blocks/9/w:3 blocks/11/w:1 head:0",
    "a hidden stem": "h/0/w:2 h/1/w:1 ln_f/b:1",
    "encoder and decoder": "enc/embed:3 enc/layers_0/w:2 enc/layers_1/w:1 "
    "dec/embed:4 dec/layers_0/w:3 dec/layers_1/w:2 dec/layers_2/w:1 dec/norm:1 head:0",
    "words": "stem:3 TransformerBlock_0/w:2 TransformerBlock_1/w:1 out:0",
    "stages": "stem/w:4 stages_0/a:3 stages_1/a:2 stages_2/a:1 norm/w:1",
    "cells": "stem/w:3 cell1/a:2 cell2/a:1",
    "resblocks": "visual/ln_pre/w:3 visual/proj:0 visual/ln_post/b:1 "
    "visual/transformer/resblocks/0/ln_1/w:2 visual/transformer/resblocks/1/ln_1/w:1",
    "Swin": "embed/w:5 layers/0/blocks/0/w:4 layers/0/blocks/1/w:3 "
    "layers/0/downsample/w:3 layers/1/blocks/0/w:2 layers/1/blocks/1/w:1 norm/w:1",
    "T5, with layers in a block": "shared/embedding:3 enc/block/0/layer/0/w:2 "
    "enc/block/0/layer/1/w:2 enc/block/1/layer/0/w:1 enc/block/1/layer/1/w:1",
    "one inner index": "stem:3 block_0/MlpBlock_3/w:2 block_1/MlpBlock_3/w:1",
    "inner numbers further down": "stem:3 blocks/0/mlp/layers/0/w:2 "
    "blocks/0/mlp/layers/1/w:2 blocks/1/mlp/layers/0/w:1 blocks/1/mlp/layers/1/w:1",
    "numbers that count no blocks": "stem:3 block_0/LayerNorm_0/w:2 block_1/Dense_1/w:1"
    " Dense_0/w:0 Dense_1/w:0 LayerNorm_0/w:1 Embed_0/embedding:3 Conv_0/w:3",
    "layers of a stem and a head": "stem/layers/0/w:3 stem/layers/1/w:3 blocks/0/w:2 "
    "blocks/1/w:1 cls_head/layers/0/w:0 cls_head/layers/1/w:0",
    "a lone layer": "EmbeddingLayer_0/w:3 Block_0/w:2 Block_1/w:1 OutputLayer_0/w:0",
    "words of a stem or a head, but several blocks": "MultiHeadBlock_0/w:2 "
    "MultiHeadBlock_1/w:1 MlpBlock_0/w:2 MlpBlock_1/w:1",
    "the same word without a number": "block/w:0 block_0/w:2 block_1/w:1",
    "Haiku's tilde": "net/~/conv1/w:3 net/block_0/w:2 net/block_1/w:1 net/~/linear/w:0",
    "a model that is called a classifier": "vit_classifier/~/embed/w:3 "
    "vit_classifier/~/block_0/~/mlp/~/linear_0/w:2 vit_classifier/~/head/~/mlp_0/a/w:0 "
    "vit_classifier/~/block_1/~/mlp/~/linear_1/w:1 vit_classifier/~/head/~/mlp_1/a/w:0",
    "a head with layers, and no blocks": "stem/w:3 head/layers/0/mlp/fc_0/w:2 "
    "head/layers/1/mlp/fc_1/w:1",
    "only a head": "head/layers/0/w:2 head/layers/1/w:1",
    "GPT-2": "transformer/wte/embedding:3 transformer/wpe/embedding:3 "
    "transformer/h/0/ln_1/w:2 transformer/h/1/ln_1/w:1 transformer/ln_f/w:1 lm_head:0",
    "two stacks, one embedding": "shared/embedding:4 decoder/block/0/w:3 "
    "decoder/block/1/w:2 decoder/block/2/w:1 encoder/block/0/w:1 "
    "encoder/final_layer_norm/w:1",
    "Linen's collections": "params/cls:3 params/block_0/w:2 params/block_1/w:1 "
    "params/head/w:0 batch_stats/block_1/mean:1",
    "class tokens and heads called cls": "cls:3 block_0/w:2 block_1/w:1 "
    "cls/predictions/embed/w:0 cls/seq_relationship/w:0",
    "words that look like others": "block_0/w:2 block_1/w:1 post_norm/w:1 unembed/w:0 "
    "embed_out/w:0 token_classifier/w:0 system/w:0 head/norm/w:0 pos_emb:3 fc_norm/w:0 "
    "conv_root/w:3 gn_root/w:3 RMSNorm_0/scale:1 register_tokens:3 input_proj/w:3 "
    "pre_head_layer_norm/w:1 ln2/w:1 norm_pre/w:3 conv2/w:3 Embed_norm/w:3 "
    "pre_logits/w:0",
    "containers called like a stem": "text_embedder/blocks/0/w:2 "
    "text_embedder/blocks/1/w:1 text_embedder/norm/w:1 text_embedder/pooler/w:0",
    "letters that are regular expressions": "a+b/stem(1)/w:3 a+b/block_0/[w]:2 "
    "a+b/block_1/w|v:1 a+b/h.*/w:0 a-b/w$:0",
    "leaves in front of modules": "stem:3 block_0:2 block_1:1 x:0 x/norm:1",
    "short lists in a stem or a head": "embedder/layers/0/conv/w:5 "
    "embedder/layers/1/conv/w:5 input_proj/blocks/0/fc/w:5 tokenizer/layers/0/conv/w:5 "
    "tokenizer/layers/1/conv/w:5 blocks/0/a/w:4 blocks/1/a/w:3 blocks/2/a/w:2 "
    "blocks/3/a/w:1 fc/layers/0/fc/w:0 fc/layers/1/fc/w:0 pooler/layers/0/a/w:0 "
    "projector/layers/0/fc/w:0",
    "a tower in an embedder": " ".join(
        f"text_embedder/layers/{i}/a/w:{12 - i} vit/layers/{2 * i}/a/w:{24 - 2 * i} "
        f"vit/layers/{2 * i + 1}/a/w:{23 - 2 * i}"
        for i in range(12)
    ),
    "a tower whose list has no word for it": "encoder/layers/0/a/w:2 "
    "encoder/layers/1/a/w:1 backbone/convnext/0/a/w:2 backbone/convnext/1/a/w:1",
    "a patch embedding with a backbone": "patch_embed/backbone/stages/0/blocks/0/a/w:3 "
    "patch_embed/backbone/stages/1/blocks/0/a/w:3 patch_embed/proj/w:3 blocks/0/a/w:2 "
    "blocks/1/a/w:1",
    "U-Net": "conv_in/w:6 down_blocks/0/r/w:5 down_blocks/1/r/w:4 mid_block/a/0/w:3 "
    "mid_block/b/w:3 up_blocks/0/r/w:2 up_blocks/1/r/w:1 conv_out/w:0",
    "a U-Net with attention": "down_blocks_0/resnets_0/c/w:6 "
    "down_blocks_0/attentions_0/q/w:6 down_blocks_0/resnets_1/c/w:5 "
    "down_blocks_0/attentions_1/q/w:5 down_blocks_0/downsamplers_0/c/w:5 "
    "down_blocks_1/resnets_0/c/w:4 down_blocks_1/resnets_1/c/w:3 "
    "mid_block/attentions_0/q/w:2 up_blocks_0/resnets_0/c/w:1 "
    "up_blocks_0/resnets_1/c/w:1 up_blocks_0/attentions_0/q/w:1 conv_out/w:0",
    "another U-Net": "input_blocks/0/0/w:5 input_blocks/1/0/w:4 middle_block/0/w:3 "
    "output_blocks/0/0/w:2 output_blocks/1/0/w:1 out/0/w:0",
    "the halves of an autoencoder": "encoder/conv_in/w:4 encoder/down_blocks/0/r/w:3 "
    "encoder/down_blocks/1/r/w:2 encoder/mid_block/r/w:1 encoder/conv_out/w:0 "
    "decoder/conv_in/w:4 decoder/mid_block/r/w:3 decoder/up_blocks/0/r/w:2 "
    "decoder/up_blocks/1/r/w:1 decoder/conv_norm_out/w:1 decoder/conv_out/w:0",
    "a table of two stacks, of which one has positions": "shared/w:4 enc/pos_embed/w:4 "
    "enc/layers/0/w:3 enc/layers/1/w:2 enc/layers/2/w:1 dec/layers/0/w:1 lm_head/w:0",
    "PVT v2, whose stages are alike": "layers/0/embedding/w:4 layers/0/blocks/0/a/w:4 "
    "layers/0/blocks/1/a/w:3 layers/0/norm/w:3 layers/1/embedding/w:2 "
    "layers/1/blocks/0/a/w:2 layers/1/blocks/1/a/w:1 layers/1/norm/w:1",
    "CrossViT, whose branches are called blocks": "blocks/0/blocks/0/a/w:2 "
    "blocks/0/blocks/1/a/w:2 blocks/0/fusion/w:2 blocks/1/blocks/0/a/w:1 "
    "blocks/1/blocks/1/a/w:1 blocks/1/fusion/w:1",
    "letters that count": "conv1/c/w:6 conv2/c/w:6 conv3/c/w:6 inception3a/c/w:5 "
    "inception3b/c/w:4 inception4a/c/w:3 inception4b/c/w:2 inception5a/c/w:1 fc/w:0",
    "EfficientNet in Keras": "stem_conv/w:4 block1a_bn/w:3 block2a_expand_conv/w:2 "
    "block2b_bn/w:1 top_bn/w:1 predictions/w:0",
    "stages that are alike": "stage_0/layer_0/a/w:4 stage_0/layer_1/a/w:3 "
    "stage_0/down/w:4 stage_1/layer_0/a/w:2 stage_1/layer_1/a/w:1 stage_1/down/w:2",
    "numbers of dimensions, which do not": "conv2d_0/c/w:3 conv2d_1/c/w:2 "
    "conv2d_2/c/w:1 conv1d/w:0",
    "convolutions on both sides": "conv1/w/x:4 conv2/w/x:4 block1/c/w:3 block2/c/w:2 "
    "block3/c/w:1 conv3/w/x:1 conv4/w/x:1 fc/w:0",
    "the encoder of a VQGAN": "conv_in/w:4 down/0/block/0/c/w:3 down/1/block/0/c/w:2 "
    "mid/block_1/c/w:1 mid/block_2/c/w:1 norm_out/w:1 conv_out/w:0",
    "the longer of two lists": "features/0/w:3 features/1/w:2 features/2/w:1 "
    "side/0/w:0 side/1/w:0",
    "a lone block beside a list": "repeat/0/c/w:2 repeat/1/c/w:1 block8/c/w:0",
    "inputs of a decoder": "inputs_embeds_projector/w:3 query/w:3 cls_token1:3 "
    "layers/0/a/w:2 layers/1/a/w:1",
    "odd slashes": "/stem:3 /block_0/:2 /block_1//w:1",
}


@pytest.mark.parametrize("text", STACKS.values(), ids=STACKS.keys())
def test_distances_from_the_head(text: str) -> None:
    rows = [row.rsplit(":", 1) for row in text.split()]
    expected = {name: 0.5 ** int(distance) for name, distance in rows}
    names = list(expected)
    random.Random(0).shuffle(names)
    assert multipliers(names) == expected
    assert layer_decay(0.5, names) == layer_decay(0.5, sorted(names))


class TestInput:
    def test_leaf_order_means_nothing(self) -> None:
        names = [f"block_{index}/w" for index in range(12)]
        backwards = dict.fromkeys(reversed(names), 0.0)
        found = olm.assign(backwards, layer_decay(0.5, backwards))
        assert found[2].name == "block_10/w"  # JAX sorts the keys as text.
        assert found[2].value == 0.25
        assert layer_decay(0.5, backwards) == layer_decay(0.5, tuple(names))

    def test_param_labels_name_the_parameters(self) -> None:
        params = {"a": 0.0, "b": 0.0}
        labels = {"a": "block_0", "b": "block_1"}
        for given in (labels, lambda _: labels):
            assert (
                layer_decay(0.5, params, param_labels=given).find("block_0")[1] == 0.25
            )

    def test_hidden_leaves_shift_nothing(self, vit_b: PyTree) -> None:
        hidden = {**vit_b, "Transformer": dict(vit_b["Transformer"])}
        for index in range(6):
            hidden["Transformer"][f"encoderblock_{index}"] = optax.MaskedNode()
        whole, part = (multipliers(tree) for tree in (vit_b, hidden))
        assert len(part) == len(whole) - 6 * 16
        assert part == {name: whole[name] for name in part}


NAMES = "embed/w block_0/w block_1/w block_2/w norm/w neck/w head/w".split()


class TestOptions:
    def test_callers_patterns_win_over_the_words(self) -> None:
        found = multipliers(NAMES, stem=["neck", "norm"], head=olm.glob("embed/*"))
        assert by_segments(found, "neck", "norm") == [0.0625, 0.0625]
        assert by_segments(found, "embed", "head") == [1, 1]
        found = multipliers(NAMES, stem="ne", head=("norm", "neck"))
        assert by_segments(found, "neck", "norm") == [0.0625, 1]

    def test_callers_patterns_take_nothing_out_of_a_block(self) -> None:
        names = ["block_0/norm/w", "block_1/norm/w", "block_1/v", "norm/w"]
        found = multipliers(names, head="norm")
        assert list(found.values()) == [0.25, 0.5, 0.5, 1]

    def test_a_pattern_takes_a_whole_stack(self) -> None:
        names = ["blocks/0/w", "blocks/1/w", "net/layers/0/w", "net/layers/1/w"]
        assert list(multipliers(names).values()) == [0.25, 0.5, 0.25, 0.5]
        assert list(multipliers(names, head="net").values()) == [0.25, 0.5, 1, 1]
        stem = multipliers(names, stem=re.compile("net/.*"))
        assert list(stem.values()) == [0.25, 0.5, 0.125, 0.125]

    def test_last(self) -> None:
        found = multipliers(NAMES, last="e", stem="embed", head="neck")
        assert by_segments(found, "embed", "neck", "head") == [0.0625, 0.5, 0.5]

    def test_within_reads_nothing_else(self) -> None:
        tower = ["enc/trunk/pos_embed", *(f"enc/trunk/blocks/{i}/w" for i in range(2))]
        others = ["enc/neck/w", "mask_tokens", *(f"dec/layers/{i}/w" for i in range(9))]
        table = layer_decay(0.5, [*tower, *others], within="enc/trunk/")
        rows = olm.assign(named([*tower, *others]), table, on_unmatched="error")
        assert {row.name: row.value for row in rows if row.rule} == {
            "enc/trunk/pos_embed": 0.125,
            "enc/trunk/blocks/0/w": 0.25,
            "enc/trunk/blocks/1/w": 0.5,
        }
        both = ["trunk/pos", olm.prefix("dec")]
        table = layer_decay(0.5, [*tower, *others], within=both)
        found = [name for name in [*tower, *others] if table.find(name)[0]]
        assert found == [tower[0], *others[2:]]

    @pytest.mark.parametrize(("norm", "expected"), [("last", 0.5), ("head", 1.0)])
    def test_norm(self, norm: str, expected: float) -> None:
        assert multipliers(NAMES, norm=norm)["norm/w"] == expected

    def test_min_scale(self) -> None:
        found = multipliers(NAMES, min_scale=0.2)
        assert by_segments(found, *NAMES) == [0.2, 0.2, 0.25, 0.5, 0.5, 1, 1]

    def test_freeze_below_looks_at_the_decay_alone(self) -> None:
        found = multipliers(NAMES, freeze_below=0.125)
        assert by_segments(found, *NAMES) == [0, 0.125, 0.25, 0.5, 0.5, 1, 1]
        found = multipliers(NAMES, freeze_below=0.2, min_scale=0.3)
        assert by_segments(found, *NAMES) == [0, 0, 0.3, 0.5, 0.5, 1, 1]

    def test_no_decay(self) -> None:
        assert set(multipliers(NAMES, 1).values()) == {1}

    def test_blocks(self) -> None:
        names = (
            "t/~/h0_attn/w t/~/h0_mlp/w t/~/h1_attn/w t/~/h1_mlp/w t/~/out/w".split()
        )
        found = multipliers([*names, "t/~/embed/w"], blocks=r"/h(\d+)_")
        values = by_segments(found, *names, "t/~/embed")
        assert values == [0.25, 0.25, 0.5, 0.5, 1, 0.125]
        compiled = re.compile("H([0-9]+)", re.IGNORECASE)
        assert multipliers(names, blocks=compiled) == multipliers(
            names, blocks=r"h(\d+)"
        )

    def test_blocks_replaces_the_words(self) -> None:
        names = ["conv_layers/0/w", "layers/0/w", "layers/1/w", "head/unit_1/w"]
        found = multipliers(names, blocks=r"^layers/(\d+)", stem="conv_layers")
        assert list(found.values()) == [0.125, 1, 0.25, 0.5]
        found = multipliers(names, blocks=r"unit_(\d+)")
        assert found["head/unit_1/w"] == 0.5

    def test_blocks_with_a_second_number(self) -> None:
        names = (
            "conv1/w layer1/0/w layer1/1/w layer1/down/w layer2/0/w layer2/1/w".split()
        )
        found = multipliers(names, blocks=r"layer(\d+)(?:/(\d+))?")
        assert by_segments(found, *names) == [2.0**-k for k in (5, 4, 3, 3, 2, 1)]

    def test_the_units_of_bit_go_on_counting_in_the_next_block(self) -> None:
        names = [f"block{i}/unit{j:02}/w" for i in (1, 2) for j in (1, 2)]
        found = multipliers(["root_block/w", *names], blocks=r"unit(\d+)", stem="root")
        assert list(found.values()) == [0.0625, 0.125, 0.25, 0.5, 0.03125]


class TestRules:
    def test_are_called_by_the_depth_that_was_read(self) -> None:
        names = ["embed/w", *(f"layers_{i}/w" for i in range(3)), "norm/w", "head/w"]
        table = layer_decay(0.5, names)
        words = ["stem", *(f"block {i} of 3" for i in (1, 2, 3))]
        words += ["with block 3 of 3", "head"]
        assert list(map(str, table)) == words
        again = olm.Rules.from_config(table.to_config())
        assert list(map(str, {"bias": 2} + again)) == ["'bias'", *words]
        shown = str(olm.preview(named(names), table))
        assert "layers_{0..2}/w  ()     block {1..3} of 3  0.125 .. 0.5" in shown

    @pytest.mark.parametrize(
        ("stacks", "towers"),
        [
            ({"blocks"}, set()),
            ({"enc/layers", "dec/layers"}, {"enc", "dec"}),
            (
                {"m/vq/enc/layer", "m/vq/dec/layer", "m/text/layer"},
                {"vq/enc", "vq/dec", "text"},
            ),
            ({"net/AttentionBlock", "net/MlpBlock"}, {"AttentionBlock", "MlpBlock"}),
        ],
    )
    def test_are_called_by_their_tower_if_there_are_several(
        self, stacks: set[str], towers: set[str]
    ) -> None:
        names = [f"{stack}_{i}/fc/w" for stack in stacks for i in range(2)]
        words = [str(rule).split(": ") for rule in layer_decay(0.5, names)]
        assert {tower for tower, *depth in words if depth} == towers
        assert {depth[-1] for depth in words} == {"block 1 of 2", "block 2 of 2"}

    def test_take_whole_segments(self) -> None:
        table = layer_decay(0.5, ["block_1/w", "block_2/w", "head/w"])
        assert table.find("block_10/w") == (None, None)
        assert table.find("block_1/v")[1] == 0.25

    @hypothesis.given(
        st.sets(
            st.lists(
                st.sampled_from(["block_0", "block_1", "h", "2", "a.c", "abc", "norm"]),
                min_size=1,
                max_size=4,
            ).map("/".join),
            max_size=8,
        )
    )
    def test_are_disjoint_complete_and_plain_data(self, names: set[str]) -> None:
        every = [*sorted(names - {"block_9"}), "block_9"]
        table = layer_decay(0.5, every)
        olm.assign(named(every), table, on_unmatched="error")
        again = olm.Rules.from_config(table.to_config())
        for name in every:
            assert sum(rule.takes(name) for rule in table) == 1
            assert again.find(name) == table.find(name)


REFUSED: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "decay 0": (NAMES, {"decay": 0}, ValueError, r"decay must be in \(0, 1\], not 0"),
    "decay NaN": (NAMES, {"decay": float("nan")}, ValueError, "decay must be in"),
    "decay True": (NAMES, {"decay": True}, TypeError, "decay must be a number"),
    "min_scale": (NAMES, {"min_scale": -1}, ValueError, "min_scale must be in"),
    "freeze": (NAMES, {"freeze_below": 2}, ValueError, "freeze_below must be in"),
    "norm": (
        NAMES,
        {"norm": "first"},
        ValueError,
        r"one of \('last', 'head'\), not 'f",
    ),
    "no blocks": (
        ["a/w", "b/w", "c/w", "d/w", "e/w"],
        {},
        ValueError,
        r"no numbered blocks in the names 'a/w', 'b/w', 'c/w' and 2 more\. Say "
        r"where .*blocks=r'unit\(\\d\+\)'.*stacked=\{'encoderblock': 0\}\.",
    ),
    "no names": ([], {}, ValueError, "no numbered blocks in the names none"),
    "all taken": (["h/0"], {"head": "h"}, ValueError, "Found no numbered blocks"),
    "blocks": (NAMES, {"blocks": r"u(\d+)"}, ValueError, r"blocks by blocks='u\("),
    "blocks: groups": (NAMES, {"blocks": r"b\d"}, ValueError, "one group, .*, not 0"),
    "blocks: letters": (
        NAMES,
        {"blocks": "bl(o)ck"},
        ValueError,
        r"What blocks='bl\(o\)ck' takes from 'block_0/w' must be numbers, not \('o',\)",
    ),
    "blocks: nothing": (
        NAMES,
        {"blocks": r"_(\d)|(norm)"},
        ValueError,
        "'norm/w' must",
    ),
    "blocks: regex": (NAMES, {"blocks": "("}, ValueError, r"'\(' is no regular expres"),
    "blocks: type": (NAMES, {"blocks": 1}, TypeError, "blocks must be an expression"),
    "stem": (
        NAMES,
        {"stem": "embd"},
        ValueError,
        "'embd' of stem= takes none .* which are 'embed/w', 'head/w', 'neck/w', 'norm",
    ),
    "within": (NAMES, {"within": "trunk"}, ValueError, "'trunk' of within= takes none"),
    "head in a block": (NAMES, {"head": ["block_1"]}, ValueError, "'block_1' of head="),
    "head: type": (NAMES, {"head": [3]}, TypeError, "pattern of a rule must be a str"),
    "labels": (NAMES, {"param_labels": str}, TypeError, "param_labels must be None"),
}


@pytest.mark.parametrize(
    ("params", "options", "error", "text"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refuses(
    params: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        layer_decay(**{"decay": 0.5, "params_or_names": params, **options})


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ("rel_pos_bias", 0.125),  # BEiT's bias, which all blocks share
        ("relative_position_bias_table", 0.125),
        ("mid", 0.5),
    ],
)
def test_what_stands_beside_the_blocks_is_below_or_behind_all(
    beside: str, expected: float
) -> None:
    names = ["conv_in/w", "blocks/0/w", "blocks/1/w", f"{beside}/w", "head/w"]
    assert multipliers(names)[f"{beside}/w"] == expected
