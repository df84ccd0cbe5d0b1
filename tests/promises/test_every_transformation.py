"""All public transformations of the installed optax under `with_name_multipliers`.

One that is new in a release is tried, too. It is a failing row if it can't be called
without arguments, or if a multiplier does not come to what it says.
"""

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import optax_lrmult as olm

STEPS = 10
PARAMS = {
    "half": {"kernel": jnp.linspace(0.5, 1.5, 6).reshape(2, 3)},
    "head": {"kernel": jnp.linspace(1.0, 1.6, 6).reshape(3, 2), "bias": jnp.ones(2)},
    "still": jnp.linspace(1.0, 2.0, 3),
}
REST = {key: PARAMS[key] for key in ("half", "head")}
CORE, ADAM, SGD = optax.scale_by_adam(), optax.adam(0.01), optax.sgd(0.01)
Factory = Callable[..., Any]


def draw(step: int) -> Any:
    """Gradients that lean to one side, as real ones do, the same in every run."""
    leaves, treedef = jax.tree.flatten(PARAMS)
    random = np.random.default_rng(step)
    drawn = [1 + random.normal(size=x.shape) for x in leaves]
    return treedef.unflatten([jnp.asarray(x, jnp.float32) for x in drawn])


GRADIENTS = [draw(step) for step in range(STEPS)]
PATH = [jax.tree.map(lambda p, n=n: p * 0.99**n, PARAMS) for n in range(STEPS)]


def loss(params: Any) -> Any:
    return sum(jnp.sum(p**2) for p in jax.tree.leaves(params))


def is_even(step: Any) -> Any:
    return step % 2 == 0


def each(value: Any) -> Callable[[Any], Any]:
    return lambda tree: jax.tree.map(lambda _: value, tree)


def small(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Before a learning rate, so that parameters hardly differ from run to run."""
    return optax.chain(tx, optax.scale(-0.001))


# What can't be called without arguments, or with a learning rate alone.
MAKE: dict[str, Callable[[Factory], Any]] = {
    "MultiSteps": lambda f: f(ADAM, 1),
    "adafactor": lambda f: f(0.01, min_dim_size_to_factor=2),
    "adaptive_grad_clip": lambda f: small(f(1.0)),
    "add_decayed_weights": lambda f: small(f(0.1)),
    "add_noise": lambda f: small(f(0.1, 0.5, 0)),
    "apply_if_finite": lambda f: f(ADAM, 3),
    "chain": lambda f: f(CORE, optax.scale(-0.01)),
    "clip": lambda f: small(f(1.0)),
    "clip_by_block_rms": lambda f: small(f(1.0)),
    "clip_by_global_norm": lambda f: small(f(1.0)),
    "conditionally_mask": lambda f: f(ADAM, is_even),
    "conditionally_transform": lambda f: f(ADAM, is_even),
    "ema": lambda f: small(f(0.9)),
    "flatten": lambda f: f(ADAM),
    "freeze": lambda f: small(f(each(False))),
    "inject_hyperparams": lambda f: f(optax.sgd)(0.01),
    "inject_stateful_hyperparams": lambda f: f(optax.sgd)(0.01),
    "lookahead": lambda f: f(SGD, 2, 0.5),
    "masked": lambda f: f(ADAM, each(True)),
    "maybe_update": lambda f: f(ADAM, is_even),  # In optax 0.2.4.
    "measure_with_ema": lambda f: small(f(lambda updates: updates, 0.9)),
    "monitor": lambda f: small(f({"loss": loss})),
    "multi_transform": lambda f: f({"a": ADAM}, each("a")),
    "named_chain": lambda f: f(("adam", CORE), ("rate", optax.scale(-0.01))),
    "noisy_sgd": lambda f: f(0.01, 0.01, 0.55, 0),
    "partition": lambda f: f({"a": ADAM}, each("a")),
    "polyak_sgd": lambda f: f(0.01),
    "scale": lambda f: f(-0.01),
    "scale_by_rprop": lambda f: f(0.01),
    "scale_by_schedule": lambda f: f(lambda step: 0.01),
    "selective_transform": lambda f: f(ADAM, freeze_mask=False),
    "snapshot": lambda f: small(f("loss", loss)),
    "stateless": lambda f: small(f(lambda updates, _: updates)),
    "stateless_with_tree_map": lambda f: small(f(lambda u, _: u)),
    "trace": lambda f: small(f(0.9)),
    "with_extra_args_support": lambda f: f(ADAM),
    "contrib.differentially_private_aggregate": lambda f: small(f(1.0, 0.1, 0)),
    "contrib.dpsgd": lambda f: f(0.01, 1.0, 0.1, 0),
    "contrib.mechanize": lambda f: f(optax.sgd(1.0)),
    "contrib.sam": lambda f: f(SGD, SGD),
    "contrib.schedule_free": lambda f: f(SGD, 0.01),
    "contrib.split_real_and_imaginary": lambda f: f(ADAM),
}
NO_ROWS = {
    "lbfgs": "it is refused, since it ends in a line search",
    "scale_by_backtracking_linesearch": "it is refused, since it is a line search",
    "scale_by_zoom_linesearch": "it is refused, since it is a line search",
    "scale_by_lbfgs": "its memory is of gradients that belong to the parameters",
    "set_to_zero": "it moves nothing",
    "contrib.scale_by_muon": "it takes matrices only; contrib.muon has a row",
}
# What reads where its own updates have led the parameters, and is told otherwise.
MISLED = {
    "lookahead",
    "scale_by_distance_over_gradients",
    "contrib.cocob",
    "contrib.dog",
    "contrib.dowg",
    "contrib.madgrad",
    "contrib.mechanize",
    "contrib.momo",
    "contrib.momo_adam",
    "contrib.prodigy",
    "contrib.sam",
    "contrib.scale_by_cocob",
    "contrib.scale_by_madgrad",
    "contrib.schedule_free",
    "contrib.schedule_free_adamw",
    "contrib.schedule_free_sgd",
}
CORES = {n for n in MISLED if "scale_by" in n}
PRIVATE = {"contrib.differentially_private_aggregate", "contrib.dpsgd"}
REFUSED_BEHIND_A_MASK = PRIVATE | {"contrib.sophia"}
# These have a count that starts anew, and nothing that counts steps.
RESTARTING = {"ApplyEvery", "ReduceLROnPlateauState"}


def factories() -> dict[str, Factory]:
    """What the installed optax has, by its name in `optax`."""
    found = {}
    for module, prefix in ((optax, ""), (contrib, "contrib.")):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            signature = inspect.signature(function)
            returns = "GradientTransformation" in str(signature.return_annotation)
            is_public = not name.startswith("_")
            if is_public and (returns or "learning_rate" in signature.parameters):
                found[prefix + name] = function
    return {name: f for name, f in found.items() if name not in NO_ROWS}


FACTORIES = factories() | {"MultiSteps": optax.MultiSteps}


def make(name: str) -> Any:
    factory = FACTORIES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Some are on the way out.
        if name in MAKE:
            return MAKE[name](factory)
        if "learning_rate" in inspect.signature(factory).parameters:
            return factory(learning_rate=1.0 if name in MISLED else 0.01)
        rate = 1.0 if name in MISLED else 0.001
        return optax.chain(factory(), optax.scale(-rate))


def begin(name: str, params: Any) -> Any:
    is_lookahead = name == "lookahead"
    return optax.LookaheadParams.init_synced(params) if is_lookahead else params


def run(
    name: str,
    tx: Any,
    steps: int = STEPS,
    path: list[Any] | None = None,
    keys: Any = PARAMS,
) -> list[Any]:
    """The updates of steps along a path that is given, or along its own."""
    tx, updates = optax.with_extra_args_support(tx), []
    now = begin(name, {key: PARAMS[key] for key in keys})
    state = tx.init(now)
    for step in range(steps):
        gradients = {key: GRADIENTS[step][key] for key in keys}
        extra: dict[str, Any] = {"value": 1.0, "grad": gradients, "value_fn": loss}
        extra = {"contrib.sam": {}, "contrib.sophia": {"obj_fn": loss}}.get(name, extra)
        if name in PRIVATE:
            gradients = jax.tree.map(lambda g: g[None], gradients)  # Of one example.
        now = begin(name, path[step]) if path else now
        # Without jit, since a loop would be compiled anew in each step.
        with jax.disable_jit(), jax.numpy_rank_promotion("allow"):
            new, state = tx.update(gradients, state, now, **extra)
        now = optax.apply_updates(now, new)
        updates.append(new.fast if name == "lookahead" else new)
    return updates


def ways(updates: list[Any]) -> dict[str, np.ndarray]:
    """How far the kernels of half and head go."""
    total = jax.tree.map(lambda *u: np.sum(np.stack(u, dtype="float64"), 0), *updates)
    return {key: total[key]["kernel"].ravel() for key in REST}


@pytest.mark.parametrize("name", FACTORIES)
def test_a_multiplier_comes_to_what_it_says(name: str) -> None:
    """Of the way that a parameter goes without it, up to what it changes by itself."""
    table = {"half": 0.5, "still": 0}
    plain = ways(run(name, make(name)))
    updates = run(name, olm.with_name_multipliers(make(name), table))
    assert not any(np.any(u["still"]) for u in updates)
    ratio = {key: way @ plain[key] for key, way in ways(updates).items()}
    ratio = {key: ratio[key] / (plain[key] @ plain[key]) for key in ratio}
    is_right = ratio == pytest.approx({"half": 0.5, "head": 1.0}, rel=0.03)
    assert is_right == (name not in MISLED), ratio


@pytest.mark.parametrize("name", FACTORIES)
def test_a_schedule_is_read_at_the_step(name: str) -> None:
    """In the first ten steps, or `init` says that the optimizer counts none."""
    ramp = {"half": lambda step: (step + 1.0) / 16}
    tx = olm.with_name_multipliers(make(name), ramp)
    state = make(name).init(begin(name, PARAMS))
    paths = [p for p, _ in optax.tree_utils.tree_get_all_with_path(state, "count")]
    kinds = {getattr(path[-1], "tuple_name", "") for path in paths}
    if kinds <= RESTARTING:
        with pytest.raises(ValueError, match="has no count of them"):
            tx.init(begin(name, PARAMS))
        return
    skips = 2 if name.startswith(("conditionally", "maybe_update")) else 1
    plain = run(name, make(name), path=PATH)
    ours = run(name, tx, path=PATH)
    for step in range(0, STEPS, skips):
        expected = plain[step]["half"]["kernel"] * (step // skips + 1) / 16
        got = ours[step]["half"]["kernel"]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("name", FACTORIES)
def test_what_is_masked_changes_no_other(name: str) -> None:
    """The rest goes as it would in a network without the frozen parameter."""
    frozen = {"still": 0}
    tx = olm.with_name_multipliers(make(name), frozen, mask_frozen=True)
    if name in REFUSED_BEHIND_A_MASK:
        with pytest.raises(ValueError, match="a multiplier of 0 freezes without it"):
            tx.init(PARAMS)
        return
    if name == "lookahead":
        with pytest.raises(ValueError, match=r"structure|LookaheadParams"):
            run(name, tx, steps=1)
        return
    rest = run(name, make(name), steps=3, keys=REST)
    for ours, expected in zip(run(name, tx, steps=3), rest, strict=True):
        assert not np.any(ours["still"])
        chex.assert_trees_all_close({k: ours[k] for k in REST}, expected, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in NO_ROWS if "refused" in NO_ROWS[n]])
def test_a_line_search_is_refused(name: str) -> None:
    arguments = () if name == "lbfgs" else (3,)
    for mask_frozen in (False, True):
        tx = olm.with_name_multipliers(
            getattr(optax, name)(*arguments), {"still": 0}, mask_frozen=mask_frozen
        )
        with pytest.raises(ValueError, match="in front of the search"):
            tx.init(PARAMS)


@pytest.mark.parametrize("place", ["README.md", "with_name_multipliers"])
def test_the_documents_name_what_is_misled(place: str) -> None:
    text = inspect.getdoc(olm.with_name_multipliers) or ""
    if place == "README.md":
        text = (Path(__file__).parents[2] / place).read_text(encoding="utf-8")
    (sentence,) = re.findall(r"have led[^:]*:([^.]*)\.", text)
    named = set(re.findall(r"`(\w+)`", sentence))
    optimizers = {n.removeprefix("contrib.") for n in MISLED - CORES}
    assert named == {re.sub("free_.*", "free", name) for name in optimizers}
