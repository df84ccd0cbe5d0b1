"""What changed between two assignments, as data and as golden text."""

import dataclasses
import re
from typing import Any

import jax
import optax
import pytest

import optax_lrmult as olm
from optax_lrmult._comparison import assignment_diff


def shapes(dtype: Any = "float32", **names: tuple[int, ...]) -> dict[str, Any]:
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in names.items()}


def diff(before: Any, after: Any, params: Any = None) -> str:
    params = shapes(a=(2, 3)) if params is None else params
    return str(assignment_diff(olm.assign(params, before), olm.assign(params, after)))


@dataclasses.dataclass(frozen=True)
class Warmup:
    steps: int

    def __call__(self, step: Any) -> Any:
        return step / self.steps


class Printed:
    """A schedule that says what it is, but leaves equality to identity."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        return step / self.steps

    def __repr__(self) -> str:
        return f"Printed({self.steps})"


BEFORE = olm.assign(
    shapes(
        block_2=(4,), block_10=(4,), head=(4, 10), old=(3,), stack=(2, 3), still=(1,)
    ),
    {"block": 0.5, "head": 1, "stack": olm.per_layer([0, 1]), "still": 3},
)
AFTER = olm.assign(
    shapes(block_2=(4,), block_10=(4,), head=(4, 20), stack=(2, 3), still=(1,))
    | shapes("bfloat16", new=(5,)),
    {
        "block_1": 0.1,
        re.compile("block.*"): 0.5,
        "stack": olm.per_layer([0.5, 1]),
        "new": Warmup(10),
        "still": 3,
    },
)


def test_says_what_changed() -> None:
    assert (
        str(assignment_diff(BEFORE, AFTER))
        == """\
+ new: shape (5,), dtype bfloat16, rule 'new', multiplier Warmup(steps=10)
- old: shape (3,), dtype float32, rule -, multiplier 1
~ block_2: rule 'block' -> /block.*/
~ block_10: rule 'block' -> 'block_1', multiplier 0.5 -> 0.1
~ head: shape (4, 10) -> (4, 20), rule 'head' -> -
~ stack: multiplier per_layer([0, 1]) -> per_layer([0.5, 1])"""
    )


def test_has_the_rows_as_data() -> None:
    changes = assignment_diff(BEFORE, iter(AFTER))
    old = {row.name: row for row in BEFORE}
    new = {row.name: row for row in AFTER}
    assert changes.added == (new["new"],)
    assert changes.removed == (old["old"],)
    names = ["block_2", "block_10", "head", "stack"]
    assert changes.changed == tuple((old[name], new[name]) for name in names)
    assert changes
    assert repr(changes) == str(changes)


def test_no_change() -> None:
    changes = assignment_diff(BEFORE, BEFORE)
    assert not changes
    assert str(changes) == repr(changes) == "no change"
    assert str(assignment_diff([], [])) == "no change"
    assert str(assignment_diff(reversed(BEFORE), BEFORE)) == "no change"
    assert changes.added == changes.removed == changes.changed == ()


def test_digits_that_a_table_does_not_show() -> None:
    assert diff({"a": 0.1}, {"a": 0.100000001}) == "~ a: multiplier 0.1 -> 0.100000001"
    before, after = olm.per_layer([0.1, 1]), olm.per_layer([0.100000001, 1])
    assert diff({"a": before}, {"a": after}, shapes(a=(2, 2))) == (
        "~ a: multiplier per_layer([0.1, 1.0], axis=0) -> "
        "per_layer([0.100000001, 1.0], axis=0)"
    )


def test_per_layer() -> None:
    def change(values: list[Any], axis: int = 0) -> str:
        table, params = olm.per_layer(values, axis), shapes(a=(2, 2))
        return diff({"a": olm.per_layer([0.1, Warmup(2)])}, {"a": table}, params)

    assert change([0.1, Warmup(2)]) == "no change"
    assert change([0.1, Warmup(3)]).endswith("per_layer([0.1, Warmup(steps=3)])")
    assert change([0.1, Warmup(2)], axis=1).endswith("Warmup(steps=2)], axis=1)")


def test_schedules() -> None:
    assert diff({"a": Warmup(2)}, {"a": Warmup(2)}) == "no change"
    assert diff({"a": Printed(2)}, {"a": Printed(2)}) == "no change"
    assert diff({"a": Printed(2)}, {"a": Printed(3)}) == (
        "~ a: multiplier Printed(2) -> Printed(3)"
    )
    assert "Warmup(steps=2) -> Warmup(steps=3)" in diff(
        {"a": Warmup(2)}, {"a": Warmup(3)}
    )
    assert diff({"a": Warmup(2)}, {"a": 1}) == "~ a: multiplier Warmup(steps=2) -> 1"
    schedule = optax.linear_schedule(1, 0, 10)
    assert diff({"a": schedule}, {"a": schedule}) == "no change"
    assert "<function" in diff({"a": schedule}, {"a": optax.linear_schedule(1, 0, 9)})


def test_a_schedule_whose_equality_and_repr_disagree_is_another() -> None:
    class Terse(Printed):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Terse) and self.steps == other.steps

        def __hash__(self) -> int:
            return self.steps

        def __repr__(self) -> str:
            return "Terse()"

    assert diff({"a": Terse(2)}, {"a": Terse(2)}) == "no change"
    assert diff({"a": Terse(2)}, {"a": Terse(3)}) == (
        "~ a: multiplier Terse() -> Terse()"
    )


def test_functions_of_the_name_count_by_what_they_return() -> None:
    def make(value: float) -> Any:
        return lambda name: value

    assert diff(make(0.5), make(0.5)) == "no change"
    assert diff(make(0.5), make(0.25)) == "~ a: multiplier 0.5 -> 0.25"


def test_traced_multipliers_under_jit() -> None:
    def traced(x: jax.Array) -> jax.Array:
        assert diff({"a": x}, {"a": x}) == "no change"
        assert diff({"a": x}, {"a": x + 1}).startswith("~ a: multiplier ")
        return x

    jax.jit(traced)(1.0)


def test_the_dtype() -> None:
    rows = [olm.assign(shapes(t, a=(2,)), {}) for t in ("float32", "bfloat16")]
    assert str(assignment_diff(*rows)) == "~ a: dtype float32 -> bfloat16"


def test_labels_that_stand_twice() -> None:
    params = shapes(a=(2,), b=(3,))
    one = olm.assign(params, {}, param_labels={"a": "group", "b": "group"})
    two = olm.assign(shapes(a=(2,)), {}, param_labels={"a": "group"})
    assert str(assignment_diff(one, one)) == "no change"
    assert str(assignment_diff(one, two)).startswith("- group: shape (3,)")


def test_takes_assignments_only() -> None:
    with pytest.raises(
        TypeError, match=r"after must be what assign.*holds 'a' \(str\)"
    ):
        assignment_diff([], {"a": 0.1})


def test_expressions_that_differ_where_they_are_cut() -> None:
    first, second = (re.compile(f"a|{'x' * 300}{c}{'x' * 300}") for c in "yz")
    assert diff({first: 2}, {first: 2}) == "no change"
    assert diff({first: 2}, {second: 2}).startswith("~ a: rule /a|xxx")
