"""`adam` and `adamw` with multipliers: optax's numerics and state, PyTorch's groups."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recorded import Case, assert_within_tolerance, cases

import optax_lrmult as olm

PARAMS = {"stem": jnp.array([1.0, -2.0, 3.0]), "head": jnp.array([[0.5, 4.0]])}
TORCH = cases("torch")


def run(tx: optax.GradientTransformation, steps: int = 12) -> tuple[Any, Any]:
    params, state = PARAMS, tx.init(PARAMS)
    for step in range(steps):
        gradients = jax.tree.map(
            lambda p, s=step: jnp.sin(p + s) * 10.0 ** (-s), params
        )
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


TWINS = {
    "adam": (olm.adam(0.1), optax.adam(0.1)),
    "adam with options": (
        olm.adam(0.1, 0.8, 0.9, 1e-3, 1e-4, jnp.bfloat16, nesterov=True),
        optax.adam(0.1, 0.8, 0.9, 1e-3, 1e-4, jnp.bfloat16, nesterov=True),
    ),
    "adam with a schedule": (
        olm.adam(optax.linear_schedule(0.1, 0, 9)),
        optax.adam(optax.linear_schedule(0.1, 0, 9)),
    ),
    "amsgrad": (
        olm.adam(0.1, 0.8, 0.9, 1e-3, 1e-4, amsgrad=True),
        optax.amsgrad(0.1, 0.8, 0.9, 1e-3, 1e-4),
    ),
    "adamw": (
        olm.adamw(0.1, weight_decay=0.3, mask={"stem": True, "head": False}),
        optax.adamw(0.1, weight_decay=0.3, mask={"stem": True, "head": False}),
    ),
    "adamw by default": (olm.adamw(0.1), optax.adamw(0.1)),
    "adamw with AMSGrad": (
        olm.adamw(0.1, 0.8, weight_decay=0.3, amsgrad=True),
        optax.chain(
            optax.scale_by_amsgrad(0.8),
            optax.add_decayed_weights(0.3),
            optax.scale_by_learning_rate(0.1),
        ),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_without_multipliers_is_optax_bit_for_bit(name: str) -> None:
    ours, plain = TWINS[name]
    chex.assert_trees_all_equal(run(ours), run(plain))


@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (olm.adam, optax.adam),
        (olm.adamw, optax.adamw),
        (lambda *a, **k: olm.adam(*a, amsgrad=True, **k), optax.amsgrad),
        (lambda *a, **k: olm.adam(*a, amsgrad=True, max_of="raw", **k), optax.amsgrad),
    ],
)
@pytest.mark.parametrize("rate", [0.1, optax.constant_schedule(0.1)])
def test_state_is_that_of_optax(ours: Any, plain: Any, rate: Any) -> None:
    table = {"stem": 0.5, "head": lambda step: 1.0}
    state = ours(rate, mu_dtype="bfloat16", multipliers=table).init(PARAMS)
    chex.assert_trees_all_equal(state, plain(rate, mu_dtype="bfloat16").init(PARAMS))


def torch_optimizer(case: Case) -> optax.GradientTransformation:
    config = case.config
    table = config["multipliers"]
    if config["optimizer"] == "SGD":
        tx = optax.sgd(config["lr"], momentum=config["momentum"])
        return olm.with_name_multipliers(tx, table)
    options: dict[str, Any] = {"multipliers": table, "amsgrad": config["amsgrad"]}
    if config["amsgrad"]:
        options["max_of"] = "raw"
    if config["optimizer"] == "AdamW":
        options["weight_decay"] = config["weight_decay"]
    make = {"Adam": olm.adam, "AdamW": olm.adamw}[config["optimizer"]]
    return make(config["lr"], *config["betas"], config["eps"], **options)


def test_the_recordings_of_pytorch_are_here() -> None:
    assert len(TORCH) == 6


@pytest.mark.parametrize("name", TORCH)
def test_agrees_with_pytorchs_parameter_groups(name: str) -> None:
    case = TORCH[name]
    tx = torch_optimizer(case)
    params, state, update = case.initial_params, tx.init(case.initial_params), None
    update = jax.jit(tx.update)
    for index, gradients in enumerate(case.gradients):
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        assert_within_tolerance(params, case.params[index], f"after step {index}")


def test_amsgrad_of_pytorch_and_of_optax_are_not_the_same() -> None:
    raw, _ = run(olm.adam(0.1, amsgrad=True, max_of="raw"))
    corrected, _ = run(olm.adam(0.1, amsgrad=True))
    assert not np.allclose(raw["stem"], corrected["stem"], rtol=1e-3)


def test_multipliers_scale_the_decay_too() -> None:
    tx = olm.adamw(0.1, weight_decay=0.3, multipliers={"stem": 0})
    chex.assert_trees_all_equal(run(tx)[0]["stem"], PARAMS["stem"])


def test_raw_amsgrad_begins_as_optax_does() -> None:
    options = {"eps": 0.25, "eps_root": 0.5}
    raw = olm.adam(0.1, amsgrad=True, max_of="raw", **options)
    updates = [
        tx.update(PARAMS, tx.init(PARAMS))[0]
        for tx in (raw, optax.amsgrad(0.1, **options))
    ]
    chex.assert_trees_all_close(*updates, rtol=1e-6)


def test_raw_amsgrad_keeps_dtypes() -> None:
    tx = olm.adam(0.1, amsgrad=True, max_of="raw", mu_dtype=jnp.bfloat16)
    params = {"stem": jnp.ones(2, jnp.float16)}
    updates, state = tx.update(params, tx.init(params), params)
    assert updates["stem"].dtype == jnp.float16
    assert state[0].mu["stem"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_of": "max"}, "must be 'corrected' or 'raw', not 'max'"),
        ({"max_of": "raw"}, "add amsgrad=True"),
        ({"nesterov": True, "amsgrad": True}, "do not go together"),
    ],
)
@pytest.mark.parametrize("make", [olm.adam, olm.adamw])
def test_options_that_make_no_sense_are_errors(
    make: Any, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        make(1e-3, **options)


def test_rates_may_be_injected() -> None:
    for make in (olm.adam, olm.adamw, olm.adam_lr_mult):
        # In float32, which injection makes of them, b1 and b2 are other numbers.
        inject = optax.inject_hyperparams(make, static_args=("b1", "b2"))
        tx = inject(learning_rate=0.1, multipliers={"stem": 0.5})
        updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        alone = make(0.1, multipliers={"stem": 0.5})
        expected, _ = alone.update(PARAMS, alone.init(PARAMS), PARAMS)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
        assert state.hyperparams["learning_rate"] == np.float32(0.1)
