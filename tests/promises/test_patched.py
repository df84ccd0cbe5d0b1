"""Our functions in the place of optax's: the way into what builds its own optimizer."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import optax_lrmult as olm

PARAMS = {"stem": jnp.array([1.0, -2.0]), "head": jnp.array([[3.0, 0.5]])}
TABLE, DECAYS, RATE = {"stem": 0.5}, {"stem": 0.0, "": 0.1}, 0.1
CHAIN, ADAM, MASKED = optax.chain, optax.adam, optax.masked
slower: Any = {"multipliers": TABLE}
# What a trainer calls, and with what.
CALLS: dict[str, tuple[Any, ...]] = {
    "adam": (RATE,),
    "adamw": (RATE,),
    "amsgrad": (RATE,),
    "scale_by_adam": (),
    "scale_by_amsgrad": (),
    "add_decayed_weights": (0.1,),
    "chain": (optax.scale_by_adam(), optax.scale(-RATE)),
    "masked": (optax.sgd(RATE), {"stem": True, "head": True}),
    "scale_by_schedule": (lambda step: 1 / (1 + step),),
    "keep_params_nonnegative": (),
}
OURS: list[tuple[str, Callable[..., Any]]] = [
    ("adam", functools.partial(olm.adam, **slower)),
    ("adam", functools.partial(olm.keras.adam_lr_mult, clipnorm=1.0, **slower)),
    ("adam", lambda rate: olm.packed(ADAM(rate))),
    ("adam", lambda rate: olm.with_name_multipliers(ADAM(rate), TABLE)),
    ("adamw", functools.partial(olm.adamw, **slower)),
    ("adamw", functools.partial(olm.adamw, b2={"stem": 0.9}, **slower)),
    ("amsgrad", functools.partial(olm.adam, amsgrad=True, **slower)),
    ("scale_by_adam", olm.scale_by_adam),
    ("scale_by_adam", lambda: olm.scale_by_adam(b2={"stem": 0.9})),
    ("scale_by_adam", olm.keras.scale_by_adam),
    ("scale_by_amsgrad", functools.partial(olm.scale_by_adam, amsgrad=True)),
    ("add_decayed_weights", olm.add_decayed_weights_by_name),
    ("add_decayed_weights", lambda _: olm.add_decayed_weights_by_name(DECAYS)),
    ("chain", lambda *parts: olm.with_name_multipliers(CHAIN(*parts), TABLE)),
    (
        "masked",
        lambda *parts: olm.with_name_multipliers(
            MASKED(*parts), {"stem": 0}, mask_frozen=True
        ),
    ),
    ("scale_by_schedule", lambda f: olm.scale_by_name_multiplier({"stem": f})),
    (
        "keep_params_nonnegative",
        lambda: olm.keras.constrain_by_name({"stem": olm.keras.non_negative()}),
    ),
]
# What someone builds beside it.
OWN: list[Callable[[], Any]] = [
    lambda: olm.adam(RATE, amsgrad=True, **slower),
    lambda: olm.adamw(RATE, mask={"stem": True, "head": False}, **slower),
    lambda: olm.adamw(RATE, b2={"stem": 0.9}, weight_decay=DECAYS, **slower),
    lambda: olm.adam(RATE, multipliers={"stem": 0}, mask_frozen=True),
    lambda: olm.packed(olm.scale_by_adam()),
    lambda: olm.keras.adam_lr_mult(RATE, clipnorm=1.0, clipvalue=0.5, **slower),
]


def step(tx: Any) -> Any:
    return tx.update(jax.tree.map(jnp.cos, PARAMS), tx.init(PARAMS), PARAMS)[0]


@pytest.mark.parametrize(("name", "ours"), OURS)
def test_all_of_them_do_what_they_did(
    monkeypatch: pytest.MonkeyPatch, name: str, ours: Any
) -> None:
    """They call optax's own functions, and not each other by way of optax."""
    expected, own = step(ours(*CALLS[name])), [step(make()) for make in OWN]
    monkeypatch.setattr(optax, name, ours)
    chex.assert_trees_all_equal(step(getattr(optax, name)(*CALLS[name])), expected)
    chex.assert_trees_all_equal([step(make()) for make in OWN], own)
