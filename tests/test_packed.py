"""Packed small leaves: the same updates and state, in fewer kernels."""

import collections
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from flax.training.train_state import TrainState

import optax_lrmult as olm
from optax_lrmult._layout import layout_inside, layout_of

ELEMENTWISE: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": lambda: optax.adam(1e-2),
    "adam with bfloat16 momentum": lambda: optax.adam(1e-2, mu_dtype="bfloat16"),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
    "adam of a schedule": lambda: optax.adam(optax.linear_schedule(1e-2, 0.0, 5)),
    "amsgrad": lambda: optax.amsgrad(1e-2),
    "nadam": lambda: optax.nadam(1e-2),
    "lion": lambda: optax.lion(1e-2),
    "sgd": lambda: optax.sgd(1e-2, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optax.rmsprop(1e-2, centered=True, momentum=0.9),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "clipped": lambda: optax.chain(optax.clip(0.5), optax.adam(1e-2)),
    "accumulated": lambda: optax.MultiSteps(
        optax.adam(1e-2), 2
    ).gradient_transformation(),
}
SHAPES = {"scale": (8,), "bias": (8,), "kernel": (8, 4), "out": (4, 8)}


def decays(params: Any) -> Any:
    return jax.tree.map(
        lambda name: not re.search("scale|bias", name), olm.path_labels(params)
    )


def tree(blocks: int = 5, *, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Blocks of four small leaves each, a large leaf, and one of its own size."""
    random = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), dtype)

    small = {
        n: {k: draw(s) for k, s in SHAPES.items()} for n in map(str, range(blocks))
    }
    return {"blocks": small, "embed": draw((40, 9)), "temperature": draw(())}


def walk(tx: optax.GradientTransformation, params: Any, steps: int = 6) -> Any:
    """The parameters, the last updates and the state after some jitted steps."""

    @jax.jit
    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, updates

    state, updates = tx.init(params), None
    for seed in range(1, steps + 1):
        params, state, updates = step(params, state, tree(seed=seed))
    return params, updates, state


class TestUpdates:
    @pytest.mark.parametrize("name", ELEMENTWISE)
    def test_are_those_of_the_optimizer_by_itself(self, name: str) -> None:
        make = ELEMENTWISE[name]
        plain, _, plain_state = walk(make(), tree())
        params, _, state = walk(olm.packed(make(), max_size=100), tree())
        # To rounding: a compiler may contract a product and a sum in one program only.
        chex.assert_trees_all_close(params, plain, rtol=1e-6, atol=1e-7)
        unpacked = olm.unpacked_state(state, tree())
        chex.assert_trees_all_equal_shapes_and_dtypes(unpacked, plain_state)
        tolerance = 1e-2 if "bfloat16" in name else 1e-6
        chex.assert_trees_all_close(unpacked, plain_state, rtol=tolerance, atol=1e-7)

    @pytest.mark.parametrize("name", ELEMENTWISE)
    def test_are_so_bitwise_without_a_compiler(self, name: str) -> None:
        make = ELEMENTWISE[name]
        with jax.disable_jit():
            plain = walk(make(), tree(), steps=3)
            params, updates, state = walk(olm.packed(make(), max_size=100), tree(), 3)
        state = olm.unpacked_state(state, tree())
        # XLA of jax 0.7.2 rounds a root by its place in a vector: an ulp a step.
        ulps = 3 * 2**-23 if name == "rmsprop" else 0
        result = params, updates, state
        chex.assert_trees_all_close(result, plain, rtol=ulps, atol=ulps / 2)

    def test_a_global_norm_is_that_of_the_tree(self) -> None:
        def make() -> optax.GradientTransformation:
            return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2))

        plain, _, _ = walk(make(), tree())
        params, _, _ = walk(olm.packed(make()), tree())
        chex.assert_trees_all_close(params, plain, rtol=1e-5, atol=1e-6)

    def test_names_are_known_around_it(self) -> None:
        table = {"embed": 0, "kernel": 0.5, "blocks/3": lambda step: 0.1 * step}
        plain = walk(olm.adam(1e-2, multipliers=table), tree())
        tx = olm.with_name_multipliers(olm.packed(optax.adam(1e-2)), table)
        params, updates, state = walk(tx, tree())
        chex.assert_trees_all_close(params, plain[0], rtol=1e-6, atol=1e-7)
        chex.assert_trees_all_close(updates, plain[1], rtol=1e-5, atol=1e-8)
        assert not updates["embed"].any()
        chex.assert_trees_all_equal_structs(olm.unpacked_state(state, tree()), plain[2])

    def test_dtypes_are_kept_and_never_share_a_buffer(self) -> None:
        params = {"wide": tree(seed=0), "narrow": tree(seed=1, dtype=jnp.bfloat16)}
        tx = olm.packed(optax.adam(1e-2))
        plain, packed = optax.adam(1e-2), jax.jit(tx.update)
        updates, state = packed(params, tx.init(params), params)
        expected, _ = jax.jit(plain.update)(params, plain.init(params), params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, expected)
        chex.assert_trees_all_close(updates, expected, rtol=1e-2)
        assert {b.dtype.name for b in state[0].mu.buffers.values()} == {
            "float32",
            "bfloat16",
        }

    def test_numbers_of_numpy_are_what_jax_makes_of_them(self) -> None:
        params = [np.ones(3), np.ones(3, np.float32)] * 2
        tx = olm.packed(optax.sgd(0.5, momentum=0.9))
        updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
        chex.assert_trees_all_close(updates, [-0.5 * x for x in params])

    def test_what_has_no_derivative_is_left_alone(self) -> None:
        params = {"a": jnp.arange(3), "b": jnp.arange(3), "c": jnp.ones(3)}
        zeros = {n: np.zeros(3, jax.dtypes.float0) for n in "ab"} | {"c": jnp.ones(3)}
        tx = olm.packed(optax.identity())
        updates, _ = tx.update(zeros, tx.init(params), params)
        assert all(updates[name] is zeros[name] for name in params)

    def test_masked_empty_and_python_leaves_pass(self) -> None:
        params = {
            "none": None,
            "masked": optax.MaskedNode(),
            "empty": [jnp.ones((0, 3)), jnp.ones((0, 3))],
            "numbers": [1.0, 2.0, np.float32(3.0)],
            "scalars": [jnp.float32(1), jnp.ones((1, 1))],
        }
        tx = olm.packed(optax.sgd(0.5, momentum=0.9))
        updates, _ = tx.update(params, tx.init(params))
        chex.assert_trees_all_equal_structs(updates, params)
        np.testing.assert_array_equal(updates["numbers"], [-0.5, -1.0, -1.5])
        assert updates["scalars"][1].shape == (1, 1)
        assert updates["empty"][0].shape == (0, 3)

    def test_extra_arguments_reach_the_optimizer(self) -> None:
        tx = olm.packed(optax.polyak_sgd(max_learning_rate=1.0))
        updates, _ = tx.update(tree(), tx.init(tree()), tree(), value=jnp.float32(0.1))
        plain = optax.polyak_sgd(max_learning_rate=1.0)
        expected, _ = plain.update(
            tree(), plain.init(tree()), tree(), value=jnp.float32(0.1)
        )
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)


class TestLayout:
    shapes = st.lists(st.sampled_from([(), (1,), (3,), (2, 3), (3, 2), (0,), (50,)]))
    dtypes = st.sampled_from(["float32", "bfloat16", "int32", "complex64"])

    @hypothesis.settings(max_examples=30)
    @hypothesis.given(st.data(), shapes, st.integers(0, 60))
    def test_what_goes_in_comes_out(
        self, data: st.DataObject, shapes: list[Any], max_size: int
    ) -> None:
        leaves = [
            jnp.full(shape, i, data.draw(self.dtypes)) for i, shape in enumerate(shapes)
        ]
        kept = [data.draw(st.booleans()) for _ in leaves]
        layout = layout_of(leaves, max_size, kept)
        inside = layout.pack(leaves)
        if leaves:
            assert layout_inside(inside, leaves) == layout
        chex.assert_trees_all_equal(layout.unpack(inside, like=leaves), leaves)
        grouped = [i for group in layout.groups.values() for i in group]
        assert sorted(grouped + layout.left) == list(range(len(leaves)))
        for index in grouped:
            assert 0 < leaves[index].size <= max_size
            assert leaves[index].dtype != jnp.int32
            assert not kept[index]

    def test_buffers_are_bounded(self) -> None:
        layout = layout_of([jnp.ones(3)] * 70, 3, None)
        assert [len(group) for group in layout.groups.values()] == [32, 32, 6]

    def test_a_shape_that_occurs_once_stays_a_leaf(self) -> None:
        inside = layout_of(tree(), 100, None).pack(tree())
        assert {key: buffer.shape for key, buffer in inside.buffers.items()} == {
            "0 (8,)": (80,),
            "1 (8, 4)": (160,),
            "2 (4, 8)": (160,),
        }
        leaves = {name: leaf.shape for name, leaf in inside.leaves.items()}
        assert leaves == {"embed": (40, 9), "temperature": ()}
        assert inside.names["1 (8, 4)"] == {f"blocks/{n}/kernel": None for n in "01234"}

    def test_is_the_same_under_transformations(self) -> None:
        tx = olm.packed(optax.adam(1e-2))
        state = tx.init(tree())
        structure = jax.tree.structure(state)
        assert jax.tree.structure(jax.jit(tx.init)(tree())) == structure
        assert jax.tree.structure(jax.eval_shape(tx.init, tree())) == structure
        two = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), tree())
        states = jax.vmap(tx.init)(two)
        updates, states = jax.vmap(tx.update)(two, states, two)
        assert jax.tree.structure(states) == structure
        chex.assert_trees_all_close(
            jax.tree.map(lambda x: x[0], updates),
            jax.jit(tx.update)(tree(), state, tree())[0],
            rtol=1e-6,
        )

    def test_a_scan_keeps_the_state(self) -> None:
        tx = olm.packed(optax.adam(1e-2))

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (tree(), tx.init(tree())), length=3)
        chex.assert_trees_all_equal_shapes_and_dtypes(params, tree())

    def test_kept_leaves_stay_leaves(self) -> None:
        mask = jax.tree.map(lambda x: x.ndim == 2, tree())
        for keep in (mask, lambda params: jax.tree.map(lambda x: x.ndim == 2, params)):
            state = olm.packed(optax.adam(1e-2), keep=keep).init(tree())
            assert [b.size for b in state[0].mu.buffers.values()] == [80]
            plain = olm.unpacked_state(state, tree())
            chex.assert_trees_all_equal(plain, optax.adam(1e-2).init(tree()))


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
        params = {f"{i:03}": jnp.ones(10) for i in range(128)}
        plain = self.kernels(optax.adam(1e-3), params)
        packed = self.kernels(olm.packed(optax.adam(1e-3)), params)
        assert plain >= 3 * len(params)
        assert packed <= len(params) + 4 * 5

    def test_large_leaves_cost_as_before(self) -> None:
        params = {f"{i:03}": jnp.ones(10) for i in range(8)}
        plain = self.kernels(optax.adam(1e-3), params)
        assert self.kernels(olm.packed(optax.adam(1e-3), max_size=9), params) == plain

    def test_without_moments_a_step_is_the_plain_one(self) -> None:
        params = [jnp.ones(10)] * 8
        plain = self.kernels(optax.sgd(1e-3), params)
        assert self.kernels(olm.packed(optax.sgd(1e-3)), params) == plain

    def test_parts_of_a_shape_share_a_kernel(self) -> None:
        """As where they begin is no constant that would make each its own."""
        params = [jnp.ones(10)] * 128
        tx = olm.packed(optax.adam(1e-3))
        update = jax.jit(tx.update).lower(params, tx.init(params), params).as_text()
        assert update.count("stablehlo.dynamic_slice") == 128
        assert update.count("stablehlo.optimization_barrier") == 1
        assert not re.search(r"stablehlo\.slice .*tensor<320xf32>", update)

    def test_the_state_has_fewer_arrays(self) -> None:
        state = olm.packed(optax.adam(1e-3)).init([jnp.ones(10)] * 128)
        assert len(jax.tree.leaves(state)) == 1 + 2 * 4


class TestCheckpoints:
    def test_a_state_is_restored_into_the_plain_optimizer(self) -> None:
        tx = olm.packed(optax.adam(1e-2))
        params, _, state = walk(tx, tree())
        saved = serialization.to_bytes(olm.unpacked_state(state, params))
        plain = optax.adam(1e-2)
        restored = serialization.from_bytes(plain.init(params), saved)
        gradients = tree(seed=9)
        expected, _ = tx.update(gradients, state, params)
        updates, _ = plain.update(gradients, restored, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)

    def test_a_plain_state_is_restored_into_the_packed_optimizer(self) -> None:
        plain = optax.adam(1e-2)
        params, _, state = walk(plain, tree())
        saved = serialization.to_bytes(state)
        restored = serialization.from_bytes(plain.init(params), saved)
        tx = olm.packed(plain)
        packed = olm.packed_state(restored, params, like=tx.init(params))
        chex.assert_trees_all_equal_structs(packed, tx.init(params))
        gradients = tree(seed=9)
        updates, packed = tx.update(gradients, packed, params)
        expected, state = plain.update(gradients, state, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
        unpacked = olm.unpacked_state(packed, params)
        chex.assert_trees_all_close(unpacked, state, rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_the_ways_in_and_out_undo_each_other(self, dtype: str) -> None:
        params = {"wide": tree(), "narrow": tree(seed=1, dtype=jnp.bfloat16)}
        tx = optax.MultiSteps(optax.adam(1e-2, mu_dtype=dtype), 2)
        inner = tx.gradient_transformation()
        state = olm.packed(inner).init(params)
        state = jax.tree.map(lambda x: x + 1, state)
        plain = olm.unpacked_state(state, params)
        chex.assert_trees_all_equal(olm.packed_state(plain, params, state), state)

    def test_a_state_without_moments_is_as_it_was(self) -> None:
        state = olm.packed(optax.sgd(1e-2)).init(tree())
        assert state == optax.sgd(1e-2).init(tree())
        assert olm.unpacked_state(state, tree()) == state
        assert olm.packed_state(state, tree(), like=state) == state

    def test_a_plain_state_goes_on_unpacked(self) -> None:
        plain = optax.adam(1e-2)
        params, _, state = walk(plain, tree())
        expected = plain.update(params, state, params)
        result = olm.packed(plain).update(params, state, params)
        chex.assert_trees_all_equal(result, expected)

    def test_a_state_fits_any_later_max_size(self) -> None:
        params, _, state = walk(olm.packed(optax.adam(1e-2)), tree())
        expected, _ = olm.packed(optax.adam(1e-2)).update(params, state, params)
        updates, _ = olm.packed(optax.adam(1e-2), max_size=9).update(
            params, state, params
        )
        chex.assert_trees_all_equal(updates, expected)

    def test_a_packed_state_is_restored_as_it_is(self) -> None:
        tx = olm.packed(optax.adam(1e-2))
        _, _, state = walk(tx, tree())
        saved = serialization.to_bytes(state)
        chex.assert_trees_all_equal(
            serialization.from_bytes(tx.init(tree()), saved), state
        )

    def test_a_state_is_found_in_any_nesting(self) -> None:
        def make(wrap: Callable[[Any], Any]) -> optax.GradientTransformation:
            chain = optax.chain(optax.clip(1.0), wrap(optax.adam(1e-2)))
            return optax.apply_if_finite(chain, 3)

        state = olm.unpacked_state(make(olm.packed).init(tree()), tree())
        chex.assert_trees_all_equal(state, make(lambda tx: tx).init(tree()))

    def test_each_part_of_a_state_says_what_is_packed_in_it(self) -> None:
        links = optax.scale_by_adam(), optax.trace(0.9)
        sizes = 9, 100
        tx = optax.chain(
            *(olm.packed(t, max_size=s) for t, s in zip(links, sizes, strict=True))
        )
        params, _, state = walk(tx, tree())
        _, _, plain = walk(optax.chain(*links), tree())
        unpacked = olm.unpacked_state(state, params)
        chex.assert_trees_all_close(unpacked, plain, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_equal(olm.packed_state(unpacked, params, state), state)

    def test_a_state_made_under_vmap_is_mapped(self) -> None:
        tx, plain = olm.packed(optax.adam(1e-2)), optax.adam(1e-2)
        params = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), tree())
        like, expected = jax.vmap(tx.init)(params), jax.vmap(plain.init)(params)
        unpacked = jax.vmap(olm.unpacked_state)(like, params)
        chex.assert_trees_all_equal(unpacked, expected)
        chex.assert_trees_all_equal(
            jax.vmap(olm.packed_state)(unpacked, params, like), like
        )
        for call in (
            lambda: olm.unpacked_state(like, params),
            lambda: olm.packed_state(unpacked, params, like),
        ):
            with pytest.raises(ValueError, match="map the call too"):
                call()

    @pytest.mark.parametrize("copies", [3, 9])
    def test_so_is_one_that_is_all_in_buffers(self, copies: int) -> None:
        tx = olm.packed(optax.adam(1e-2))
        params = {name: jnp.ones((copies, 4)) for name in "ab"}
        states = jax.vmap(tx.init)(params)
        one = jax.tree.map(lambda x: x[0], params)
        with pytest.raises(
            ValueError, match=rf"shape \({copies}, 8\), not \(8,\).* map"
        ):
            tx.update(one, states, one)

    def test_states_can_be_mapped_with_the_parameters(self) -> None:
        tx = olm.packed(optax.adam(1e-2))
        state = tx.init(tree())
        counted = optax.tree.map_params(tx, lambda x: x + 1, state)
        assert counted[0].count == 0
        assert all(leaf.all() for leaf in jax.tree.leaves(counted[0].mu))


ON_A_MESH = """
import contextlib, re, sys
import jax, jax.numpy as jnp, numpy as np, optax, optax_lrmult as olm
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
axis_type, make, keeps = sys.argv[1:]
mesh = Mesh(np.array(jax.devices()), ("x",), axis_types=(getattr(AxisType, axis_type),))
def put(array, *spec):
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
params = {f"{i}": {"w": put(jnp.ones((8, 4)), "x"), "b": put(jnp.ones(4))}
          for i in range(3)}
def is_sharded(p):
    return not p.sharding.is_fully_replicated
keep = jax.tree.map(is_sharded, params) if keeps == "keep" else None
tx = olm.packed(optax.adam(1e-2), keep=keep)
init = {"eager": tx.init, "jit": jax.jit(tx.init)}[make]
with getattr(jax, "set_mesh", contextlib.nullcontext)(mesh):  # needed by jax 0.7
    state = init(params)
update = jax.jit(tx.update).lower(params, state, params).compile()
found = re.findall("all-gather|all-reduce|all-to-all|permute", update.as_text())
print(sorted(set(found)))
updates, state = update(params, state, params)
print([buffer.shape for buffer in state[0].mu.buffers.values()])
sharding = params["0"]["w"].sharding
left = [leaf for moment in state[0][1:] for leaf in moment.leaves.values()]
leaves = *left, updates["0"]["w"]
print(len(leaves), {leaf.sharding.is_equivalent_to(sharding, 2) for leaf in leaves})
"""
# Only a jitted init on a mesh of automatic axes can't see what is sharded.
MESHES = {
    "Auto eager -": "[]",
    "Auto jit keep": "[]",
    "Auto jit -": "['all-gather']",
    "Explicit eager -": "[]",
    "Explicit jit -": "[]",
}


@pytest.mark.parametrize("case", MESHES)
def test_sharded_leaves_are_left_alone(case: str) -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    out = subprocess.run(
        [sys.executable, "-c", ON_A_MESH, *case.split()],
        env={**os.environ, **flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    collectives, buffers, shardings = out.stdout.splitlines() or [out.stderr] * 3
    assert collectives == MESHES[case], out.stderr
    if collectives == "[]":
        assert buffers == "[(12,)]"
        assert shardings == "7 {True}"


class TestMistakes:
    def test_what_is_no_transformation(self) -> None:
        with pytest.raises(TypeError, match=r"packed wraps .*optax\.adam\(1e-3\), not"):
            olm.packed(1e-3)

    def test_a_negative_size(self) -> None:
        with pytest.raises(
            ValueError, match="max_size must not be negative, but is -1"
        ):
            olm.packed(optax.adam(1e-3), max_size=-1)

    def test_another_tree_to_keep(self) -> None:
        with pytest.raises(
            ValueError, match="keep has None for the parameter 'blocks/0/bias'"
        ):
            olm.packed(optax.adam(1e-3), keep={"embed": True}).init(tree())

    @pytest.mark.parametrize(
        ("change", "text"),
        {
            "fewer": (lambda t: t["blocks"].pop("4"), "it has 'blocks/4/bias', which"),
            "more": (
                lambda t: t["blocks"].update({"5": t["blocks"]["4"]}),
                "it has no 'blocks/5/bias'",
            ),
            "renamed": (
                lambda t: t["blocks"].update({"04": t["blocks"].pop("4")}),
                "it has 'blocks/4/bias', .* and has no 'blocks/04/bias'",
            ),
            "a renamed leaf": (
                lambda t: t.update(table=t.pop("embed")),
                "it has 'embed', which .* and has no 'table'",
            ),
            "a reshaped leaf": (
                lambda t: t.update(embed=t["embed"].T),
                r"of 'embed' is \(40, 9\) in it, and \(9, 40\) here",
            ),
            "reshaped": (
                lambda t: [
                    b.update(kernel=b["kernel"].T) for b in t["blocks"].values()
                ],
                r"of 'blocks/0/kernel' is \(8, 4\) in it, and \(4, 8\) here",
            ),
        }.values(),
    )
    def test_other_parameters(self, change: Callable[[Any], Any], text: str) -> None:
        tx, other = olm.packed(optax.adam(1e-2)), tree()
        plain, state = optax.adam(1e-2).init(tree()), tx.init(tree())
        change(other)
        with pytest.raises(ValueError, match=text):
            tx.update(other, state, other)
        with pytest.raises(ValueError, match=text):
            jax.jit(tx.update)(other, state)
        first = text.partition(" and has no")[0]  # More may be hidden ones.
        for call in (
            lambda: olm.unpacked_state(state, other),
            lambda: olm.packed_state(plain, other, state),
        ):
            if "it has no" not in first:
                with pytest.raises(ValueError, match=first):
                    call()

    def test_of_several_other_names_the_first_is_told(self) -> None:
        tx, others = olm.packed(optax.adam(1e-2)), {"c": jnp.ones(2), "d": jnp.ones(2)}
        state = tx.init({"a": jnp.ones(2), "b": jnp.ones(2)})
        text = "it has 'a', which is not among these and has no 'c'."
        with pytest.raises(ValueError, match=re.escape(text)):
            tx.update(others, state, others)

    def test_other_parameters_are_frozen(self) -> None:
        """Blocks are of one size, so the buffers of both states are too."""

        def make(frozen: str) -> optax.GradientTransformation:
            adam = olm.packed(optax.adam(1e-2))
            return olm.with_name_multipliers(adam, {frozen: 0}, mask_frozen=True)

        state = make("blocks/0").init(tree())
        text = "it has 'blocks/1/bias', .* has no 'blocks/0/bias'.* mask_frozen=True"
        with pytest.raises(ValueError, match=text):
            make("blocks/1").update(tree(), state, tree())

    def test_a_plain_state_of_other_parameters(self) -> None:
        like, other = olm.packed(optax.adam(1e-2)).init(tree()), tree()
        other["blocks"]["04"] = other["blocks"].pop("4")
        plain = optax.adam(1e-2).init(other)
        with pytest.raises(
            ValueError, match=r"of 'blocks/4/bias' the state has nothing"
        ):
            olm.packed_state(plain, tree(), like)
        other = tree()
        other["embed"] = other["embed"].T
        plain = optax.adam(1e-2).init(other)
        with pytest.raises(
            ValueError, match=r"'embed' the state has \(9, 40\), and .* \(40, 9"
        ):
            olm.packed_state(plain, tree(), like)

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda: optax.sgd(1e-2, momentum=0.9), "are of different optimizers"),
            (
                lambda: olm.packed(optax.adam(1e-2)),
                "of 'blocks/0/bias' the state has nothing",
            ),
        ],
        ids=["another optimizer", "packed already"],
    )
    def test_another_state_to_be_packed(self, make: Any, text: str) -> None:
        like = olm.packed(optax.adam(1e-2)).init(tree())
        with pytest.raises(ValueError, match=text):
            olm.packed_state(make().init(tree()), tree(), like)

    def test_arguments_in_another_order(self) -> None:
        plain, packed = optax.adam(1e-2), olm.packed(optax.adam(1e-2)).init(tree())
        for call in (
            lambda: olm.packed_state(plain.init(tree()), packed, tree()),
            lambda: olm.unpacked_state(tree(), packed),
        ):
            with pytest.raises(ValueError, match="stands where the parameters should"):
                call()
        with pytest.raises(ValueError, match="are of different optimizers"):
            olm.packed_state(plain.init(tree()), tree(), tree())

    @pytest.mark.parametrize(
        ("make", "text"),
        {
            "zero_nans": (optax.zero_nans, r"has an array of shape \(\)"),
            "adafactor": (lambda: optax.adafactor(1e-2), r"an array of shape \(1,\)"),
            "sm3": (lambda: optax.sm3(1e-2), "has nothing, so"),
        }.values(),
    )
    def test_what_keeps_a_state_by_leaf(self, make: Any, text: str) -> None:
        with pytest.raises(ValueError, match=text) as caught:
            olm.packed(make()).init(tree())
        assert "a buffer of 80 elements" in str(caught.value)

    @pytest.mark.parametrize(
        "make",
        [
            lambda mask: optax.adamw(1e-2, mask=mask),
            lambda mask: optax.masked(optax.sgd(1e-2), mask),
            lambda mask: optax.contrib.muon(1e-2),
            lambda mask: optax.partition(
                dict.fromkeys((True, False), optax.sgd(1.0)), mask
            ),
        ],
        ids=["adamw", "masked", "muon", "partition"],
    )
    def test_a_mask_inside(self, make: Any) -> None:
        """It may be of the buffers' number of axes, which decays none of them."""
        tx = olm.packed(make(lambda t: jax.tree.map(lambda x: x.ndim > 0, t)))
        with pytest.raises(ValueError, match="mask inside of packed sees buffers"):
            tx.init(tree())

    def test_what_a_state_was_saved_as(self) -> None:
        state = olm.packed(optax.adam(1e-2)).init(tree())
        saved = serialization.to_state_dict(state)
        text = r"a mapping of what .* Restore it into tx\.init\(params\)"
        for call in (
            lambda: olm.unpacked_state(saved, tree()),
            lambda: olm.packed_state(saved, tree(), state),
        ):
            with pytest.raises(TypeError, match=text):
                call()

    def test_a_train_state(self) -> None:
        tx = olm.packed(optax.adam(1e-2))
        whole = TrainState.create(apply_fn=None, params=tree(), tx=tx)
        with pytest.raises(TypeError, match=r"not TrainState\. Pass its opt_state"):
            olm.unpacked_state(whole, tree())

    def test_decay_of_some_stands_around(self) -> None:
        mask = optax.masked(optax.add_decayed_weights(0.1), decays)
        tail = mask, optax.scale_by_learning_rate(1e-2)
        plain, _, _ = walk(optax.chain(optax.scale_by_adam(), *tail), tree())
        by_name = olm.add_decayed_weights_by_name(0.1, {"scale": 0, "bias": 0})
        adam = olm.packed(optax.scale_by_adam())
        params, _, _ = walk(optax.chain(adam, by_name, tail[1]), tree())
        chex.assert_trees_all_close(params, plain, rtol=1e-6, atol=1e-7)

    def test_packed_inside_of_packed(self) -> None:
        with pytest.raises(ValueError, match="leave out one of them"):
            olm.packed(olm.packed(optax.adam(1e-2))).init(tree())

    def test_a_state_with_another_layout_is_not_to_blame(self) -> None:
        tx = olm.with_name_multipliers(olm.packed(optax.adam(1e-2)), {})
        state = olm.packed(optax.adam(1e-2), max_size=9).init(tree())
        with pytest.raises(ValueError, match="updates and params differ in 'blocks/4/"):
            tx.update(tree(blocks=4), state, tree())

    def test_gradients_of_other_dtypes_are_laid_like_the_parameters(self) -> None:
        params = [jnp.ones(3)] * 2 + [jnp.ones(3, "bfloat16")] * 2
        gradients = [jnp.full(3, x) for x in (1.0, 2.0, 3.0, 4.0)]
        tx, plain = olm.packed(optax.adam(1e-2)), optax.adam(1e-2)
        updates, state = tx.update(gradients, tx.init(params))
        expected, plain_state = plain.update(gradients, plain.init(params))
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
        unpacked = olm.unpacked_state(state, params)
        chex.assert_trees_all_close(unpacked, plain_state, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda tx: olm.with_name_multipliers(tx, {"0": 0.5}),
        lambda tx: olm.with_name_multipliers(tx, lambda name: 0.5),
        lambda tx: olm.with_name_multipliers(tx, {}, mask_frozen=True),
        lambda tx: optax.chain(
            tx, olm.scale_by_name_multiplier({"embed": 0.5}, on_unmatched="ignore")
        ),
        lambda tx: optax.chain(olm.add_decayed_weights_by_name(0.1), tx),
        lambda tx: optax.chain(tx, olm.constrain_by_name({"0": olm.non_negative()})),
    ],
)
def test_a_table_inside_is_told_to_stand_around(make: Callable[[Any], Any]) -> None:
    with pytest.raises(
        ValueError, match=r"inside of packed, .* Put it around: with_name"
    ):
        olm.packed(make(optax.adam(1e-2))).init(tree())


@pytest.mark.parametrize(
    "inner",
    [
        optax.adamw(1e-2, mask=jax.tree.map(lambda x: True, tree())),
        optax.partition({"a": optax.sgd(1.0)}, jax.tree.map(lambda x: "a", tree())),
        optax.GradientTransformation(lambda p: p.fast, optax.identity().update),
    ],
)
def test_what_looks_for_the_tree_is_told_what_is_there(inner: Any) -> None:
    with pytest.raises(ValueError, match=r"a few buffers, .* Put what does around it"):
        olm.packed(inner).init(tree())


def test_another_error_of_the_optimizer_is_as_it_was() -> None:
    def init(params: Any) -> Any:
        raise ValueError("no such optimizer")

    with pytest.raises(ValueError, match=r"^no such optimizer$"):
        olm.packed(optax.GradientTransformation(init, optax.identity().update)).init(
            tree()
        )


def test_parameters_that_no_mask_hides_are_those_of_the_state() -> None:
    """Or a part of the model that was not trained would stand in a checkpoint."""
    tx, plain, more = olm.packed(optax.adam(1e-2)), optax.adam(1e-2), tree()
    more["statistics"] = jnp.ones(8)
    state = tx.init(tree())
    for call in (
        lambda: olm.unpacked_state(state, more),
        lambda: olm.packed_state(plain.init(tree()), more, state),
    ):
        with pytest.raises(ValueError, match="it has no 'statistics'"):
            call()
    with pytest.raises(ValueError, match=r"of 'statistics' the state has \(8,\), and"):
        olm.packed_state(plain.init(more), tree(), state)


def test_a_count_of_another_shape_is_refused() -> None:
    tx = olm.packed(optax.adam(1e-2))
    plain: Any = optax.adam(1e-2).init(tree())
    several = (plain[0]._replace(count=jnp.zeros(3, int)), *plain[1:])
    with pytest.raises(ValueError, match=r"of '\[0\]\.count' the state has \(3,\)"):
        olm.packed_state(several, tree(), tx.init(tree()))


@pytest.mark.parametrize("wrong", ["shapes", "dtypes"])
def test_two_parameters_that_swap_are_not_mixed_up(wrong: str) -> None:
    """Groups are as large as before, and their members are others."""
    one, two = jnp.ones((4, 8), "bfloat16"), jnp.ones((8, 4))
    if wrong == "dtypes":
        two = jnp.ones((4, 8))
    old = {"a": one, "b": two, "c": one, "d": two}
    new = {"a": one, "b": two, "c": two, "d": one}
    tx = olm.packed(optax.sgd(1.0, momentum=0.5))
    state = tx.init(old)
    if wrong == "shapes":
        with pytest.raises(ValueError, match=r"of 'c' is \(4, 8\) in it, and \(8, 4\)"):
            tx.update(new, state, new)
    else:
        with pytest.raises(
            ValueError, match=r"of the dtypes \['bfloat16', 'float32'\]"
        ):
            tx.update(new, state, new)
        plain = optax.sgd(1.0, momentum=0.5).init(old)
        chex.assert_trees_all_equal(olm.unpacked_state(state, new), plain)


def test_leaves_in_another_order_are_no_match() -> None:
    params = collections.OrderedDict(w=jnp.ones(2), b=jnp.ones(2))
    gradients = collections.OrderedDict(b=jnp.ones(2), w=jnp.ones(2))
    tx = olm.packed(optax.sgd(1.0, momentum=0.5))
    with pytest.raises(ValueError, match="their names in another order"):
        tx.update(gradients, tx.init(params), params)


def test_keep_may_say_more_than_a_mask_shows() -> None:
    params = {name: jnp.ones(2) for name in ("stem", "a", "b", "c")}
    keep = {name: name == "c" for name in params}
    adam = olm.packed(optax.adam(1e-2), keep=keep)
    tx = olm.with_name_multipliers(adam, {"stem": 0}, mask_frozen=True)
    state: Any = tx.init(params)
    mu = state.inner_state[0].mu
    assert mu.names == {"0 (2,)": {"a": None, "b": None}}
    assert list(mu.leaves) == ["c"]


def test_a_state_that_has_an_opt_state_is_one() -> None:
    def make(wrap: Callable[[Any], Any]) -> optax.GradientTransformation:
        return optax.contrib.sam(wrap(optax.adam(1e-2)), optax.sgd(0.1))

    state = olm.unpacked_state(make(olm.packed).init(tree()), tree())
    chex.assert_trees_all_equal(state, make(lambda tx: tx).init(tree()))


def test_shapes_are_unpacked_under_eval_shape() -> None:
    state = jax.eval_shape(olm.packed(optax.adam(1e-2)).init, tree())
    shapes = jax.eval_shape(olm.unpacked_state, state, tree())
    assert shapes == jax.eval_shape(optax.adam(1e-2).init, tree())


@pytest.mark.parametrize("spec", [(None, "model"), ("model",), ()])
def test_an_axis_of_one_device_on_an_explicit_mesh(spec: Any) -> None:
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    devices = np.array(jax.devices()[:1]).reshape(1, 1)
    mesh = jax.sharding.Mesh(devices, ("data", "model"), axis_types=kinds)
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    params = {name: jax.device_put(jnp.ones((8, 4)), where) for name in "ab"}
    state: Any = olm.packed(optax.adam(1e-2)).init(params)
    assert bool(state[0].mu.buffers) == (not spec)


class TestInsideOfAMask:
    table: ClassVar = {"blocks/0": 0, "embed": 0.5}

    def test_a_state_has_what_the_mask_shows(self) -> None:
        params = tree()
        adam = olm.packed(optax.adam(1e-2))
        tx = olm.with_name_multipliers(adam, self.table, mask_frozen=True)
        plain_tx = olm.adam(1e-2, multipliers=self.table, mask_frozen=True)
        params, _, state = walk(tx, params)
        _, _, plain = walk(plain_tx, tree())
        unpacked = olm.unpacked_state(state, params)
        chex.assert_trees_all_close(unpacked, plain, rtol=1e-5, atol=1e-7)
        chex.assert_trees_all_equal(olm.packed_state(unpacked, params, state), state)

    def test_so_has_one_of_several(self) -> None:
        labels = jax.tree.map(
            lambda name: "a" if "kernel" in name else "b", olm.path_labels(tree())
        )

        def make(wrap: Callable[[Any], Any]) -> optax.GradientTransformation:
            rates = {"a": wrap(optax.adam(1e-2)), "b": wrap(optax.lion(1e-3))}
            return optax.partition(rates, labels)

        params, _, state = walk(make(olm.packed), tree())
        _, _, plain = walk(make(lambda tx: tx), tree())
        unpacked = olm.unpacked_state(state, params)
        chex.assert_trees_all_close(unpacked, plain, rtol=1e-5, atol=1e-7)
        chex.assert_trees_all_equal(olm.packed_state(unpacked, params, state), state)


def test_the_order_of_a_tree_is_nothing_to_a_state() -> None:
    """A dictionary is sorted by its keys, and a class is as it was written."""
    there = {"a": jnp.ones(3), "b": jnp.full(3, 2.0), "c": jnp.full(3, 3.0)}
    back = collections.OrderedDict(reversed(there.items()))
    tx = olm.packed(optax.sgd(1.0, momentum=0.5))
    _, state = tx.update(there, tx.init(there), there)
    updates, _ = tx.update(back, state, back)
    assert list(updates) == ["c", "b", "a"]
    chex.assert_trees_all_equal(dict(updates), jax.tree.map(lambda x: -1.5 * x, there))
