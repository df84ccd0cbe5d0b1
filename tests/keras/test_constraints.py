"""Constraints on the whole new value, by name."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from optax_lrmult.keras import constrain_by_name, max_norm, non_negative, unit_norm

PARAMS = {"kernel": jnp.array([[3.0, 0.3], [4.0, 0.4]]), "bias": jnp.array([-1.0, 2.0])}
STILL = jax.tree.map(jnp.zeros_like, PARAMS)


def projected(constraints: Any, updates: Any = STILL, params: Any = PARAMS) -> Any:
    tx = constrain_by_name(constraints)
    updates, _ = tx.update(updates, tx.init(params), params)
    return optax.apply_updates(params, updates)


def test_the_first_rule_that_matches_projects_the_new_value() -> None:
    tx = constrain_by_name({"bias": non_negative(), "": max_norm(1.0)})
    updates, state = jax.jit(tx.update)(STILL, tx.init(PARAMS), PARAMS)
    params = optax.apply_updates(PARAMS, updates)
    np.testing.assert_array_equal(params["bias"], [0, 2])
    np.testing.assert_allclose(params["kernel"], [[0.6, 0.3], [0.8, 0.4]], rtol=1e-6)
    assert state == optax.EmptyState()


def test_a_function_of_the_name_is_a_table_too() -> None:
    table = olm.Rules(lambda name: non_negative() if name == "bias" else None)
    np.testing.assert_array_equal(projected(table)["bias"], [0, 2])


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (unit_norm(axis=0), [[0.6, 0.6], [0.8, 0.8]]),
        (unit_norm(axis=(0, 1)), [[0.59702, 0.0597], [0.79603, 0.0796]]),
        (max_norm(), [[1.2, 0.3], [1.6, 0.4]]),
        (max_norm(1.0, axis=1), [[0.99504, 0.0995], [0.99504, 0.0995]]),
    ],
)
def test_norms_are_taken_along_axes(constraint: Any, expected: Any) -> None:
    np.testing.assert_allclose(
        projected({"kernel": constraint})["kernel"], expected, 1e-3
    )


def test_an_update_that_violates_nothing_stays_to_the_last_bit() -> None:
    updates = jax.tree.map(lambda x: x * 0.1234567, PARAMS)
    tx = constrain_by_name({"kernel": non_negative()})
    result, _ = tx.update(updates, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(result["kernel"], updates["kernel"])
    assert result["bias"] is updates["bias"]


def test_a_zero_norm_is_no_division_by_zero() -> None:
    params = {"kernel": jnp.zeros((2, 2))}
    for constraint in (unit_norm(), max_norm()):
        result = projected({"kernel": constraint}, params, params)
        np.testing.assert_array_equal(result["kernel"], 0)


def test_a_nan_is_not_hidden() -> None:
    params = {"bias": jnp.array([jnp.nan, -1.0])}
    result = projected({"bias": non_negative()}, {"bias": jnp.zeros(2)}, params)
    np.testing.assert_array_equal(result["bias"], [jnp.nan, 0])


def test_projections_of_optax_serve_as_constraints() -> None:
    simplex = optax.projections.projection_simplex
    assert np.isclose(projected({"bias": simplex})["bias"].sum(), 1)


def test_dtypes_of_updates_are_kept() -> None:
    updates = jax.tree.map(lambda x: x.astype(jnp.bfloat16), STILL)
    tx = constrain_by_name({"": unit_norm()})
    result, _ = tx.update(updates, tx.init(PARAMS), PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("bfloat16")}


def test_norms_are_taken_in_float32_at_least() -> None:
    """In bfloat16 the norm would be off by another rounding, 2^-8 of itself."""
    value = jnp.full(2, 183 / 128, jnp.bfloat16)
    for constraint in (unit_norm(), max_norm(1.0)):
        result = constraint(value)
        assert result.dtype == jnp.bfloat16
        np.testing.assert_allclose(result.astype(float), np.sqrt(0.5), rtol=2**-8)


def test_norms_of_complex_numbers_are_real() -> None:
    value = jnp.array([3.0, 4.0j])
    chex.assert_trees_all_close(unit_norm()(value), value / 5)
    chex.assert_trees_all_close(max_norm(1.0)(value), value / 5)


@pytest.mark.parametrize("value", [2.0, olm.per_layer([1.0]), non_negative, max_norm])
def test_refuses_what_is_no_constraint(value: Any) -> None:
    text = r"constraint of rule 'kernel' must be a function of an array, as non_neg"
    with pytest.raises(TypeError, match=text):
        constrain_by_name({"kernel": value})


@pytest.mark.parametrize(
    "change", [jnp.sum, lambda x: x.astype(jnp.bfloat16)], ids=["shape", "dtype"]
)
def test_refuses_a_change_of_shape_or_dtype(change: Any) -> None:
    with pytest.raises(
        ValueError, match=r"'kernel' must be an array of shape \(2, 2\) and float32"
    ):
        projected({"kernel": change})


def test_needs_params() -> None:
    tx = constrain_by_name({"kernel": unit_norm()})
    with pytest.raises(ValueError, match=r"call update\(updates, state, params\)"):
        tx.update(STILL, tx.init(PARAMS))


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_refuses_a_norm_that_is_not_positive(value: float) -> None:
    with pytest.raises(ValueError, match="max_value must be"):
        max_norm(value)


def test_a_largest_norm_may_be_traced() -> None:
    halved = jax.jit(lambda c: max_norm(c)(PARAMS["kernel"]))(2.5)
    np.testing.assert_allclose(halved, [[1.5, 0.3], [2.0, 0.4]], rtol=1e-6)


def test_a_constraint_among_multipliers_is_told() -> None:
    tx = olm.scale_by_name_multiplier({"": non_negative()})
    with pytest.raises(TypeError, match="as in a table of constrain_by_name"):
        tx.update(PARAMS, tx.init(PARAMS))
