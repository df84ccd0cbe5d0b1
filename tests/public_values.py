"""A value of every public name, and the tables that can be changed after use."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_lrmult as olm

PARAMS = {
    "stem": {"kernel": jnp.linspace(-1, 1, 4).reshape(2, 2), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.linspace(-2, 1, 6).reshape(2, 3)},
}
TABLE = {
    "bias": 2,
    re.compile("stem/.*"): olm.per_layer([0, 0.5]),
    "head": olm.unfreeze_at(0, 0.3),
}
CONSTRAINTS = {"bias": olm.non_negative(), "kernel": olm.max_norm(0.5)}
MOMENTS = [np.full((2, 2), 0.1), np.full(2, 0.2), np.full((2, 3), 0.3)]


def injected() -> Any:
    return olm.scale_by_name_multiplier({"stem": 0.1}, inject=True).init(PARAMS)


def torch_groups() -> olm.GroupRules:
    groups = [{"params": ["stem.kernel"], "lr": 1e-4}, {"params": ["head.kernel"]}]
    return olm.from_torch_param_groups(groups, 1e-3, base_weight_decay=0.01)


def difference() -> olm.AssignmentDiff:
    return olm.assignment_diff(
        olm.assign(PARAMS, {"stem": 0}), olm.assign(PARAMS, TABLE)
    )


VALUES: dict[str, Callable[[], Any]] = {
    "path_labels": lambda: olm.path_labels(PARAMS),
    "per_layer": lambda: olm.per_layer([0.5, olm.unfreeze_at(3)], axis=1),
    "Rule": lambda: olm.Rule("stem", 0.1),
    "Rules": lambda: olm.Rules(TABLE),
    "by_prefix": lambda: olm.by_prefix({"stem": 0.1, "stem/bias": 2}),
    "glob": lambda: olm.glob("block_*/kernel"),
    "rules_from_config": lambda: olm.rules_from_config(
        [{"glob": "**/bias", "multiplier": [1, 2]}]
    ),
    "rules_to_config": lambda: olm.rules_to_config({"stem": 0.1}),
    "layer_decay": lambda: olm.layer_decay(0.5, ["embed/w", "block_0/w", "head/w"]),
    "discriminative": lambda: olm.discriminative(["stem", "head"], 0.1),
    "unfreeze_at": lambda: olm.unfreeze_at(3, 0.5),
    "unfreeze_from_top": lambda: olm.unfreeze_from_top(["stem", "head"], 3),
    "lora_plus": lambda: olm.lora_plus(16),
    "mup": lambda: olm.mup(PARAMS, PARAMS),
    "by_kind": lambda: olm.by_kind(PARAMS, bias=2),
    "freeze": lambda: olm.freeze("stem"),
    "no_decay": lambda: olm.no_decay(),
    "GroupRules": torch_groups,
    "from_big_vision": lambda: olm.from_big_vision([("stem/.*", 0.1), (".*", None)]),
    "from_keras_lr_multiplier": lambda: olm.from_keras_lr_multiplier({"Dense": 2}),
    "from_mmengine": lambda: olm.from_mmengine({"bias_decay_mult": 0.0}, PARAMS),
    "from_torch_param_groups": torch_groups,
    "Assignment": lambda: olm.assign(PARAMS, TABLE)[0],
    "assign": lambda: olm.assign(PARAMS, TABLE),
    "Preview": lambda: olm.preview(PARAMS, {"stem": 0, "stem/k": 2}),
    "preview": lambda: olm.preview(PARAMS, TABLE),
    "AssignmentDiff": difference,
    "assignment_diff": difference,
    "learning_rates": lambda: olm.learning_rates(PARAMS, TABLE, 0.1, 3),
    "scale_by_name_multiplier": lambda: olm.scale_by_name_multiplier(TABLE),
    "with_name_multipliers": lambda: olm.with_name_multipliers(
        optax.adam(0.1), TABLE, mask_frozen=True
    ),
    "ScaleByNameMultiplierState": injected,
    "set_multipliers": lambda: olm.set_multipliers(injected(), {"stem": 2}),
    "trainable": lambda: olm.trainable({"": 0}),
    "add_decayed_weights_by_name": lambda: olm.add_decayed_weights_by_name(0.1),
    "constrain_by_name": lambda: olm.constrain_by_name(CONSTRAINTS),
    "packed": lambda: olm.packed(optax.adam(0.1)),
    "packed_state": lambda: olm.packed_state(
        optax.adam(0.1).init(PARAMS), PARAMS, olm.packed(optax.adam(0.1)).init(PARAMS)
    ),
    "unpacked_state": lambda: olm.unpacked_state(
        olm.packed(optax.adam(0.1)).init(PARAMS), PARAMS
    ),
    "max_norm": lambda: olm.max_norm(0.5, axis=1),
    "non_negative": lambda: olm.non_negative(),
    "unit_norm": lambda: olm.unit_norm((0, 1)),
    "effective_multipliers": lambda: olm.effective_multipliers(
        lambda table: olm.adam(0.1, multipliers=table), {"stem": 0.1}, PARAMS
    ),
    "adam": lambda: olm.adam(0.1, multipliers=TABLE),
    "adamw": lambda: olm.adamw(0.1, multipliers=TABLE, amsgrad=True, max_of="raw"),
    "scale_by_keras_adam": lambda: olm.scale_by_keras_adam(amsgrad=True),
    "adam_lr_mult": lambda: olm.adam_lr_mult(multipliers=TABLE),
    "AdamLRMultConfig": lambda: olm.AdamLRMultConfig(
        decay=0.1, multipliers=TABLE, constraints=CONSTRAINTS
    ),
    "state_from_keras_weights": lambda: olm.state_from_keras_weights(
        [np.array(7), *MOMENTS, *MOMENTS], PARAMS
    ),
}
NO_VALUES = {
    "check_rules": "it returns nothing",
    "plot_multipliers": "it returns axes",
    "plot_schedule": "it returns axes",
}
# Optax's transformations are pairs of closures, which pickle does not take; copy does.
CLOSURES = {
    "with_name_multipliers": "it calls optax's optimizer",
    "adam": "it calls optax.adam",
    "adamw": "it calls optax's links",
    "adam_lr_mult": "it is an optax.chain",
    "scale_by_keras_adam": "it is a core in optax's way",
    "trainable": "it is a function for optax.masked, whose states need it no more",
    "add_decayed_weights_by_name": "it is a link in optax's way",
    "constrain_by_name": "it is a link in optax's way",
    "packed": "it calls optax's optimizer",
}


def probed(value: Any) -> Any:
    """What can be compared of a value: itself, or what it does."""
    if isinstance(value, olm.AdamLRMultConfig):
        value = value.make()
    if isinstance(value, optax.GradientTransformation):
        state = value.init(PARAMS)
        return value.update(PARAMS, state, PARAMS), state
    return value(PARAMS["head"]["kernel"]) if callable(value) else value


def is_same(one: Any, other: Any) -> bool:
    """Equal in structure and in every leaf, bit for bit."""
    leaves, structure = jax.tree.flatten(one)
    others, other_structure = jax.tree.flatten(other)
    return structure == other_structure and all(
        np.array_equal(a, b) if isinstance(a, jax.Array) else a == b
        for a, b in zip(leaves, others, strict=True)
    )


# Functions that take a table, and a table for each that is changed after use.
TAKERS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "Rules": (olm.Rules, {"stem": 0.1}),
    "by_prefix": (olm.by_prefix, {"stem": 0.1}),
    "scale_by_name_multiplier": (olm.scale_by_name_multiplier, {"stem": 0.1}),
    "with_name_multipliers": (
        lambda table: olm.with_name_multipliers(optax.adam(0.1), table),
        {"stem": 0.1},
    ),
    "adam": (lambda table: olm.adam(0.1, multipliers=table), {"stem": 0.1}),
    "adam with mask_frozen": (
        lambda table: olm.adam(0.1, multipliers=table, mask_frozen=True),
        {"stem": 0},
    ),
    "adamw": (lambda table: olm.adamw(0.1, multipliers=table), {"stem": 0.1}),
    "adam_lr_mult": (lambda table: olm.adam_lr_mult(multipliers=table), {"stem": 0.1}),
    "AdamLRMultConfig": (
        lambda table: olm.AdamLRMultConfig(multipliers=table),
        {"stem": 0.1},
    ),
    "trainable": (olm.trainable, {"": 0}),
    "add_decayed_weights_by_name": (
        lambda table: olm.add_decayed_weights_by_name(0.1, table),
        {"stem": 0.5},
    ),
    "constrain_by_name": (olm.constrain_by_name, {"stem": olm.max_norm(0.5)}),
    "preview": (lambda table: olm.preview(PARAMS, table), {"stem": 0.1}),
    "assign": (lambda table: olm.assign(PARAMS, table), {"stem": 0.1}),
    "rules_from_config": (
        lambda row: olm.rules_from_config([row]),
        {"contains": "stem", "multiplier": 0.1},
    ),
    "per_layer": (
        lambda values: olm.per_layer(values.values()),
        {"first": 0.1, "second": 0.5},
    ),
}
