"""The product itself: every kind of multiplier, every dtype, one compilation."""

import copy
import pkgutil
import threading
import warnings
from typing import Any

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {"stem": jnp.arange(1.0, 4.0), "head": jnp.arange(1.0, 4.0)}


def scaled(multipliers: Any, updates: Any = PARAMS, **options: Any) -> Any:
    tx = olm.scale_by_name_multiplier(multipliers, **options)
    return tx.update(updates, tx.init(updates))[0]


class TestStatic:
    def test_multiplies_by_name(self) -> None:
        np.testing.assert_array_equal(scaled({"stem": 0.5})["stem"], [0.5, 1, 1.5])
        np.testing.assert_array_equal(scaled({"stem": -2})["stem"], [-2, -4, -6])

    def test_one_is_the_update_itself(self) -> None:
        updates = scaled({"stem": 1})
        assert updates["stem"] is PARAMS["stem"]
        assert updates["head"] is PARAMS["head"]

    def test_has_no_state(self) -> None:
        state = olm.scale_by_name_multiplier({"stem": 0.5}).init(PARAMS)
        assert state == optax.EmptyState()

    @pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
    def test_zero_stills_what_is_not_finite(self, bad: float) -> None:
        updates = {"stem": jnp.array([bad, 1.0]), "head": jnp.array([bad, 1.0])}
        np.testing.assert_array_equal(scaled({"stem": 0}, updates)["stem"], [0, 0])
        assert not np.isfinite(scaled({"head": 2}, updates)["head"][0])

    def test_params_are_not_needed_and_called_params(self) -> None:
        tx = olm.scale_by_name_multiplier({"stem": 0.5})
        one = tx.update(PARAMS, tx.init(PARAMS))
        two = tx.update(PARAMS, tx.init(PARAMS), params=PARAMS, value=1.0)
        chex.assert_trees_all_equal(one, two)

    def test_a_later_change_to_the_mapping_has_no_effect(self) -> None:
        table = {"stem": 0.5}
        tx = olm.scale_by_name_multiplier(table)
        table["stem"] = 9.0
        assert tx.update(PARAMS, tx.init(PARAMS))[0]["stem"][0] == 0.5

    def test_labels_of_ones_own_are_used(self) -> None:
        labels = {"stem": "slow", "head": "fast"}
        for param_labels in (labels, lambda tree: labels):
            updates = scaled({"slow": 0.5}, param_labels=param_labels)
            np.testing.assert_array_equal(updates["stem"], [0.5, 1, 1.5])

    def test_a_chain_of_two_multiplies(self) -> None:
        tx = optax.chain(
            olm.scale_by_name_multiplier({"stem": 0.5}),
            olm.scale_by_name_multiplier({"": 0.5}),
        )
        updates, _ = tx.update(PARAMS, tx.init(PARAMS))
        np.testing.assert_array_equal(updates["stem"], PARAMS["stem"] / 4)
        np.testing.assert_array_equal(updates["head"], PARAMS["head"] / 2)


class TestDtypes:
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64"])
    @pytest.mark.parametrize(
        "multiplier",
        [0, 1, 0.1, np.float64(0.1), lambda step: 0.1, olm.per_layer([0, 1, 0.1])],
    )
    def test_are_kept(self, dtype: str, multiplier: Any) -> None:
        updates = {"stem": jnp.arange(1, 4).astype(dtype)}
        factor = {0: 0.0, 1: 1.0}.get(multiplier, 0.1)  # 0.1 stands for the rest
        factor = np.array([0, 1, 0.1]) if "per_layer" in repr(multiplier) else factor
        result = scaled({"stem": multiplier}, updates)["stem"]
        wide = np.float32 if dtype != "complex64" else np.complex64
        expected = jnp.asarray(np.arange(1, 4) * np.asarray(factor, wide)).astype(dtype)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.usefixtures("x64")
    @pytest.mark.parametrize("dtype", ["float64", "complex128"])
    def test_float64_is_multiplied_in_float64(self, dtype: str) -> None:
        updates = {"stem": jnp.arange(1, 4).astype(dtype), "h": jnp.ones(3, "float32")}
        for rate in (0.1, lambda step: jnp.asarray(0.1, "float64")):
            result = scaled({"": rate}, updates)
            np.testing.assert_array_equal(result["stem"], np.arange(1, 4) * 0.1)
            assert result["h"].dtype == "float32"
            np.testing.assert_array_equal(result["h"], np.float32(0.1))

    def test_bfloat16_is_multiplied_in_float32(self) -> None:
        updates = {"stem": jnp.linspace(1, 2, 128).astype(jnp.bfloat16)}
        exact = np.asarray(updates["stem"], np.float32) * np.float32(0.1)
        result = np.asarray(scaled({"stem": 0.1}, updates)["stem"], np.float32)
        np.testing.assert_array_equal(result, np.float32(exact.astype(jnp.bfloat16)))

    def test_what_has_no_derivative_passes(self) -> None:
        updates = {
            "int": jnp.arange(3),
            "bool": jnp.array([True, False]),
            "float0": np.zeros(3, jax.dtypes.float0),
            "key": jax.random.key(0),
        }
        for rate in (0, 0.1, lambda step: 0.1):
            result = scaled({"": rate}, updates)
            assert all(result[name] is updates[name] for name in updates)

    def test_python_and_numpy_numbers_become_arrays(self) -> None:
        updates = {"stem": 2.0, "head": np.array([2.0, 4.0])}
        result = scaled({"": 0.5}, updates)
        assert result["stem"] == 1.0
        np.testing.assert_array_equal(result["head"], [1, 2])
        assert jnp.asarray(result["head"]).dtype == jnp.float32

    def test_empty_and_scalar_leaves(self) -> None:
        updates = {"empty": jnp.ones((0, 3)), "scalar": jnp.array(2.0), "none": None}
        for rate in (0, 0.5, lambda step: 0.5):
            result = scaled({"": rate}, updates)
            assert result["empty"].shape == (0, 3)
            assert result["scalar"] == 2 * (0 if rate == 0 else 0.5)
            assert result["none"] is None

    def test_complex_infinities_stay_in_their_part(self) -> None:
        updates = {"stem": jnp.array([complex(jnp.inf, 1.0)])}
        result = scaled({"stem": 0.5}, updates)["stem"]
        assert (result.real[0], result.imag[0]) == (jnp.inf, 0.5)


class TestSchedules:
    def test_count_from_zero_as_in_optax(self) -> None:
        schedule = optax.linear_schedule(0.0, 1.0, 4)
        tx = olm.scale_by_name_multiplier({"stem": schedule})
        reference = optax.scale_by_schedule(schedule)
        state, reference_state = tx.init(PARAMS), reference.init(PARAMS)
        assert state == optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))
        for _ in range(6):
            updates, state = jax.jit(tx.update)(PARAMS, state)
            expected, reference_state = reference.update(PARAMS, reference_state)
            np.testing.assert_array_equal(updates["stem"], expected["stem"])
            np.testing.assert_array_equal(updates["head"], PARAMS["head"])
        assert state.count == 6

    def test_of_zero_still_what_is_not_finite(self) -> None:
        updates = {"stem": jnp.array([jnp.nan, jnp.inf])}
        for rate in (lambda step: 0.0, lambda step: jnp.where(step < 5, 0.0, 1.0)):
            np.testing.assert_array_equal(scaled({"stem": rate}, updates)["stem"], 0)

    def test_each_is_its_own_beside_others(self) -> None:
        layers = olm.per_layer([lambda step: 4.0, lambda step: 5.0, 6.0])
        table = {"a": lambda step: 2.0, "b": lambda step: 3.0, "c": layers, "d": 7.0}
        updates = scaled(table, {name: jnp.ones(3) for name in table})
        found = {name: update.tolist() for name, update in updates.items()}
        assert found == {"a": [2] * 3, "b": [3] * 3, "c": [4, 5, 6], "d": [7] * 3}

    def test_are_called_once_for_all_their_leaves(self) -> None:
        calls = []
        tree = {str(i): jnp.ones(2) for i in range(5)}
        scaled({"": lambda step: calls.append(step) or 0.5}, tree)
        assert len(calls) == 1


class TestPerLayer:
    STACKED = {"layers": jnp.ones((3, 2, 4)), "head": jnp.ones(2)}

    @pytest.mark.parametrize(("axis", "length"), [(0, 3), (1, 2), (2, 4), (-1, 4)])
    def test_slices_have_their_own_multiplier(self, axis: int, length: int) -> None:
        values = [0.0, 0.5, 1.0, -2.0][:length]
        table = {"layers": olm.per_layer(values, axis=axis)}
        result = jax.jit(lambda u: scaled(table, u))(self.STACKED)["layers"]
        for index, value in enumerate(values):
            np.testing.assert_array_equal(jnp.take(result, index, axis), value)

    def test_a_slice_of_zero_stays(self) -> None:
        updates = {"layers": jnp.full((2, 3), jnp.nan)}
        result = scaled({"layers": olm.per_layer([0, 1])}, updates)["layers"]
        np.testing.assert_array_equal(result[0], 0)
        assert jnp.all(jnp.isnan(result[1]))

    def test_may_hold_schedules_and_traced_scalars(self) -> None:
        def step(rate: jax.Array) -> Any:
            layers = olm.per_layer([lambda step: step + 2.0, rate, 0.5])
            return scaled({"layers": layers}, self.STACKED)["layers"][:, 0, 0]

        np.testing.assert_array_equal(jax.jit(step)(3.0), [2, 3, 0.5])


class TestTraced:
    def test_sweeps_by_vmap_are_what_a_loop_gives(self) -> None:
        def step(rates: jax.Array) -> Any:
            tx = olm.adam(0.1, multipliers={"stem": rates[0], "head": rates[1]})
            return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]

        rates = jnp.array([[0.0, 1.0], [0.25, 2.0], [-1.0, 0.5]])
        swept = jax.vmap(step)(rates)
        for index in range(3):
            alone = step(rates[index])
            chex.assert_trees_all_close(
                jax.tree.map(lambda x, i=index: x[i], swept), alone, rtol=1e-6
            )

    @pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
    def test_gradient_with_respect_to_a_multiplier(self, at: float) -> None:
        def way(rate: jax.Array) -> jax.Array:
            return jnp.sum(scaled({"stem": rate})["stem"])

        assert jax.grad(way)(at) == 6.0
        assert jax.jacfwd(way)(at) == 6.0

    def test_gradient_is_finite_where_the_update_is_not(self) -> None:
        def way(rate: jax.Array) -> jax.Array:
            return jnp.sum(
                scaled({"stem": rate}, {"stem": jnp.array([jnp.nan, 2.0])})["stem"]
            )

        assert jax.value_and_grad(way)(0.0) == (0.0, 2.0)

    def test_gradient_with_respect_to_the_update(self) -> None:
        def way(update: jax.Array, rate: Any) -> jax.Array:
            return jnp.sum(scaled({"stem": rate}, {"stem": update})["stem"])

        for rate in (0.0, 0.5):
            for factor in (rate, lambda step, r=rate: r):
                gradient = jax.grad(way)(PARAMS["stem"], factor)
                np.testing.assert_array_equal(gradient, rate)


class TestCompilation:
    TABLES = {
        "static": {"stem": 0.3},
        "schedule": {"stem": optax.linear_schedule(0.0, 1.0, 4)},
        "per_layer": {"stem": olm.per_layer([1, 0.5, 0])},
    }

    @pytest.mark.parametrize("kind", TABLES)
    def test_happens_once(self, kind: str) -> None:
        chex.clear_trace_counter()
        tx = optax.chain(
            optax.scale_by_adam(),
            olm.scale_by_name_multiplier(self.TABLES[kind]),
            optax.scale_by_learning_rate(0.1),
        )

        @jax.jit
        @chex.assert_max_traces(n=1)
        def step(state: Any, params: Any) -> Any:
            updates, state = tx.update(params, state, params)
            return optax.apply_updates(params, updates), state

        params, state = PARAMS, tx.init(PARAMS)
        for _ in range(5):
            params, state = step(state, params)

    @pytest.mark.parametrize("kind", TABLES)
    def test_jit_scan_and_eager_agree(self, kind: str) -> None:
        tx = olm.scale_by_name_multiplier(self.TABLES[kind])
        state, outs = tx.init(PARAMS), []
        for _ in range(3):
            out, state = tx.update(PARAMS, state)
            outs.append(out)
        _, scanned = jax.lax.scan(
            lambda s, _: tx.update(PARAMS, s)[::-1], tx.init(PARAMS), None, 3
        )
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *outs)
        chex.assert_trees_all_equal(stacked, scanned)

    @pytest.mark.parametrize("kind", TABLES)
    def test_init_needs_shapes_only(self, kind: str) -> None:
        tx = olm.scale_by_name_multiplier(self.TABLES[kind])
        chex.assert_trees_all_equal_shapes_and_dtypes(
            jax.eval_shape(tx.init, jax.eval_shape(lambda: PARAMS)), tx.init(PARAMS)
        )

    def test_static_multipliers_are_hidden_from_the_compiler(self) -> None:
        """Baked in, each would make a kernel of its own and compilation slow."""
        table = {"stem": 0.3, "head": 0.7}
        update = jax.jit(lambda u: scaled(table, u))
        text = update.lower(PARAMS).as_text()
        assert text.count("optimization_barrier") == 1
        update = jax.jit(lambda u: scaled({"stem": 0, "head": 1}, u))
        assert "optimization_barrier" not in update.lower(PARAMS).as_text()

    def test_equal_multipliers_are_one_constant(self) -> None:
        updates = {str(i): jnp.ones(2) for i in range(5)}
        table = {"0": 0.3, "1": 0.7, "": np.float64(0.3)}
        jaxpr = jax.make_jaxpr(lambda u: scaled(table, u))(updates)
        (barrier,) = (e for e in jaxpr.eqns if "barrier" in e.primitive.name)
        assert len(barrier.invars) == 2

    def test_a_whole_step_exports_for_every_platform(self) -> None:
        tx = olm.keras.adam_lr_mult(multipliers={"stem": 0.5}, clipnorm=1.0)

        def step(gradients: Any, state: Any, params: Any) -> Any:
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state.count

        arguments = (PARAMS, tx.init(PARAMS), PARAMS)
        exported = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(
            *jax.eval_shape(lambda: arguments)
        )
        assert exported.platforms == ("cpu", "cuda", "tpu")
        chex.assert_trees_all_equal(
            exported.call(*arguments), jax.jit(step)(*arguments)
        )

    def test_schedules_that_return_constants_stand_in_a_shard_map(self) -> None:
        """Jax 0.5 can't check a barrier around literals there."""
        try:
            shard_map = jax.shard_map
        except AttributeError:
            shard_map = pkgutil.resolve_name("jax.experimental.shard_map:shard_map")
        tx = olm.scale_by_name_multiplier({"stem": lambda step: 0.5, "head": 2})
        spec = jax.sharding.PartitionSpec()
        update = shard_map(
            lambda updates, state: tx.update(updates, state)[0],
            mesh=jax.sharding.Mesh(np.array(jax.devices()[:1]), "x"),
            in_specs=(spec, spec),
            out_specs=spec,
        )
        updates = update(PARAMS, tx.init(PARAMS))
        np.testing.assert_array_equal(updates["stem"], PARAMS["stem"] / 2)

    def test_debug_modes_find_nothing(self) -> None:
        tx = olm.adam(0.1, multipliers={"stem": 0, "head": 0.5})
        state = tx.init(PARAMS)
        with jax.debug_nans(True), jax.checking_leaks(), jax.transfer_guard("disallow"):
            jax.jit(tx.update)(PARAMS, state, PARAMS)


def test_names_are_those_of_the_updates() -> None:
    tx = olm.scale_by_name_multiplier({"stem": 0.5})
    updates, _ = tx.update({"new": {"stem": jnp.ones(1)}}, tx.init(PARAMS))
    assert updates["new"]["stem"] == 0.5


def test_copies_and_threads_share_a_transform() -> None:
    tx = olm.scale_by_name_multiplier({"stem": 0.5})
    results: list[Any] = []
    copies = [copy.deepcopy(tx) for _ in range(8)]
    threads = [
        threading.Thread(
            target=lambda t=t: results.append(t.update(PARAMS, t.init(PARAMS)))
        )
        for t in copies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        chex.assert_trees_all_equal(result, results[0])


def test_float16_that_vanishes_is_upstreams_business() -> None:
    """In front of the learning rate a multiplier can underflow, as in optax."""
    updates = {"stem": jnp.array([1e-5], jnp.float16)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scaled({"stem": 1e-4}, updates)["stem"] == 0
