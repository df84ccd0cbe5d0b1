"""Rules: which one a name gets, and what a table may be."""

import dataclasses
import fractions
import operator
import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_lrmult as olm


def multiplier(table: Any, name: str) -> Any:
    return olm.Rules(table).find(name)[1]


class TestMatching:
    def test_a_str_is_a_substring(self) -> None:
        assert multiplier({"er_1": 2}, "layer_1/kernel") == 2
        assert multiplier({"Layer": 2}, "layer_1/kernel") == 1
        assert multiplier({"layer_.": 2}, "layer_1/kernel") == 1
        assert multiplier({"": 2}, "") == 2

    def test_a_compiled_pattern_matches_in_full(self) -> None:
        assert multiplier({re.compile("layer"): 2}, "layer_1") == 1
        assert multiplier({re.compile("layer.*"): 2}, "layer_1/kernel") == 2
        assert multiplier({re.compile("LAYER_1", re.IGNORECASE): 2}, "layer_1") == 2

    def test_the_first_rule_wins(self) -> None:
        assert multiplier({"b": 2, "a": 3}, "ab") == 2
        assert multiplier({"a": 3, "b": 2}, "ab") == 3

    def test_no_rule_is_one(self) -> None:
        assert olm.Rules({"a": 2}).find("b") == (None, 1.0)
        assert olm.Rules(None).find("b") == (None, 1.0)

    def test_a_function_of_the_name(self) -> None:
        table = olm.Rules(lambda name: 0.5 if name.endswith("bias") else None)
        assert multiplier(table, "a/bias") == 0.5
        assert multiplier(table, "a/kernel") == 1
        assert multiplier(table + {"kernel": 3}, "a/kernel") == 3

    @hypothesis.given(
        st.lists(st.tuples(st.text("ab/", max_size=2), st.floats(-4, 4)), max_size=6),
        st.text("ab/", max_size=5),
    )
    def test_is_what_a_loop_over_the_pairs_finds(
        self, pairs: list[tuple[str, float]], name: str
    ) -> None:
        expected = next((m for pattern, m in pairs if pattern in name), 1.0)
        assert multiplier(pairs, name) == expected
        as_regex = [(re.compile(f".*{re.escape(p)}.*"), m) for p, m in pairs]
        assert multiplier(as_regex, name) == expected


class TestTables:
    ROWS = [("b", 2.0), ("a", 1.0), ("c", 3.0)]

    @pytest.mark.parametrize("make", [dict, list, tuple, iter, olm.Rules])
    def test_keep_their_order(self, make: Any) -> None:
        rules = olm.Rules(make(self.ROWS))
        assert [(rule.pattern, rule.multiplier) for rule in rules] == self.ROWS

    def test_may_hold_rules(self) -> None:
        assert olm.Rules([olm.Rule("a", 1), ["b", 2]]) == olm.Rules({"a": 1, "b": 2})

    def test_sum_puts_the_left_table_in_front(self) -> None:
        expected = olm.Rules([("a", 1), ("a", 2)])
        assert olm.Rules({"a": 1}) + {"a": 2} == expected
        assert {"a": 1} + olm.Rules({"a": 2}) == expected
        assert operator.add([("a", 1)], olm.Rules({"a": 2})) == expected
        assert isinstance(operator.add(expected, ()), olm.Rules)

    def test_a_sum_knows_its_tables(self) -> None:
        one, two, three = (dict.fromkeys(text, 1) for text in ("abc", "de", "f"))
        expected = [tuple(olm.Rules(table)) for table in (one, two, three)]
        assert (olm.Rules(one) + two + three).tables == expected
        assert (one + (olm.Rules(two) + three)).tables == expected
        assert olm.Rules(olm.Rules(one) + two).tables == expected[:2]
        assert olm.Rules().tables == [()]

    def test_a_later_change_to_the_mapping_has_no_effect(self) -> None:
        table = {"a": 1}
        rules = olm.Rules(table)
        table["a"] = 9
        assert multiplier(rules, "a") == 1

    def test_are_no_pytree(self) -> None:
        rules = olm.Rules({"b": 1, "a": 2})
        assert jax.tree.leaves({"rules": rules}) == [rules]

    def test_print_as_they_are_written(self) -> None:
        rules = olm.Rules({"a": 0.5, re.compile("b"): olm.per_layer([1, 2], axis=1)})
        text = "Rules([('a', 0.5), (re.compile('b'), per_layer([1, 2], axis=1))])"
        assert repr(rules) == text
        assert str(rules[0]) == "'a'"
        assert str(rules[1]) == "/b/"
        assert "named_rate" in repr(olm.Rules(named_rate))

    @pytest.mark.parametrize(
        "table", ["stem", b"stem", {"a", "b"}, 0.1, True, jnp.ones(2), np.ones((2, 2))]
    )
    def test_of_a_wrong_type_are_an_error(self, table: Any) -> None:
        with pytest.raises(TypeError, match="must be a mapping"):
            olm.Rules(table)

    @pytest.mark.parametrize("row", ["ab", ("a",), ("a", 1, 2), 1, {"a": 1, "b": 2}])
    def test_of_wrong_rows_are_an_error(self, row: Any) -> None:
        with pytest.raises(TypeError, match=r"must be a \(pattern, multiplier\) pair"):
            olm.Rules([row])

    def test_a_pair_of_tables_is_no_table(self) -> None:
        tables = olm.GroupRules(olm.Rules({"a": 1}), olm.Rules())
        with pytest.raises(TypeError, match=r"Of GroupRules take \.learning_rate"):
            olm.Rules(tables)

    def test_a_model_in_the_wrong_place_is_not_printed_whole(self) -> None:
        params = {"stem": {f"kernel_{i}": i for i in range(1000)}}
        with pytest.raises(TypeError, match="rule 'stem' must be") as error:
            olm.Rules(params)
        assert len(str(error.value)) < 400

    @pytest.mark.parametrize("pattern", [1, None, ("a", "b"), b"a", re.compile(b"a")])
    def test_with_wrong_patterns_are_an_error(self, pattern: Any) -> None:
        with pytest.raises(TypeError, match="one rule for each pattern"):
            olm.Rules({pattern: 1.0})


def named_rate(name: str) -> float | None:
    return None


class TestMultipliers:
    @pytest.mark.parametrize(
        "number",
        [
            2,
            2.0,
            np.float32(2),
            np.float64(2),
            np.int8(2),
            jnp.float32(2),
            jnp.bfloat16(2),
            jnp.int32(2),
            np.array(2.0),
            fractions.Fraction(2),
        ],
    )
    def test_numbers_become_floats(self, number: Any) -> None:
        value = olm.Rule("a", number).multiplier
        assert type(value) is float
        assert value == 2.0

    @pytest.mark.parametrize(
        "value",
        [
            True,
            np.bool_(True),
            jnp.array(True),
            1j,
            np.complex64(1),
            jnp.complex64(1),
            "0.1",
            None,
            [1.0],
            float,
            object(),
            b"1",
        ],
    )
    def test_other_types_are_an_error_that_names_the_rule(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"rule 'stem' must be a real number"):
            olm.Rules({"stem": value})

    def test_the_error_says_what_to_write(self) -> None:
        with pytest.raises(TypeError, match=r"not True \(bool\)\. Write 1\.0 or 0\.0"):
            olm.Rule("stem", True)
        with pytest.raises(TypeError, match=r"shape \(2,\)\. .* write per_layer"):
            olm.Rule("stem", jnp.ones(2))

    @pytest.mark.parametrize(
        "value", [float("nan"), float("inf"), -np.inf, np.float32("nan"), 10**400, 1e39]
    )
    def test_numbers_that_are_not_finite_are_an_error(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"rule /block_\.\*/ must be finite"):
            olm.Rules({re.compile("block_.*"): value})

    def test_traced_scalars_stay(self) -> None:
        kept = []
        jax.jit(lambda m: kept.append(olm.Rule("a", m).multiplier is m))(1.0)
        assert kept == [True]
        with pytest.raises(TypeError, match="rule 'a' is an array of shape"):
            jax.jit(lambda m: olm.Rule("a", m) and m)(jnp.ones(2))

    def test_a_function_may_not_return_a_schedule(self) -> None:
        def rate(name: str) -> Any:
            return lambda step: 1.0

        with pytest.raises(TypeError, match="returned a schedule for 'x'"):
            olm.Rules(rate).find("x")

    def test_a_function_must_return_a_multiplier(self) -> None:
        with pytest.raises(TypeError, match=r"function .*<lambda> for 'x' must be"):
            olm.Rules(lambda name: "fast").find("x")


class TestPerLayer:
    def test_takes_what_a_rule_takes(self) -> None:
        layers = olm.per_layer(np.array([0, 0.5]), axis=-1)
        assert layers.values == (0.0, 0.5)
        assert olm.per_layer(iter([1, 2])) == olm.per_layer([1.0, 2.0])

    @pytest.mark.parametrize("values", [1.0, "12", None])
    def test_takes_several_values(self, values: Any) -> None:
        with pytest.raises(TypeError, match="one multiplier for each layer"):
            olm.per_layer(values)

    def test_names_the_layer_that_is_wrong(self) -> None:
        with pytest.raises(TypeError, match="layer 1 of per_layer must be"):
            olm.per_layer([1.0, True])
        with pytest.raises(ValueError, match="layer 0 of per_layer must be finite"):
            olm.per_layer([np.inf, 1.0])

    def test_is_not_empty_and_has_an_integer_axis(self) -> None:
        with pytest.raises(ValueError, match="values is empty"):
            olm.per_layer([])
        for axis in (0.0, True, "0"):
            with pytest.raises(TypeError, match="axis must be an integer"):
                olm.per_layer([1.0], axis=axis)


class TestGlob:
    @pytest.mark.parametrize(
        ("pattern", "name", "matches"),
        [
            ("block_*/kernel", "block_0/kernel", True),
            ("block_*/kernel", "block_0/attn/kernel", False),
            ("block_*/kernel", "x/block_0/kernel", False),
            ("block_?", "block_1", True),
            ("block_?", "block_10", False),
            ("**/kernel", "kernel", True),
            ("**/kernel", "a/b/kernel", True),
            ("**/kernel", "a/my_kernel", False),
            ("enc/**", "enc/a/b", True),
            ("enc/**", "enc", False),
            ("a**c", "a/b/c", True),
            ("h[0-3]", "h2", True),
            ("h[!0-3]", "h2", False),
            ("h[!0-3]", "h5", True),
            ("h[]]", "h]", True),
            ("h[[]", "h[", True),
            ("h[a", "h[a", True),
            ("h[^a]", "h^", True),
            ("h[^a]", "hb", False),
            ("h[\\d]", "h5", False),
            ("a.b", "axb", False),
            ("a\nb", "a\nb", True),
            ("", "", True),
        ],
    )
    def test_matches_in_full(self, pattern: str, name: str, matches: bool) -> None:
        assert bool(olm.glob(pattern).fullmatch(name)) is matches

    @hypothesis.given(st.text("ab/._[]{}()^$\\+-", max_size=8))
    def test_text_without_marks_matches_itself_only(self, text: str) -> None:
        hypothesis.assume("[" not in text)
        assert olm.glob(text).fullmatch(text)
        assert not olm.glob(text).fullmatch(text + "x")

    def test_takes_a_str(self) -> None:
        with pytest.raises(TypeError, match="glob takes a str"):
            olm.glob(re.compile("a"))


class TestByPrefix:
    def test_the_longest_prefix_wins_on_whole_segments(self) -> None:
        table = olm.by_prefix({"": 9, "enc": 2, "enc/layer_1/": 3})
        names = ["enc/layer_1/w", "enc/layer_10/w", "enc", "encoder/w", "x/enc/w"]
        assert [multiplier(table, n) for n in names] == [3, 2, 2, 9, 9]

    def test_takes_text(self) -> None:
        with pytest.raises(TypeError, match="prefixes that are str"):
            olm.by_prefix({1: 2.0})
        assert multiplier(olm.by_prefix([("a.b", 2)]), "axb") == 1


def test_a_rule_is_a_value() -> None:
    rule = olm.Rule("stem", 0.1)
    assert {rule: "seen"}[olm.Rule("stem", 0.1)] == "seen"
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.__setattr__("multiplier", 2)


def test_per_layer_prints_an_array_of_a_state() -> None:
    layers = dataclasses.replace(olm.per_layer([1, 2], axis=1), values=np.ones(2))
    assert repr(layers) == "per_layer([1. 1.], axis=1)"


def test_a_schedule_written_in_c_may_hide_its_arguments() -> None:
    assert olm.Rule("stem", max).multiplier is max
