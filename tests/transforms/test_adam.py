"""Adam by name: optax's numerics and state, PyTorch's groups."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_lrmult as olm
from tests.keras.recorded import Case, assert_within_tolerance, cases

PARAMS = {"stem": jnp.array([1.0, -2.0, 3.0]), "head": jnp.array([[0.5, 4.0]])}
# PyTorch's AMSGrad takes the maximum of the raw moment, and is in olm.keras.
TORCH = {n: case for n, case in cases("torch").items() if "amsgrad" not in n}
EPS = 2.0**-23


def run(tx: Any, steps: int = 12, params: Any = PARAMS) -> tuple[Any, Any]:
    state = tx.init(params)
    for step in range(steps):
        gradients = jax.tree.map(
            lambda p, s=step: (jnp.sin(p + s) * 10.0 ** (-s)).astype(p.dtype), params
        )
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def assert_same_updates(ours: Any, theirs: Any, params: Any, eps: float = EPS) -> None:
    """Over 20 steps, each to a few roundings of its largest element."""
    states = [tx.init(params) for tx in (ours, theirs)]
    for step in range(20):
        gradients = jax.tree.map(
            lambda p, s=step: jnp.sin(p + s).astype(p.dtype), params
        )
        mine, states[0] = ours.update(gradients, states[0], params)
        other, states[1] = theirs.update(gradients, states[1], params)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
            assert a.dtype == b.dtype
            a, b = np.asarray(a, "complex64"), np.asarray(b, "complex64")
            assert np.abs(a - b).max() <= 8 * eps * np.abs(b).max()


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
}
decay = optax.linear_schedule(0.0, 1.0, 2)
if tuple(map(int, optax.__version__.split(".")[:3])) >= (0, 2, 8):
    # Before, it takes no schedule for a decay; ours does in a table.
    TWINS["adamw with a schedule of the decay"] = (
        olm.adamw(0.1, weight_decay=decay),
        optax.adamw(0.1, weight_decay=decay),
    )


@pytest.mark.parametrize("name", TWINS)
def test_with_numbers_only_it_is_optax_bit_for_bit(name: str) -> None:
    ours, plain = TWINS[name]
    chex.assert_trees_all_equal(run(ours, 3), run(plain, 3))


ROWS = {
    "stem": {"multipliers": 0.5, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0},
    "": {"multipliers": 1, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.1},
}


def one_optimizer_a_row(
    amsgrad: bool = False, **options: Any
) -> optax.GradientTransformation:
    def make(row: Any) -> optax.GradientTransformation:
        rest = {key: value for key, value in row.items() if key != "multipliers"}
        rate, decay = 0.01 * row["multipliers"], rest.pop("weight_decay")
        if not amsgrad:
            return optax.adamw(rate, weight_decay=decay, **rest, **options)
        return optax.chain(
            optax.scale_by_amsgrad(**rest, **options),
            optax.add_decayed_weights(decay),
            optax.scale_by_learning_rate(rate),
        )

    txs = {"stem": make(ROWS["stem"]), "head": make(ROWS[""])}
    return optax.multi_transform(txs, {"stem": "stem", "head": "head"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": True, "eps_root": 1e-2},
        {"mu_dtype": "bfloat16"},
        {"mu_dtype": "float32"},
        {"amsgrad": True},
        {"amsgrad": True, "mu_dtype": "bfloat16", "eps_root": 1e-2},
    ],
)
def test_a_table_equals_one_optimizer_a_row(dtype: str, options: Any) -> None:
    """To rounding: the same formulas, with 1 - b taken in Python as there."""
    if dtype == "complex64":
        options = {key: v for key, v in options.items() if key != "mu_dtype"}
    turn = 1 + 2j if dtype == "complex64" else 1
    params = jax.tree.map(lambda p: jnp.asarray(turn * p, dtype), PARAMS)
    eps = 2.0**-8 if "bfloat16" in (dtype, options.get("mu_dtype")) else EPS
    ours = olm.adamw(0.01, **olm.groups(ROWS), **options)
    assert_same_updates(ours, one_optimizer_a_row(**options), params, eps)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_name_without_a_rule_has_the_defaults_of_optax(amsgrad: bool) -> None:
    tables: Any = {"b1": {"stem": 0.8}, "b2": {"stem": 0.9}, "eps": {"stem": 1e-3}}
    make = optax.amsgrad if amsgrad else optax.adam
    txs = {"stem": make(0.01, 0.8, 0.9, 1e-3), "head": make(0.01)}
    theirs = optax.multi_transform(txs, {"stem": "stem", "head": "head"})
    assert_same_updates(olm.adam(0.01, amsgrad=amsgrad, **tables), theirs, PARAMS)


def test_a_schedule_of_the_decay_in_a_table_is_read_at_each_step() -> None:
    tx = olm.adamw(0.1, weight_decay={"stem": decay, "": 0})
    zeros, state = jax.tree.map(jnp.zeros_like, PARAMS), tx.init(PARAMS)
    for step in range(3):
        updates, state = tx.update(zeros, state, PARAMS)
        expected = -0.1 * decay(step) * PARAMS["stem"]
        np.testing.assert_allclose(updates["stem"], expected, rtol=8 * EPS)
        np.testing.assert_array_equal(updates["head"], 0)


STACK_ROWS = [
    {"multipliers": 0.25, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "weight_decay": 0},
    {"multipliers": 0.5, "b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1},
    {"multipliers": 1, "b1": 0, "b2": 0.99, "eps": 0, "weight_decay": 0.2},
]


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"amsgrad": True}])
@pytest.mark.parametrize("axis", [0, -1])
def test_layers_of_a_stack_have_every_column_of_their_own(
    axis: int, options: Any
) -> None:
    """Slices get what the unrolled layers would get."""
    stack = {"w": jnp.moveaxis(jnp.linspace(-1, 1, 12).reshape(3, 4), 0, axis)}
    row = {
        key: olm.per_layer([layer[key] for layer in STACK_ROWS], axis)
        for key in STACK_ROWS[0]
    }
    stacked, _ = run(olm.adamw(0.01, **olm.groups({"w": row}), **options), 4, stack)
    for i, layer in enumerate(STACK_ROWS):
        plain = olm.adamw(0.01, **olm.groups({"": layer}), **options)
        alone, _ = run(plain, 4, {"w": jnp.take(stack["w"], i, axis)})
        ours = jnp.take(stacked["w"], i, axis)
        np.testing.assert_allclose(ours, alone["w"], rtol=8 * EPS)


def test_multipliers_and_decays_follow_schedules_of_their_own() -> None:
    rate, decay = optax.linear_schedule(0.5, 1, 5), optax.linear_schedule(0.3, 0, 5)
    layers = [olm.per_layer([schedule, 0.5, 0]) for schedule in (rate, decay)]
    rows = {
        "head": {"multipliers": rate, "weight_decay": decay},
        "stem": {"multipliers": layers[0], "weight_decay": layers[1]},
    }
    tx = olm.adamw(0.01, **olm.groups(rows))
    state, core = tx.init(PARAMS), optax.scale_by_adam()
    core_state = core.init(PARAMS)
    for step in range(4):
        updates, state = tx.update(PARAMS, state, PARAMS)
        adam, core_state = core.update(PARAMS, core_state)
        expected = {
            name: -0.01 * m * (adam[name] + wd * PARAMS[name])
            for name, m, wd in (
                ("head", rate(step), decay(step)),
                ("stem", *(jnp.array([s(step), 0.5, 0]) for s in (rate, decay))),
            )
        }
        chex.assert_trees_all_close(updates, expected, rtol=8 * EPS)


@pytest.mark.parametrize(
    ("dtype", "mu_dtype"),
    [
        ("float32", None),
        ("float32", "bfloat16"),
        ("bfloat16", None),
        ("bfloat16", "float32"),
        ("complex64", None),
    ],
)
@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (olm.adam, optax.adam),
        (olm.adamw, optax.adamw),
        (lambda *a, **k: olm.adam(*a, amsgrad=True, **k), optax.amsgrad),
    ],
)
@pytest.mark.parametrize("rate", [0.1, optax.constant_schedule(0.1)])
def test_the_state_is_that_of_optax(
    ours: Any, plain: Any, rate: Any, dtype: str, mu_dtype: Any
) -> None:
    """Before and after a step, whatever the tables."""
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, dtype), PARAMS)
    tables: Any = {"b1": {"stem": 0.5}, "b2": {"": 0.9}, "eps": {"head": 1e-3}}
    multipliers = {"stem": 0.5, "head": lambda step: 1.0}

    def states(tx: Any) -> Any:
        def step(params: Any) -> Any:
            first = tx.init(params)
            return first, tx.update(params, first, params)

        return jax.eval_shape(step, params)

    theirs = states(plain(rate, mu_dtype=mu_dtype))
    mine = states(ours(rate, multipliers=multipliers, mu_dtype=mu_dtype, **tables))
    chex.assert_trees_all_equal_shapes_and_dtypes(mine, theirs)
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)


def row_of(group: Any, base_rate: float) -> dict[str, float]:
    """PyTorch's group as a row of a table."""
    b1, b2 = group["betas"]
    row = {"multipliers": group["lr"] / base_rate, "b1": b1, "b2": b2}
    return row | {key: group[key] for key in ("eps", "weight_decay")}


def torch_optimizer(case: Case) -> optax.GradientTransformation:
    config = case.config
    if "groups" in config:
        rows = {
            group["params"][0]: row_of(group, config["lr"])
            for group in config["groups"]
        }
        return olm.adamw(config["lr"], **olm.groups(rows))
    table = config["multipliers"]
    if config["optimizer"] == "SGD":
        tx = optax.sgd(config["lr"], momentum=config["momentum"])
        return olm.with_name_multipliers(tx, table)
    options: dict[str, Any] = {"multipliers": table}
    if config["optimizer"] == "AdamW":
        options["weight_decay"] = {"": config["weight_decay"]}
    b1, b2 = config["betas"]
    make = {"Adam": olm.adam, "AdamW": olm.adamw}[config["optimizer"]]
    return make(config["lr"], {"": b1}, {"": b2}, {"": config["eps"]}, **options)


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


def test_multipliers_scale_the_decay_too() -> None:
    tx = olm.adamw(0.1, weight_decay=0.3, multipliers={"stem": 0})
    chex.assert_trees_all_equal(run(tx, 2)[0]["stem"], PARAMS["stem"])


def test_amsgrad_has_no_nesterov_momentum() -> None:
    for make in olm.scale_by_adam, olm.adam, olm.adamw:
        arguments = () if make is olm.scale_by_adam else (0.1,)
        with pytest.raises(ValueError, match="AMSGrad has no Nesterov"):
            make(*arguments, nesterov=True, amsgrad=True)


def test_numbers_of_one_group_may_be_injected_with_one_compilation() -> None:
    @optax.inject_hyperparams
    def make(rate: Any, stem: Any, decay: Any, b2: Any) -> Any:
        tables: Any = {"b2": {"stem": b2}, "weight_decay": {"": decay}}
        return olm.adamw(rate, multipliers={"stem": stem}, **tables)

    tx = make(rate=1e-2, stem=0.5, decay=0.1, b2=0.99)
    step = jax.jit(lambda state: tx.update(PARAMS, state, PARAMS)[0])
    for stem, decay, b2 in ((0.5, 0.1, 0.99), (0.25, 0.0, 0.9)):
        state = tx.init(PARAMS)
        numbers = {"stem": stem, "decay": decay, "b2": b2}
        state.hyperparams.update({k: jnp.float32(v) for k, v in numbers.items()})
        plain = optax.adamw(1e-2 * stem, b2=b2, weight_decay=decay)
        expected, _ = plain.update(PARAMS, plain.init(PARAMS), PARAMS)
        np.testing.assert_allclose(step(state)["stem"], expected["stem"], rtol=1e-4)
    assert step._cache_size() == 1


def test_labels_and_on_unmatched_go_to_every_table() -> None:
    labels = {"stem": "slow", "head": "fast"}
    tables = {name: {"slow": 0.5, "": 0.25} for name in ("b1", "b2", "eps")}
    tables |= {"multipliers": {"slow": 0.5}, "weight_decay": {"slow": 0.5, "": 0}}
    names = {"param_labels": labels, "on_unmatched": "error"}
    olm.adamw(0.1, **tables, **names).init(PARAMS)
    for name in tables:
        with pytest.warns(UserWarning, match=f"'slow' .* of {name} matches none"):
            olm.adamw(0.1, **{name: tables[name]}, on_unmatched="warn").init(PARAMS)


def test_what_is_frozen_may_have_no_state() -> None:
    for ours, plain in (olm.adam, optax.adam), (olm.adamw, optax.adamw):
        table = {"stem": 0}
        state = ours(0.1, multipliers=table, mask_frozen=True).init(PARAMS)
        masked = optax.masked(plain(0.1), olm.trainable(table))
        chex.assert_trees_all_equal(state, masked.init(PARAMS))


@pytest.mark.parametrize("name", ["mask", "weight_decay_mask"])
def test_a_mask_selects_among_what_the_table_decays(name: str) -> None:
    mask, table = {"stem": True, "head": False}, {"stem": 0.3, "": 0.1}
    ours = olm.adamw(0.1, weight_decay=table, **{name: mask})
    plain = optax.adamw(0.1, weight_decay=0.3, mask=mask)
    mine, state = run(ours, 3)
    theirs, expected = run(plain, 3)
    chex.assert_trees_all_close(mine, theirs, rtol=4 * EPS)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, expected)


def test_what_two_masks_let_decay_decays() -> None:
    def named(text: str) -> Any:
        return lambda tree: {name: text in name for name in tree}

    params = dict.fromkeys(["stem", "head", "step"], jnp.ones(2))
    tx = olm.adamw(1.0, mask=named("st"), weight_decay_mask=named("e"))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    moved = {name for name, update in updates.items() if update.any()}
    assert moved == {"stem", "step"}


def test_members_of_an_ensemble_have_states_of_their_own() -> None:
    tx = olm.adamw(0.01, **olm.groups(ROWS))
    members = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), PARAMS)
    states = jax.vmap(tx.init)(members)
    updates, _ = jax.vmap(tx.update)(members, states, members)
    for index, factor in enumerate((1, 2)):
        alone = jax.tree.map(lambda p, f=factor: f * p, PARAMS)
        expected, _ = tx.update(alone, tx.init(alone), alone)
        mine = jax.tree.map(lambda u, i=index: u[i], updates)
        chex.assert_trees_all_close(mine, expected, rtol=8 * EPS)


def test_a_beta_can_be_learned() -> None:
    """Of the second step, by the derivative of the formula."""
    first, second = 1.0, 0.5

    def way(b2: jax.Array) -> Any:
        tx = olm.scale_by_adam(0.0, {"w": b2}, 0.0)
        state = tx.init({"w": jnp.ones(1)})
        _, state = tx.update({"w": jnp.full(1, first)}, state)
        return tx.update({"w": jnp.full(1, second)}, state)[0]["w"][0]

    # The corrected moment is (second^2 + b first^2) / (1 + b).
    b = 0.9
    moment = (second**2 + b * first**2) / (1 + b)
    slope = (first**2 - second**2) / (1 + b) ** 2
    expected = -0.5 * second * moment**-1.5 * slope
    np.testing.assert_allclose(jax.grad(way)(b), expected, rtol=1e-4)


def test_a_tree_without_leaves_has_updates_without_leaves() -> None:
    tx = olm.adamw(0.01, **olm.groups(ROWS))
    assert tx.update({}, tx.init({}), {})[0] == {}
