"""Levanter's own trainer with a tiny Llama, and the optimizers of the README.

It needs `levanter`, so `.ci/run` starts it in an environment of its own.
"""

from pathlib import Path
from typing import Any

import draccus
import haliax as hax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml
from levanter.checkpoint import CheckpointerConfig
from levanter.layers.attention import AttentionMask
from levanter.models.llama import LlamaConfig, LlamaLMHeadModel
from levanter.optim import OptimizerConfig
from levanter.tracker import NoopConfig
from levanter.trainer import Trainer, TrainerConfig

import optax_lrmult as olm
from tests.package import readme
from tests.promises.three_steps import Moment, moment, ratios

LLAMA = LlamaConfig(
    hidden_dim=16,
    intermediate_dim=32,
    num_heads=2,
    num_kv_heads=1,
    num_layers=2,
    seq_len=8,
)
BATCH, VOCAB = hax.Axis("batch", 4), hax.Axis("vocab", 32)
TOTAL = 10  # Steps of the schedule.
exec(readme.block("levanter"), {"olm": olm, "optax": optax})


def config(text: str) -> Any:
    return draccus.decode(OptimizerConfig, yaml.safe_load(text))


def loss(model: Any, tokens: Any, key: Any = None) -> jax.Array:
    del key
    return jnp.mean((model(tokens, AttentionMask.causal()).array - 3.0) ** 2)


def batches(number: int) -> list[Any]:
    return [
        hax.named(
            np.random.default_rng(seed).integers(0, 32, (4, 8), np.int32),
            (BATCH, LLAMA.Pos),
        )
        for seed in range(number)
    ]


def trained(optimizer: Any, folder: Path, steps: int) -> tuple[list[Moment], Any]:
    """From the folder's checkpoint, if there is one, to one after `steps` steps."""
    options: Any = {"require_accelerator": False, "log_jaxprs": False}
    options |= {"log_xla_hlo": False, "tracker": NoopConfig(), "id": "run"}
    kept = CheckpointerConfig(
        str(folder), keep=[{"every": 1}], append_run_id_to_base_path=False
    )
    trainer = Trainer(
        TrainerConfig(
            num_train_steps=steps, train_batch_size=4, checkpointer=kept, **options
        ),
        optimizer.build(TOTAL),
        loss,
        add_default_hooks=False,
    )
    checkpointer = kept.create("run")
    trainer.add_hook(checkpointer.on_step, every=1)
    with trainer:
        state = trainer.initial_state(
            jax.random.PRNGKey(0),
            model_init=lambda: LlamaLMHeadModel.init(
                VOCAB, LLAMA, key=jax.random.PRNGKey(0)
            ),
        )
        run = [moment(state.trainable_model, state.opt_state)]
        for info in trainer.training_steps(state, batches(steps)):
            state = info.state
            run.append(moment(state.trainable_model, state.opt_state))
        checkpointer.wait_until_finished()
    return run, state


def column(text: str, key: str) -> Any:
    """What a name has in the README's table, read by hand."""
    rows = yaml.safe_load(text)["rows"]

    def of(name: str) -> float:
        (first, *_) = (
            row
            for row in rows
            if row.get("contains", "?") in name
            or ("glob" in row and "norm/weight" in name)
        )
        return first.get(key, rows[-1][key])

    return of


def test_a_table_from_yaml(tmp_path: Path) -> None:
    """Rates, decays and betas by name, with the trainer's own checkpoint."""
    text = readme.yaml()
    optimizer = config(text)
    rate = optimizer.lr_scheduler(TOTAL)
    multiplier, decay, b2 = (
        column(text, key) for key in ("multipliers", "weight_decay", "b2")
    )
    run, state = trained(optimizer, tmp_path, steps=3)
    assert int(state.step) == 3
    assert float(state.opt_state.hyperparams["learning_rate"]) == float(rate(2))
    expected = {name: multiplier(name) for name in run[0].params}
    assert set(expected.values()) == {1, 10}
    assert len({decay(name) for name in expected}) == 3
    found = ratios(run, rate, b2=b2, decay=decay)
    assert found == pytest.approx(expected, rel=1e-3)

    resumed, _ = trained(optimizer, tmp_path, steps=5)
    assert [at.count for at in resumed] == [3, 4, 5]
    for kept, restored in zip(run[-1][:3], resumed[0][:3], strict=True):
        assert kept.keys() == restored.keys()
        for name in kept:
            np.testing.assert_array_equal(kept[name], restored[name], name)
    found = ratios(resumed, rate, b2=b2, decay=decay)
    assert found == pytest.approx(expected, rel=1e-3)


def test_multipliers_around_any_of_them(tmp_path: Path) -> None:
    """And a checkpoint of Levanter's own Adam goes on with multipliers."""
    inner = "type: adam, learning_rate: 0.02, weight_decay: 0, beta2: 0.999"
    run, _ = trained(config(f"{{{inner}}}"), tmp_path, steps=2)
    table = "{token_embeddings: 0.25, 'layers/stacked': 0.5}"
    text = f"{{type: with_multipliers, inner: {{{inner}}}, multipliers: {table}}}"
    optimizer = config(text)
    resumed, _ = trained(optimizer, tmp_path, steps=5)
    assert [at.count for at in (*run, *resumed)] == [0, 1, 2, 2, 3, 4, 5]
    expected = {
        name: 0.25 if "token" in name else 0.5 if "stacked" in name else 1.0
        for name in run[0].params
    }
    rate = optimizer.inner.lr_scheduler(TOTAL)
    assert ratios(run, rate) == pytest.approx(dict.fromkeys(expected, 1.0), rel=1e-3)
    assert ratios(resumed, rate) == pytest.approx(expected, rel=1e-3)
