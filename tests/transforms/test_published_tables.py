"""Tables that others have published, with their numbers, against their groups by hand.

Only what the source calls a rate, a beta, an epsilon or a weight decay is taken over.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import optax_lrmult as olm
from optax_lrmult.recipes import mup, no_decay

Row = dict[str, Any]


def normal(*shape: int) -> jax.Array:
    numbers = np.random.default_rng(sum(shape)).normal(size=shape)
    return jnp.asarray(numbers, jnp.float32)


def assert_same_run(ours: Any, theirs: Any, params: Any) -> None:
    """The same updates over some steps, to rounding; the first gradients show eps."""

    @jax.jit
    def step(params: Any, states: Any, size: float) -> Any:
        gradients = jax.tree.map(lambda p: size * jnp.sin(3 * p + size), params)
        mine, state = ours.update(gradients, states[0], params)
        other, their_state = theirs.update(gradients, states[1], params)
        return mine, other, (state, their_state), optax.apply_updates(params, other)

    states = ours.init(params), theirs.init(params)
    names = jax.tree.leaves(olm.path_labels(params))
    for size in (1e-8, 1e-4, 1.0, 1e-2):
        *both, states, params = step(params, states, size)
        for name, mine, other in zip(names, *map(jax.tree.leaves, both), strict=True):
            np.testing.assert_allclose(mine, other, 1e-5, 1e-7, err_msg=name)


def of_labels(txs: Row, label_of: Any, params: Any) -> Any:
    """An optimizer for each label, by a label tree that is made by hand."""
    labels = jax.tree.map(label_of, olm.path_labels(params))
    return optax.multi_transform(txs, labels)


# nanochat/gpt.py, setup_optimizer, at 92d63d4: https://github.com/karpathy/nanochat
# Its Muon is one of its own; optax has one since 0.2.5, and Lion stands in before.
WIDTH = 32
MUON = getattr(optax.contrib, "muon", optax.lion)
NANOCHAT = {  # Rate, beta1, beta2 and weight decay of each group of AdamW.
    "lm_head": (0.004 * (WIDTH / 768) ** -0.5, 0.8, 0.96, 0.01),
    "wte": (0.2 * (WIDTH / 768) ** -0.5, 0.8, 0.995, 0.001),
    "value_embeds": (0.1 * (WIDTH / 768) ** -0.5, 0.8, 0.995, 0.01),
    "resid_lambdas": (0.005, 0.8, 0.95, 0.05),
    "x0_lambdas": (0.5, 0.96, 0.95, 0.0),
    "smear": (0.2, 0.8, 0.95, 0.0),
    "backout": (0.2, 0.8, 0.95, 0.0),
}
NANOCHAT_PARAMS = {
    "transformer": {
        "wte": normal(20, WIDTH),
        "h": [{"attn": {"c_q": normal(WIDTH, 16)}, "mlp": {"c_fc": normal(WIDTH, 8)}}],
    },
    "value_embeds": {"1": normal(20, 16)},
    "lm_head": normal(WIDTH, 20),
    "resid_lambdas": normal(4),
    "x0_lambdas": normal(3),
    "smear_gate": normal(24, 1),
    "smear_lambda": normal(1),
    "backout_lambda": normal(2),
}


def nanochat() -> Any:
    names = "multipliers", "b1", "b2", "weight_decay"
    adam = {
        pattern: dict(zip(names, numbers, strict=True), labels="adamw")
        for pattern, numbers in NANOCHAT.items()
    }
    muon = {olm.prefix("transformer/h"): {"multipliers": 0.02, "labels": "muon"}}
    columns = olm.groups(muon | adam)  # No row "": a name without a row is an error.
    label, rates = olm.by_name(columns.pop("labels")), columns.pop("multipliers")
    txs = {"muon": MUON(1.0), "adamw": olm.adamw(1.0, eps=1e-10, **columns)}
    return olm.with_name_multipliers(optax.multi_transform(txs, label), rates)


def test_nanochat_has_six_groups_of_adamw_and_muon_for_its_blocks() -> None:
    txs = {
        name: optax.adamw(rate, b1, b2, 1e-10, weight_decay=decay)
        for name, (rate, b1, b2, decay) in NANOCHAT.items()
    }
    txs["muon"] = MUON(0.02)

    def label(name: str) -> str:
        return next((group for group in NANOCHAT if group in name), "muon")

    theirs = of_labels(txs, label, NANOCHAT_PARAMS)
    assert_same_run(nanochat(), theirs, NANOCHAT_PARAMS)


def test_nanochat_asserts_that_each_parameter_is_in_a_group() -> None:
    with pytest.raises(ValueError, match="No rule of by_name takes 'new_gate'"):
        nanochat().init(NANOCHAT_PARAMS | {"new_gate": normal(2)})


# modded-nanogpt, train_gpt.py, param_table, at f411b3d:
# https://github.com/KellerJordan/modded-nanogpt
# Its decay is not ours: Adam's is lr^2 (lr_mul)^2 wd wd_mul and NorMuon's lr^2 lr_mul
# wd wd_mul, both only where the signs of update and parameter agree. NorMuon is not in
# optax either: momentum stands in for it, to show the rates of its banks.
MODDED = {  # lr_mul and adam_betas.
    "scalars": (5.0, 0.9, 0.99),
    "smear_gate": (0.01, 0.9, 0.99),
    "ve_gate_bank": (1.0, 0.9, 0.99),
    "lm_head": (1.0, 0.5, 0.95),
    "bigram_embed": (75.0, 0.75, 0.95),
    "post_lambdas": (1.0, 0.9, 0.95),
    "resid_lambdas": (5.0, 0.9, 0.95),
    "value_embeds": (75.0, 0.75, 0.95),
    "embed": (1.0, 0.5, 0.95),
    "mudd_gate": (0.1, 0.9, 0.99),
    "mudd": (0.25, 0.9, 0.99),
}
BANK = 6  # Matrices in the bank of MLPs: c_fc and c_proj by turns.


def test_modded_nanogpt_has_rates_and_betas_by_name_and_within_a_bank() -> None:
    keys = "multipliers", "b1", "b2"
    rows: Row = {
        pattern: dict(zip(keys, numbers, strict=True), labels="adam")
        for pattern, numbers in MODDED.items()
    }
    by_turns = olm.per_layer([1.0, 2.0] * (BANK // 2))
    rows["mlp_bank"] = {"multipliers": by_turns, "labels": "normuon"}
    rows["_bank"] = {"multipliers": 1.0, "labels": "normuon"}
    columns = olm.groups(rows)
    label, rates = olm.by_name(columns.pop("labels")), columns.pop("multipliers")
    normuon = optax.sgd(0.023, momentum=0.95)
    txs: Row = {"normuon": normuon, "adam": olm.adam(0.008, eps=1e-10, **columns)}
    ours = olm.with_name_multipliers(optax.multi_transform(txs, label), rates)

    mudd = "_mudd_gate_scale", "mudd_gate_w1", "mudd_w1", "mudd_b2"
    params = {name: normal(3) for name in (*MODDED, *mudd)}
    params |= {"qk_bank": normal(4, 2, 3), "mlp_bank": normal(BANK, 3, 2)}
    txs = {
        name: optax.adam(0.008 * rate, b1, b2, 1e-10)
        for name, (rate, b1, b2) in MODDED.items()
    }
    factors = jnp.array([1.0, 2.0] * (BANK // 2))[:, None, None]
    bank = optax.stateless(lambda u, _: jax.tree.map(lambda leaf: factors * leaf, u))
    txs |= {"mlp_bank": optax.chain(normuon, bank), "qk_bank": normuon}
    groups = dict(zip(mudd, ("mudd_gate", "mudd_gate", "mudd", "mudd"), strict=True))
    theirs = of_labels(txs, lambda name: groups.get(name, name), params)
    assert_same_run(ours, theirs, params)


# CompleteP, configure_optimizers of the branch completep, at 6f8bc3b:
# https://github.com/EleutherAI/nanoGPT-mup, of https://arxiv.org/abs/2505.01618
def gpt(width: int, depth: int) -> Any:
    block = {
        "ln_1": {"scale": normal(width), "bias": normal(width)},
        "c_attn": {"kernel": normal(width, 3 * width), "bias": normal(3 * width)},
        "c_proj": {"kernel": normal(4 * width, width), "bias": normal(width)},
    }
    ln_f = {"scale": normal(width), "bias": normal(width)}
    embeddings = {"wte": normal(20, width), "wpe": normal(5, width)}
    return {"h": [block] * depth, "ln_f": ln_f, **embeddings}  # The head is the wte.


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_completep_is_mup_with_another_eps_and_a_rate_for_the_depth(
    alpha: float,
) -> None:
    """With its alpha of 1, the rate for the depth is 1, too, and can be left out."""
    rate, decay, eps, widths, depths = 1e-2, 0.1, 1e-3, (16, 4), (3, 1)
    params = gpt(widths[0], depths[0])
    m_width, m_depth = widths[0] / widths[1], depths[0] / depths[1]
    eps /= m_width * m_depth**alpha

    base = gpt(widths[1], depths[0])
    tables = mup(params, base, readout="scaled", weight_decay=decay)
    tables["weight_decay"] = no_decay(params) + tables["weight_decay"]
    ours = olm.adamw(rate, eps=eps, **tables)
    if alpha != 1:
        ours = olm.with_name_multipliers(ours, {"h/": m_depth ** (alpha - 1)})

    by_width, by_depth = 1 / m_width, m_depth ** (alpha - 1)
    groups = {  # lr_scale and weight_decay, as they are there.
        "embeddings": (1.0, decay),
        "hidden norms": (by_depth, 0.0),
        "hidden weights": (by_width * by_depth, decay / by_width),
        "hidden biases": (by_depth, 0.0),
        "final norm": (1.0, 0.0),
    }

    def label(name: str) -> str:
        if not name.startswith("h/"):
            return "final norm" if name.startswith("ln_f") else "embeddings"
        kind = "weights" if name.endswith("kernel") else "biases"
        return f"hidden {'norms' if 'ln_1' in name else kind}"

    txs = {
        name: optax.adamw(rate * scale, eps=eps, weight_decay=wd)
        for name, (scale, wd) in groups.items()
    }
    assert_same_run(ours, of_labels(txs, label, params), params)


def test_the_embedding_learns_faster_by_the_width() -> None:
    """Most of what µP gives to AdamW: https://arxiv.org/abs/2605.21486"""
    width, base_width = 64, 16
    params = {"embed": normal(20, width), "block": normal(width, width)}
    ours = olm.adam(1e-3, multipliers={"embed": width / base_width})
    txs = {"embed": optax.adam(4e-3), "block": optax.adam(1e-3)}
    assert_same_run(ours, of_labels(txs, lambda name: name, params), params)


# What is marked _no_weight_decay in mamba_ssm/modules at e9594ce, and the biases beside
# it: https://github.com/state-spaces/mamba
MAMBA = {
    "mamba_simple": {"A_log": (8, 4), "D": (8,)},
    "mamba2": {"A_log": (2,), "D": (2,), "dt_bias": (2,)},
    "mamba3": {"D": (2,), "dt_bias": (2,), "B_bias": (2, 3, 4), "C_bias": (2, 3, 4)},
}


@pytest.mark.parametrize("model", MAMBA)
def test_mamba_has_no_decay_on_its_state_space(model: str) -> None:
    weights = {"in_proj": (4, 16), "x_proj": (8, 4), "out_proj": (8, 4)}
    mixer: Row = {n: {"kernel": normal(*shape)} for n, shape in weights.items()}
    mixer |= {name: normal(*shape) for name, shape in MAMBA[model].items()}
    params = {"embed": {"embedding": normal(9, 4)}, "layers": [{"mixer": mixer}]}
    table = no_decay(params) + {"": 0.1}
    rows = olm.assign(params, table, on_unmatched="error")
    still = {row.name.split("/")[-1] for row in rows if row.value == 0}
    assert still == {*MAMBA[model]}
