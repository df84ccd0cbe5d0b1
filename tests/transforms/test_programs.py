"""Whole programs of users, each with what its user cares about."""

import tomllib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx

import optax_lrmult as olm
from optax_lrmult.recipes import (
    freeze,
    hidden_matrices,
    layer_decay,
    lora_plus,
    mup,
    no_decay,
    unfreeze_at,
)


def normal(seed: int, *shape: int) -> jax.Array:
    numbers = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(numbers, jnp.float32)


def assert_close(ours: Any, expected: Any, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, expected, rtol=rtol, atol=1e-7)


def first_update(tx: optax.GradientTransformation, params: Any, gradients: Any) -> Any:
    @jax.jit
    def update(gradients: Any, params: Any) -> Any:
        return tx.update(gradients, tx.init(params), params)[0]

    return update(gradients, params)


def dense(seed: int, *shape: int) -> dict[str, jax.Array]:
    return {"kernel": normal(seed, *shape), "bias": normal(seed + 1, shape[-1])}


def block(seed: int, width: int = 4) -> dict[str, Any]:
    norm = {"scale": jnp.ones(width), "bias": jnp.ones(width)}
    up, down = dense(seed, width, 2 * width), dense(seed + 2, 2 * width, width)
    return {"norm": norm, "up": up, "down": down}


def transformer(width: int = 4, tokens: int = 9) -> dict[str, Any]:
    blocks = {f"block_{i}": block(10 * i, width) for i in range(2)}
    return {
        "embed": {"embedding": normal(30, tokens, width)},
        **blocks,
        "norm": {"scale": jnp.ones(width)},
        "head": dense(40, width, tokens),
    }


def sizes(tx: optax.GradientTransformation, params: Any) -> dict[str, float]:
    """The largest element of each update: of Adam's first one, the rate."""
    updates = first_update(tx, params, jax.tree.map(jnp.sign, params))
    names = jax.tree.leaves(olm.path_labels(params))
    leaves = jax.tree.leaves(updates)
    return {n: float(jnp.abs(u).max()) for n, u in zip(names, leaves, strict=True)}


def test_a_vit_is_fine_tuned_with_layer_decay_and_without_decay_on_norms() -> None:
    """Two tables that do not go together as rows: rates by depth, decay by kind."""
    params = transformer()
    params["patch_embed"] = {"kernel": params.pop("embed")["embedding"]}
    tx = olm.adamw(
        1e-3,
        multipliers=layer_decay(0.5, params),
        weight_decay=no_decay(params) + {"": 0.1},
    )
    depth = {"patch_embed": 3, "block_0": 2, "block_1": 1, "norm": 1, "head": 0}
    no_gradients = jax.tree.map(jnp.zeros_like, params)
    decays = first_update(tx, params, no_gradients)
    for row, u in zip(olm.assign(params, None), jax.tree.leaves(decays), strict=True):
        rate = 1e-3 * 0.5 ** depth[row.name.split("/")[0]]
        decay = 0.1 if len(row.shape) == 2 else 0
        p = params
        for key in row.name.split("/"):
            p = p[key]
        assert_close(u, -rate * decay * p)


def test_biases_learn_twice_as_fast_whatever_their_layer_has() -> None:
    """As in Caffe: two tables, one around the other, whose multipliers multiply."""
    params = transformer()
    layers = {"embed": 0, "block_0": 0.25, "block_1": 0.5}
    tx = olm.with_name_multipliers(olm.adam(1e-2, multipliers=layers), {"bias": 2})
    for name, size in sizes(tx, params).items():
        layer = layers.get(name.split("/")[0], 1)
        assert_close(size, 1e-2 * layer * (2 if "bias" in name else 1))


def test_lora_plus_with_a_base_that_has_no_state() -> None:
    adapter = {"w_lora_a": normal(1, 4, 2), "w_lora_b": normal(2, 2, 4)}
    params = transformer() | {"q_proj": {"kernel": normal(0, 4, 4), **adapter}}
    table = lora_plus(16) + freeze("")
    tx = olm.adamw(1e-4, multipliers=table, mask_frozen=True)
    moved = {name: size for name, size in sizes(tx, params).items() if size}
    assert moved.keys() == {"q_proj/w_lora_a", "q_proj/w_lora_b"}
    assert_close(moved["q_proj/w_lora_b"] / moved["q_proj/w_lora_a"], 16, 1e-2)
    assert len(jax.tree.leaves(tx.init(params))) == 1 + 2 * 2


if hasattr(optax.contrib, "MuonDimensionNumbers"):  # Not so before optax 0.2.6.

    def test_muon_for_hidden_matrices_and_adam_at_rates_of_its_own() -> None:
        """Optax's Muon holds both; multipliers are in units of its one rate."""
        params = transformer()
        hidden = hidden_matrices(params)
        tx = optax.contrib.muon(
            0.02, muon_weight_dimension_numbers=olm.by_name(hidden, default=None)
        )
        rates = {"embed": 15, "head": 0.2}
        ours = first_update(olm.with_name_multipliers(tx, rates), params, params)
        plain = first_update(tx, params, params)
        for layer, update in ours.items():
            expected = jax.tree.map(
                lambda u, k=layer: rates.get(k, 1) * u, plain[layer]
            )
            jax.tree.map(assert_close, update, expected)
        with_muon = {row.name for row in olm.assign(params, hidden) if row.rule}
        blocks = [f"block_{i}/{m}/kernel" for i in range(2) for m in ("up", "down")]
        assert with_muon == {*blocks}

    def test_muon_and_adam_follow_schedules_of_their_own() -> None:
        params = transformer()
        hidden = hidden_matrices(params)
        label = olm.by_name(hidden, default=None)
        tx = optax.contrib.muon(1.0, muon_weight_dimension_numbers=label)
        falls, warms = optax.linear_schedule(0.02, 0, 4), optax.linear_schedule(0, 3, 4)
        table = hidden.map(lambda _, rule: falls) + {"": warms}
        ours = olm.with_name_multipliers(tx, table)
        state, plain = ours.init(params), tx.init(params)
        for step in range(3):
            updates, state = ours.update(params, state, params)
            whole, plain = tx.update(params, plain, params)
            matrix, expected = (
                tree["block_0"]["up"]["kernel"] for tree in (updates, whole)
            )
            assert_close(matrix, falls(step) * expected)
            head, expected = (tree["head"]["kernel"] for tree in (updates, whole))
            assert_close(head, warms(step) * expected)


def test_a_network_keeps_its_rates_when_it_gets_wider_by_mup() -> None:
    params, base = transformer(8), transformer(4)
    tables = mup(params, base, readout="plain", weight_decay=0.1)
    tx = olm.adamw(1e-2, **tables)
    names = sizes(olm.adam(1e-2, multipliers=tables["multipliers"]), params)
    halved = {name for name, size in names.items() if size < 0.9e-2}
    assert halved == {name for name in names if name.endswith("kernel")}
    decays = first_update(tx, params, jax.tree.map(jnp.zeros_like, params))
    for layer in "embed", "head":  # The product of rate and decay is the base's.
        expected = jax.tree.map(lambda p: -1e-3 * p, params[layer])
        jax.tree.map(assert_close, decays[layer], expected)


GAN = {
    "gen": {"stem": normal(0, 3), "out": normal(1, 3)},
    "disc": {"stem": normal(2, 3), "out": normal(3, 3)},
}
GAN_RATES = {"gen/stem": 1e-5, "gen/out": 1e-4, "disc/stem": 4e-4, "disc/out": 4e-4}


def test_a_gan_in_one_tree() -> None:
    """Two optimizers, and inside of each a table by whole names."""
    generator = olm.adam(1e-4, b1={"": 0.5}, multipliers={"gen/stem": 0.1})
    txs = {"g": generator, "d": olm.adam(4e-4, b1={"": 0.5})}
    label = olm.by_name({olm.prefix("gen"): "g", olm.prefix("disc"): "d"})
    found = sizes(optax.multi_transform(txs, label), GAN)
    for name, rate in GAN_RATES.items():
        assert_close(found[name], rate, 1e-3)


def test_a_gan_in_two_trees() -> None:
    """Names begin within each tree."""
    txs = {"gen": olm.adam(1e-4, 0.5, multipliers={"stem": 0.1})}
    txs |= {"disc": olm.adam(4e-4, 0.5)}
    for tree, tx in txs.items():
        for name, size in sizes(tx, GAN[tree]).items():
            assert_close(size, GAN_RATES[f"{tree}/{name}"], 1e-3)


def test_a_stem_is_frozen_and_thaws_by_a_schedule() -> None:
    params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
    tx = olm.adam(1e-2, multipliers={"stem": unfreeze_at(3, 0.5)})
    state, step, ratios = tx.init(params), jax.jit(tx.update), []
    for _ in range(5):
        updates, state = step(params, state, params)
        ratios.append(float(updates["stem"][0] / updates["head"][0]))
    assert_close(ratios, [0, 0, 0, 0.5, 0.5])


def test_a_stem_is_frozen_in_one_run_and_thaws_in_the_next() -> None:
    """The state is the same, so the second run goes on from it."""
    params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
    frozen, thawed = (olm.adam(1e-2, multipliers=t) for t in ({"stem": 0}, {}))
    updates, state = frozen.update(params, frozen.init(params), params)
    assert not np.any(updates["stem"])
    updates, _ = thawed.update(params, state, params)
    assert_close(updates["stem"], updates["head"])


def test_another_optimizer_has_rates_and_decays_by_rows() -> None:
    """Decay stands in front of the rate: behind a whole Lion weights would grow."""
    params = transformer()
    rows = {
        "bias": {"weight_decay": 0},
        "head": {"multipliers": 0.5},
        "": {"multipliers": 1, "weight_decay": 0.1},
    }
    columns = olm.groups(rows)
    lion = optax.chain(
        optax.scale_by_lion(),
        olm.add_decayed_weights_by_name(columns["weight_decay"]),
        optax.scale_by_learning_rate(1e-3),
    )
    ours = olm.with_name_multipliers(lion, columns["multipliers"])
    txs = {
        "bias": optax.lion(1e-3, weight_decay=0),
        "head": optax.lion(0.5e-3, weight_decay=0.1),
        "": optax.lion(1e-3, weight_decay=0.1),
    }
    theirs = optax.multi_transform(txs, olm.by_name({row: row for row in rows}))
    found, expected = (first_update(tx, params, params) for tx in (ours, theirs))
    jax.tree.map(assert_close, found, expected)
    # Without gradients, weights shrink.
    zeros = jax.tree.map(jnp.zeros_like, params)
    decayed = first_update(ours, params, zeros)["head"]["kernel"]
    assert_close(decayed, -0.5e-3 * 0.1 * params["head"]["kernel"])


def test_rates_and_update_ratios_are_logged_in_the_training_step() -> None:
    """Two flat dictionaries with the same keys, from one compiled step."""
    params = {"stem": normal(0, 3), "body": normal(1, 3), "head": normal(2, 3)}
    table = {"stem": 0, "body": unfreeze_at(1, 0.1)}
    rate = optax.linear_schedule(1e-2, 0, 10)
    tx = olm.adam(rate, multipliers=table)

    @jax.jit
    def train(params: Any, state: Any, step: Any) -> Any:
        updates, state = tx.update(params, state, params)
        rates = olm.report.learning_rates(params, table, rate, step)
        ratios = olm.report.update_ratios(updates, params, table)
        params = optax.apply_updates(params, updates)
        logged = {f"rate/{k}": v for k, v in rates.items()}
        return params, state, logged | {f"ratio/{k}": v for k, v in ratios.items()}

    state, keys = tx.init(params), ("stem", "body", "(no rule)")
    for step in range(2):
        start = params
        params, state, logged = train(params, state, step)
        assert {*logged} == {f"{kind}/{k}" for kind in ("rate", "ratio") for k in keys}
        for key, name in zip(keys, ("stem", "body", "head"), strict=True):
            size = np.linalg.norm(start[name])
            moved = np.linalg.norm(params[name] - start[name])
            assert_close(logged[f"ratio/{key}"], moved / size, 1e-3)
        assert (logged["ratio/body"] > 0) == (logged["rate/body"] > 0) == (step > 0)
        assert logged["ratio/stem"] == logged["rate/stem"] == 0
    assert train._cache_size() == 1


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
