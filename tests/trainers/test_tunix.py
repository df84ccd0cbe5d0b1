"""Tunix itself, with a tiny Qwen3 and Qwix's LoRA, as the README says it.

It needs `google-tunix`, so `.ci/run` starts it in an environment of its own.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import qwix
from flax import nnx
from tunix.models.qwen3.model import ModelConfig, Qwen3
from tunix.sft import hooks
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

import optax_lrmult as olm
from tests.package import readme
from tests.promises.three_steps import Moment, moment, named, ratios

CONFIG = ModelConfig(
    num_layers=2,
    vocab_size=32,
    embed_dim=8,
    hidden_dim=16,
    num_heads=4,
    head_dim=4,
    num_kv_heads=2,
    rope_theta=10_000,
    norm_eps=1e-6,
    use_tied_embedding=True,
)
ADAPTED = "(q_proj|gate_proj|down_proj)"


def lora_model() -> Any:
    """Random everywhere: Tunix starts its MLPs at zero, and loads them."""
    model = Qwen3(CONFIG, rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(state))))
    nnx.update(
        model,
        jax.tree.map(lambda p: 0.3 * jax.random.normal(next(keys), p.shape), state),
    )
    adapters = qwix.LoraProvider(module_path=f".*{ADAPTED}", rank=2, alpha=4.0)
    inputs = model.get_model_input()
    return qwix.apply_lora_to_model(model, adapters, rngs=nnx.Rngs(1), **inputs)


def batches(number: int) -> list[dict[str, np.ndarray]]:
    return [
        {
            "input_tokens": np.random.default_rng(seed).integers(0, 32, (2, 6)),
            "input_mask": np.ones((2, 6)),
            "positions": np.tile(np.arange(6), (2, 1)),
            "attention_mask": np.tril(np.ones((2, 6, 6), bool)),
        }
        for seed in range(number)
    ]


class Recorder(hooks.TrainingHooks):
    """What the trainer holds before each step and after the last."""

    def __init__(self) -> None:
        self.run: list[Moment] = []

    def on_train_step_start(self, train_ctx: Any) -> None:
        params = nnx.state(train_ctx.model, nnx.LoRAParam)
        self.run.append(moment(params, train_ctx.optimizer.opt_state))

    on_train_end = on_train_step_start

    def on_train_start(self, train_ctx: Any) -> None: ...
    def on_train_step_end(self, *args: Any, **options: Any) -> None: ...
    def on_eval_step_start(self, train_ctx: Any) -> None: ...
    def on_eval_step_end(self, train_ctx: Any, eval_loss: Any) -> None: ...


def from_readme(folder: Path, schedule: Any = None) -> Any:
    """The trainer of the README's block, over a faster schedule."""
    names: dict[str, Any] = {"olm": olm, "lora_model": lora_model(), "folder": folder}
    short = schedule or optax.linear_schedule(0.01, 0.0, 10)
    names["optax"] = OptaxWith(cosine_decay_schedule=lambda *args, **options: short)
    exec(readme.block("tunix"), names)
    return names["trainer"]


class OptaxWith:
    def __init__(self, **functions: Any) -> None:
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(optax, name)


def trained(tx: optax.GradientTransformation, folder: Path | None = None) -> Any:
    config = TrainingConfig(
        eval_every_n_steps=100, checkpoint_root_directory=folder and str(folder)
    )
    trainer = PeftTrainer(lora_model(), tx, config)
    trainer.train(batches(3))
    return trainer


def logged_rates(trainer: Any) -> list[float]:
    logger = trainer.metrics_logger
    return list(logger.get_metric_history("", "learning_rate", "train"))


def test_the_block_of_the_readme(tmp_path: Path) -> None:
    rate = optax.linear_schedule(0.01, 0.0, 10)
    trainer, recorder = from_readme(tmp_path, rate), Recorder()
    trainer.with_training_hooks(recorder)
    trainer.train(batches(3))
    found = ratios(recorder.run, rate, decay=lambda name: 1e-4)
    assert {name.split("/")[-1] for name in found} == {
        f"{matrix}_lora_{side}" for matrix in ("w", "kernel") for side in "ab"
    }
    expected = {name: 16.0 if name.endswith("lora_b") else 1.0 for name in found}
    assert found == pytest.approx(expected, rel=1e-3)
    assert len(logged_rates(trainer)) == 3
    assert logged_rates(trainer)[0] == pytest.approx(0.009, rel=1e-5)  # Of the next.

    resumed = from_readme(tmp_path, rate)
    assert resumed.train_steps == 3
    for kept, restored in zip(
        recorder.run[-1][:3],
        moment(nnx.state(resumed.model, nnx.LoRAParam), resumed.optimizer.opt_state),
        strict=False,
    ):
        assert kept.keys() == restored.keys()
        for name in kept:
            np.testing.assert_array_equal(kept[name], restored[name], name)
    recorder = Recorder()
    resumed.with_training_hooks(recorder)
    resumed.train(batches(5))
    assert [step.count for step in recorder.run] == [3, 4, 5]
    found = ratios(recorder.run, rate, decay=lambda name: 1e-4)
    assert found == pytest.approx(expected, rel=1e-3)


def clip_in_front(multipliers: Any) -> optax.GradientTransformation:
    adamw = optax.inject_hyperparams(optax.adamw)(0.01)
    chain = optax.chain(optax.clip_by_global_norm(1.0), adamw)
    return (
        chain if multipliers is None else olm.with_name_multipliers(chain, multipliers)
    )


def clip_inside(multipliers: Any) -> optax.GradientTransformation:
    @optax.inject_hyperparams
    def make(learning_rate: Any) -> optax.GradientTransformation:
        clip, adamw = optax.clip_by_global_norm(1.0), optax.adamw(learning_rate)
        return olm.with_name_multipliers(optax.chain(clip, adamw), multipliers)

    return make(0.01)


def test_a_clip_in_front_loses_the_log_and_one_inside_keeps_it() -> None:
    """In front of plain AdamW it is lost, too: it is Tunix that stops there."""
    for multipliers in None, {"lora_b": 16}:
        with pytest.raises(ValueError, match="learning_rate' not found"):
            logged_rates(trained(clip_in_front(multipliers)))
    rates = logged_rates(trained(clip_inside({"lora_b": 16})))
    assert rates == pytest.approx([0.01] * 3)


def on_devices(tx: Callable[[], optax.GradientTransformation], folder: Path) -> Any:
    """Trains on a mesh and starts again from the checkpoint."""
    from tunix.rl import reshard

    axes = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 2), ("fsdp", "tp"), axis_types=axes)
    config = TrainingConfig(
        eval_every_n_steps=100, checkpoint_root_directory=str(folder)
    )
    with mesh:
        build = functools.partial(reshard.reshard_model_to_mesh, lora_model(), mesh)
        trainer = PeftTrainer(build(), tx(), config)
        before = named(nnx.state(trainer.model, nnx.LoRAParam))
        trainer.train(batches(3))
        after = named(nnx.state(trainer.model, nnx.LoRAParam))
        assert (folder / "3").is_dir()
        return before, after, lambda: PeftTrainer(build(), tx(), config)


FROZEN: dict[str, Any] = {"layers/0": 0}
ADAM = functools.partial(optax.adam, 0.01)


def test_what_is_frozen_by_a_0_is_restored(tmp_path: Path) -> None:
    tx = functools.partial(olm.with_name_multipliers, ADAM(), FROZEN)
    before, after, restart = on_devices(tx, tmp_path)
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved == {name for name in before if name.startswith("layers/1")}
    assert restart().train_steps == 3


@pytest.mark.parametrize(
    "tx",
    [
        lambda: olm.with_name_multipliers(ADAM(), FROZEN, mask_frozen=True),
        lambda: optax.masked(ADAM(), olm.trainable(FROZEN)),
    ],
    ids=["mask_frozen", "optax.masked"],
)
def test_what_is_masked_is_not_restored_on_a_mesh(tx: Any, tmp_path: Path) -> None:
    """Nor with optax alone: Tunix builds shardings without the masked nodes."""
    *_, restart = on_devices(tx, tmp_path)
    with pytest.raises(ValueError, match="MaskedNode"):
        restart()
