"""The wrapper, and the functions that make labels and masks of a table."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {"stem": jnp.arange(1.0, 4.0), "head": jnp.arange(1.0, 4.0)}


class SkipState(NamedTuple):
    """With a count that goes on in skipped steps, too."""

    count: jax.Array
    inner: Any


def skip_odd_steps(
    tx: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """As a wrapper that leaves out steps with a spike in the loss."""

    def init_fn(params: Any) -> SkipState:
        return SkipState(jnp.zeros([], jnp.int32), tx.init(params))

    def update_fn(updates: Any, state: Any, params: Any = None) -> Any:
        new = tx.update(updates, state.inner, params)
        old = updates, state.inner
        updates, inner = old if state.count % 2 else new
        return updates, SkipState(state.count + 1, inner)

    return optax.GradientTransformation(init_fn, update_fn)


class TestWithNameMultipliers:
    def test_the_state_is_the_optimizers(self) -> None:
        for plain in optax.adamw(0.1), optax.sgd(0.1, momentum=0.9), optax.lion(0.1):
            tx = olm.with_name_multipliers(plain, {"stem": 0.5, "head": 2})
            chex.assert_trees_all_equal(tx.init(PARAMS), plain.init(PARAMS))

    def test_weight_decay_is_multiplied_too(self) -> None:
        tx = olm.with_name_multipliers(optax.adamw(0.1, weight_decay=1), {"stem": 0})
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        np.testing.assert_array_equal(updates["stem"], 0)
        assert np.all(updates["head"] < -0.1)

    def test_hands_extra_arguments_on(self) -> None:
        tx = olm.with_name_multipliers(
            optax.contrib.reduce_on_plateau(patience=1), {"stem": 0.5}
        )
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.array(1.0))
        np.testing.assert_array_equal(updates["stem"], PARAMS["stem"] / 2)

    def test_wraps_what_takes_no_extra_arguments(self) -> None:
        tx = olm.with_name_multipliers(optax.scale_by_rms(), {"stem": 0.5})
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0)

    def test_a_line_search_is_refused_with_what_to_write(self) -> None:
        tx = olm.with_name_multipliers(optax.lbfgs(), {"stem": 0.5})
        with pytest.raises(ValueError, match=r"in front of the search.*scale_by_lbfgs"):
            tx.init(PARAMS)
        tx = optax.chain(
            optax.scale_by_lbfgs(),
            olm.scale_by_name_multiplier({"stem": 0.5}),
            optax.scale(-1.0),
            optax.scale_by_zoom_linesearch(20),
        )

        def loss(params: Any) -> Any:
            return sum(jnp.sum((p - 1) ** 2) for p in jax.tree.leaves(params))

        params, state = PARAMS, tx.init(PARAMS)
        for _ in range(8):
            value, grad = optax.value_and_grad_from_state(loss)(params, state=state)
            updates, state = tx.update(
                grad, state, params, value=value, grad=grad, value_fn=loss
            )
            params = optax.apply_updates(params, updates)
        assert loss(params) < 1e-3


class TestTheStepOfASchedule:
    """It is read in the state of the wrapped optimizer."""

    @pytest.mark.parametrize(
        "tx",
        [
            optax.adam(0.1),
            optax.adam(optax.constant_schedule(0.1)),
            optax.sgd(optax.constant_schedule(0.1)),
            optax.inject_hyperparams(optax.sgd)(0.1),
            optax.MultiSteps(optax.sgd(0.1), 1).gradient_transformation(),
            optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau()),
            optax.chain(optax.contrib.reduce_on_plateau(), optax.adam(0.1)),
        ],
    )
    def test_is_the_number_of_steps(self, tx: Any) -> None:
        table = {"stem": optax.linear_schedule(0.0, 1.0, 4)}
        wrapped = olm.with_name_multipliers(tx, table)
        tx = optax.with_extra_args_support(tx)
        state, plain = wrapped.init(PARAMS), tx.init(PARAMS)
        for expected in (0, 0.25, 0.5):
            updates, state = wrapped.update(PARAMS, state, PARAMS, value=1.0)
            alone, plain = tx.update(PARAMS, plain, PARAMS, value=1.0)
            np.testing.assert_array_equal(updates["stem"], expected * alone["stem"])

    @pytest.mark.parametrize(
        "tx",
        [
            optax.sgd(0.1),
            optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
            optax.chain(optax.apply_every(2), optax.sgd(0.1)),
        ],
    )
    def test_without_a_count_of_steps_init_says_what_to_write(self, tx: Any) -> None:
        tx = olm.with_name_multipliers(tx, {"stem": lambda step: 1.0})
        with pytest.raises(ValueError, match=r"optax\.chain\(tx, scale_by_name"):
            tx.init(PARAMS)

    @pytest.mark.parametrize(
        "make",
        [
            lambda tx, rate: skip_odd_steps(optax.chain(tx, rate)),
            lambda tx, rate: optax.conditionally_transform(
                optax.chain(tx, rate), lambda step: step % 2 == 0
            ),
            lambda tx, rate: optax.chain(skip_odd_steps(tx), rate),
        ],
    )
    def test_is_that_of_the_rate_where_a_wrapper_skips_steps(self, make: Any) -> None:
        """So the rate is multiplied by itself, whether its own count goes on or not."""
        falls = optax.linear_schedule(1.0, 0.0, 10)
        plain = make(optax.scale_by_adam(), optax.scale_by_learning_rate(falls))
        tx = olm.with_name_multipliers(plain, {"stem": falls})
        state, alone, rates = tx.init(PARAMS), plain.init(PARAMS), []
        for _ in range(6):
            updates, state = tx.update(PARAMS, state, PARAMS)
            expected, alone = plain.update(PARAMS, alone, PARAMS)
            if expected["stem"][0] != PARAMS["stem"][0]:  # A skipped step.
                rates.append(float(-expected["stem"][0]))
                np.testing.assert_allclose(
                    updates["stem"], rates[-1] * expected["stem"], rtol=1e-4
                )
        assert rates[0] == pytest.approx(1.0, rel=1e-4)
        assert rates[-1] < 0.85

    def test_is_an_injected_schedules_where_the_core_skips_steps(self) -> None:
        falls = optax.linear_schedule(1.0, 0.0, 10)

        @optax.inject_hyperparams
        def make(rate: Any) -> optax.GradientTransformation:
            core = skip_odd_steps(optax.scale_by_adam())
            return optax.chain(core, optax.scale_by_learning_rate(rate))

        tx = olm.with_name_multipliers(make(falls), {"stem": falls})
        state = tx.init(PARAMS)
        for _ in range(2):
            _, state = tx.update(PARAMS, state, PARAMS)
        updates, _ = tx.update(PARAMS, state, PARAMS)
        np.testing.assert_allclose(updates["stem"], -0.8 * 0.8, rtol=1e-4)

    def test_is_found_beside_a_parameter_called_count(self) -> None:
        params = {"count": jnp.ones(2), "n": jnp.ones((), jnp.float32)}
        plain = optax.adam(0.1)
        tx = olm.with_name_multipliers(plain, {"n": lambda step: step + 2.0})
        _, state = plain.update(params, plain.init(params), params)
        updates, _ = tx.update(params, state, params)
        expected = plain.update(params, state, params)[0]["n"]
        np.testing.assert_array_equal(updates["n"], 3 * expected)

    def test_of_states_under_vmap_needs_the_update_under_it(self) -> None:
        tx = olm.with_name_multipliers(optax.adam(0.1), {"stem": lambda step: 0.5})
        both = jax.tree.map(lambda p: jnp.stack([p, p]), PARAMS)
        states = jax.vmap(tx.init)(both)
        jax.vmap(tx.update)(both, states, both)
        with pytest.raises(ValueError, match="made under vmap, map the update too"):
            tx.update(both, states, both)


class TestMaskFrozen:
    def test_is_a_mask_around_the_optimizer(self) -> None:
        table = {"stem": 0, "head": 0.5}
        tx = olm.with_name_multipliers(optax.adam(0.1), table, mask_frozen=True)
        masked = optax.masked(optax.adam(0.1), olm.trainable(table))
        chex.assert_trees_all_equal(tx.init(PARAMS), masked.init(PARAMS))
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        np.testing.assert_array_equal(updates["stem"], 0)

    def test_labels_of_ones_own_say_what_is_frozen(self) -> None:
        labels: Any = {"param_labels": {"stem": "S", "head": "H"}}
        plain = optax.trace(0.9)
        tx = olm.with_name_multipliers(plain, {"S": 0}, mask_frozen=True, **labels)
        assert len(jax.tree.leaves(tx.init(PARAMS))) == 1

    def test_a_schedule_that_is_zero_keeps_its_state(self) -> None:
        mask = olm.trainable(
            {"stem": lambda step: 0.0, "head": olm.per_layer([0, 0, 0])}
        )
        assert mask(PARAMS) == {"stem": True, "head": False}


class TestByName:
    LABELS = {"stem": "slow", "": "fast"}

    def test_makes_labels_for_multi_transform(self) -> None:
        txs = {"slow": optax.sgd(0.1), "fast": optax.sgd(1.0)}
        tx = optax.multi_transform(txs, olm.by_name(self.LABELS))
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        np.testing.assert_allclose(updates["stem"], -0.1 * PARAMS["stem"], rtol=1e-6)
        np.testing.assert_array_equal(updates["head"], -PARAMS["head"])

    def test_makes_masks(self) -> None:
        decays = olm.by_name({"stem": False}, default=True)
        tx = optax.adamw(0.1, weight_decay=1.0, mask=decays)
        zero = jax.tree.map(jnp.zeros_like, PARAMS)
        updates, _ = tx.update(zero, tx.init(PARAMS), PARAMS)
        np.testing.assert_array_equal(updates["stem"], 0)
        np.testing.assert_allclose(updates["head"], -0.1 * PARAMS["head"], rtol=1e-6)

    def test_a_value_may_be_none(self) -> None:
        assert olm.by_name({"stem": None, "": 1})({"stem": 1.0}) == {"stem": None}

    def test_names_without_a_rule_are_told(self) -> None:
        with pytest.raises(ValueError, match="No rule of by_name takes 'head'"):
            olm.by_name({"stem": "a"})(PARAMS)

    def test_a_dead_rule_is_told(self) -> None:
        with pytest.raises(ValueError, match="'stam' .*Nearest: 'stem'"):
            olm.by_name({"stam": "a"}, default="b")(PARAMS)

    def test_what_a_mask_hides_stays_hidden(self) -> None:
        tree = {"stem": jnp.ones(1), "head": optax.MaskedNode()}
        assert olm.by_name({"head": 1, "": 2})(tree) == tree | {"stem": 2}

    def test_inject_hyperparams_needs_static_args(self) -> None:
        """Optax takes any function for a schedule, and calls it with the step."""
        for mask in (
            olm.by_name({"stem": False}, default=True),
            olm.trainable({"stem": 0}),
        ):
            tx = optax.inject_hyperparams(optax.adamw)(0.1, mask=mask)
            with pytest.raises(TypeError, match=r"static_args=\('mask',\)"):
                tx.init(PARAMS)
            inject = optax.inject_hyperparams(optax.adamw, static_args=("mask",))
            tx = inject(0.1, weight_decay=1.0, mask=mask)
            zero = jax.tree.map(jnp.zeros_like, PARAMS)
            updates, _ = tx.update(zero, tx.init(PARAMS), PARAMS)
            np.testing.assert_array_equal(updates["stem"], 0)

    def test_labels_of_ones_own_are_the_names(self) -> None:
        labels = {"stem": "S", "head": "H"}
        for param_labels in (labels, lambda tree: labels):
            label = olm.by_name({"S": 1}, 2, param_labels=param_labels)
            assert label(PARAMS) == {"stem": 1, "head": 2}
            mask = olm.trainable({"S": 0}, param_labels=param_labels)
            assert mask(PARAMS) == {"stem": False, "head": True}

    def test_a_bare_array_is_a_tree_of_one_name(self) -> None:
        assert olm.by_name({"": "all"})(jnp.ones(2)) == "all"
