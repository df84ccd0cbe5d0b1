"""What recipes find by names and shapes, on parameters of published architectures."""

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import pytest

import optax_lrmult as olm
from optax_lrmult.recipes import by_kind, hidden_matrices, layer_decay, no_decay

DATA = Path(__file__).parent.parent / "data" / "architectures"
STILL = {"bias", "norm", "scale", "ssm"}
# Of these kinds either answer is right.
LENIENT = set("projection head_hidden conv conv_depthwise recurrent other".split())
KERNELS = {"matrix", "head", "router"}
KINDS = "kernel", "embedding", "norm", "bias"
# One of each kind, since by_kind refuses a kind that there is none of.
EXTRA = [("x1/kernel", (2, 2)), ("x2/embedding", (2, 2)), ("norm", (2,)), ("x3", (2,))]


def read(name: str) -> Any:
    return json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def transformers() -> dict[str, Any]:
    return read("transformers")


def params_of(rows: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(tuple(s), "float32") for name, s in rows}


def takes(params: Any, table: olm.Rules) -> set[str]:
    return {row.name for row in olm.assign(params, table) if row.rule}


# How many of the 278 architectures must be right in every parameter.
@pytest.mark.parametrize(
    ("framework", "matrices", "decays", "kinds"),
    [("torch", 276, 277, 270), ("flax", 277, 277, 276)],
)
def test_kinds_in_transformers(
    transformers: dict[str, Any], framework: str, matrices: int, decays: int, kinds: int
) -> None:
    first = {"torch": 0, "flax": 2}[framework]
    wrong: dict[str, list[str]] = {"matrices": [], "decays": [], "kinds": []}
    for architecture, rows in transformers.items():
        params = params_of(row[first : first + 2] for row in rows)
        told = {row[first]: row[4] for row in rows if row[4] not in LENIENT}
        muon = takes(params, hidden_matrices(params))
        still = takes(params, no_decay(params))
        if any((name in muon) != (kind == "matrix") for name, kind in told.items()):
            wrong["matrices"].append(architecture)
        sure = {n: k for n, k in told.items() if k not in ("token", "relative")}
        if any((name in still) != (kind in STILL) for name, kind in sure.items()):
            wrong["decays"].append(architecture)
        told_as = {n: "kernel" if k in KERNELS else k for n, k in told.items()}
        table = by_kind(params | params_of(EXTRA), **{kind: kind for kind in KINDS})
        kind_of = {row.name: row.value for row in olm.assign(params, table)}
        if any(kind_of[n] != k for n, k in told_as.items() if k in KINDS):
            wrong["kinds"].append(architecture)
    total = len(transformers)
    assert total - len(wrong["matrices"]) >= matrices, wrong["matrices"]
    assert total - len(wrong["decays"]) >= decays, wrong["decays"]
    assert total - len(wrong["kinds"]) >= kinds, wrong["kinds"]


# What an argument says where timm reads the same names in one way here, in another
# there: convolutions called conv_head count with the blocks in FasterNet and with the
# head in LCNetV2, and stages alone count in MViTv2, as blocks do in ConvNeXt.
STAGES = {"blocks": r"stages/(\d+)"}
CONV_HEAD = {"last": "conv_head"}
TOLD: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("coatnet_0_224", "cpubone_b2pt5_dwnorm", "gcvit_base"), STAGES),
    **dict.fromkeys(("efficientformer_l1", "efficientformerv2_l"), STAGES),
    **dict.fromkeys(("mvitv2_large_cls", "pvt_v2_b2_li"), STAGES),
    **dict.fromkeys(("fasternet_t0", "ghostnet_050", "repghostnet_111"), CONV_HEAD),
    "fastvit_s12": {"head": "final_conv"},
    "densenet201": {"head": "norm5"},
    "tnt_s_legacy_patch16_224": {"stem": [olm.glob("norm?_proj/*", "proj/*")]},
    "deepseek_vit_412m_align": {"last": "aligner"},
}
# Where all multipliers are timm's times decay, and why.
NO_HEAD = "it has no head, so that timm's last block has the multiplier 1"
BY_A_FACTOR = {
    "aimv2_1b_patch14_224": NO_HEAD,
    "deepseek_vit_412m_align": NO_HEAD,
    "gemma4_vit_167m": NO_HEAD,
    "naflexvit_huge_patch16_radio_v3": NO_HEAD,
    "qwen3_vit_88m": NO_HEAD,
}
CUT = "timm knows no blocks in it, and counts arrays, through the middle of blocks"
DIFFERENT = {
    "csatv2_21m": CUT,
    "mobilenetv5_300m_enc": CUT,
    "pit_ti_224": CUT,
    "poolformer_m48": CUT,
    "coat_lite_medium": "timm counts what embeds each stage as one block more",
    "cspnext_s": "timm counts the blocks inside of the last module of a stage only",
    "inception_v3": "timm counts two of the five convolutions in front as a block",
    "iformer_l_distilled": "timm gives the last block the multiplier of the head",
    "legacy_xception": "timm counts the convolutions behind the blocks as a block",
    "selecsls42": "timm counts the convolutions called head as one block more",
}


def distances(params: Any, **options: Any) -> dict[str, float]:
    """The power of the decay that each name gets."""
    rows = olm.assign(params, layer_decay(0.5, params, **options), on_unmatched="error")
    return {row.name: -math.log2(row.value) for row in rows}


def off_by(rows: dict[str, Any], **options: Any) -> set[float]:
    """How far the powers of the decay are from timm's."""
    params = params_of((name, shape) for name, (shape, _) in rows.items())
    found = distances(params, **options)
    return {found[name] - exponent for name, (_, exponent) in rows.items()}


def test_layer_decay_in_timm() -> None:
    """80 of 95 models are timm's in every parameter, 13 of them by one argument."""
    models = read("timm")
    off = {model: off_by(rows) for model, rows in models.items()}
    assert [off[model] for model in off].count({0}) == 67
    assert not [model for model in TOLD if off[model] == {0}]
    off |= {model: off_by(models[model], **TOLD[model]) for model in TOLD}
    assert {model for model in off if len(off[model]) > 1} == {*DIFFERENT}
    assert {model for model in off if off[model] == {1}} == {*BY_A_FACTOR}
    assert len(off) - len(DIFFERENT) - len(BY_A_FACTOR) == 80
    counts = "of 95 models 67 come out alike by themselves, and 80 with one argument"
    assert counts in " ".join((layer_decay.__doc__ or "").split())


@pytest.mark.parametrize(
    ("recorded", "prefix", "depths"),
    [
        ("swin_base_patch4_window7_224", "layers/{}/blocks/{}/", (2, 2, 6, 2)),
        ("convnext_xlarge", "stages/{}/blocks/{}/", (3, 3, 9, 3)),
        ("resnetblur18", "layer{}/{}/", (2, 2, 2, 2)),
    ],
    ids=["swin_tiny", "convnext_tiny", "resnet18"],
)
def test_smaller_models_of_a_family(
    recorded: str, prefix: str, depths: tuple[int, ...]
) -> None:
    """The names are those of the recorded model, without the blocks above a depth."""
    rows, start = read("timm")[recorded], int(recorded.startswith("resnet"))
    kept = [(i, j) for i, depth in enumerate(depths, start) for j in range(depth)]
    top = {prefix.format(*pair): len(kept) - k for k, pair in enumerate(kept)}
    stages, _, _ = prefix.partition("{}")
    expected: dict[str, int] = {}
    for name, (_, exponent) in rows.items():
        opened = re.sub(r"^(\w+/\d)/downsample/", r"\1/blocks/0/", name)
        blocks = [top[block] for block in top if opened.startswith(block)]
        if blocks or not name.startswith(stages):
            outside = min(exponent, len(kept) + 1)
            expected[name] = blocks[0] if blocks else outside
    found = distances(params_of((name, rows[name][0]) for name in expected))
    assert found == expected


# Of each model in Flax, names that begin alike, and their distance from the head.
FLAX = {
    "bonsai convnext": "embedding_layer:19 stages/0/layers/0:18 stages/0/layers/2:16 "
    "stages/1/downsample_layers:15 stages/1/layers/0:15 stages/3/layers/2:1 norm:1 "
    "head:0",
    "bonsai densenet121": "init_conv:8 init_bn:8 blocks/layers/0:7 blocks/layers/1:6 "
    "blocks/layers/6:1 final_bn:1 linear:0",
    "bonsai efficientnet": "stem_conv:17 stem_bn:17 blocks/0:16 blocks/15:1 head_bn:1 "
    "head_conv:1 classifier:0",
    "bonsai gemma3": "embed_tokens:35 language_model/layers/0:34 "
    "language_model/norm:1 multi_modal_projector:0 vision_tower/embeddings:28 "
    "vision_tower/encoder/layers/0:27",
    "bonsai qwen3_vl": "model/visual/patch_embed:25 model/visual/blocks/0:24 "
    "model/visual/merger:0 model/visual/deepstack_merger_list:0 "
    "model/language_model/embed_tokens:29 model/language_model/layers/27:1",
    "bonsai resnet": "stem:17 layer0/blocks/0:16 layer3/blocks/2:1 fc:0",
    "bonsai sam2": "image_encoder/trunk/patch_embed:13 image_encoder/trunk/blocks/0:12 "
    "image_encoder/trunk/pos_embed:13 image_encoder/neck:0 memory_attention/layers/0:4",
    "bonsai umt5": "encoder/embed_tokens:9 encoder/block/0:8 "
    "encoder/final_layer_norm:1 decoder/embed_tokens:9 decoder/block/0:8 lm_head:0",
    "bonsai unet": "inc:9 down1:8 down4:5 up1:4 up4:1 outc:0",
    "bonsai vae": "encoder/conv_in:10 encoder/down_blocks/0/resnets/0:9 "
    "encoder/down_blocks/3/resnets/1:2 encoder/mid_block:1 encoder/conv_norm_out:1 "
    "encoder/conv_out:0 decoder/conv_in:14 decoder/mid_block:13 "
    "decoder/up_blocks/0/resnets/0:12 decoder/conv_norm_out:1 decoder/conv_out:0",
    "bonsai vgg19": "conv_block0:5 conv_block4:1 classifier:0",
    "bonsai vit": "pos_embeddings:13 layers/0:12 layers/11:1 ln:1 classifier:0",
    "bonsai vjepa2": "vjepa2/encoder/embeddings:25 vjepa2/encoder/layer/0:24 "
    "vjepa2/encoder/layer/23:1 vjepa2/encoder/layernorm:1 pooler:0 classifier:0",
    "bonsai whisper": "encoder/conv1:5 encoder/conv2:5 encoder/embed_positions:5 "
    "encoder/layers/0:4 encoder/layer_norm:1 decoder/embed_tokens:5 decoder/layers/3:1",
    "tunix gemma3-270m": "embedder:19 layers/0:18 layers/17:1 final_norm:1",
    "maxtext llama3-8b": "token_embedder:33 decoder/layers_0:32 decoder/layers_31:1 "
    "decoder/decoder_norm:1 decoder/logits_dense:0",
}


@pytest.mark.parametrize("model", FLAX)
def test_layer_decay_in_flax(model: str) -> None:
    params = params_of(read("flax")[model].items())
    found = distances(params)
    for row in FLAX[model].split():
        prefix, distance = row.rsplit(":", 1)
        below = {found[name] for name in found if f"{name}/".startswith(f"{prefix}/")}
        assert below == {int(distance)}, prefix


def test_layer_decay_in_a_scanned_model_of_levanter() -> None:
    params = params_of(read("flax")["levanter mixtral"].items())
    table = layer_decay(0.5, params, stacked={"stacked": 0})
    rows = olm.assign(params, table, on_unmatched="error")
    layers = {str(row.value) for row in rows if "/stacked/" in row.name}
    assert layers == {"per_layer([0.0625, 0.125, 0.25, 0.5])"}
    others = {row.name: row.value for row in rows if "/stacked/" not in row.name}
    assert list(others.values()) == [0.03125, 1, 0.5]


# Tables that learn as fast as a head, since nothing but their shapes tells what they
# are, or since they stand between two stacks.
FAST_EMBEDDINGS = {
    "torch": {"ctrl", "dac", "florence2", "sam3_lite_text"},
    "flax": {"florence2"},  # Where the array in an `Embed` is called `embedding`.
}


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_layer_decay_in_transformers(
    transformers: dict[str, Any], framework: str
) -> None:
    first, fast, slow = {"torch": 0, "flax": 2}[framework], set(), set()
    for architecture, rows in transformers.items():
        if architecture == "glm_image_vqmodel":  # It has no blocks.
            continue
        params = params_of(row[first : first + 2] for row in rows)
        table = layer_decay(0.5, params)
        values = {row.name: row.value for row in olm.assign(params, table)}
        blocks = [int(text) for text in re.findall(r"block \d+ of (\d+)", str(table))]
        assert min(values.values()) >= 0.5 ** (max(blocks) + 1)
        experts: dict[str, set[float]] = {}
        for row in rows:
            name, kind = row[first], row[4]
            one = re.sub(r"(experts?[/_])\d+", r"\1", name)
            experts.setdefault(one, set()).add(values[name])
            if kind == "embedding" and values[name] == 1:
                fast.add(architecture)
            if kind == "head" and values[name] < 1:
                slow.add(architecture)
        assert all(len(several) == 1 for several in experts.values()), architecture
    assert fast == FAST_EMBEDDINGS[framework]
    assert slow == {"lightglue"}  # It has a head for each layer, numbered as they are.


class Named:
    """An array in a node without keys, as Haliax and simply register theirs."""

    def __init__(self, array: Any) -> None:
        self.array = array


jax.tree_util.register_pytree_node(
    Named, lambda node: ((node.array,), None), lambda _, inside: Named(*inside)
)


def test_decays_in_levanter() -> None:
    """Its default mask lets neither vectors and norms decay, nor embeddings."""
    for model, rows in read("levanter").items():
        tree: dict[str, Any] = {}
        for name, (shape, _) in rows.items():
            *path, leaf = name.split("/")
            node = tree
            for key in path:
                node = node.setdefault(key, {})
            node[leaf] = Named(jax.ShapeDtypeStruct(tuple(shape), "float32"))
        still = takes(tree, no_decay(tree) + by_kind(tree, embedding=0.0))
        assert still == {name for name, (_, decays) in rows.items() if not decays}, (
            model
        )
