"""The README's blocks on MaxText and openpi, over stand-ins for their builders.

Neither can be installed beside the tests' packages, so what stands here in their place
has the same names, arguments and defaults as theirs; each says from where. The names
and shapes of their models are those of `tests/recipes/test_hidden_matrices.py`.
"""

import dataclasses
import re
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.traverse_util import unflatten_dict

import optax_lrmult as olm
from tests.package import readme
from tests.promises.three_steps import named
from tests.recipes.test_hidden_matrices import MAXTEXT, PI0

RATE = 0.1


def modules(monkeypatch: pytest.MonkeyPatch, path: str, module: Any) -> None:
    """Puts a stand-in, and the packages it lies in, where an import finds it."""
    *packages, name = path.split(".")
    for depth in range(len(packages)):
        package = ".".join(packages[: depth + 1])
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    parent: Any = sys.modules[".".join(packages)]
    setattr(parent, name, module)
    monkeypatch.setitem(sys.modules, path, module)


def shaped(model: dict[str, Any]) -> dict[str, Any]:
    return {
        name: jax.ShapeDtypeStruct(row[0], "float32") for name, row in model.items()
    }


def tiny(model: dict[str, Any], kept: int) -> dict[str, Any]:
    """Ones of the same names, with all axes short but those of the layers."""
    return {
        name: jnp.ones([n if n == kept else 2 for n in row[0]])
        for name, row in model.items()
    }


def first_step(tx: optax.GradientTransformation, params: Any) -> Any:
    """Adam's first step from equal gradients: the rate, times what the table says."""
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    return jax.tree.map(lambda update: np.asarray(update) / -RATE, updates)


def get_optimizer(
    config: Any, learning_rate_schedule: Any, model: Any = None, mesh: Any = None
) -> optax.GradientTransformation:
    """Of maxtext 0.2.5, `maxtext/optimizers/optimizers.py`, for `opt_type: adamw`."""
    del model, mesh
    return optax.adamw(
        learning_rate_schedule,
        b1=config.adam_b1,
        b2=config.adam_b2,
        eps=config.adam_eps,
        eps_root=config.adam_eps_root,
        weight_decay=config.adam_weight_decay,
        mu_dtype=config.mu_dtype,
    )


def test_maxtext(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizers = types.SimpleNamespace(get_optimizer=get_optimizer)
    modules(monkeypatch, "maxtext.optimizers.optimizers", optimizers)
    names: dict[str, Any] = {"olm": olm}
    exec(readme.block("maxtext"), names)
    numbers = {"adam_b1": 0.9, "adam_b2": 0.95, "adam_eps": 1e-8, "adam_eps_root": 0.0}
    config = types.SimpleNamespace(**numbers, adam_weight_decay=0.0, mu_dtype=None)
    tx = optimizers.get_optimizer(config, RATE, object(), mesh=None)

    rows = {row.name: row for row in olm.assign(shaped(MAXTEXT), names["table"])}
    assert {name for name, row in rows.items() if row.rule is None} == {
        "decoder/decoder_norm/scale",
        "decoder/logits_dense/kernel",
    }
    shown = str(olm.preview(shaped(MAXTEXT), names["table"]))
    assert "decoder/layers/MoeBlock_0/wi_0" in shown
    layers = 0.9 ** np.arange(31.0, -1.0, -1.0)
    for name, step in first_step(tx, tiny(MAXTEXT, kept=32)).items():
        expected = 0.1 if "token" in name else 1.0
        if "/layers/" in name:
            assert step.shape[1] == 32
            expected = layers.reshape(-1, *[1] * (step.ndim - 2))
        expected = np.broadcast_to(expected, step.shape)
        np.testing.assert_allclose(step, expected, rtol=1e-5, err_msg=name)


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Of openpi fa517ae, `src/openpi/training/optimizer.py`."""

    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-10
    clip_gradient_norm: float = 1.0

    def create(
        self, lr: Any, weight_decay_mask: Any = None
    ) -> optax.GradientTransformation:
        numbers: Any = {"b1": self.b1, "b2": self.b2, "eps": self.eps}
        numbers |= {"weight_decay": self.weight_decay, "mask": weight_decay_mask}
        clip = optax.clip_by_global_norm(self.clip_gradient_norm)
        return optax.chain(clip, optax.adamw(lr, **numbers))


class PathRegex:
    """Of openpi, `src/openpi/shared/nnx_utils.py`: a filter by the whole path."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __call__(self, path: Any, value: Any) -> bool:
        del value
        return re.fullmatch(self.pattern, "/".join(map(str, path))) is not None


# From openpi's `src/openpi/models/siglip.py`, beside the names of PI0.
TOWER = "PaliGemma/img/Transformer/encoderblock/MlpBlock_0/Dense_1/kernel"
LORA = "PaliGemma/llm/layers/attn/q_einsum/lora_a"
# What `get_freeze_filter` gives for gemma_2b_lora beside the action expert gemma_300m.
FREEZE = nnx.All(
    PathRegex(".*llm.*"),
    nnx.Not(PathRegex(".*llm.*_1.*")),
    nnx.Not(PathRegex(".*lora.*")),
)


def module(tree: Any) -> nnx.Module:
    """With a parameter or a module for each key, as openpi's bridge to Linen has."""
    made = nnx.Module()
    for name, node in tree.items():
        setattr(made, name, module(node) if isinstance(node, dict) else nnx.Param(node))
    return made


def test_openpi(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = types.SimpleNamespace(AdamW=AdamW)
    modules(monkeypatch, "openpi.training.optimizer", stand_in)
    arrays = tiny(PI0, kept=18) | {TOWER: jnp.ones((18, 2, 2)), LORA: jnp.ones((18, 2))}
    model = module(unflatten_dict(arrays, sep="/"))
    config = types.SimpleNamespace(freeze_filter=FREEZE)
    names: dict[str, Any] = {"olm": olm, "jax": jax, "nnx": nnx}
    names |= {"model": model, "config": config}
    exec(readme.block("openpi"), names)
    printed = capsys.readouterr().out.splitlines()
    frozen = {name for name in PI0 if "llm" in name and "_1" not in name}
    for name in arrays:  # The vision tower, the adapters and the expert learn.
        (row,) = (line for line in printed if line.split()[:1] == [name])
        assert row.split()[-1] == str(int(name not in frozen))

    params = nnx.state(model, nnx.Param)
    tx = names["AdamWByName"]().create(RATE)
    steps = first_step(tx, params)
    for name, step in named(steps).items():
        expected = 0.1 if name in {*frozen, TOWER, LORA} else 1.0
        np.testing.assert_allclose(step, expected, rtol=1e-4, err_msg=name)
