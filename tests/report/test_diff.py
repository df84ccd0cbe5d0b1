"""What changed between two tables, and what a table changes in an optimizer."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_lrmult as olm


def shapes(dtype: Any = "float32", **names: tuple[int, ...]) -> dict[str, Any]:
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in names.items()}


def change(before: Any, after: Any) -> str | None:
    """What changes for one stacked parameter."""
    rows = (olm.assign(shapes(a=(2, 3)), table) for table in (before, after))
    return olm.report.diff(*rows).get("a")


@dataclasses.dataclass(frozen=True)
class Warmup:
    steps: int

    def __call__(self, step: Any) -> Any:
        return step / self.steps


class TestDiff:
    def test_says_what_changed(self) -> None:
        params = shapes(block_2=(4,), block_10=(4,), head=(4, 10), old=(3,), still=(1,))
        before = olm.assign(params, {"block": 0.5, "head": 1, "still": 3})
        params = shapes(block_2=(4,), block_10=(4,), head=(4, 20), still=(1,))
        table = {"block_1": 0.1, re.compile("block.*"): 0.5, "still": 3}
        after = olm.assign(params | shapes("bfloat16", new=(5,)), table)
        changes = olm.report.diff(before, reversed(after))
        assert list(changes.items()) == [
            ("block_2", "rule 'block' -> /block.*/"),
            ("block_10", "rule 'block' -> 'block_1', value 0.5 -> 0.1"),
            ("head", "shape (4, 10) -> (4, 20), rule 'head' -> None, value 1 -> None"),
            ("new", "new"),
            ("old", "gone"),
        ]
        assert olm.report.diff(before, reversed(before)) == {}
        assert olm.report.diff([], []) == {}

    def test_the_dtype(self) -> None:
        rows = [olm.assign(shapes(dtype, a=(2,)), {}) for dtype in ("float32", "int8")]
        assert olm.report.diff(*rows) == {"a": "dtype float32 -> int8"}

    def test_digits_count(self) -> None:
        assert change({"a": 0.1}, {"a": 0.100000001}) == "value 0.1 -> 0.100000001"
        one, other = olm.per_layer([0.1, 1]), olm.per_layer([0.100000001, 1])
        assert change({"a": one}, {"a": other}) == "another value per_layer([0.1, 1])"
        assert change({"a": one}, {"a": olm.per_layer([0.1, 1])}) is None

    def test_values_of_any_kind(self) -> None:
        assert change({"a": "adam"}, {"a": "muon"}) == "value 'adam' -> 'muon'"
        assert change({"a": ["x"]}, {"a": ["x"]}) is None
        assert change({"a": True}, {"a": None}) == "value True -> None"

    def test_schedules(self) -> None:
        assert change({"a": Warmup(2)}, {"a": Warmup(2)}) is None
        assert change({"a": Warmup(2)}, {"a": Warmup(3)}) == (
            "value Warmup(steps=2) -> Warmup(steps=3)"
        )
        assert change({"a": Warmup(2)}, {"a": 1.0}) == "value Warmup(steps=2) -> 1.0"
        one, other = (optax.linear_schedule(1, 0, n) for n in (10, 9))
        assert change({"a": one}, {"a": one}) is None
        assert re.fullmatch(
            "another value .*schedule.*", change({"a": one}, {"a": other}) or ""
        )
        layers = (olm.per_layer([0.5, schedule]) for schedule in (one, one, other))
        first, same, another = ({"a": value} for value in layers)
        assert change(first, same) is None
        assert (change(first, another) or "").startswith(
            "another value per_layer([0.5, "
        )

    def test_functions_of_the_name_count_by_what_they_return(self) -> None:
        def rate(name: str) -> float:
            return float(len(name))

        assert change(olm.Rules(rate), olm.Rules(rate)) is None
        assert change(olm.Rules({"a": 1.0}), olm.Rules(rate)) is not None

    def test_traced_values_read_the_same(self) -> None:
        found = []
        jax.jit(lambda x: found.append(change({"a": x}, {"a": x + 1})) or x)(1.0)
        assert found == [None]


class TestEffectiveMultipliers:
    PARAMS = {"stem": jnp.ones(4), "block": jnp.ones(4), "head": jnp.ones(4)}
    TABLE = {"stem": 0.1, "block": 0}

    def measured(self, make_tx: Any, **options: Any) -> dict[str, float]:
        found = olm.report.effective_multipliers(
            make_tx, self.TABLE, self.PARAMS, **options
        )
        assert all(type(value) is float for value in found.values())
        return found

    def test_are_the_multipliers_behind_adam_and_nothing_in_front_of_it(self) -> None:
        def behind(table: Any) -> Any:
            return olm.with_name_multipliers(optax.adam(1e-3), table)

        def in_front(table: Any) -> Any:
            return optax.chain(
                olm.scale_by_name_multiplier(table), optax.adam(1e-3, eps=0)
            )

        found = self.measured(behind, steps=3)
        expected = {"stem": 0.1, "block": 0, "head": 1}
        np.testing.assert_allclose(
            [found[n] for n in expected], list(expected.values()), rtol=1e-5
        )
        found = self.measured(in_front, steps=3)
        np.testing.assert_allclose([found["stem"], found["head"]], 1, rtol=1e-4)

    def test_what_does_not_move_without_a_table_has_none(self) -> None:
        found = self.measured(lambda table: optax.set_to_zero(), steps=1)
        assert list(found) == ["block", "head", "stem"]
        assert np.isnan(list(found.values())).all()

    def test_other_names(self) -> None:
        labels = {"stem": "a", "block": "b", "head": "c"}
        found = self.measured(
            lambda table: optax.sgd(1.0), steps=1, param_labels=labels
        )
        assert found == {"a": 1.0, "b": 1.0, "c": 1.0}


class TestEqualLabels:
    """Two parameters that labels give one name, as all the biases, stay two."""

    PARAMS = {"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(2)}
    LABELS = {"a": "x", "b": "x", "c": "y"}

    def test_have_changes_each(self) -> None:
        def rows(table: Any, **sizes: int) -> Any:
            params = {**self.PARAMS, **{k: jnp.ones(n) for k, n in sizes.items()}}
            return olm.assign(params, table, param_labels=self.LABELS)

        before = rows({"x": 0.5})
        assert olm.report.diff(before, rows({"x": 0.5}, a=3)) == {
            "x": "shape (2,) -> (3,)"
        }
        assert olm.report.diff(before, rows({"x": 0.5}, b=3)) == {
            "x#1": "shape (2,) -> (3,)"
        }
        assert olm.report.diff(before, before[1:]) == {"x#1": "gone"}

    def test_have_ratios_each(self) -> None:
        factors = {"a": "half", "b": "one", "c": "one"}

        def make(table: Any) -> Any:
            return olm.with_name_multipliers(
                optax.sgd(0.1), table, param_labels=factors, on_unmatched="ignore"
            )

        found = olm.report.effective_multipliers(
            make, {"half": 0.5}, self.PARAMS, param_labels=self.LABELS
        )
        assert found == {"x": 0.5, "x#1": 1.0, "y": 1.0}
