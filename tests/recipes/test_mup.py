"""µP's multipliers against the tables of the paper, in literal numbers."""

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_lrmult as olm
from optax_lrmult.recipes import mup


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


def table(
    params: Any,
    base: Any,
    optimizer: Any = "adam",
    readout: Any = "scaled",
    **more: Any,
) -> dict[str, float]:
    """The multipliers that are not 1; every rule is alive."""
    rules = mup(params, base, optimizer, readout=readout, **more)
    rows = olm.assign(params, rules, on_unmatched="error")
    return {row.name: row.value for row in rows if row.rule}


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
        found = table(mlp(1024), mlp(128), optimizer, readout)
        assert found == PUBLISHED[optimizer, readout]

    @pytest.mark.parametrize(("optimizer", "readout"), PUBLISHED)
    def test_stored_the_other_way_round(self, optimizer: Any, readout: Any) -> None:
        def turned(width: int) -> Any:
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape[::-1], x.dtype), mlp(width)
            )

        # The pattern takes the vectors, too, which have no fan-in all the same.
        axes = {"": (-1, -2)}
        found = table(turned(1024), turned(128), optimizer, readout, axes=axes)
        assert found == PUBLISHED[optimizer, readout]

    def test_the_same_shapes_have_no_rules(self) -> None:
        assert mup(mlp(128), mlp(128), "sgd", readout="plain") == olm.Rules()

    def test_a_narrower_network_goes_the_other_way(self) -> None:
        assert table(mlp(64), mlp(128)) == {"hidden/kernel": 2}

    @pytest.mark.parametrize(("optimizer", "rate"), [("adam", 1 / 2), ("sgd", 4 / 2)])
    def test_fans_may_grow_differently(self, optimizer: Any, rate: float) -> None:
        trees = shapes(up=(256, 4096)), shapes(up=(128, 1024))
        assert table(*trees, optimizer) == {"up": rate}

    @pytest.mark.parametrize(("optimizer", "power"), [("adam", 1), ("sgd", 2)])
    def test_are_one_update_in_two_parametrizations(
        self, optimizer: Any, power: int
    ) -> None:
        """A factor c in the forward pass: Adam's rate goes by 1/c, SGD's by 1/c^2."""
        scaled, plain = (
            table(mlp(7), mlp(3), optimizer, readout).get("readout/kernel", 1)
            for readout in ("scaled", "plain")
        )
        np.testing.assert_allclose(scaled / plain, (7 / 3) ** power)

    def test_a_rule_says_what_it_takes(self) -> None:
        rules = mup(mlp(1024), mlp(128), "sgd", readout="plain")
        kinds = ["output weights", "input weights and vectors"]
        assert [str(rule) for rule in rules] == kinds
        again = olm.Rules.from_config(rules.to_config())
        assert again.find("first/bias") == rules.find("first/bias")


class TestWeightDecay:
    def test_comes_with_the_multipliers_and_is_theirs_divided(self) -> None:
        options: Any = {"readout": "plain", "weight_decay": 0.5}
        tables = mup(mlp(1024), mlp(128), **options)
        assert tables["multipliers"] == mup(mlp(1024), mlp(128), readout="plain")
        rows = olm.assign(mlp(1024), tables["weight_decay"])
        decays = {row.name: row.value for row in rows}
        assert decays.pop("hidden/kernel") == decays.pop("readout/kernel") == 4
        assert set(decays.values()) == {0.5}

    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    def test_keeps_the_product_of_rate_and_decay(self, optimizer: Any) -> None:
        """As `mup.MuAdamW` and `mup.MuSGD` do."""
        options: Any = {"readout": "scaled", "weight_decay": 0.5}
        params = jax.tree.map(lambda x: jnp.ones(x.shape), mlp(8))
        tx = olm.adamw(1.0, **mup(params, mlp(2), optimizer, **options))
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(zeros, tx.init(params), params)
        for update in jax.tree.leaves(updates):
            np.testing.assert_array_equal(update, jnp.full_like(update, -0.5))


class TestAxes:
    def test_convolutions_have_their_fans_last(self) -> None:
        wide, base = shapes(kernel=(3, 3, 64, 256)), shapes(kernel=(3, 3, 16, 64))
        assert table(wide, base) == {"kernel": 0.25}

    def test_a_stack_of_layers_keeps_its_kinds(self) -> None:
        wide = shapes(kernel=(6, 64, 64), bias=(6, 64), scale=(6, 64))
        base = shapes(kernel=(6, 16, 16), bias=(6, 16), scale=(6, 16))
        assert table(wide, base) == {"kernel": 0.25}
        assert table(wide, base, "sgd") == {"bias": 4, "scale": 4}

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

        into_heads = olm.glob("query/kernel", "key/kernel", "value/kernel")
        axes = {into_heads: (0, (1, 2)), "out/kernel": ((0, 1), 2)}
        trees = attention(heads, features), attention(2, 16)
        ratio = features / 16
        kernels = {f"{n}/kernel": 1 / ratio for n in ("query", "key", "value", "out")}
        assert table(*trees, axes=axes) == kernels
        biases = {f"{n}/bias": ratio for n in ("query", "key", "value", "out")}
        assert table(*trees, "sgd", axes=axes) == biases

    def test_win_over_the_name(self) -> None:
        trees = shapes(bias=(8, 4)), shapes(bias=(2, 2))
        assert table(*trees) == {}
        assert table(*trees, axes={"bias": (0, 1)}) == {"bias": 0.25}

    def test_that_nothing_tells_are_an_error(self) -> None:
        trees = shapes(query=(64, 8, 8)), shapes(query=(16, 2, 8))
        text = r"'query' .* Axis 0 has grown, .* axes=.'query': \(fan_in, fan_out\)"
        with pytest.raises(ValueError, match=text):
            mup(*trees, readout="plain")
        assert table(*trees, axes={"query": (-3, (-2, -1))}) == {"query": 0.25}

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"axes": {"w": (-1, -1)}}, ValueError, "fan-in of 'w' must be apart from"),
            ({"axes": {"w": (-3, 1)}}, ValueError, "An axis of 'w' must be .*, not -3"),
            (
                {"axes": {"x": (0, 1)}},
                ValueError,
                r"'x' \(\(0, 1\)\) of axes matches no(?s:(?!on_unmatched).)*$",
            ),
            ({"axes": {1: (0, 1)}}, TypeError, "pattern of a rule must be a str"),
            ({"optimizer": "lion"}, ValueError, "optimizer must be 'adam' or 'sgd'"),
            ({"readout": True}, ValueError, "readout must be 'scaled' or 'plain'"),
        ],
    )
    def test_and_options_are_checked(
        self, options: Any, error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=text):
            mup(shapes(w=(8, 8)), shapes(w=(2, 2)), **{"readout": "plain", **options})

    def test_there_is_no_default_readout(self) -> None:
        with pytest.raises(TypeError, match="readout"):
            mup(mlp(8), mlp(4))


class TestTrees:
    def test_of_different_names_are_an_error(self) -> None:
        one, two = shapes(a=(2,)), shapes(a=(2,), b=(2,))
        with pytest.raises(ValueError, match="parameter 'b' is in base_params only"):
            table(one, two)
        with pytest.raises(ValueError, match="parameter 'b' is in params only"):
            table(two, one)

    @pytest.mark.parametrize("base", [(2,), (2, 2, 2), (0, 2)])
    def test_of_different_ranks_are_an_error(self, base: tuple[int, ...]) -> None:
        with pytest.raises(
            ValueError, match=r"'a' in base_params must be like \(8, 8\)"
        ):
            table(shapes(a=(8, 8)), shapes(a=base))

    def test_may_be_nnx_states(self) -> None:
        class Net(nnx.Module):
            def __init__(self, width: int) -> None:
                rngs = nnx.Rngs(0)
                self.first = nnx.Linear(3, width, rngs=rngs)
                self.hidden = nnx.Linear(width, width, rngs=rngs)

        states = [
            nnx.state(nnx.eval_shape(lambda width=width: Net(width)), nnx.Param)
            for width in (32, 8)
        ]
        assert table(*states) == {"hidden/kernel": 0.25}

    def test_may_be_equinox_modules(self) -> None:
        def net(width: int) -> Any:
            key = jax.random.key(0)
            model = eqx.filter_eval_shape(eqx.nn.MLP, 3, 1, width, 2, key=key)
            return eqx.filter(model, lambda x: isinstance(x, jax.ShapeDtypeStruct))

        trees = net(32), net(8)
        found = table(*trees, readout="plain", axes={"weight": (-1, -2)})
        assert found == {"layers/1/weight": 0.25, "layers/2/weight": 0.25}

    def test_may_have_other_labels(self) -> None:
        trees = [jnp.ones((8, 8))], [jnp.ones((2, 2))]
        rules = mup(*trees, readout="scaled", param_labels=["net.w"])
        assert rules.find("net.w")[1] == 0.25


@pytest.mark.parametrize(("optimizer", "readout"), PUBLISHED)
def test_one_step_changes_the_output_alike_at_every_width(
    optimizer: Any, readout: Any
) -> None:
    """µP's claim: after one step, outputs have changed by the same order of size."""
    changes = [output_change(width, optimizer, readout) for width in (64, 512)]
    assert 0.8 < changes[1] / changes[0] < 1.25, changes


def output_change(width: int, optimizer: str, readout: Any) -> float:
    base, rng = 64, np.random.default_rng(0)
    x = rng.normal(size=(8, 16)).astype("float32")
    ratio = width / base
    # Initialised as the docstring's last column says, in deviations.
    params = {
        "first": rng.normal(size=(16, width)) / 4,
        "hidden": rng.normal(size=(width, width)) / base**0.5 / ratio**0.5,
        "readout": rng.normal(size=(width, 1)) / base**0.5,
    }
    if readout == "plain":
        params["readout"] /= ratio

    def output(params: Any) -> jax.Array:
        features = jnp.tanh(jnp.tanh(x @ params["first"]) @ params["hidden"])
        divisor = ratio if readout == "scaled" else 1
        return jnp.mean(features @ params["readout"]) / divisor

    base_shapes = shapes(first=(16, base), hidden=(base, base), readout=(base, 1))
    rules = mup(params, base_shapes, optimizer, readout=readout)
    tx = optax.chain(
        optax.scale_by_adam() if optimizer == "adam" else optax.identity(),
        olm.scale_by_name_multiplier(rules),
        optax.scale_by_learning_rate(1e-3),
    )

    @jax.jit
    def change(params: Any) -> jax.Array:
        before, gradients = jax.value_and_grad(output)(params)
        updates, _ = tx.update(gradients, tx.init(params), params)
        return output(optax.apply_updates(params, updates)) - before

    return float(change(jax.tree.map(jnp.float32, params)))
