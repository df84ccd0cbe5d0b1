"""A user's code, as a type checker sees it: `pyright` checks arguments and results."""

# pyright: reportArgumentType=true, reportCallIssue=true
import re
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import optax

import optax_lrmult as olm


def train() -> dict[str, jax.Array]:
    """One step with every kind of table, and what the checks and the log return."""
    params = {"stem": jnp.ones((3, 2)), "stack": jnp.ones((2, 3)), "head": jnp.ones(2)}
    stack = olm.per_layer([0.5, 1.0])
    table = olm.Rules({"stem": 0.1, re.compile("stack"): stack}) + {"head": 2}
    assert_type(table, olm.Rules)
    assert_type(olm.recipes.freeze("stem") + olm.recipes.no_decay(params), olm.Rules)
    assert_type(olm.recipes.layer_decay(0.5, ["block_0/w", "head/w"]), olm.Rules)
    assert_type(olm.Rules.from_config(table.to_config()), olm.Rules)

    # Columns go into the call of an optimizer, whose other arguments are no tables.
    columns = olm.groups({"": {"b2": 0.95, "labels": "adam"}})
    olm.by_name(columns.pop("labels"))(params)
    olm.scale_by_adam(**columns)
    olm.adamw(1e-3, weight_decay=[{"contains": "", "value": 0.1}], **columns)
    olm.adamw(1e-3, **olm.recipes.from_big_vision([("stem", 0.1)]))
    olm.adamw(1e-3, **olm.recipes.mup(params, params, readout="plain", weight_decay=1))
    olm.preview(params, **columns)

    rows = olm.assign(params, table)
    assert_type(rows, list[olm.Assignment])
    assert_type(rows[0].name, str)
    assert_type(rows[0].shape, tuple[int, ...])
    assert_type(olm.preview(params, table), olm.report.Preview)
    assert_type(olm.report.diff(rows, rows), dict[str, str])

    transform = olm.scale_by_name_multiplier(table)
    assert_type(transform, optax.GradientTransformationExtraArgs)
    tx = optax.chain(transform, olm.with_name_multipliers(optax.sgd(0.1), {"stem": 0}))
    state = tx.init(params)
    updates, state = tx.update(params, state, params)
    optax.apply_updates(params, updates)

    for made in olm.adam(1e-3), olm.adamw(1e-3), olm.keras.adam_lr_mult(1e-3):
        assert_type(made, optax.GradientTransformationExtraArgs)
    config = olm.keras.AdamLRMultConfig.from_keras({"lr": 0.01})
    assert_type(config, olm.keras.AdamLRMultConfig)
    assert_type(config.to_keras(), dict[str, Any])
    schedule = optax.constant_schedule(0.1)
    rates = olm.report.learning_rates(params, table, schedule, step=0)
    assert_type(rates, dict[str, jax.Array])
    return rates
