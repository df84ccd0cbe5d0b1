"""Whole programs of users, each with what its user cares about."""

import tomllib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import optax_lrmult as olm


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def assert_close(ours: Any, expected: Any, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, expected, rtol=rtol, atol=1e-7)


def first_update(tx: optax.GradientTransformation, params: Any, gradients: Any) -> Any:
    return tx.update(gradients, tx.init(params), params)[0]


def test_layer_decay_beside_no_decay_for_norms_and_biases() -> None:
    """Two tables that do not go together as rows: rates by depth, decay by kind."""
    params = {
        "patch_embed": {"kernel": normal(0, 4, 8), "bias": normal(1, 8)},
        "block_0": {"kernel": normal(2, 8, 8), "bias": normal(3, 8)},
        "block_1": {"kernel": normal(4, 8, 8), "bias": normal(5, 8)},
        "norm": {"scale": jnp.ones(8)},
    }
    rates = olm.Rules({f"block_{i}/": 0.75 ** (2 - i) for i in range(2)})
    tx = olm.adamw(
        1e-3,
        multipliers=rates + {"patch_embed": 0.75**3},
        weight_decay={"bias": 0, "scale": 0, "": 0.05},
    )
    decay = first_update(tx, params, jax.tree.map(jnp.zeros_like, params))
    kernel = params["block_0"]["kernel"]
    assert_close(decay["block_0"]["kernel"], -1e-3 * 0.05 * 0.75**2 * kernel)
    assert not np.any(decay["block_0"]["bias"])
    assert not np.any(decay["norm"]["scale"])
    updates = first_update(tx, params, params)
    assert_close(jnp.abs(updates["norm"]["scale"]), 1e-3)
    assert_close(jnp.abs(updates["patch_embed"]["bias"]), 1e-3 * 0.75**3)


def test_a_gan_in_one_tree() -> None:
    """Two optimizers, and inside of each a table by whole names."""
    params = {
        "gen": {"stem": normal(0, 3), "out": normal(1, 3)},
        "disc": {"stem": normal(2, 3), "out": normal(3, 3)},
    }
    generator = olm.adam(1e-4, b1={"": 0.5}, multipliers={"gen/stem": 0.1})
    txs = {"g": generator, "d": olm.adam(4e-4, b1={"": 0.5})}
    label = olm.by_name({olm.prefix("gen"): "g", olm.prefix("disc"): "d"})
    updates = first_update(optax.multi_transform(txs, label), params, params)
    sizes = jax.tree.map(lambda u: float(jnp.abs(u).max()), updates)
    assert_close(sizes["gen"]["stem"], 1e-5, 1e-3)
    assert_close(sizes["gen"]["out"], 1e-4, 1e-3)
    assert_close(sizes["disc"]["stem"], 4e-4, 1e-3)


def test_a_stem_is_frozen_and_thaws_by_a_schedule() -> None:
    params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
    thaw = {"stem": lambda step: jnp.where(step < 3, 0.0, 0.5)}
    tx = olm.adam(1e-2, multipliers=thaw)
    state, step, ratios = tx.init(params), jax.jit(tx.update), []
    for _ in range(5):
        updates, state = step(params, state, params)
        ratios.append(float(updates["stem"][0] / updates["head"][0]))
    assert_close(ratios, [0, 0, 0, 0.5, 0.5])


def test_gradients_are_gathered_over_two_batches() -> None:
    """A schedule counts the optimizer's steps, not batches."""
    params = {"stem": normal(0, 3), "head": normal(1, 3)}
    halved = optax.piecewise_constant_schedule(1.0, {1: 0.5})
    inner = olm.adam(1e-2, b2={"stem": 0.9}, multipliers={"stem": halved})
    tx = optax.MultiSteps(inner, 2)
    state, updates = tx.init(params), []
    for _ in range(4):
        update, state = tx.update(params, state, params)
        updates.append(update)
    alone = inner.init(params)
    for batch in (1, 3):
        expected, alone = inner.update(params, alone, params)
        jax.tree.map(assert_close, updates[batch], expected)
        assert not np.any(updates[batch - 1]["stem"])


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.norm(self.stem(x)))


def test_a_model_of_nnx_trains_by_rows() -> None:
    """A frozen stem, a mask for the decay, and no label tree."""
    model = Model(nnx.Rngs(0))
    columns = olm.groups(
        {
            "stem": {"multipliers": 0, "b2": 0.9, "weight_decay": 0},
            "norm": {"weight_decay": 0},
            "": {"multipliers": 1, "b2": 0.99, "weight_decay": 0.1},
        }
    )
    mask = olm.by_name({"head/bias": False}, default=True)
    optimizer = nnx.Optimizer(
        model, olm.adamw(1e-2, mask=mask, **columns), wrt=nnx.Param
    )
    stem, head = (np.asarray(layer.kernel[...]) for layer in (model.stem, model.head))

    def loss(model: Model) -> jax.Array:
        return jnp.sum(model(jnp.arange(6.0).reshape(2, 3)) ** 2)

    for _ in range(2):
        nnx_update(optimizer, model, nnx.grad(loss)(model))
    np.testing.assert_array_equal(model.stem.kernel[...], stem)
    assert np.all(model.head.kernel[...] != head)


def nnx_update(optimizer: Any, model: Model, gradients: Any) -> None:
    if hasattr(optimizer, "model"):  # Flax before 0.11 keeps the model in it.
        optimizer.update(gradients)
    else:
        optimizer.update(model, gradients)


def test_a_module_of_equinox_is_the_tree_of_parameters() -> None:
    """Its labels are strings in a module, which is callable and no function."""
    model = eqx.nn.MLP(2, 2, 4, 2, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    rules = {olm.prefix("layers/0"): 0, "weight": 2}
    for labels in (None, olm.path_labels(params)):
        tx = olm.adam(
            1e-2,
            b2={olm.glob("layers/*/bias"): 0.9},
            multipliers=rules,
            param_labels=labels,
        )

        def loss(params: Any) -> jax.Array:
            predict = jax.vmap(eqx.combine(params, static))
            return jnp.sum(predict(jnp.ones((3, 2))) ** 2)

        updates = first_update(tx, params, jax.grad(loss)(params))
        new = eqx.apply_updates(params, updates)
        np.testing.assert_array_equal(new.layers[0].weight, params.layers[0].weight)
        assert_close(jnp.abs(updates.layers[2].weight).max(), 2e-2, 1e-3)


TOML = """
[groups.embed]
multipliers = 0.3
[groups.bias]
weight_decay = 0.0
[groups.""]
multipliers = 1.0
weight_decay = 0.1

[[rows]]
contains = "embed"
multipliers = 0.3
[[rows]]
glob = "**/bias"
weight_decay = 0.0
[[rows]]
contains = ""
multipliers = 1.0
weight_decay = 0.1
"""


def test_the_table_stands_in_a_file_of_settings() -> None:
    """By patterns as keys, or by rows that name their kind of pattern."""
    config = tomllib.loads(TOML)
    kernel, bias = normal(1, 3, 3), normal(2, 3)
    params = {"embed": normal(0, 5, 3), "block": {"kernel": kernel, "bias": bias}}
    zero = jax.tree.map(jnp.zeros_like, params)
    for rows in config["groups"], config["rows"]:
        tx = olm.adamw(1e-2, **olm.groups(rows))
        updates = first_update(tx, params, zero)
        assert_close(updates["embed"], -1e-2 * 0.3 * 0.1 * params["embed"])
        assert_close(updates["block"]["kernel"], -1e-2 * 0.1 * kernel)
        assert not np.any(updates["block"]["bias"])
