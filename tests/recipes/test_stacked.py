"""Layer decay on models in which one array holds all the layers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_lrmult as olm
from optax_lrmult.recipes import layer_decay

PyTree = Any

DEPTH = 3
INPUTS = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        return x + nn.tanh(nn.Dense(3)(x)), None


class Net(nn.Module):
    """Unrolled, or with its layers stacked along an axis."""

    axis: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(3, name="stem")(x)
        if self.axis is None:
            for index in range(DEPTH):
                x, _ = Block(name=f"block_{index}")(x)
        else:
            scanned = nn.scan(
                Block,
                variable_axes={"params": self.axis},
                split_rngs={"params": True},
                length=DEPTH,
            )
            x, _ = scanned(name="block")(x)
        return nn.Dense(1, name="head")(x)


def params_of(axis: int) -> PyTree:
    """Each number of its own, so that a wrong slice shows."""
    shapes = jax.eval_shape(Net(axis).init, jax.random.key(0), INPUTS)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), shapes)


def unrolled(tree: PyTree, axis: int) -> PyTree:
    """The same parameters, or updates, with a module for each layer."""
    layers = {
        f"block_{index}": jax.tree.map(
            lambda leaf, index=index: np.asarray(leaf).take(index, axis), tree["block"]
        )
        for index in range(DEPTH)
    }
    return {"stem": tree["stem"], **layers, "head": tree["head"]}


@pytest.mark.parametrize("axis", [0, 1])
def test_an_update_is_to_the_bit_that_of_the_unrolled_model(axis: int) -> None:
    updates = params_of(axis)
    rules = layer_decay(0.7, updates, stacked={"block": axis})
    tx = olm.scale_by_name_multiplier(rules)
    scaled, _ = tx.update(updates, tx.init(updates))
    layers = unrolled(updates, axis)
    tx = olm.scale_by_name_multiplier(layer_decay(0.7, layers))
    expected, _ = tx.update(jax.tree.map(jnp.asarray, layers), tx.init(layers))
    jax.tree.map(np.testing.assert_array_equal, unrolled(scaled, axis), expected)


def test_training_goes_the_same_way_as_in_the_unrolled_model() -> None:
    stacked = params_of(axis=1)
    layers = unrolled(stacked, axis=1)
    options = {"stacked": {"block": 1}}
    params = train(
        Net(1), stacked, layer_decay(0.7, stacked, freeze_below=0.4, **options)
    )
    params = unrolled(params, axis=1)
    expected = train(Net(), layers, layer_decay(0.7, layers, freeze_below=0.4))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        params,
        expected,
    )
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), layers, params)
    assert not any(jax.tree.leaves(moved["block_0"]))  # 0.7 ** 3
    assert all(jax.tree.leaves(moved["block_1"]))  # 0.7 ** 2


def train(model: Net, params: PyTree, rules: olm.Rules) -> PyTree:
    tx = olm.adamw(0.01, weight_decay=0.1, multipliers=rules)

    def loss(params: PyTree) -> jax.Array:
        return jnp.mean((model.apply({"params": params}, INPUTS) - 3.0) ** 2)

    @jax.jit
    def step(params: PyTree, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(5):
        params, state = step(params, state)
    return params


def stack(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def multipliers(params: PyTree, **options: Any) -> dict[str, str]:
    table = layer_decay(0.5, params, **options)
    rows = olm.assign(params, table, on_unmatched="error")
    return {row.name: str(row.value) for row in rows}


class TestOptions:
    def test_freeze_below_and_min_scale_hold_for_each_slice(self) -> None:
        params = {"embed": stack(9), "blocks": {"w": stack(3, 4), "b": stack(3)}}
        options = {"stacked": {"blocks": 0}, "freeze_below": 0.2, "min_scale": 0.3}
        per_slice = "per_layer([0, 0.3, 0.5])"
        found = multipliers(params, **options)
        assert found == {"embed": "0.0", "blocks/w": per_slice, "blocks/b": per_slice}

    def test_an_axis_counted_from_the_end(self) -> None:
        params = {"blocks": {"w": stack(4, 5, 3), "b": stack(3)}, "head": stack(2)}
        found = multipliers(params, stacked={olm.glob("blocks/*"): -1})
        per_slice = "per_layer([0.125, 0.25, 0.5], axis=-1)"
        assert found == {"blocks/w": per_slice, "blocks/b": per_slice, "head": "1.0"}

    def test_towers_of_different_depth_take_a_pattern_each(self) -> None:
        params = {
            tower: {"cls": stack(4), "layers": {"w": stack(depth, 4)}}
            for tower, depth in (("img", 3), ("txt", 2))
        }
        found = multipliers(params, stacked={"img/layers": 0, "layers": 0})
        assert found == {
            "img/cls": "0.0625",
            "img/layers/w": "per_layer([0.125, 0.25, 0.5])",
            "txt/cls": "0.125",
            "txt/layers/w": "per_layer([0.25, 0.5])",
        }

    def test_stacked_and_numbered_layers_in_one_model(self) -> None:
        params = {
            "cls": stack(2),
            "encoder": {"norm": stack(2), "layers": stack(3, 3)},
            "decoder": {
                "embed": stack(2),
                "norm": stack(1),
                "block_0": stack(1),
                "block_1": stack(1),
            },
        }
        assert multipliers(params, stacked={"encoder/layers": 0}) == {
            "cls": "0.0625",  # The deepest stack's, as it shares no path with either.
            "encoder/norm": "0.5",
            "encoder/layers": "per_layer([0.125, 0.25, 0.5])",
            "decoder/embed": "0.125",
            "decoder/norm": "0.5",
            "decoder/block_0": "0.25",
            "decoder/block_1": "0.5",
        }

    def test_stacked_comes_before_the_numbers(self) -> None:
        """As in a scan over groups of two blocks."""
        params = {"groups": {"block_0": stack(2, 3), "block_1": stack(2, 3)}}
        found = multipliers({**params, "head": stack(1)}, stacked={"groups": 0})
        assert found["groups/block_0"] == "per_layer([0.25, 0.5])"
        assert found["groups/block_1"] == "per_layer([0.25, 0.5])"

    @pytest.mark.parametrize("pattern", ["layers", "layers/", "layers/fc"])
    def test_numbered_modules_inside_of_a_stack_are_of_it(self, pattern: str) -> None:
        layers = {name: {"kernel": stack(3, 4)} for name in ("fc_0", "fc_1")}
        found = multipliers({"layers": layers, "head": stack(4)}, stacked={pattern: 0})
        assert found["layers/fc_0/kernel"] == "per_layer([0.125, 0.25, 0.5])"
        assert found["layers/fc_1/kernel"] == "per_layer([0.125, 0.25, 0.5])"

    def test_nnx_vmap(self) -> None:
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def make_layers(rngs: nnx.Rngs) -> nnx.Linear:
            return nnx.Linear(4, 4, rngs=rngs)

        class Model(nnx.Module):
            def __init__(self, rngs: nnx.Rngs) -> None:
                self.embed = nnx.Linear(3, 4, rngs=rngs)
                self.layers = make_layers(rngs)

        params = nnx.state(nnx.eval_shape(lambda: Model(nnx.Rngs(0))), nnx.Param)
        found = multipliers(params, stacked={"layers": 0})
        assert found["layers/kernel"] == "per_layer([0.125, 0.25, 0.5])"
        assert found["layers/bias"] == found["layers/kernel"]
        assert found["embed/kernel"] == "0.0625"


BLOCKS = {"block_0": {"w": stack(2, 3)}, "block_1": {"w": stack(2, 3)}}
REFUSED: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "names": (["layers/w"], {"layers": 0}, ValueError, "'layers/w' must be given, .*"),
    "lengths": (
        {"layers": {"b": stack(3), "w": stack(2, 3)}},
        {"layers": 0},
        ValueError,
        "same number of layers along axis 0, not .'layers/b': 3, 'layers/w': 2",
    ),
    "axis": (
        {"layers": {"b": stack(3), "w": stack(3, 3)}},
        {"layers": 1},
        ValueError,
        r"shape of 'layers/b' must be .* with the axis 1 of stacked= .* not \(3,\)",
    ),
    "negative axis": ({"layers": stack(3)}, {"layers": -2}, ValueError, "axis -2"),
    "no match": (
        {"layers": stack(3), "head": stack(3)},
        {"layrs": 0},
        ValueError,
        r"'layrs' of stacked= takes none .* which are 'head', 'layers'\.",
    ),
    "shadowed": (
        {"layers": stack(3)},
        {"layers": 0, "layer": 0},
        ValueError,
        r"'layer' of stacked= takes none .* which are none\.",
    ),
    "blocks": (BLOCKS, {"block": 0}, ValueError, "hold all layers, not for blocks"),
    "axis type": ({"layers": stack(3)}, {"layers": True}, TypeError, "int, not True"),
    "mapping": ({"layers": stack(3)}, "layers", TypeError, "must be a mapping from a"),
}


@pytest.mark.parametrize(
    ("params", "stacked", "error", "text"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refuses(params: Any, stacked: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        layer_decay(0.5, params, stacked=stacked)
