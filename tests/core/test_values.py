"""What a multiplier may be, and what becomes of it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_lrmult as olm

PARAMS = {"stack": jnp.ones((3, 2)), "head": jnp.ones(2)}


def scaled(value: Any, dtype: Any = "float32") -> Any:
    tx = olm.scale_by_name_multiplier({"head": value})
    updates = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    return tx.update(updates, tx.init(PARAMS))[0]["head"]


@pytest.mark.parametrize(
    "value",
    [2, 2.0, np.float64(2), np.float32(2), np.int8(2), jnp.float32(2), jnp.asarray(2)],
)
def test_a_number_of_any_type_keeps_the_dtype_of_the_update(value: Any) -> None:
    update = scaled(value, "bfloat16")
    assert update.dtype == jnp.bfloat16
    assert update.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (True, TypeError),
        (np.True_, TypeError),
        ("0.1", TypeError),
        (None, TypeError),
        (1j, TypeError),
        (jnp.ones(2), TypeError),
        ([0.1, 0.2], TypeError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (float, TypeError),
    ],
)
def test_what_would_train_silently_wrong_is_refused(
    value: Any, error: type[Exception]
) -> None:
    for table in {"head": value}, {"head": olm.Rules}:
        with pytest.raises(
            error if table["head"] is value else TypeError, match="head"
        ):
            olm.scale_by_name_multiplier(table)


class TestPerLayer:
    def test_prints_and_compares(self) -> None:
        assert repr(olm.per_layer([0.5, 1])) == "per_layer([0.5, 1])"
        assert repr(olm.per_layer([0.5], axis=-1)) == "per_layer([0.5], axis=-1)"
        assert olm.per_layer([1, 2]) == olm.per_layer((1.0, 2.0)) != olm.per_layer([1])

    @pytest.mark.parametrize(
        ("values", "axis", "error"),
        [
            ([], 0, ValueError),
            ([math.nan], 0, ValueError),
            ([True], 0, TypeError),
            ([olm.per_layer([1])], 0, TypeError),
            ([1], "0", TypeError),
        ],
    )
    def test_refuses(self, values: Any, axis: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            olm.per_layer(values, axis)

    @pytest.mark.parametrize(
        ("value", "found"),
        [
            (olm.per_layer([1, 2]), "has 3 there"),
            (olm.per_layer([1, 2, 3], axis=1), "has 2 there"),
            (olm.per_layer([1, 2, 3], axis=2), "has no such axis there"),
        ],
    )
    def test_is_held_against_the_shape_of_the_parameter(
        self, value: Any, found: str
    ) -> None:
        with pytest.raises(ValueError, match=f"Rule 'stack' gives.*'stack'.*{found}"):
            olm.assign(PARAMS, {"stack": value})
        assert len(olm.assign(PARAMS, {"stack": olm.per_layer([1, 2, 3])})) == 2
        assert len(olm.assign(PARAMS, {"stack": olm.per_layer([1, 2], -1)})) == 2


def test_a_schedule_must_return_a_real_scalar() -> None:
    for bad in jnp.ones(2), 1j:
        tx = olm.scale_by_name_multiplier({"head": lambda step, bad=bad: bad})
        with pytest.raises(ValueError, match="a real scalar"):
            tx.update(PARAMS, tx.init(PARAMS))


def test_traced_scalars_stay_traced_and_stand_in_no_config() -> None:
    def traced(value: jax.Array) -> jax.Array:
        for multiplier in value, olm.per_layer([1.0, value]):
            with pytest.raises(ValueError, match="rule 'stem'.*plain data"):
                olm.Rules({"stem": multiplier}).to_config()
        assert repr(olm.per_layer([value])) == "per_layer([traced float32])"
        return scaled(value)

    np.testing.assert_array_equal(jax.jit(traced)(jnp.float32(0.5)), [0.5, 0.5])


def test_traced_values_that_are_no_real_scalars_are_refused() -> None:
    for bad in jnp.ones(2), jnp.complex64(1), jnp.asarray(True):
        with pytest.raises(TypeError, match="rule 'head' must be a"):
            jax.jit(scaled)(bad)
