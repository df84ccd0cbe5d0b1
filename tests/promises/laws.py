"""What the library promises of every optimizer, each promise a function of its name."""

import functools
import re
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_lrmult as olm
from tests.promises.optimizers_table import OPTIMIZERS, make

STEPS = 3
TABLE = {"still": 0, "eight": 8, "some": -0.3}
FACTORS = {**TABLE, "plain": 1}
ULP = 2.0**-23
"""The distance from 1 to the next float32."""
COMPILED = 4
"""Ulps of a leaf's largest entry between two compiled programs of one formula."""


@jax.jit
def loss(params: Any) -> jax.Array:
    """Pulls each weight to zero, and each leaf with a strength of its own."""
    leaves = jax.tree.leaves(params)
    pulls = [jnp.sum(w**4 + i * w**2) for i, w in enumerate(leaves, 1)]
    return jnp.sum(jnp.stack(pulls))


def params_at(step: int) -> Any:
    """A path downhill that is given, so that two optimizers go the same way."""
    kernels = 0.8**step * jax.random.normal(jax.random.key(0), (len(FACTORS), 4, 3))
    params = {g: {"kernel": k} for g, k in zip(FACTORS, kernels, strict=True)}
    params["some"]["bias"] = kernels[0, 0] + 1
    return params


PATH = [params_at(step) for step in range(STEPS)]


gradient = jax.jit(jax.grad(loss))


def gradients_of(name: str, params: Any) -> Any:
    gradients = gradient(params)
    if OPTIMIZERS[name].per_example:
        return jax.tree.map(lambda g: jnp.stack([g, -0.5 * g]), gradients)
    return gradients


def unshared(state: Any) -> Any:
    """A copy that may be donated: some states begin with the parameters themselves."""
    return jax.tree.map(jnp.copy, state)


def read_leaves(tree: Any) -> list[jax.Array]:
    """The leaves but those of what is still, which a step may leave alone."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [x for path, x in paths if "still" not in jax.tree_util.keystr(path)]


class Run:
    """An optimizer along the path, compiled or operation by operation."""

    def __init__(self, name: str, tx: Any) -> None:
        self.name, self.tx = name, optax.with_extra_args_support(tx)
        self.first_state = tx.init(PATH[0])
        per_example = OPTIMIZERS[name].per_example  # Too large to hold the updates.
        self.jitted = jax.jit(self.step, donate_argnums=1 if per_example else (0, 1))
        self.traces, self.updates, self.donated = 0, [], []

    def compiled(self) -> "Run":
        state = unshared(self.first_state)
        for params in PATH:
            gradients = gradients_of(self.name, params)
            given = read_leaves((gradients, state))
            updates, state = self.jitted(gradients, state, params)
            self.updates.append(updates)
            self.donated.append([array.is_deleted() for array in given])
        self.state, self.compilations = state, self.traces
        return self

    def eager(self) -> "Run":
        state = self.first_state
        for params in PATH:
            gradients = gradients_of(self.name, params)
            with jax.disable_jit():  # Otherwise a loop is compiled anew in each step.
                updates, state = self.step(gradients, state, params)
            self.updates.append(updates)
        self.state = state
        return self

    def step(self, gradients: Any, state: Any, params: Any) -> Any:
        """A step with all that any optimizer asks for."""
        self.traces += 1
        extra: dict[str, Any] = {"value": loss(params), "value_fn": loss}
        if self.name.endswith("sophia"):
            extra = {"obj_fn": loss}
        return self.tx.update(gradients, state, params, grad=gradients, **extra)

    @functools.cached_property
    def program(self) -> str:
        """The program that is compiled, without the names of its results."""
        arguments = gradients_of(self.name, PATH[0]), self.first_state, PATH[0]
        text = self.jitted.lower(*arguments).as_text()
        return re.sub(r'jax.result_info = "[^"]*"', "", text)


def with_table(name: str) -> Any:
    return olm.with_name_multipliers(make(name), TABLE)


@functools.cache
def plain(name: str) -> Run:
    return Run(name, make(name)).compiled()


@functools.cache
def ours(name: str) -> Run:
    return Run(name, with_table(name)).compiled()


@functools.cache
def eager_plain(name: str) -> Run:
    return Run(name, make(name)).eager()


@functools.cache
def eager_ours(name: str) -> Run:
    return Run(name, with_table(name)).eager()


def one_is_the_plain_program(name: str) -> None:
    """To the last character, and so to the last bit."""
    ones = olm.with_name_multipliers(make(name), dict.fromkeys(FACTORS, 1))
    assert Run(name, ones).program == plain(name).program


def in_a_chain_it_is_the_same_program(name: str) -> None:
    chain = optax.chain(make(name), olm.scale_by_name_multiplier(TABLE))
    assert Run(name, chain).program == ours(name).program


def zero_is_still(name: str) -> None:
    """Bit for bit, also where gradients are not finite."""
    params, state = PATH[0], unshared(ours(name).first_state)
    for bad in 1.0, np.nan, np.inf, -1e38, 0.0:
        gradients = gradients_of(name, params)
        still = jax.tree.map(lambda g, b=bad: g * b, gradients["still"])
        gradients = gradients | {"still": still}
        updates, state = ours(name).jitted(gradients, state, params)
        params = optax.apply_updates(params, updates)
        chex.assert_trees_all_equal(params["still"], PATH[0]["still"])


def powers_of_two_are_doublings(name: str) -> None:
    """Bit for bit, in a step that is run operation by operation."""
    columns = eager_ours(name).updates, eager_plain(name).updates
    for mine, theirs in zip(*columns, strict=True):
        chex.assert_trees_all_equal(mine["plain"], theirs["plain"])
        expected = theirs["eight"]
        for _ in range(3):
            expected = jax.tree.map(lambda u: u + u, expected)
        chex.assert_trees_all_equal(mine["eight"], expected)


def any_other_is_one_rounding(name: str) -> None:
    """The float32 product of the multiplier and the plain update, bit for bit."""
    columns = eager_ours(name).updates, eager_plain(name).updates
    for mine, theirs in zip(*columns, strict=True):
        chex.assert_trees_all_equal(mine["some"], product_of_some(theirs))


def compiled_products_are_within_ulps(name: str) -> None:
    """XLA may round a product together with the operation before or behind it.

    Which ones it joins is for the processor and the release to say, also where the
    multiplier is 1, so nothing compiled is asked for to the bit.
    """
    for mine, theirs in zip(ours(name).updates, plain(name).updates, strict=True):
        for group, factor in FACTORS.items():
            expected = jax.tree.map(
                lambda u, m=factor: np.float32(m) * u, theirs[group]
            )
            assert_within(COMPILED, mine[group], expected)


def product_of_some(updates: Any) -> Any:
    factor = np.float32(TABLE["some"])
    return jax.tree.map(lambda u: factor * np.asarray(u), updates["some"])


def assert_within(ulps: float, one: Any, other: Any) -> None:
    """Holds each leaf against ulps of its largest entry.

    A compiled product and sum may be contracted to one rounding, and an entry that is a
    difference of larger terms keeps their absolute error.
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(one, other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if not jnp.issubdtype(b.dtype, jnp.inexact):
            chex.assert_trees_all_equal(a, b)
            continue
        bound = ulps * ULP * np.max(np.abs(b), initial=0)
        np.testing.assert_allclose(a, b, rtol=0, atol=bound)


def eager_and_jit_agree(name: str) -> None:
    """Two roundings of each of the few operations in a row that make an update."""
    assert_within(16, ours(name).updates[0], eager_ours(name).updates[0])


def it_equals_one_optimizer_per_group(name: str) -> None:
    """As `optax.multi_transform`, in which the learning rate of each is m times ours.

    Ours are 4 roundings (the rate, the multiplier, two products) and theirs 2, of half
    an ulp each; the rest of the bound is for cores that subtract two such updates.
    """
    factors = {group: m for group, m in FACTORS.items() if group != "still"}
    groups = {group: make(name, m) for group, m in factors.items()}
    labels = {group: group for group in factors} | {"still": "plain"}
    by_group = Run(name, optax.multi_transform(groups, labels)).eager()
    for mine, theirs in zip(eager_ours(name).updates, by_group.updates, strict=True):
        for group in factors:
            assert_within(8, mine[group], theirs[group])


def the_state_is_the_plain_one(name: str) -> None:
    """At the beginning and after the steps, so that checkpoints go both ways.

    To the bit where operations run one by one; compiled, to some ulps.
    """
    chex.assert_trees_all_equal(ours(name).first_state, plain(name).first_state)
    assert_within(COMPILED, ours(name).state, plain(name).state)
    eager = eager_ours(name).state, eager_plain(name).state
    chex.assert_trees_all_equal(*eager)


def init_needs_shapes_only(name: str) -> None:
    shapes = jax.eval_shape(ours(name).tx.init, jax.eval_shape(lambda: PATH[0]))
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, ours(name).first_state)


def donated_buffers_are_used(name: str) -> None:
    assert ours(name).donated == plain(name).donated


def it_compiles_once(name: str) -> None:
    assert ours(name).compilations == 1


def masking_the_frozen_changes_no_other(name: str) -> None:
    """`mask_frozen=True` takes the state of what is still, and no bit of the rest."""
    tx = olm.with_name_multipliers(make(name), TABLE, mask_frozen=True)
    masked = Run(name, tx).eager()
    chex.assert_trees_all_equal(masked.updates, eager_ours(name).updates)
    rest = read_leaves(masked.state.inner_state), read_leaves(eager_ours(name).state)
    chex.assert_trees_all_equal(*rest)


LAWS: dict[str, Callable[[str], None]] = {
    law.__name__: law
    for law in (
        one_is_the_plain_program,
        in_a_chain_it_is_the_same_program,
        zero_is_still,
        powers_of_two_are_doublings,
        any_other_is_one_rounding,
        compiled_products_are_within_ulps,
        eager_and_jit_agree,
        it_equals_one_optimizer_per_group,
        the_state_is_the_plain_one,
        init_needs_shapes_only,
        donated_buffers_are_used,
        it_compiles_once,
        masking_the_frozen_changes_no_other,
    )
}
