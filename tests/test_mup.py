"""µP's multipliers against the tables of the paper, in literal numbers."""

import re
from typing import Any

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_lrmult as olm
from optax_lrmult._recipes._mup import mup


def shapes(**sizes: tuple[int, ...]) -> Any:
    return {name: jax.ShapeDtypeStruct(size, "float32") for name, size in sizes.items()}


def mlp(width: int) -> Any:
    """An MLP of 64 -> width -> width -> 10, with a norm."""
    return {
        "first": shapes(kernel=(64, width), bias=(width,)),
        "hidden": shapes(kernel=(width, width), bias=(width,)),
        "norm": shapes(scale=(width,), bias=(width,)),
        "readout": shapes(kernel=(width, 10), bias=(10,)),
    }


def table(params: Any, *args: Any, **options: Any) -> dict[str, float]:
    rules = mup(params, *args, **options)
    rows = olm.assign(params, rules)
    olm.check_rules(params, rules)
    return {row.name: row.multiplier for row in rows if row.multiplier != 1.0}


# Tables 3 and 8 of https://arxiv.org/abs/2203.03466, at the width ratio 1024/128 = 8.
VECTORS = {"first/bias": 8, "hidden/bias": 8, "norm/bias": 8, "norm/scale": 8}
PUBLISHED = {
    ("adam", "scaled"): {"hidden/kernel": 0.125},
    ("adam", "plain"): {"hidden/kernel": 0.125, "readout/kernel": 0.125},
    ("sgd", "scaled"): {"first/kernel": 8, **VECTORS, "readout/kernel": 8},
    ("sgd", "plain"): {"first/kernel": 8, **VECTORS, "readout/kernel": 0.125},
}


class TestTheTablesOfThePaper:
    @pytest.mark.parametrize(("optimizer", "readout"), PUBLISHED)
    def test_for_an_mlp(self, optimizer: Any, readout: Any) -> None:
        found = table(mlp(1024), mlp(128), optimizer, readout=readout)
        assert found == PUBLISHED[optimizer, readout]

    @pytest.mark.parametrize(("optimizer", "readout"), PUBLISHED)
    def test_stored_the_other_way_round(self, optimizer: Any, readout: Any) -> None:
        def turned(width: int) -> Any:
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape[::-1], x.dtype), mlp(width)
            )

        trees = turned(1024), turned(128)
        for options in ({"transposed": "kernel"}, {"fan_in": -1, "fan_out": -2}):
            found = table(*trees, optimizer, readout=readout, **options)
            assert found == PUBLISHED[optimizer, readout]

    def test_adam_is_the_default(self) -> None:
        assert table(mlp(1024), mlp(128)) == {"hidden/kernel": 0.125}

    def test_the_same_shapes_have_no_rules(self) -> None:
        assert mup(mlp(128), mlp(128), "sgd", readout="plain") == olm.Rules()

    def test_a_narrower_network_goes_the_other_way(self) -> None:
        assert table(mlp(64), mlp(128)) == {"hidden/kernel": 2}

    @pytest.mark.parametrize(
        ("optimizer", "multiplier"), [("adam", 1 / 2), ("sgd", 4 / 2)]
    )
    def test_fan_in_and_fan_out_may_grow_differently(
        self, optimizer: Any, multiplier: float
    ) -> None:
        trees = shapes(up=(256, 4096)), shapes(up=(128, 1024))
        assert table(*trees, optimizer) == {"up": multiplier}

    @pytest.mark.parametrize(("optimizer", "power"), [("adam", 1), ("sgd", 2)])
    @hypothesis.given(st.integers(1, 9), st.integers(1, 9))
    def test_are_one_update_in_two_parametrizations(
        self, optimizer: Any, power: int, base: int, width: int
    ) -> None:
        """A factor c in the forward pass: Adam's rate goes by 1/c, SGD's by 1/c^2."""
        scaled, plain = (
            mup(mlp(width), mlp(base), optimizer, readout=readout)
            for readout in ("scaled", "plain")
        )
        ratio = scaled.find("readout/kernel")[1] / plain.find("readout/kernel")[1]
        np.testing.assert_allclose(ratio, (width / base) ** power)


class TestWeightDecay:
    def test_is_what_mu_adamw_and_mu_sgd_do(self) -> None:
        assert table(mlp(1024), mlp(128), decay=True) == {"hidden/kernel": 8}
        found = table(mlp(1024), mlp(128), "sgd", decay=True)
        assert found == {name: 1 / m for name, m in PUBLISHED["sgd", "scaled"].items()}

    def test_keeps_the_product_of_rate_and_decay(self) -> None:
        params = {"w": jnp.ones((8, 8))}
        trees = params, {"w": jnp.ones((2, 2))}
        tx = optax.chain(
            olm.add_decayed_weights_by_name(0.5, mup(*trees, decay=True)),
            olm.scale_by_name_multiplier(mup(*trees)),
        )
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(zeros, tx.init(params), params)
        np.testing.assert_array_equal(updates["w"], 0.5 * params["w"])


class TestAxes:
    def test_convolutions_have_their_fans_last(self) -> None:
        wide, base = shapes(kernel=(3, 3, 64, 256)), shapes(kernel=(3, 3, 16, 64))
        assert table(wide, base) == {"kernel": 0.25}

    def test_a_stack_of_layers_keeps_its_kinds(self) -> None:
        wide = shapes(kernel=(6, 64, 64), bias=(6, 64), scale=(6, 64))
        base = shapes(kernel=(6, 16, 16), bias=(6, 16), scale=(6, 16))
        assert table(wide, base) == {"kernel": 0.25}
        assert table(wide, base, "sgd") == {"bias": 4, "scale": 4}

    ATTENTION = {
        re.compile(r".*(query|key|value)/kernel"): (0, (1, 2)),
        "out/kernel": ((0, 1), 2),
    }

    def test_a_vector_has_fan_out_only(self) -> None:
        wide, base = shapes(token=(64,), t=()), shapes(token=(16,), t=())
        assert table(wide, base, readout="plain") == {}
        assert table(wide, base, "sgd") == {"token": 4}

    @pytest.mark.parametrize(("heads", "features"), [(8, 64), (2, 64), (4, 32)])
    def test_of_attention_may_be_several(self, heads: int, features: int) -> None:
        def attention(heads: int, features: int) -> Any:
            module = nn.MultiHeadDotProductAttention(heads)
            x = jnp.ones((3, features))
            return jax.eval_shape(module.init, jax.random.key(0), x)["params"]

        trees = attention(heads, features), attention(2, 16)
        ratio = features / 16
        kernels = {f"{n}/kernel": 1 / ratio for n in ("query", "key", "value", "out")}
        assert table(*trees, axes=self.ATTENTION) == kernels
        biases = {f"{n}/bias": ratio for n in ("query", "key", "value", "out")}
        assert table(*trees, "sgd", axes=self.ATTENTION) == biases

    def test_that_nothing_tells_are_an_error(self) -> None:
        trees = shapes(query=(64, 8, 8)), shapes(query=(16, 2, 8))
        with pytest.raises(
            ValueError, match=r"'query' .* axis 0 is neither in its fan"
        ):
            mup(*trees)
        assert table(*trees, axes={"query": (-3, (-2, -1))}) == {"query": 0.25}
        assert table(*trees, fan_in=0, fan_out=(1, 2)) == {"query": 0.25}

    def test_win_over_transposed_and_over_the_name(self) -> None:
        trees = shapes(bias=(8, 4)), shapes(bias=(2, 2))
        assert table(*trees) == {}
        axes = {"bias": (0, 1)}
        assert table(*trees, axes=axes, transposed="bias") == {"bias": 0.25}

    def test_turned_names_may_be_a_list(self) -> None:
        trees = shapes(a=(8, 4), b=(8, 4)), shapes(a=(2, 2), b=(2, 2))
        assert table(*trees, transposed=["a"]) == {"a": 0.5, "b": 0.25}
        assert table(*trees, transposed=["a", re.compile("b")]) == {"a": 0.5, "b": 0.5}

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"fan_in": "0"}, TypeError, r"fan_in must be an axis \(an int\)"),
            ({"fan_out": True}, TypeError, "fan_out must be an axis"),
            ({"fan_in": (0, 1.0)}, TypeError, "fan_in must be an axis"),
            ({"fan_in": -1}, ValueError, r"'w' .* in its fan-in \[1\] and in its fan-"),
            ({"fan_in": -3}, ValueError, r"'w' of shape \(8, 8\) has no axis -3"),
            ({"axes": [0, 1]}, TypeError, "axes must be a mapping"),
            ({"axes": {"w": 0}}, TypeError, "axes must have a pair"),
            ({"axes": {"w": (0, None)}}, TypeError, r"axes\['w'\] must be an axis"),
            ({"axes": {1: (0, 1)}}, TypeError, "pattern of a rule must be a str"),
            ({"axes": {"x": (0, 1)}}, ValueError, "pattern 'x' of axes matches none"),
            (
                {"transposed": "x"},
                ValueError,
                "'x' of transposed matches none of the 1",
            ),
            ({"transposed": 1}, TypeError, "pattern of a rule must be a str"),
            ({"optimizer": "lion"}, ValueError, "optimizer must be 'adam' or 'sgd'"),
            ({"readout": True}, ValueError, "readout must be 'scaled' or 'plain'"),
            ({"decay": 0.1}, TypeError, "decay must be True or False, not 0.1"),
        ],
    )
    def test_and_options_are_checked(
        self, options: Any, error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=text):
            mup(shapes(w=(8, 8)), shapes(w=(2, 2)), **options)


class TestTrees:
    def test_of_different_names_are_an_error(self) -> None:
        one, two = shapes(a=(2,)), shapes(a=(2,), b=(2,))
        with pytest.raises(ValueError, match="parameter 'b' is in base_params only"):
            mup(one, two)
        with pytest.raises(ValueError, match="parameter 'b' is in params only"):
            mup(two, one)

    @pytest.mark.parametrize("base", [(2,), (2, 2, 2), (0, 2)])
    def test_of_different_ranks_are_an_error(self, base: tuple[int, ...]) -> None:
        with pytest.raises(
            ValueError, match=r"parameter 'a' has the shape \(8, 8\), a"
        ):
            mup(shapes(a=(8, 8)), shapes(a=base))

    def test_hold_arrays_or_shapes(self) -> None:
        assert table({"w": jnp.ones((8, 8))}, shapes(w=(2, 2))) == {"w": 0.25}
        with pytest.raises(TypeError, match="'w' is of type str, which has no shape"):
            mup({"w": "text"}, shapes(w=(2, 2)))

    def test_may_be_nnx_states(self) -> None:
        class Net(nnx.Module):
            def __init__(self, width: int) -> None:
                rngs = nnx.Rngs(0)
                self.first = nnx.Linear(3, width, rngs=rngs)
                self.hidden = nnx.Linear(width, width, rngs=rngs)

        states = [nnx.state(Net(width), nnx.Param) for width in (32, 8)]
        assert mup(*states) == olm.Rules([(re.compile("hidden/kernel"), 0.25)])

    def test_may_have_other_labels(self) -> None:
        trees = [jnp.ones((8, 8))], [jnp.ones((2, 2))]
        rules = mup(*trees, param_labels=["net.w"])
        assert rules == olm.Rules([(re.compile(r"net\.w"), 0.25)])
        with pytest.raises(ValueError, match="Two parameters have the name 'w'"):
            mup(*([x[0], x[0]] for x in trees), param_labels=["w", "w"])

    def test_with_blocks_are_written_short(self) -> None:
        def blocks(width: int) -> Any:
            return {f"block_{i}": shapes(kernel=(width, width)) for i in range(12)}

        rules = mup(blocks(64), blocks(16))
        assert rules == olm.Rules([(re.compile(r"block_\d+/kernel"), 0.25)])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_one_step_changes_the_features_alike_at_every_width(optimizer: Any) -> None:
    """µP's claim: after one step, outputs have changed by the same order of size."""
    changes = [output_change(width, optimizer) for width in (64, 512)]
    assert 0.8 < changes[1] / changes[0] < 1.25, changes


def output_change(width: int, optimizer: str) -> float:
    base, rng = 64, np.random.default_rng(0)
    x = rng.normal(size=(8, 16)).astype("float32")
    params = {
        "first": rng.normal(size=(16, width)) / 4,
        "hidden": rng.normal(size=(width, width)) / width**0.5,
        "readout": rng.normal(size=(width, 1)) / base**0.5,
    }

    def output(params: Any) -> jax.Array:
        features = jnp.tanh(jnp.tanh(x @ params["first"]) @ params["hidden"])
        return jnp.mean(features @ params["readout"]) * (base / width)

    base_shapes = shapes(first=(16, base), hidden=(base, base), readout=(base, 1))
    tx = optax.chain(
        optax.scale_by_adam() if optimizer == "adam" else optax.identity(),
        olm.scale_by_name_multiplier(mup(params, base_shapes, optimizer)),
        optax.scale_by_learning_rate(1e-3),
    )

    @jax.jit
    def change(params: Any) -> jax.Array:
        before, gradients = jax.value_and_grad(output)(params)
        updates, _ = tx.update(gradients, tx.init(params), params)
        return output(optax.apply_updates(params, updates)) - before

    return float(change(jax.tree.map(jnp.float32, params)))
