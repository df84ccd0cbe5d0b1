"""Names that count up share a row, and nothing hides behind another."""

from typing import Any

import jax
import pytest

import optax_lrmult as olm
from optax_lrmult._folding import folded_text


def names(params: dict[str, Any], table: object, **options: bool) -> list[str]:
    """The first table of the preview, its columns joined by single spaces."""
    lines = str(olm.preview(params, table, **options)).split("\n\n")[0].splitlines()
    return [" ".join(line.split()).replace(" (2,)", "") for line in lines[1:]]


def flat(*texts: str, shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {text: jax.ShapeDtypeStruct(shape, "float32") for text in texts}


def blocks(count: int, *inner: str) -> dict[str, Any]:
    return {f"block_{i}": flat(*(inner or ("w",))) for i in range(count)}


class TestOneRuleAndOneMultiplier:
    def test_three_fold_and_two_do_not(self) -> None:
        assert names(blocks(3), None) == ["block_{0..2}/w - 1"]
        assert names(blocks(2), None) == ["block_0/w - 1", "block_1/w - 1"]

    def test_rows_stand_where_their_first_one_was(self) -> None:
        params = blocks(11, "a", "b") | flat("block_last", "embed")
        assert names(params, {"/b": 2, "emb": 2}) == [
            "block_{0..10}/a - 1",
            "block_{0..10}/b '/b' 2",
            "block_last - 1",
            "embed 'emb' 2",
        ]

    def test_a_number_at_the_end_and_two_numbers(self) -> None:
        params = {f"h_{i}": flat(*(f"mlp_{j}" for j in range(4))) for i in range(3)}
        assert names(params, None) == ["h_{0..2}/mlp_{0..3} - 1"]
        assert names({"h": [*flat("a", "b", "c").values()]}, None) == ["h/{0..2} - 1"]

    def test_padded_numbers_count_up(self) -> None:
        texts = [f"w{i:02}" for i in range(8, 12)]
        assert names(flat(*texts), None) == ["w{08..11} - 1"]
        assert folded_text(["w9", "w10", "w11"]) == "w{9..11}"
        assert folded_text(["w1", "w02", "w3"]) is None

    def test_full_shows_each(self) -> None:
        assert names(blocks(3), None, full=True) == [
            f"block_{i}/w - 1" for i in (0, 1, 2)
        ]

    @pytest.mark.parametrize("gap", [1, 2])
    def test_a_gap_ends_a_row(self, gap: int) -> None:
        texts = [f"w{i}" for i in range(7) if i != 3 + gap]
        before = f"w{{0..{2 + gap}}} - 1"
        after = ["w5 - 1", "w6 - 1"] if gap == 1 else ["w6 - 1"]
        assert names(flat(*texts), None) == [before, *after]

    def test_another_shape_or_dtype_does_not_fold(self) -> None:
        params = flat("w0", "w1", "w3", "w4") | flat("w2", shape=(3,))
        assert len(names(params, None)) == 5
        params = flat("w0", "w1") | {"w2": jax.ShapeDtypeStruct((2,), "bfloat16")}
        assert len(names(params, None)) == 3

    def test_a_block_with_another_multiplier_stands_alone(self) -> None:
        assert names(blocks(8), {"block_3": 0.1}) == [
            "block_{0..2}/w - 1",
            "block_3/w 'block_3' 0.1",
            "block_{4..7}/w - 1",
        ]

    def test_schedules_and_traced_values_fold_if_they_are_one(self) -> None:
        table = {"block_": lambda step: step}
        assert len(names(blocks(4), table)) == 1
        found = []
        jax.jit(lambda m: found.append(names(blocks(4), {"block_": m})) or m)(0.5)
        assert found == [["block_{0..3}/w 'block_' traced float32"]]
        rules = [(f"block_{i}", lambda step: step) for i in range(4)]
        assert len(names(blocks(4), rules)) == 4


class TestMultipliersThatRiseOrFall:
    def test_are_shown_by_their_ends(self) -> None:
        table = olm.layer_decay(0.5, blocks(4) | flat("embed", "head"))
        text = str(olm.preview(blocks(4) | flat("embed", "head"), table))
        first, second = text.split("\n\n")
        assert "block_{0..3}/w  (2,)   prefix 'block_{0..3}'  0.0625 .. 0.5" in first
        for line in (
            "prefix 'block_0'      0.0625 ",
            "prefix 'block_2'        0.25 ",
        ):
            assert line in second

    def test_equal_schedules_of_a_rule_each_share_a_row(self) -> None:
        table = {f"block_{i}/": olm.unfreeze_at(5, 0.5) for i in range(4)}
        assert names(blocks(4), table) == [
            "block_{0..3}/w 'block_{0..3}/' unfreeze_at(5, 0.5)"
        ]
        table = {f"block_{i}/": olm.unfreeze_at(5 * i) for i in range(4)}
        assert len(names(blocks(4), table)) == 4

    def test_a_function_has_one_rule_for_all(self) -> None:
        def rate(name: str) -> float:
            return 1 / (1 + int(name[6]))

        assert names(blocks(5), rate) == ["block_{0..4}/w rate 1 .. 0.2"]

    def test_rules_whose_texts_do_not_count_up_are_counted(self) -> None:
        table = {"block_0": 0.1, "ock_1": 0.2, "k_2": 0.3}
        assert names(blocks(3), table) == ["block_{0..2}/w 3 rules 0.1 .. 0.3"]

    def test_of_a_rule_each_and_one_multiplier(self) -> None:
        table = {f"block_{i}/": 0 for i in range(3)}
        assert names(blocks(4), table) == [
            "block_{0..2}/w 'block_{0..2}/' 0",
            "block_3/w - 1",
        ]

    @pytest.mark.parametrize(
        "values",
        [
            [0.1, 0.3, 0.2, 0.4],  # up and down
            [0.0, 0.1, 0.2],  # frozen and not: two are left
            [-0.1, 0.1, 0.2],  # against and along the gradient
            [0.1, 0.1, 0.2, 0.2],  # in steps
        ],
    )
    def test_others_have_a_row_each(self, values: list[float]) -> None:
        table = [(f"block_{i}/", value) for i, value in enumerate(values)]
        assert len(names(blocks(len(values)), table)) == len(values)

    def test_a_block_without_a_rule_does_not_hide_among_others(self) -> None:
        assert names(blocks(4), {f"block_{i}": 0.1 * (i + 1) for i in (0, 1, 2)}) == [
            "block_{0..2}/w 'block_{0..2}' 0.1 .. 0.3",
            "block_3/w - 1",
        ]

    def test_a_long_run_of_one_multiplier_is_not_torn(self) -> None:
        table = {"block_0": 0.1, "block_": 0.5}
        assert names(blocks(4), table) == [
            "block_0/w 'block_0' 0.1",
            "block_{1..3}/w 'block_' 0.5",
        ]

    def test_per_layer(self) -> None:
        stack = {"stack": jax.ShapeDtypeStruct((5, 2), "float32")}
        rising, other = [0.1, 0.2, 0.3, 0.4, 1], [0.1, 0.3, 0.2, 0.4, 1]
        table = {"stack": olm.per_layer(rising)}
        shown = "stack (5, 2) 'stack' per_layer([0.1 .. 1])"
        assert names(stack, table) == [shown]
        listed = "stack (5, 2) 'stack' per_layer([0.1, 0.2, 0.3, 0.4, 1])"
        assert names(stack, table, full=True) == [listed]
        assert "0.3, 0.2" in names(stack, {"stack": olm.per_layer(other)})[0]


def test_totals_of_rules_that_count_up_and_have_one_multiplier_fold() -> None:
    table = {f"block_{i}/": 0.5 for i in range(4)}
    totals = str(olm.preview(blocks(4), table)).split("\n\n")[1].splitlines()
    assert totals[1].split() == ["'block_{0..3}/'", "0.5", "8", "100.0%"]
    full = str(olm.preview(blocks(4), table, full=True)).split("\n\n")[1]
    assert len(full.splitlines()) == 7


def test_data_are_not_folded() -> None:
    params, table = blocks(12, "a", "b"), {"block_1": 0.1, "/a": 2}
    folded, full = (olm.preview(params, table, full=f) for f in (False, True))
    assert len(folded.to_dict()["parameters"]) == 24
    assert folded.to_dict() == full.to_dict()
    assert folded.to_csv() == full.to_csv()
    assert str(folded) != str(full)
