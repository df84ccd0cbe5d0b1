"""Small leaves in a few buffers: the same updates and state, in fewer kernels."""

import collections
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import serialization

import optax_lrmult as olm

ELEMENTWISE = {
    "adam": optax.adam(optax.linear_schedule(1e-2, 0.0, 5)),
    "adam with bfloat16 momentum": optax.adam(1e-2, mu_dtype="bfloat16"),
    "our adamw, of numbers": olm.adamw(1e-2, weight_decay=0.1),
    "Keras's adam": olm.keras.scale_by_adam(),
    "amsgrad": optax.amsgrad(1e-2),
    "lion": optax.lion(1e-2),
    "sgd": optax.sgd(1e-2, momentum=0.9, nesterov=True),
    "rmsprop": optax.rmsprop(1e-2, centered=True, momentum=0.9),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2)),
    "accumulated": optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
}
SHAPES = {"scale": (8,), "bias": (8,), "kernel": (8, 4)}


def tree(blocks: int = 3, *, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Blocks of three small leaves each, a larger leaf, and one of its own shape."""
    random = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), dtype)

    small = {
        n: {k: draw(s) for k, s in SHAPES.items()} for n in map(str, range(blocks))
    }
    return {"blocks": small, "embed": draw((40, 9)), "temperature": draw(())}


def walk(tx: optax.GradientTransformation, params: Any, steps: int = 3) -> Any:
    """The parameters, the last updates and the state after some jitted steps."""

    @jax.jit
    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, updates

    state, updates = tx.init(params), None
    for seed in range(1, steps + 1):
        params, state, updates = step(params, state, tree(seed=seed))
    return params, updates, state


MOMENTUM = optax.sgd(0.5, momentum=0.5)


def sizes(tree: Any) -> list[int]:
    return sorted(jnp.size(leaf) for leaf in jax.tree.leaves(tree))


class TestUpdates:
    @pytest.mark.parametrize("name", ELEMENTWISE)
    def test_are_those_of_the_optimizer_by_itself(self, name: str) -> None:
        tx = ELEMENTWISE[name]
        plain, _, plain_state = walk(tx, tree())
        params, _, state = walk(olm.packed(tx, max_size=100), tree())
        # To rounding: a compiler may contract a product and a sum in one program only,
        # and adds the squares of a global norm in another order.
        chex.assert_trees_all_close(params, plain, rtol=1e-5, atol=1e-6)
        unpacked = olm.unpacked_state(state, tree())
        chex.assert_trees_all_equal_shapes_and_dtypes(unpacked, plain_state)
        tolerance = 1e-2 if "bfloat16" in name else 1e-5
        chex.assert_trees_all_close(unpacked, plain_state, rtol=tolerance, atol=1e-6)

    def test_are_so_bitwise_without_a_compiler(self) -> None:
        """Sums and products by powers of two, which nothing rounds in two ways."""
        tx, state = olm.packed(MOMENTUM), olm.packed(MOMENTUM).init(tree())
        plain, plain_state = MOMENTUM, MOMENTUM.init(tree())
        for seed in range(1, 3):
            updates, state = tx.update(tree(seed=seed), state)
            expected, plain_state = plain.update(tree(seed=seed), plain_state)
            chex.assert_trees_all_equal(updates, expected)
        chex.assert_trees_all_equal(olm.unpacked_state(state, tree()), plain_state)

    def test_names_are_known_around_it(self) -> None:
        table = {"embed": 0, "kernel": 0.5, "blocks/1": lambda step: 0.1 * step}
        plain = walk(olm.adam(1e-2, multipliers=table), tree())
        tx = olm.with_name_multipliers(olm.packed(optax.adam(1e-2)), table)
        params, updates, state = walk(tx, tree())
        chex.assert_trees_all_close(params, plain[0], rtol=1e-6, atol=1e-7)
        chex.assert_trees_all_close(updates, plain[1], rtol=1e-5, atol=1e-8)
        assert not updates["embed"].any()
        chex.assert_trees_all_equal_structs(olm.unpacked_state(state, tree()), plain[2])

    def test_decay_by_name_stands_around_it(self) -> None:
        decays = {"scale": 0, "bias": 0, "": 0.1}
        tx = optax.chain(
            olm.packed(optax.scale_by_adam()),
            olm.add_decayed_weights_by_name(decays),
            optax.scale_by_learning_rate(1e-2),
        )
        plain, _, _ = walk(olm.adamw(1e-2, weight_decay=decays), tree())
        chex.assert_trees_all_close(walk(tx, tree())[0], plain, rtol=1e-6, atol=1e-7)

    def test_what_is_no_array_of_numbers_passes(self) -> None:
        params = {
            "none": None,
            "masked": optax.MaskedNode(),
            "empty": [jnp.ones((0, 3)), jnp.ones((0, 3))],
            "numbers": [1.0, 2.0, np.float32(3.0)],
            "scalars": [jnp.float32(1), jnp.ones((1, 1))],
            "numpy": [np.ones(3), np.ones(3, np.float32)],  # JAX has float32 of both.
        }
        tx = olm.packed(optax.sgd(0.5, momentum=0.9))
        updates, _ = tx.update(params, tx.init(params))
        chex.assert_trees_all_equal_structs(updates, params)
        chex.assert_trees_all_equal(
            jax.tree.map(jnp.shape, updates), jax.tree.map(jnp.shape, params)
        )
        np.testing.assert_array_equal(updates["numbers"], [-0.5, -1.0, -1.5])

    def test_extra_arguments_reach_the_optimizer(self) -> None:
        tx, plain = olm.packed(optax.polyak_sgd(1.0)), optax.polyak_sgd(1.0)
        updates, _ = tx.update(tree(), tx.init(tree()), tree(), value=jnp.float32(0.1))
        state = plain.init(tree())
        expected, _ = plain.update(tree(), state, tree(), value=jnp.float32(0.1))
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)

    def test_the_order_of_a_tree_is_nothing_to_a_state(self) -> None:
        """A dictionary is sorted by its keys, and a class is as it was written."""
        there = {"a": jnp.ones(3), "b": jnp.full(3, 2.0), "c": jnp.full(3, 3.0)}
        back = collections.OrderedDict(reversed(there.items()))
        tx = olm.packed(MOMENTUM)
        _, state = tx.update(there, tx.init(there), there)
        updates, _ = tx.update(back, state, back)
        assert list(updates) == ["c", "b", "a"]
        expected = jax.tree.map(lambda x: -0.75 * x, there)
        chex.assert_trees_all_equal(dict(updates), expected)


class TestLayout:
    shapes = st.lists(st.sampled_from([(), (1,), (3,), (2, 3), (3, 2), (0,), (50,)]))
    dtypes = st.sampled_from(["float32", "bfloat16", "int32", "complex64"])

    @hypothesis.settings(max_examples=12)
    @hypothesis.given(st.data(), shapes, st.integers(0, 60))
    def test_what_goes_in_comes_out(
        self, data: st.DataObject, shapes: list[Any], max_size: int
    ) -> None:
        leaves = [
            jnp.full(shape, i, data.draw(self.dtypes)) for i, shape in enumerate(shapes)
        ]
        kept = [data.draw(st.booleans()) for _ in leaves]
        tx = olm.packed(optax.trace(1.0), max_size=max_size, keep=kept)
        updates, state = tx.update(leaves, tx.init(leaves))
        chex.assert_trees_all_equal(updates, leaves)
        unpacked: Any = olm.unpacked_state(state, leaves)
        chex.assert_trees_all_equal(unpacked.trace, leaves)
        rows = zip(leaves, kept, strict=True)
        packable = [
            (leaf.shape, leaf.dtype)
            for leaf, keep in rows
            if 0 < leaf.size <= max_size and leaf.dtype != "int32" and not keep
        ]
        alone = len(leaves) - len(packable)
        assert len(jax.tree.leaves(state)) == alone + len(set(packable))

    def test_buffers_are_bounded(self) -> None:
        state = olm.packed(optax.trace(0.9), max_size=3).init([jnp.ones(3)] * 70)
        assert sizes(state) == [3 * 6, 3 * 32, 3 * 32]

    def test_integers_stay_leaves(self) -> None:
        assert sizes(olm.packed(optax.trace(0.9)).init([jnp.arange(2)] * 2)) == [2, 2]

    def test_kept_leaves_stay_leaves(self) -> None:
        mask = jax.tree.map(lambda x: x.ndim == 2, tree())
        for keep in (mask, lambda params: jax.tree.map(lambda x: x.ndim == 2, params)):
            state = olm.packed(optax.trace(0.9), keep=keep).init(tree())
            assert sizes(state) == [1, *[32] * 3, 48, 360]

    def test_keep_may_say_more_than_a_mask_shows(self) -> None:
        params = {name: jnp.ones(2) for name in ("stem", "a", "b", "c")}
        trace = olm.packed(optax.trace(0.9), keep={n: n == "c" for n in params})
        tx = olm.with_name_multipliers(trace, {"stem": 0}, mask_frozen=True)
        assert sizes(tx.init(params)) == [2, 4]

    def test_keep_lacks_a_parameter(self) -> None:
        with pytest.raises(ValueError, match="a tree of bool with 'blocks/0/bias'"):
            olm.packed(MOMENTUM, keep={"embed": True}).init(tree())

    def test_a_step_is_traced_anew_for_another_layout_only(self) -> None:
        tx, traces = olm.packed(MOMENTUM), []

        @jax.jit
        def update(gradients: Any, state: Any) -> Any:
            traces.append(1)
            return tx.update(gradients, state)

        gradients = {"a": jnp.ones(2), "b": jnp.ones(2)}
        for _ in range(2):
            _, state = update(gradients, tx.init(gradients))
            update(gradients, state)
        assert len(traces) == 1
        update(gradients, olm.packed(MOMENTUM, max_size=1).init(gradients))
        assert len(traces) == 2

    def test_is_the_same_under_transformations(self) -> None:
        tx, params = olm.packed(MOMENTUM), [jnp.ones(2), 2 * jnp.ones(2), jnp.ones(3)]
        state = tx.init(params)
        structure = jax.tree.structure(state)
        assert jax.tree.structure(jax.jit(tx.init)(params)) == structure
        assert jax.tree.structure(jax.eval_shape(tx.init, params)) == structure
        two = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
        updates, states = jax.vmap(tx.update)(two, jax.vmap(tx.init)(two), two)
        assert jax.tree.structure(states) == structure
        first = jax.tree.map(lambda x: x[0], updates)
        chex.assert_trees_all_equal(first, tx.update(params, state)[0])
        unpacked = jax.vmap(olm.unpacked_state)(states, two)
        assert jax.tree.structure(unpacked) == jax.tree.structure(MOMENTUM.init(two))
        again = jax.vmap(olm.packed_state)(unpacked, two, states)
        chex.assert_trees_all_equal(again, states)

        def step(carry: Any, _: None) -> Any:
            return tx.update(*carry), None

        carry, _ = jax.lax.scan(step, (params, state), length=2)
        chex.assert_trees_all_equal_structs(carry, (params, state))


class TestCost:
    """Counted in the compiled text, as a clock depends on the machine."""

    @staticmethod
    def kernels(tx: optax.GradientTransformation, params: Any) -> int:
        """How many kernels a step starts."""

        def step(params: Any, state: Any, gradients: Any) -> Any:
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        state = jax.eval_shape(tx.init, params)
        text = str(jax.jit(step).lower(params, state, params).compile().as_text())
        entry = text[text.index("\nENTRY") :]
        return len(re.findall(r" = [^=]*? (?:fusion|concatenate|call)\(", entry))

    def test_a_step_has_fewer_kernels(self) -> None:
        params = {f"{i:03}": jnp.ones(10) for i in range(64)}
        assert self.kernels(optax.adam(1e-3), params) >= 3 * len(params)
        packed = self.kernels(olm.packed(optax.adam(1e-3)), params)
        assert packed <= len(params) + 2 * 6

    def test_where_nothing_is_packed_a_step_is_the_plain_one(self) -> None:
        params = [jnp.ones(10)] * 4
        for plain, packed in (
            (optax.adam(1e-3), olm.packed(optax.adam(1e-3), max_size=9)),
            (optax.sgd(1e-3), olm.packed(optax.sgd(1e-3))),
        ):
            assert self.kernels(packed, params) == self.kernels(plain, params)

    def test_parts_of_a_shape_share_a_kernel(self) -> None:
        """As where they begin is no constant that would make each its own."""
        params = [jnp.ones(10)] * 40
        tx = olm.packed(MOMENTUM)
        update = jax.jit(tx.update).lower(params, tx.init(params)).as_text()
        assert update.count("stablehlo.dynamic_slice") == 40
        assert update.count("stablehlo.optimization_barrier") == 1
        assert not re.search(r"stablehlo\.slice .*tensor<320xf32>", update)


class TestCheckpoints:
    def test_go_into_the_plain_optimizer_and_back(self) -> None:
        tx, plain = olm.packed(optax.adam(1e-2)), optax.adam(1e-2)
        params, _, state = walk(tx, tree())
        saved = serialization.to_bytes(olm.unpacked_state(state, params))
        restored = serialization.from_bytes(plain.init(params), saved)
        again = olm.packed_state(restored, params, like=tx.init(params))
        chex.assert_trees_all_equal(again, state)
        expected, _ = jax.jit(tx.update)(params, state)
        updates, _ = jax.jit(plain.update)(params, restored)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)

    def test_a_state_is_restored_as_it_is(self, tmp_path: Path) -> None:
        """And not for other parameters, whose buffers are of the same sizes."""
        tx, other = olm.packed(MOMENTUM), tree()
        other["blocks"]["00"] = other["blocks"].pop("0")
        (_, state), empty = tx.update(tree(), tx.init(tree())), tx.init(tree())
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "state", state)
            checkpointer.wait_until_finished()
            saved = serialization.to_bytes(state)
            for restore in (
                lambda like: checkpointer.restore(tmp_path / "state", like),
                lambda like: serialization.from_bytes(like, saved),
            ):
                chex.assert_trees_all_equal(restore(empty), state)
                with pytest.raises(ValueError, match="do not match"):
                    restore(tx.init(other))

    def test_a_plain_state_goes_on_unpacked(self) -> None:
        plain, state = MOMENTUM, MOMENTUM.init(tree())
        expected = plain.update(tree(), state)
        chex.assert_trees_all_equal(olm.packed(plain).update(tree(), state), expected)
        assert olm.unpacked_state(state, tree()) is not None
        chex.assert_trees_all_equal(olm.packed_state(state, tree(), like=state), state)

    def test_a_state_goes_on_under_another_max_size(self) -> None:
        state = olm.packed(MOMENTUM).init(tree())
        results = [
            olm.packed(MOMENTUM, max_size=size).update(tree(), state)
            for size in (2**14, 9)
        ]
        chex.assert_trees_all_equal(*results)

    @pytest.mark.parametrize(
        "make",
        [
            lambda wrap: optax.apply_if_finite(
                optax.chain(optax.clip(1.0), wrap(optax.adam(1e-2))), 3
            ),
            lambda wrap: optax.chain(
                wrap(optax.scale_by_adam(), max_size=9), wrap(optax.trace(0.9))
            ),
            lambda wrap: optax.contrib.sam(wrap(optax.adam(1e-2)), optax.sgd(0.1)),
            lambda wrap: optax.MultiSteps(wrap(MOMENTUM), 2).gradient_transformation(),
            lambda wrap: olm.with_name_multipliers(
                wrap(optax.adam(1e-2)), {"blocks/0": 0, "embed": 0.5}, mask_frozen=True
            ),
            lambda wrap: optax.multi_transform(
                {"a": wrap(optax.adam(1e-2)), "b": wrap(optax.lion(1e-3))},
                olm.by_name({"kernel": "a", "": "b"}),
            ),
        ],
        ids=["chain", "two sizes", "sam", "MultiSteps", "mask_frozen", "partition"],
    )
    def test_packed_may_stand_anywhere(self, make: Any) -> None:
        params = {"wide": tree(2), "narrow": tree(2, seed=1, dtype=jnp.bfloat16)}
        plain: Any = make(lambda tx, **_: tx).init(params)
        state = make(olm.packed).init(params)
        count = len(jax.tree.leaves(plain))
        assert len(jax.tree.leaves(state)) < count
        numbers = list(range(1, count + 1))
        leaves, treedef = jax.tree.flatten(plain)
        rows = zip(leaves, numbers, strict=True)
        plain = treedef.unflatten([(x + n).astype(x.dtype) for x, n in rows])
        packed = olm.packed_state(plain, params, like=state)
        chex.assert_trees_all_equal_shapes_and_dtypes(packed, state)
        chex.assert_trees_all_equal(olm.unpacked_state(packed, params), plain)

    def test_shapes_are_unpacked_under_eval_shape(self) -> None:
        state = jax.eval_shape(olm.packed(optax.adam(1e-2)).init, tree())
        shapes = jax.eval_shape(olm.unpacked_state, state, tree())
        assert shapes == jax.eval_shape(optax.adam(1e-2).init, tree())

    def test_moments_are_mapped_as_parameters(self) -> None:
        tx = olm.packed(optax.adam(1e-2))
        add_one = optax.tree_utils.tree_map_params
        counted: Any = add_one(tx, lambda x: x + 1, tx.init(tree()))
        assert counted[0].count == 0
        assert all(leaf.all() for leaf in jax.tree.leaves(counted[0].mu))


# On four devices. Only a jitted init on automatic axes can't see what is sharded.
ON_A_MESH = """
import contextlib, re
import jax, jax.numpy as jnp, numpy as np, optax, optax_lrmult as olm
CASES = (
    "Auto eager -", "Auto jit keep", "Auto jit -", "Explicit eager -", "Explicit jit -"
)
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
for case in CASES:
    axis_type, make, keeps = case.split()
    axis_types = (getattr(AxisType, axis_type),)
    mesh = Mesh(np.array(jax.devices()), ("x",), axis_types=axis_types)
    def put(array, *spec):
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
    params = {f"{i}": {"w": put(jnp.ones((8, 4)), "x"), "b": put(jnp.ones(4))}
              for i in range(3)}
    def is_sharded(p):
        return not p.sharding.is_fully_replicated
    keep = jax.tree.map(is_sharded, params) if keeps == "keep" else None
    tx = olm.packed(optax.trace(0.9), keep=keep)
    with getattr(jax, "set_mesh", contextlib.nullcontext)(mesh):  # needed by jax 0.7
        state = {"eager": tx.init, "jit": jax.jit(tx.init)}[make](params)
        update = jax.jit(tx.update).lower(params, state).compile()
        found = re.findall("all-gather|all-reduce|all-to-all|permute", update.as_text())
        updates, state = update(params, state)
    sharding = params["0"]["w"].sharding
    matrices = [x for x in jax.tree.leaves((updates, state)) if x.ndim == 2]
    whole = {x.sharding.is_equivalent_to(sharding, 2) for x in matrices}
    vectors = [x.shape for x in jax.tree.leaves(state) if x.ndim == 1]
    print(case, "|", *sorted(set(found)), "|", *vectors, "|", len(matrices), *whole)
"""
MESHES = """\
Auto eager - | | (12,) | 6 True
Auto jit keep | | (12,) | 6 True
Auto jit - | all-gather | (12,) (96,) |
Explicit eager - | | (12,) | 6 True
Explicit jit - | | (12,) | 6 True
"""


def test_sharded_leaves_are_left_alone() -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    out = subprocess.run(
        [sys.executable, "-c", ON_A_MESH],
        env={**os.environ, **flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    lines = zip(out.stdout.splitlines(), MESHES.splitlines(), strict=True)
    assert all(found.startswith(wanted) for found, wanted in lines), out.stdout
    assert out.returncode == 0, out.stderr


@pytest.mark.parametrize("spec", [(None, "model"), ("model",), ()])
def test_an_axis_of_one_device_on_an_explicit_mesh(spec: Any) -> None:
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    devices = np.array(jax.devices()[:1]).reshape(1, 1)
    mesh = jax.sharding.Mesh(devices, ("data", "model"), axis_types=kinds)
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    params = {name: jax.device_put(jnp.ones((8, 4)), where) for name in "ab"}
    state = olm.packed(optax.trace(0.9)).init(params)
    assert len(jax.tree.leaves(state)) == (2 if spec else 1)


def bias_only(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim == 1, params)


BY_NAME = {
    # It froze large kernels and trained small biases, when names inside were others.
    "rates": olm.with_name_multipliers(optax.sgd(1.0), {"blocks": 0}),
    "rates in a chain": optax.chain(
        optax.trace(0.9), olm.scale_by_name_multiplier({"embed": 0.5})
    ),
    "ignored": olm.scale_by_name_multiplier({"blocks": 0}, on_unmatched="ignore"),
    "a rule for all": olm.scale_by_name_multiplier({"": 0.5}),
    "a glob for all": olm.scale_by_name_multiplier({olm.glob("**"): 0.5}),
    "a field of the buffers": olm.scale_by_name_multiplier({"arrays": 0}),
    "a function of the name": olm.with_name_multipliers(
        optax.sgd(1.0), olm.Rules(lambda name: 0.0 if "kernel" in name else 1.0)
    ),
    "mask_frozen": olm.with_name_multipliers(MOMENTUM, {"blocks": 0}, mask_frozen=True),
    "other names": olm.scale_by_name_multiplier(
        {"weight": 0}, param_labels=lambda tree: jax.tree.map(lambda x: "weight", tree)
    ),
    "decays": olm.add_decayed_weights_by_name({"bias": 0, "": 0.1}),
    "adamw's decays": olm.adamw(1e-3, weight_decay={"bias": 0, "": 0.1}),
    "betas": olm.adam(1e-3, b2={"embed": 0.95}),
    "epsilons": olm.scale_by_adam(eps={"embed": 1e-6}),
    "adam's rates": olm.adam(1e-3, multipliers={"embed": 0.5}),
    "a mask": optax.adamw(1e-3, mask=olm.by_name({"bias": False}, True)),
    "labels": optax.multi_transform({"a": MOMENTUM}, olm.by_name({"": "a"})),
    "Keras's rates": olm.keras.adam_lr_mult(multipliers={"embed": 0.5}),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_rule_by_name_inside_is_told_where_it_goes(name: str) -> None:
    text = r"no names inside of packed.*with_name_multipliers\(packed\(tx\), table\)"
    with pytest.raises(ValueError, match=text):
        olm.packed(BY_NAME[name]).init(tree())


class TestMistakes:
    @pytest.mark.parametrize(
        "tx", [optax.zero_nans(), optax.adafactor(1e-2), optax.sm3(1e-2)]
    )
    def test_what_keeps_a_state_by_leaf(self, tx: Any) -> None:
        with pytest.raises(ValueError, match=r"must be elementwise.* \(48,\)"):
            olm.packed(tx).init(tree())

    @pytest.mark.parametrize(
        "tx",
        [
            optax.adamw(1e-2, mask=bias_only),
            optax.masked(optax.sgd(1e-2), bias_only),
            optax.lars(1e-2, trust_ratio_mask=bias_only),
            optax.multi_transform({True: MOMENTUM, False: MOMENTUM}, bias_only),
        ],
    )
    def test_a_mask_inside(self, tx: Any) -> None:
        """A buffer has one axis, so that this one would decay all of them."""
        with pytest.raises(ValueError, match=r"mask inside of packed.* Put it around"):
            olm.packed(tx).init(tree())

    @pytest.mark.parametrize(
        "tx",
        [
            optax.adamw(1e-2, mask=bias_only(tree())),
            optax.lookahead(optax.adam(1.0), 2, 0.5),
            # optax 0.2.4 lacks these.
            *(
                getattr(optax.contrib, name)(1e-2)
                for name in ("galore", "sophia")
                if hasattr(optax.contrib, name)
            ),
        ],
    )
    def test_what_needs_the_tree(self, tx: Any) -> None:
        tx, params = olm.packed(tx), tree()

        def step() -> None:
            state, obj_fn = tx.init(params), lambda params: params["embed"].sum()
            tx.update(params, state, params, obj_fn=obj_fn)

        with pytest.raises((AttributeError, TypeError, ValueError)) as caught:
            step()
        assert any("around packed" in note for note in caught.value.__notes__)

    def test_packed_inside_of_packed(self) -> None:
        with pytest.raises(ValueError, match="leave one of them out"):
            olm.packed(olm.packed(MOMENTUM)).init(tree())

    CHANGES: Any = {
        "fewer": (lambda t: t["blocks"].pop("2"), r"'blocks/2/bias' is \(8,\) .*ssing"),
        "more": (lambda t: t.update(a=jnp.ones(8)), r"'a' is missing in it, and \(8,"),
        "renamed": (
            lambda t: t["blocks"].update({"02": t["blocks"].pop("2")}),
            r"'blocks/02/bias' is missing in it",
        ),
        "reshaped": (
            lambda t: t.update(embed=t["embed"].T),
            r"'embed' is \(40, 9\) in it, and \(9, 40\) here",
        ),
        "reshaped in a buffer": (
            lambda t: [b.update(kernel=b["kernel"].T) for b in t["blocks"].values()],
            r"'blocks/0/kernel' is \(8, 4\) in it, and \(4, 8\) here",
        ),
    }

    @pytest.mark.parametrize("change", CHANGES)
    def test_other_parameters(self, change: str) -> None:
        alter, text = self.CHANGES[change]
        tx, other = olm.packed(MOMENTUM), tree()
        plain, state = MOMENTUM.init(tree()), tx.init(tree())
        alter(other)
        for call in (
            lambda: tx.update(other, state, other),
            lambda: tx.update(tree(), state, other),
            lambda: jax.jit(tx.update)(other, state),
            lambda: olm.unpacked_state(state, other),
            lambda: olm.packed_state(plain, other, like=state),
        ):
            with pytest.raises(ValueError, match=text):
                call()
        with pytest.raises(ValueError, match="is of other parameters"):
            olm.packed_state(MOMENTUM.init(other), tree(), like=state)

    def test_other_parameters_are_frozen(self) -> None:
        """Blocks are of one size, so the buffers of both states are too."""

        def make(frozen: str) -> optax.GradientTransformation:
            inner = olm.packed(MOMENTUM)
            return olm.with_name_multipliers(inner, {frozen: 0}, mask_frozen=True)

        state = make("blocks/0").init(tree())
        text = "'blocks/0/bias' is missing in it, .* mask_frozen=True"
        with pytest.raises(ValueError, match=text):
            make("blocks/1").update(tree(), state, tree())

    def test_a_state_that_is_packed_already_or_of_another_optimizer(self) -> None:
        like = olm.packed(optax.adam(1e-2)).init(tree())
        with pytest.raises(ValueError, match="is of other parameters"):
            olm.packed_state(like, tree(), like=like)
        with pytest.raises(ValueError, match="TraceState"):
            olm.packed_state(MOMENTUM.init(tree()), tree(), like=like)

    def test_a_state_made_under_vmap(self) -> None:
        tx, params = olm.packed(MOMENTUM), [jnp.ones((2, 3))] * 2
        states, one = jax.vmap(tx.init)(params), [jnp.ones(3)] * 2
        for call in (
            lambda: tx.update(one, states),
            lambda: olm.unpacked_state(states, one),
        ):
            with pytest.raises((TypeError, ValueError)):
                call()

    def test_gradients_of_several_dtypes_in_a_buffer(self) -> None:
        params = {"a": jnp.ones(3), "b": jnp.ones(3)}
        tx = olm.packed(MOMENTUM)
        mixed = {**params, "b": jnp.ones(3, "bfloat16")}
        with pytest.raises(TypeError, match="same dtypes, got float32, bfloat16"):
            tx.update(mixed, tx.init(params))
