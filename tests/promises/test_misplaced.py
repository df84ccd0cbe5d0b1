"""Where updates are not multiplied by the multiplier, and how that shows."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import optax_lrmult as olm

PARAMS = {"stem": jnp.array([1.0, -2.0, 0.5]), "head": jnp.ones(3)}
ADAM = optax.scale_by_adam()
RATE = optax.scale_by_learning_rate(0.1)


def scale(table: Any, **options: Any) -> optax.GradientTransformationExtraArgs:
    return olm.scale_by_name_multiplier(table, **options)


def ratio(make_tx: Any, steps: int = 20) -> float:
    """What a multiplier of 0.1 comes to, beside a parameter that has none."""
    ratios = olm.report.effective_multipliers(
        make_tx, {"stem": 0.1}, PARAMS, steps=steps
    )
    return ratios["stem"]


RIGHT = {
    "around Adam": lambda table: olm.with_name_multipliers(optax.adam(0.1), table),
    "before the rate": lambda table: optax.chain(ADAM, scale(table), RATE),
    "after the rate": lambda table: optax.chain(ADAM, RATE, scale(table)),
    "in schedule_free": lambda table: contrib.schedule_free(
        optax.chain(ADAM, scale(table), RATE), 0.1
    ),
    "after dadapt_adamw": lambda table: optax.chain(
        contrib.dadapt_adamw(), scale(table)
    ),
}
WITHOUT_EFFECT = {
    "before Adam": lambda table: optax.chain(scale(table), ADAM, RATE),
    "before a trust ratio": lambda table: optax.chain(
        ADAM, scale(table), optax.scale_by_trust_ratio(), RATE
    ),
    "in flatten": lambda table: optax.flatten(
        optax.chain(ADAM, scale(table, on_unmatched="ignore"), RATE)
    ),
}
# These compare the parameters with where their own updates would have led them.
DISTORTED = {
    "after schedule_free": lambda table: optax.chain(
        contrib.schedule_free(optax.sgd(0.1), 0.1), scale(table)
    ),
    "after schedule_free_adamw": lambda table: olm.with_name_multipliers(
        contrib.schedule_free_adamw(0.1), table
    ),
    "after prodigy": lambda table: optax.chain(contrib.prodigy(), scale(table)),
}
if hasattr(contrib, "madgrad"):  # Not so in optax 0.2.5.
    DISTORTED["after madgrad"] = lambda table: optax.chain(
        contrib.madgrad(0.1), scale(table)
    )


@pytest.mark.parametrize("make_tx", RIGHT.values(), ids=RIGHT.keys())
def test_multiplier_in_the_right_place(make_tx: Any) -> None:
    assert ratio(make_tx) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("make_tx", WITHOUT_EFFECT.values(), ids=WITHOUT_EFFECT.keys())
def test_multiplier_without_effect(make_tx: Any) -> None:
    assert ratio(make_tx) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("make_tx", DISTORTED.values(), ids=DISTORTED.keys())
def test_multiplier_behind_an_optimizer_that_reads_its_own_way(make_tx: Any) -> None:
    """It takes prodigy some steps until its estimate of the distance grows."""
    assert abs(ratio(make_tx) - 0.1) > 0.002


def test_names_are_lost_in_flatten() -> None:
    tx = optax.flatten(scale({"stem": 0.1}))
    with pytest.raises(ValueError, match=re.escape("Rule 'stem' (0.1)")):
        tx.init(PARAMS)


DECAY = optax.add_decayed_weights(0.1)


def decayed(tx: optax.GradientTransformation) -> Any:
    """The updates that weight decay alone makes."""
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    return jax.jit(tx.update)(zeros, tx.init(PARAMS), PARAMS)[0]


def test_decay_behind_the_multiplier_moves_a_frozen_parameter() -> None:
    updates = decayed(optax.chain(ADAM, scale({"stem": 0}), DECAY, RATE))
    np.testing.assert_allclose(updates["stem"], -0.01 * PARAMS["stem"], rtol=1e-6)


def test_decay_in_front_of_the_multiplier_leaves_a_frozen_parameter() -> None:
    updates = decayed(optax.chain(ADAM, DECAY, scale({"stem": 0}), RATE))
    assert not updates["stem"].any()
    np.testing.assert_allclose(updates["head"], -0.01 * PARAMS["head"], rtol=1e-6)


@pytest.mark.parametrize(
    "make_tx",
    [
        lambda table: olm.with_name_multipliers(
            optax.adamw(0.1, weight_decay=0.1), table
        ),
        lambda table: olm.adamw(0.1, weight_decay=0.1, multipliers=table),
    ],
    ids=["with_name_multipliers", "adamw"],
)
def test_decay_of_a_whole_optimizer_is_multiplied(make_tx: Any) -> None:
    updates = decayed(make_tx({"stem": 0.5}))
    np.testing.assert_allclose(updates["stem"], -0.005 * PARAMS["stem"], rtol=1e-6)
