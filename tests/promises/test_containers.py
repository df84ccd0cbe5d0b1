"""Names and one training step in plain containers, and labels of a user's own."""

import dataclasses
from typing import Any, NamedTuple

import chex
import equinox as eqx
import flax.struct
import jax
import jax.numpy as jnp
import pytest
from flax.core import freeze

from optax_lrmult import glob, prefix, scale_by_name_multiplier
from tests.promises.one_step import Functional, check_names_and_step, squares

INPUTS = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
KERNEL = jnp.array([0.5, -1.0, 2.0])
BIAS = jnp.array([0.25])


class Named(NamedTuple):
    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    kernel: Any
    bias: Any


@flax.struct.dataclass
class Struct:
    kernel: Any
    bias: Any


@chex.dataclass
class Chex:
    kernel: Any
    bias: Any


class EquinoxLinear(eqx.Module):
    kernel: Any
    bias: Any

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel + self.bias


@jax.tree_util.register_pytree_node_class
class WithoutKeys:
    def __init__(self, kernel: Any, bias: Any) -> None:
        self.content = (kernel, {"bias": bias})

    def tree_flatten(self) -> tuple[Any, None]:
        return self.content, None

    @classmethod
    def tree_unflatten(cls, _: None, content: Any) -> "WithoutKeys":
        new = cls(None, None)
        new.content = content
        return new


def linear(params: Any) -> jax.Array:
    """Linear regression whose kernel and bias are the only leaves, in any order."""
    kernel, bias = sorted(jax.tree.leaves(params), key=jnp.size, reverse=True)
    return squares(INPUTS @ kernel + bias)


def kernel_only(kernel: jax.Array) -> jax.Array:
    return squares(INPUTS @ kernel)


FIELDS = {"kernel": 0, "bias": 2}
CONTAINERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "list": ([KERNEL, BIAS], {"0": 0, "1": 2}),
    "tuple in dict": ({"layer": (BIAS, KERNEL)}, {"layer/0": 0.5, "layer/1": 0}),
    "NamedTuple": (Named(KERNEL, BIAS), FIELDS),
    "register_dataclass": (Registered(KERNEL, BIAS), FIELDS),
    "flax.struct": (Struct(KERNEL, BIAS), FIELDS),
    "chex.dataclass": (Chex(kernel=KERNEL, bias=BIAS), {"bias": 0, "kernel": 0.5}),
    "node without keys": (WithoutKeys(KERNEL, BIAS), {"0": 0.5, "1/bias": 0}),
    "integer keys": ({1: {10: BIAS, 2: KERNEL}}, {"1/2": 0, "1/10": 2}),
}


@pytest.mark.parametrize(
    ("params", "multipliers"), CONTAINERS.values(), ids=CONTAINERS.keys()
)
def test_names_and_one_step(params: Any, multipliers: dict[str, Any]) -> None:
    check_names_and_step(Functional(params, linear), multipliers)


@pytest.mark.parametrize("multiplier", [0, 0.5, 2])
def test_bare_array_has_the_empty_name(multiplier: float) -> None:
    check_names_and_step(Functional(KERNEL, kernel_only), {"": multiplier})


@pytest.mark.parametrize(
    ("params", "labels"),
    [
        (EquinoxLinear(KERNEL, BIAS), EquinoxLinear("slow", "fast")),
        (freeze({"kernel": KERNEL, "bias": BIAS}), {"kernel": "slow", "bias": "fast"}),
        ({"kernel": KERNEL, "bias": BIAS}, freeze({"kernel": "slow", "bias": "fast"})),
        (Named(KERNEL, BIAS), {"kernel": "slow", "bias": "fast"}),
        ({"layer": {"kernel": KERNEL}, "bias": BIAS}, {"layer": "slow", "bias": ""}),
    ],
    ids=[
        "callable module",
        "dict for FrozenDict",
        "FrozenDict for dict",
        "dict for NamedTuple",
        "prefix",
    ],
)
def test_tree_of_labels(params: Any, labels: Any) -> None:
    tx = scale_by_name_multiplier({"slow": 0.5}, param_labels=labels)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(tx.update)(ones, tx.init(params), params)
    by_size = {leaf.size: leaf.tolist() for leaf in jax.tree.leaves(updates)}
    assert by_size == {3: [0.5, 0.5, 0.5], 1: [1.0]}


def test_dotted_names_of_torch_become_paths() -> None:
    """As torchax has them: in one dictionary, where `glob` and `prefix` see no path."""
    names = [f"layers.{n}.attention.{w}.weight" for n in (0, 1, 10) for w in "qk"]
    params = dict.fromkeys([*names, "norm.weight"], KERNEL)
    table = {glob("layers/*/attention/q/**"): 0.5, prefix("layers/1"): 0}
    tx = scale_by_name_multiplier(
        table, param_labels=lambda tree: {key: key.replace(".", "/") for key in tree}
    )
    updates, _ = jax.jit(tx.update)(params, tx.init(params))
    found = {name: float((u / KERNEL)[0]) for name, u in updates.items()}
    halves = dict.fromkeys((name for name in names if ".q." in name), 0.5)
    still = {"layers.1.attention.k.weight": 0.0}
    assert found == dict.fromkeys(params, 1.0) | still | halves
    with pytest.raises(ValueError, match="matches none of the 7 parameters"):
        scale_by_name_multiplier(table).init(params)
