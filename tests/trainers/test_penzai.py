"""penzai, whose parameters have their names in labels and not in key paths."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from penzai import pz
from penzai.models import simple_mlp

import optax_lrmult as olm
from tests.package import readme
from tests.promises.three_steps import moment, ratios

RATE = 0.01
# As the README's table has it.
(LINE,) = re.findall(r"^\| penzai \|.*`labels = (.*?)`", readme.TEXT, re.MULTILINE)
labels = eval(
    LINE, {"jax": jax, "is_parameter": lambda node: isinstance(node, pz.ParameterValue)}
)


def test_rates_by_label() -> None:
    model = simple_mlp.MLP.from_config(
        name="net", init_base_rng=jax.random.key(0), feature_sizes=[3, 4, 2]
    )
    model, params = pz.unbind_params(model, freeze=True)
    inputs = pz.nx.wrap(jnp.ones((5, 3))).tag("batch", "features")

    def loss(params: Any) -> jax.Array:
        outputs = pz.bind_variables(model, params)(inputs).unwrap("batch", "features")
        return jnp.mean((outputs - 3.0) ** 2)

    table = {"Affine_0": 0.25, "bias": 2}
    tx = olm.adam(RATE, multipliers=table, param_labels=labels)
    opt_state = tx.init(params)
    run = [moment(params, opt_state)]
    for _ in range(3):
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        params = optax.apply_updates(params, updates)
        run.append(moment(params, opt_state))
    names = jax.tree.leaves(labels(params))
    assert [name.split("/")[1] for name in names] == ["Affine_0"] * 2 + ["Affine_1"] * 2
    expected = [
        0.25 if "Affine_0" in name else 2.0 if "bias" in name else 1.0 for name in names
    ]
    found = list(ratios(run, lambda step: RATE).values())
    assert found == pytest.approx(expected, rel=1e-3)
