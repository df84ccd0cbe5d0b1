"""The original's state, from the list of arrays that Keras saves."""

from collections.abc import Mapping
from typing import Any

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm

PARAMS: Mapping[str, Any] = {
    "layer_2": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "layer_10": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
}
MOMENTS = [
    np.full(shape, float(i)) for i, shape in enumerate([(2, 2), (2,), (2, 2), (2,)])
]
WEIGHTS = [np.array(3), *MOMENTS, *MOMENTS]


def state_from(weights: Any = WEIGHTS, params: Any = PARAMS, **options: Any) -> Any:
    return olm.keras.state_from_weights(weights, params, **options)


def test_follow_the_order_in_which_a_mapping_is_written() -> None:
    state = state_from()
    assert isinstance(state, optax.ScaleByAdamState)
    assert state.count == 3
    assert state.mu["layer_2"]["bias"][0] == 1
    assert state.mu["layer_10"]["kernel"][0, 0] == 2


def test_follow_the_names_with_or_without_the_suffix_of_keras() -> None:
    names = ["layer_10/kernel:0", "layer_10/bias:0", "layer_2/kernel", "layer_2/bias"]
    state = state_from(names=names)
    assert state.mu["layer_2"]["bias"][0] == 3


def test_follow_the_names_into_the_boxes_of_a_framework() -> None:
    params = nnx.State({"a": nnx.Param(jnp.ones(2)), "b": nnx.Param(jnp.ones(2))})
    moments = [np.zeros(2), np.ones(2)]
    state = state_from([np.array(3), *moments, *moments], params, names=["b", "a"])
    of_a, of_b = jax.tree.leaves(state.mu)
    assert (of_a[0], of_b[0]) == (1, 0)


def test_refuse_an_order_that_nothing_tells() -> None:
    params = {"layer_1": jnp.ones(2), "layer_2": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"pass names=\[w\.name for w in"):
        state_from([np.array(1), *[np.ones(2)] * 4], params)
    distinct = {"layer_1": jnp.ones(2), "layer_2": jnp.ones(3)}
    moments = [np.ones(2), np.ones(3)]
    assert state_from([np.array(1), *moments, *moments], distinct).count == 1


@pytest.mark.parametrize("amsgrad", [None, False, True])
def test_refuse_a_wrong_number(amsgrad: bool | None) -> None:
    with pytest.raises(ValueError, match=r"13 for 4 parameters .*, or 9 .* not 3"):
        state_from([np.array(1)] * 3, amsgrad=amsgrad)


def test_refuse_amsgrad_without_vhats() -> None:
    with pytest.raises(ValueError, match=r"13 for 4 parameters .* not 9"):
        state_from(amsgrad=True)


def test_refuse_names_that_are_not_the_parameters() -> None:
    with pytest.raises(ValueError, match=r"each once; not on both: \['head', "):
        state_from(names=["head"] * 4)
    params, moments = {"a": jnp.ones(1)}, [np.ones(1)] * 4
    with pytest.raises(ValueError, match=r"those of the parameters, each once"):
        state_from([np.array(3), *moments], params, names=["a", "a"])


def test_refuse_a_shape_that_does_not_fit() -> None:
    weights = [*WEIGHTS]
    weights[1] = np.ones((3, 3))
    with pytest.raises(ValueError, match=r"'layer_2/kernel' must be \(2, 2\), .*3, 3"):
        state_from(weights)


@pytest.mark.parametrize("steps", [-1, 1.5, np.nan, np.zeros(2)])
def test_refuse_what_is_no_number_of_steps(steps: Any) -> None:
    with pytest.raises(ValueError, match="first weight must be the number of iter"):
        state_from([np.asarray(steps), *WEIGHTS[1:]])


def test_vhats_tell_whether_it_is_amsgrad_unless_all_are_of_one_element() -> None:
    placeholders = [np.zeros(1)] * 4
    plain = state_from([*WEIGHTS, *placeholders])
    assert isinstance(plain, optax.ScaleByAdamState)
    whole = state_from([*WEIGHTS, *MOMENTS])
    assert isinstance(whole, optax.ScaleByAmsgradState)
    assert whole.nu_max["layer_2"]["bias"][0] == 1
    weights, params = [np.array(3), *[np.ones(1)] * 3], {"bias": jnp.ones(1)}
    with pytest.raises(ValueError, match="amsgrad must be True or False"):
        state_from(weights, params)
    assert isinstance(
        state_from(weights, params, amsgrad=True), optax.ScaleByAmsgradState
    )
    assert isinstance(
        state_from(weights, params, amsgrad=False), optax.ScaleByAdamState
    )


def test_moments_have_the_dtypes_of_the_parameters() -> None:
    params = {"bias": jnp.ones(2, jnp.bfloat16)}
    state = state_from([np.array(3), np.ones(2), np.ones(2)], params)
    assert state.mu["bias"].dtype == state.nu["bias"].dtype == jnp.bfloat16
