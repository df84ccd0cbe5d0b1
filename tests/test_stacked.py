"""Layer decay on models in which one array holds all the layers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from one_step import squares

import optax_lrmult as olm
from optax_lrmult._recipes._layer_decay import layer_decay

PyTree = Any

DEPTH = 3
INPUTS = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        return x + nn.tanh(nn.Dense(4)(nn.LayerNorm()(x))), None


class Net(nn.Module):
    """Unrolled, or with its layers stacked along an axis."""

    axis: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(4, name="stem")(x)
        x = Encoder(self.axis, name="encoder")(x)
        return nn.Dense(1, name="head")(x)


class Encoder(nn.Module):
    axis: int | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
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
        return nn.LayerNorm(name="norm")(x)


def params_of(axis: int) -> PyTree:
    return jax.jit(Net(axis).init)(jax.random.key(0), INPUTS)["params"]


def unrolled(params: PyTree, axis: int) -> PyTree:
    """The same parameters, or gradients, with a module for each layer."""
    encoder = {
        f"block_{index}": jax.tree.map(
            lambda leaf, index=index: np.asarray(leaf).take(index, axis),
            params["encoder"]["block"],
        )
        for index in range(DEPTH)
    }
    return {**params, "encoder": {**encoder, "norm": params["encoder"]["norm"]}}


def gradients(model: Net, params: PyTree) -> PyTree:
    return jax.grad(lambda p: squares(model.apply({"params": p}, INPUTS)))(params)


def assert_each_leaf(check: Any, left: PyTree, right: PyTree, **options: Any) -> None:
    jax.tree.map(lambda a, b: check(a, b, **options), left, right)


@pytest.mark.parametrize("axis", [0, 1])
class TestAgainstTheUnrolledModel:
    def test_one_step_on_the_same_gradients_is_the_same_to_the_bit(
        self, axis: int
    ) -> None:
        params = params_of(axis)
        layers = unrolled(params, axis)
        per_stack = jax.jit(gradients, static_argnums=0)(Net(axis), params)
        rules = layer_decay(0.7, params, stacked={"block": axis})
        updates = self.updates(rules, per_stack, params)
        rules = layer_decay(0.7, layers)
        expected = self.updates(rules, unrolled(per_stack, axis), layers)
        assert_each_leaf(
            np.testing.assert_array_equal, unrolled(updates, axis), expected
        )

    @staticmethod
    def updates(rules: olm.Rules, grads: PyTree, params: PyTree) -> PyTree:
        tx = olm.with_name_multipliers(optax.sgd(0.1), rules)
        return jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(grads, params)

    def test_training_goes_the_same_way(self, axis: int) -> None:
        params = params_of(axis)
        layers = unrolled(params, axis)
        start = layers
        rules = layer_decay(0.7, params, stacked={"block": axis}, freeze_below=0.4)
        params = self.train(Net(axis), params, rules)
        layers = self.train(Net(), layers, layer_decay(0.7, layers, freeze_below=0.4))
        assert_each_leaf(
            np.testing.assert_allclose,
            unrolled(params, axis),
            layers,
            rtol=1e-5,
            atol=1e-6,
        )
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start, layers)
        assert not any(jax.tree.leaves(moved["encoder"]["block_0"]))  # 0.7 ** 3
        assert all(jax.tree.leaves(moved["encoder"]["block_1"]))  # 0.7 ** 2

    @staticmethod
    def train(model: Net, params: PyTree, rules: olm.Rules) -> PyTree:
        adamw = optax.adamw(0.01, weight_decay=0.1)
        tx = olm.with_name_multipliers(adamw, rules)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = tx.update(gradients(model, params), state, params)
            return (optax.apply_updates(params, updates), state), None

        @jax.jit
        def run(params: PyTree) -> PyTree:
            return jax.lax.scan(step, (params, tx.init(params)), None, length=5)[0][0]

        return run(params)

    def test_rules(self, axis: int) -> None:
        params = jax.eval_shape(lambda: params_of(axis))
        table = layer_decay(0.5, params, stacked={"encoder/block": axis})
        at = ", axis=1" if axis else ""
        assert [f"{rule} {rule.multiplier}" for rule in table] == [
            "prefix 'stem' 0.0625",
            f"prefix 'encoder/block' per_layer([0.125, 0.25, 0.5]{at})",
            "prefix 'encoder/norm' 0.5",
            "prefix 'head' 1.0",
        ]


def stack(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def multipliers(params: PyTree, **options: Any) -> dict[str, str]:
    table = layer_decay(0.5, params, **options)
    olm.check_rules(params, table)
    return {row.name: str(row.multiplier) for row in olm.assign(params, table)}


class TestOptions:
    PARAMS = {"embed": stack(9), "blocks": {"w": stack(3, 4), "b": stack(3)}}

    def test_freeze_below_and_min_scale_hold_for_each_slice(self) -> None:
        options = {"stacked": {"blocks": 0}, "freeze_below": 0.2, "min_scale": 0.3}
        expected = {"embed": "0.0", "blocks/w": "per_layer([0, 0.3, 0.5])"}
        found = multipliers(self.PARAMS, **options)
        assert found == {**expected, "blocks/b": expected["blocks/w"]}

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
            "cls": "0.0625",  # The first stack's, as it shares no path with either.
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


REFUSED: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "names": (
        ["layers/w"],
        {"layers": 0},
        ValueError,
        r"from the shapes\. Pass the parameters, or their jax\.eval_shape, not their n",
    ),
    "lengths": (
        {"layers": {"b": stack(3), "w": stack(2, 3)}},
        {"layers": 0},
        ValueError,
        "'layers' of stacked= .* along axis 0: 'layers/b' has 3, 'layers/w' has 2",
    ),
    "axis": (
        {"layers": {"b": stack(3), "w": stack(3, 3)}},
        {"layers": 1},
        ValueError,
        r"'layers/b' holds its layers along axis 1, but its shape is \(3,\)",
    ),
    "negative axis": (
        {"layers": stack(3)},
        {"layers": -2},
        ValueError,
        r"along axis -2, but its shape is \(3,\)",
    ),
    "no match": (
        {"layers": stack(3), "head": stack(3)},
        {"layrs": 0},
        ValueError,
        r"'layrs' of stacked= matches none .* which are 'head', 'layers'\.",
    ),
    "shadowed": (
        {"layers": stack(3)},
        {"layers": 0, "layer": 0},
        ValueError,
        r"'layer' of stacked= matches none of the parameters, which are none\.",
    ),
    "axis type": ({"layers": stack(3)}, {"layers": True}, TypeError, "int, not True"),
    "mapping": ({"layers": stack(3)}, "layers", TypeError, "must be a mapping from a"),
}


@pytest.mark.parametrize(
    ("params", "stacked", "error", "text"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refuses(params: Any, stacked: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        layer_decay(0.5, params, stacked=stacked)
