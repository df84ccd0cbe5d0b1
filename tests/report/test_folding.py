"""Names that differ in numbers share a line, and nothing hides behind another."""

import re
from typing import Any

import jax
import pytest

import optax_lrmult as olm


def lines(params: dict[str, Any], table: Any = None, **options: Any) -> list[str]:
    """The parameters' table, without its header and shapes."""
    text = str(olm.preview(params, table, **options)).split("\n\n")[0]
    rows = [" ".join(line.split()) for line in text.splitlines()[1:]]
    return [row.replace(" (2,)", "") for row in rows]


def totals(params: dict[str, Any], table: Any = None, **options: Any) -> list[str]:
    text = str(olm.preview(params, table, **options)).split("\n\n")[1]
    return [" ".join(line.split()[:-2]) for line in text.splitlines()[1:-1]]


def flat(
    *names: str, shape: tuple[int, ...] = (2,), dtype: str = "float32"
) -> dict[str, Any]:
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name in names}


def blocks(count: int, *inner: str) -> dict[str, Any]:
    return {f"block_{i}": flat(*(inner or ("w",))) for i in range(count)}


class TestNames:
    @pytest.mark.parametrize(
        ("numbers", "text"),
        [
            ([0], "0"),
            ([0, 1], "{0,1}"),
            ([0, 1, 2], "{0..2}"),
            ([2, 9, 10, 11], "{2,9..11}"),
            ([0, 1, 2, 4, 6, 7, 8, 11, 12], "{0..2,4,6..8,11,12}"),
        ],
    )
    def test_numbers_in_braces(self, numbers: list[int], text: str) -> None:
        assert lines(flat(*(f"w{i}_" for i in numbers))) == [f"w{text}_"]

    def test_padded_numbers_stay_as_they_are(self) -> None:
        assert lines(flat("w08", "w09", "w10")) == ["w{08..10}"]

    def test_lists_and_several_numbers_in_a_name(self) -> None:
        params = {f"h_{i}": flat(*(f"mlp_{j}" for j in range(4))) for i in range(3)}
        assert lines(params) == ["h_{0..2}/mlp_{0..3}"]
        assert lines({"h": list(flat("a", "b", "c").values())}) == ["h/{0..2}"]

    def test_a_line_stands_for_all_combinations_in_it(self) -> None:
        sizes = {0: 2, 1: 2, 2: 5}
        params = {
            f"stage_{i}": {"blocks": list(flat(*map(str, range(n))).values())}
            for i, n in sizes.items()
        }
        assert lines(params) == [
            "stage_{0,1}/blocks/{0,1}",
            "stage_2/blocks/{0..4}",
        ]

    def test_lines_stand_where_their_first_one_was(self) -> None:
        params = blocks(11, "a", "b") | flat("block_last", "embed")
        assert lines(params, {"/b": 2, "emb": 2}) == [
            "block_{0..10}/a - -",
            "block_{0..10}/b '/b' 2",
            "block_last - -",
            "embed 'emb' 2",
        ]

    def test_full_shows_each(self) -> None:
        assert lines(blocks(3), full=True) == [f"block_{i}/w" for i in (0, 1, 2)]

    def test_another_shape_or_dtype_stands_alone(self) -> None:
        others = flat("w1", shape=(3,)) | flat("w3", dtype="bfloat16")
        assert lines(flat("w0", "w2", "w4") | others) == ["w{0,2,4}", "w1 (3,)", "w3"]

    def test_names_that_are_the_same(self) -> None:
        params = flat("a", "b")
        text = str(
            olm.preview(params, {"all": 2}, param_labels=dict.fromkeys(params, "all"))
        )
        assert text.splitlines()[1].split() == ["all", "(2,)", "'all'", "2"]
        assert text.splitlines()[-1].split() == ["all", "4", "100.0%"]


class TestValues:
    def test_another_rule_stands_alone(self) -> None:
        assert lines(blocks(8), {"block_3": 0.1, "block": 0.1}) == [
            "block_{0..2,4..7}/w 'block' 0.1",
            "block_3/w 'block_3' 0.1",
        ]

    def test_rules_that_differ_in_numbers_share_a_line(self) -> None:
        table = {f"block_{i}/": 0.1 for i in range(3)}
        assert lines(blocks(4), table) == [
            "block_{0..2}/w 'block_{0..2}/' 0.1",
            "block_3/w - -",
        ]

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            ([0.1, 0.2, 0.4, 1], "0.1 .. 1"),
            ([1, 0.5, 0.5, 0.5], "1 .. 0.5"),
            ([0.1, 0.3, 0.2, 0.4], "0.1 to 0.4"),
            ([0.5, 0.1, 0.5, 0.5], "0.1 to 0.5"),
            ([-0.1, -0.2, -0.3, -4], "-0.1 .. -4"),
        ],
    )
    def test_numbers_are_shown_by_their_ends(
        self, values: list[float], text: str
    ) -> None:
        stack = flat("stack", shape=(4, 2))
        assert lines(stack, {"": olm.per_layer(values)}) == [
            f"stack (4, 2) {text} per layer"
        ]

    @pytest.mark.parametrize("values", [[0.1, 0.2, 0.4, 1], [-4, -3, -2, -1]])
    def test_blocks_whose_numbers_rise_share_a_line(self, values: list[float]) -> None:
        table = {f"block_{i}": value for i, value in enumerate(values)}
        text = f"{values[0]} .. {values[-1]}"
        assert lines(blocks(4), table) == [f"block_{{0..3}}/w 'block_{{0..3}}' {text}"]

    def test_blocks_whose_numbers_go_up_and_down_do_not(self) -> None:
        """A line would not say what each of them gets."""
        table = {"block_0": 1, "block_1": 0.5, "block_2": 0.7, "block_3": 0.5}
        assert lines(blocks(4), table) == [
            "block_0/w 'block_0' 1",
            "block_{1,3}/w 'block_{1,3}' 0.5",
            "block_2/w 'block_2' 0.7",
        ]

    @pytest.mark.parametrize("first", [0, -0.1])
    def test_what_is_frozen_or_climbs_does_not_hide(self, first: float) -> None:
        table = {"block_0": first, "block_1": 0.1, "block_2": 0.2, "block_3": 0.4}
        assert lines(blocks(4), table) == [
            f"block_0/w 'block_0' {first}",
            "block_{1..3}/w 'block_{1..3}' 0.1 .. 0.4",
        ]

    def test_columns_are_all_looked_at(self) -> None:
        decay = {"block_1": 0, "": 0.1}
        assert lines(blocks(3), {"block_2": 2}, weight_decay=decay, b1=0.9) == [
            "block_0/w - - '' 0.1 0.9",
            "block_1/w - - 'block_1' 0 0.9",
            "block_2/w 'block_2' 2 '' 0.1 0.9",
        ]

    def test_a_function_has_one_rule_for_all(self) -> None:
        def rate(name: str) -> float:
            return 1 / (1 + int(name[6]))

        (line,) = lines(blocks(5), olm.Rules(rate))
        assert re.fullmatch(r"block_\{0\.\.4\}/w .*rate 1 \.\. 0\.2", line)

    def test_schedules_share_a_line_if_they_read_the_same(self) -> None:
        class At:
            def __init__(self, step: int) -> None:
                self.step = step

            def __call__(self, step: Any) -> Any:
                return step >= self.step

            def __repr__(self) -> str:
                return f"At({self.step})"

        table = {f"block_{i}": At(10 + i) for i in range(3)}
        assert lines(blocks(3), table) == [
            "block_{0..2}/w 'block_{0..2}' 0, then At({10..12})"
        ]

    def test_traced_values_share_a_line(self) -> None:
        found = []
        jax.jit(lambda m: found.append(lines(blocks(4), {"block_": m, "": 1})) or m)(
            0.5
        )
        assert found == [["block_{0..3}/w 'block_' traced float32"]]

    def test_labels(self) -> None:
        labels = {"block_0": "a1", "block_1": "a2", "": "b"}
        assert lines(blocks(4), labels=labels) == [
            "block_{0,1}/w 'block_{0,1}' a{1,2}",
            "block_{2,3}/w '' b",
        ]


class TestTotals:
    def test_rules_that_differ_in_numbers_share_a_line(self) -> None:
        table = {f"block_{i}/": 0.5 + i for i in range(4)}
        assert totals(blocks(4), table) == ["'block_{0..3}/'"]

    def test_a_rule_that_freezes_stands_alone(self) -> None:
        table = {"block_0": 0, "block_1": 0.5, "block_2": 0.5}
        assert totals(blocks(3), table) == ["'block_{1,2}' 4", "'block_0' 2"]

    def test_are_those_of_all_parameters_of_a_rule(self) -> None:
        params = blocks(3, "a") | {"block_3": flat("a", shape=(10,))}
        table = {f"block_{i}": 0.5 for i in range(4)}
        assert len(lines(params, table)) == 2
        assert totals(params, table) == ["'block_{0..3}'"]
        assert "16" in str(olm.preview(params, table)).splitlines()[-1]


def test_data_are_not_folded() -> None:
    params, table = blocks(12, "a", "b"), {"block_1": 0.1, "/a": 2}
    folded, full = (olm.preview(params, table, full=full) for full in (False, True))
    assert len(folded.to_dict()["parameters"]) == 24
    assert folded.to_dict() == full.to_dict()
    assert folded.to_csv() == full.to_csv()
    assert len(str(folded).splitlines()) < len(str(full).splitlines())
