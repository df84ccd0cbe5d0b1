"""Groups of layers, against the numbers of ULMFiT and fastai."""

import functools
import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from optax_lrmult.recipes import (
    discriminative,
    freeze,
    unfreeze_at,
    unfreeze_from_top,
)


def values(table: olm.Rules) -> list[Any]:
    return [rule.value for rule in table]


def patterns(table: olm.Rules) -> list[str]:
    return [str(rule) for rule in table]


def test_freeze_has_one_rule_of_0_for_each_pattern() -> None:
    pattern = re.compile("a.*")
    assert freeze(pattern, "b") == olm.Rules([(pattern, 0.0), ("b", 0.0)])
    with pytest.raises(ValueError, match=r"a pattern; freeze\(''\) freezes everything"):
        freeze()
    with pytest.raises(TypeError, match="pattern of a rule must be a str"):
        freeze(["a", "b"])


class TestDiscriminative:
    def test_has_the_rates_of_ulmfit(self) -> None:
        """Each layer 2.6 times slower than the next, https://arxiv.org/abs/1801.06146."""
        layers = ["embedding", "lstm_0", "lstm_1", "lstm_2", "classifier"]
        table = discriminative(layers, 2.6**-4)
        expected = [1, 0.3846154, 0.1479290, 0.0568958, 0.0218830]
        assert patterns(table) == [repr(layer) for layer in layers[::-1]]
        np.testing.assert_allclose(values(table), expected, rtol=1e-5)

    def test_has_the_rates_of_fastai(self) -> None:
        """`learn.lr_range(slice(1e-5, 1e-3))` of 3 layer groups, in fastai's pages."""
        table = discriminative(["a", "b", "c"], 1e-5, 1e-3)
        np.testing.assert_allclose(values(table), [1e-3, 1e-4, 1e-5])

    def test_of_one_group_is_hi(self) -> None:
        assert discriminative(["a"], 0.1, 0.5) == olm.Rules({"a": 0.5})

    def test_gives_all_patterns_of_a_group_its_multiplier(self) -> None:
        last = re.compile("c.*")
        table = discriminative([("a", "b"), [last]], 0.5, 2)
        assert table == olm.Rules([(last, 2.0), ("a", 0.5), ("b", 0.5)])

    def test_has_the_top_group_first(self) -> None:
        table = discriminative(["", "block_1", "block_10"], 0.25)
        names = "stem/w", "block_1/w", "block_10/w"
        assert [table.find(name)[1] for name in names] == [0.25, 0.5, 1]

    def test_takes_traced_ends(self) -> None:
        def middle(lo: Any) -> Any:
            return discriminative(["a", "b", "c"], lo).find("b")[1]

        lows = jnp.array([0.25, 0.0625])
        np.testing.assert_array_equal(jax.vmap(middle)(lows), [0.5, 0.25])

    @hypothesis.given(
        st.integers(2, 30), st.floats(1e-30, 1e30), st.floats(1e-30, 1e30)
    )
    def test_steps_are_equal_and_ends_are_exact(
        self, count: int, lo: float, hi: float
    ) -> None:
        table = values(discriminative([f"<{i}>" for i in range(count)], lo, hi))
        assert (table[-1], table[0]) == (lo, hi)
        step = np.log(lo / hi) / (count - 1)
        np.testing.assert_allclose(np.diff(np.log(table)), step, rtol=1e-6, atol=1e-10)

    @pytest.mark.parametrize("end", ["lo", "hi"])
    @pytest.mark.parametrize("value", [0, -0.5, lambda step: 1.0])
    def test_ends_are_positive_numbers(self, end: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"{end} must be a positive number"):
            discriminative(["a"], **{"lo": 0.1, "hi": 1.0, end: value})
        with pytest.raises(TypeError, match=f"{end} must be a real number"):
            discriminative(["a"], **{"lo": 0.1, "hi": 1.0, end: True})


@pytest.mark.parametrize(
    "recipe",
    [
        functools.partial(discriminative, lo=0.1),
        functools.partial(unfreeze_from_top, every=1),
    ],
)
class TestGroups:
    @pytest.mark.parametrize(
        ("groups", "error"),
        [
            ("ab", TypeError),
            ({"a": 1}, TypeError),
            ({"a"}, TypeError),
            ([], ValueError),
            (["a", []], ValueError),
        ],
    )
    def test_are_an_ordered_list_of_patterns(
        self, recipe: Any, groups: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error, match="groups must be a list of groups, the lowest"):
            recipe(groups)

    @pytest.mark.parametrize("group", [1, ["a", None], [["a"]], b"a"])
    def test_hold_patterns(self, recipe: Any, group: Any) -> None:
        with pytest.raises(TypeError, match="pattern of a rule must be a str"):
            recipe(["a", group])

    def test_may_be_an_iterator(self, recipe: Any) -> None:
        assert recipe(iter(["a", "b"])) == recipe(["a", "b"])


class TestUnfreezeAt:
    def test_is_zero_and_then_the_multiplier(self) -> None:
        schedule = jax.vmap(unfreeze_at(3, 0.1))
        expected = np.float32([0, 0, 0, 0.1, 0.1])
        np.testing.assert_array_equal(schedule(jnp.arange(5)), expected)

    def test_counts_the_steps_of_a_schedule_from_0(self) -> None:
        schedule = unfreeze_at(2, optax.linear_schedule(0.0, 1.0, 4))
        found = [float(schedule(step)) for step in range(6)]
        assert found == [0, 0, 0.5, 0.75, 1, 1]

    def test_hides_what_is_not_finite_before_it(self) -> None:
        schedule = unfreeze_at(1, lambda step: 1 / step)
        assert [float(schedule(jnp.int32(step))) for step in (0, 1, 2)] == [0, 1, 0.5]

    def test_is_a_value_that_prints(self) -> None:
        assert repr(unfreeze_at(100)) == "unfreeze_at(100)"
        assert repr(unfreeze_at(100, 2)) == "unfreeze_at(100, 2)"
        assert unfreeze_at(1) == unfreeze_at(np.int64(1), 1)
        assert unfreeze_at(1) != unfreeze_at(2)
        assert hash(unfreeze_at(1)) == hash(unfreeze_at(1))

    def test_takes_traced_multipliers(self) -> None:
        def at_2(m: Any) -> Any:
            return unfreeze_at(2, m)(2)

        np.testing.assert_array_equal(jax.vmap(at_2)(jnp.arange(3.0)), [0, 1, 2])

    def test_stands_inside_per_layer(self) -> None:
        rates = olm.per_layer([unfreeze_at(1), 0.5])
        tx = olm.scale_by_name_multiplier({"": rates})
        updates, state = {"w": jnp.ones((2, 3))}, tx.init({"w": jnp.ones((2, 3))})
        for expected in (0, 1):
            scaled, state = tx.update(updates, state)
            np.testing.assert_array_equal(scaled["w"][:, 0], [expected, 0.5])

    @pytest.mark.parametrize(
        ("arguments", "error", "text"),
        [
            ((-1,), ValueError, "step of unfreeze_at must be at least 0, not -1"),
            ((1.5,), TypeError, "float"),
            ((1, True), TypeError, "multiplier of unfreeze_at must be a real number"),
            ((1, np.inf), ValueError, "multiplier of unfreeze_at must be finite"),
            ((1, olm.per_layer([1])), TypeError, "multiplier of unfreeze_at must be"),
        ],
    )
    def test_refuses(self, arguments: Any, error: type[Exception], text: str) -> None:
        with pytest.raises(error, match=text):
            unfreeze_at(*arguments)


class TestUnfreezeFromTop:
    def test_unfreezes_one_group_after_the_other(self) -> None:
        table = unfreeze_from_top(["a", ["b", "c"], "d"], 10)
        later = unfreeze_at(10)
        rows = [("d", 1.0), ("b", later), ("c", later), ("a", unfreeze_at(20))]
        assert table == olm.Rules(rows)

    def test_starts_when_it_is_told(self) -> None:
        table = unfreeze_from_top(["a", "b"], 10, start=5)
        assert table == olm.Rules({"b": unfreeze_at(5), "a": unfreeze_at(15)})

    def test_takes_a_multiplier_for_each_group(self) -> None:
        rate = optax.linear_schedule(0.0, 1.0, 4)
        table = unfreeze_from_top(["a", "b"], 7, multipliers=[0.5, rate])
        assert table == olm.Rules({"b": rate, "a": unfreeze_at(7, 0.5)})

    def test_takes_the_multipliers_of_discriminative(self) -> None:
        groups = ["a", ["b", re.compile("c.*")], "d"]
        lower = discriminative(groups, 0.25)
        table = unfreeze_from_top(groups, 2, multipliers=lower)
        assert patterns(table) == patterns(lower)
        later = unfreeze_at(2, 0.5)
        assert values(table) == [1.0, later, later, unfreeze_at(4, 0.25)]
        with pytest.raises(ValueError, match="multipliers must be a table of the same"):
            unfreeze_from_top(["x"], 1, multipliers=lower)

    def test_a_group_is_still_until_its_step_and_then_moves_by_its_multiplier(
        self,
    ) -> None:
        groups = ["stem", "block", "head"]
        expected = {"head": 1.0, "block": 0.5, "stem": 0.25}
        lower = [0.25, 0.5, 1]
        tx = olm.adamw(
            0.01,
            weight_decay=0.1,
            multipliers=unfreeze_from_top(groups, 2, multipliers=lower, start=1),
        )
        plain = optax.adamw(0.01, weight_decay=0.1)

        @jax.jit
        def step(params: Any, state: Any, plain_state: Any) -> Any:
            gradients = jax.tree.map(jnp.sin, params)
            updates, state = tx.update(gradients, state, params)
            whole = plain.update(gradients, plain_state, params)
            return optax.apply_updates(params, updates), state, updates, *whole

        params = {name: jnp.array([1.0, -2.0, 0.5]) for name in groups}
        state, plain_state = tx.init(params), plain.init(params)
        for count in range(6):
            before = params
            params, state, moved, whole, plain_state = step(params, state, plain_state)
            for name, first in {"head": 1, "block": 3, "stem": 5}.items():
                if count < first:
                    assert params[name].tobytes() == before[name].tobytes()
                else:
                    scaled = expected[name] * whole[name]
                    np.testing.assert_allclose(moved[name], scaled, rtol=1e-5)
                    assert np.all(params[name] != before[name])

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"every": 0}, ValueError, "every must be at least one step, not 0"),
            ({"every": 1.0}, TypeError, "float"),
            ({"start": -1}, ValueError, "must be at least 0, not -1"),
            ({"multipliers": [1.0]}, ValueError, "one for each of the 2 groups"),
            ({"multipliers": [True, 1.0]}, TypeError, "must be a real number"),
        ],
    )
    def test_refuses(self, options: Any, error: type[Exception], text: str) -> None:
        with pytest.raises(error, match=text):
            unfreeze_from_top(["a", "b"], **{"every": 1, **options})
