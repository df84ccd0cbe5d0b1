"""Constraints on the whole new value, by name."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS = {"kernel": jnp.array([[3.0, 0.3], [4.0, 0.4]]), "bias": jnp.array([-1.0, 2.0])}
STILL = jax.tree.map(jnp.zeros_like, PARAMS)


def projected(constraints: Any, updates: Any = STILL, params: Any = PARAMS) -> Any:
    tx = olm.constrain_by_name(constraints)
    updates, _ = jax.jit(tx.update)(updates, tx.init(params), params)
    return optax.apply_updates(params, updates)


def test_the_first_rule_that_matches_projects_the_new_value() -> None:
    table = {"bias": olm.non_negative(), "": olm.max_norm(1.0)}
    params = projected(table)
    np.testing.assert_array_equal(params["bias"], [0, 2])
    np.testing.assert_allclose(params["kernel"], [[0.6, 0.3], [0.8, 0.4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (olm.unit_norm(axis=0), [[0.6, 0.6], [0.8, 0.8]]),
        (olm.unit_norm(axis=(0, 1)), [[0.59702, 0.0597], [0.79603, 0.0796]]),
        (olm.max_norm(), [[1.2, 0.3], [1.6, 0.4]]),
        (olm.max_norm(1.0, axis=1), [[0.99504, 0.0995], [0.99504, 0.0995]]),
    ],
)
def test_norms_are_taken_along_axes(constraint: Any, expected: Any) -> None:
    np.testing.assert_allclose(
        projected({"kernel": constraint})["kernel"], expected, 1e-3
    )


def test_an_update_that_violates_nothing_stays_to_the_last_bit() -> None:
    updates = jax.tree.map(lambda x: x * 0.1234567, PARAMS)
    tx = olm.constrain_by_name({"kernel": olm.non_negative()})
    result, state = tx.update(updates, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(result["kernel"], updates["kernel"])
    assert result["bias"] is updates["bias"]
    assert state == optax.EmptyState()


def test_a_zero_norm_is_no_division_by_zero() -> None:
    params = {"kernel": jnp.zeros((2, 2))}
    for constraint in (olm.unit_norm(), olm.max_norm()):
        result = projected({"kernel": constraint}, params, params)
        np.testing.assert_array_equal(result["kernel"], 0)


def test_a_nan_is_not_hidden() -> None:
    params = {"bias": jnp.array([jnp.nan, -1.0])}
    result = projected({"bias": olm.non_negative()}, {"bias": jnp.zeros(2)}, params)
    np.testing.assert_array_equal(result["bias"], [jnp.nan, 0])


def test_projections_of_optax_serve_as_constraints() -> None:
    simplex = optax.projections.projection_simplex
    assert np.isclose(projected({"bias": simplex})["bias"].sum(), 1)


def test_frozen_parameters_are_constrained_too() -> None:
    tx = optax.chain(
        optax.sgd(0.1),
        olm.scale_by_name_multiplier({"kernel": 0}),
        olm.constrain_by_name({"kernel": olm.unit_norm()}),
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    new = optax.apply_updates(PARAMS, updates)["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(new, axis=0), 1, rtol=1e-6)


def test_dtypes_are_kept() -> None:
    updates = jax.tree.map(lambda x: x.astype(jnp.bfloat16), STILL)
    tx = olm.constrain_by_name({"": olm.unit_norm()})
    result, _ = tx.update(updates, tx.init(PARAMS), PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("value", [2.0, olm.per_layer([1.0])])
def test_refuses_what_is_no_function(value: Any) -> None:
    with pytest.raises(
        TypeError, match=r"constraint of rule 'kernel' must be a function"
    ):
        olm.constrain_by_name({"kernel": value})
    with pytest.raises(TypeError, match=r"not the function .* alone"):
        olm.constrain_by_name(lambda name: olm.unit_norm())


def test_refuses_a_change_of_shape() -> None:
    with pytest.raises(ValueError, match=r"'kernel' of shape \(2, 2\) into shape \(\)"):
        projected({"kernel": jnp.sum})


def test_needs_params() -> None:
    tx = olm.constrain_by_name({"kernel": olm.unit_norm()})
    with pytest.raises(ValueError, match=r"call update\(updates, state, params\)"):
        tx.update(STILL, tx.init(PARAMS))


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_refuses_a_norm_that_is_not_positive(value: float) -> None:
    with pytest.raises(ValueError, match="max_value must be"):
        olm.max_norm(value)


def test_a_constraint_that_was_not_called_is_told() -> None:
    with pytest.raises(TypeError) as caught:
        olm.constrain_by_name({"kernel": olm.non_negative})
    (note,) = caught.value.__notes__
    assert note.endswith('{"kernel": non_negative()}, with its parentheses.')


def test_norms_of_float16_and_complex_numbers() -> None:
    """The square of 200 is no float16, and that of 1j is negative."""
    half = jnp.full(4, 200, jnp.float16)
    chex.assert_trees_all_equal(olm.unit_norm()(half), jnp.full(4, 0.5, jnp.float16))
    chex.assert_trees_all_equal(olm.max_norm(1000.0)(half), half)
    value = jnp.array([3.0, 4.0j])
    chex.assert_trees_all_close(olm.unit_norm()(value), value / 5)
    chex.assert_trees_all_close(olm.max_norm(1.0)(value), value / 5)


def test_a_constraint_among_multipliers_is_told() -> None:
    tx = olm.scale_by_name_multiplier({"": olm.non_negative()})
    with pytest.raises(TypeError, match="Write it into constrain_by_name"):
        tx.update(PARAMS, tx.init(PARAMS))
