"""Random trees, tables, numbers and chains, against a reading in plain Python.

The number of examples is that of `--examples`; see conftest.py.
"""

import collections
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_lrmult as olm

# `--examples`, shared evenly by the properties of this file.
many = hypothesis.settings.get_profile("properties")
KEYS = ["stem", "block_1", "block_10", "bias", "kernel", "x"]
FLOATS = ["float32", "bfloat16", "float16"]
SHAPES = [(), (1,), (3,), (0,), (2, 3), (2, 0)]


class Pair(NamedTuple):
    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    kernel: Any
    bias: Any


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(children, max_size=3)
    keyed = st.dictionaries(st.sampled_from(KEYS), children, max_size=3)
    return (
        keyed
        | keyed.map(collections.OrderedDict)
        | few
        | few.map(tuple)
        | st.builds(Pair, children, children)
        | st.builds(Layer, children, children)
        | st.none()
    )


def named_leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Names and leaves in JAX's order, without JAX."""
    match tree:
        case None:
            return
        case collections.OrderedDict():
            children = list(tree.items())
        case dict():
            children = sorted(tree.items())
        case Pair():
            children = list(tree._asdict().items())
        case list() | tuple():
            children = list(enumerate(tree))
        case Layer():
            children = list(vars(tree).items())
        case _:
            yield "/".join(path), tree
            return
    for key, child in children:
        yield from named_leaves(child, (*path, str(key)))


@st.composite
def arrays(draw: st.DrawFn, dtypes: list[str], values: Any) -> Any:
    shape = draw(st.sampled_from(SHAPES))
    dtype = draw(st.sampled_from(dtypes))
    size = math.prod(shape)
    numbers = draw(st.lists(values, min_size=size, max_size=size))
    return jnp.asarray(np.asarray(numbers, "float32").reshape(shape)).astype(dtype)


def trees(dtypes: list[str], values: Any = None) -> st.SearchStrategy[Any]:
    values = st.floats(-8, 8, width=16) if values is None else values
    whole = st.recursive(arrays(dtypes, values), containers, max_leaves=6)
    return whole.filter(lambda tree: tree is not None)


@dataclasses.dataclass(frozen=True)
class Line:
    """A rule as it is said: how its text is meant, the text, and the multiplier."""

    how: str
    text: str
    multiplier: float

    def matches(self, name: str) -> bool:
        match self.how:
            case "is":
                return name == self.text
            case "ends":
                return name.split("/")[-1] == self.text
            case "prefix":
                words = self.text.split("/")
                return name.split("/")[: len(words)] == words
            case _:  # contains
                return name.find(self.text) >= 0

    def rule(self) -> olm.Rule:
        match self.how:
            case "is":
                return olm.Rule(re.compile(re.escape(self.text)), self.multiplier)
            case "ends":
                return olm.Rule(olm.glob(f"**/{self.text}"), self.multiplier)
            case "prefix":
                return olm.by_prefix({self.text: self.multiplier})[0]
            case _:  # contains
                return olm.Rule(self.text, self.multiplier)


NUMBERS = st.sampled_from([0.0, 1.0, 0.5, -1.0, 4.0]) | st.floats(-1e3, 1e3)
WORDS = st.sampled_from([*KEYS, "0", "1", "first"])
TEXTS = WORDS | st.builds("/".join, st.lists(WORDS, min_size=2, max_size=3))
LINES = st.builds(Line, st.sampled_from(["contains", "is", "prefix"]), TEXTS, NUMBERS)
TABLES = st.lists(LINES | st.builds(Line, st.just("ends"), WORDS, NUMBERS), max_size=4)


def rules_of(lines: list[Line]) -> olm.Rules:
    return olm.Rules([line.rule() for line in lines])


def multiplier_of(name: str, lines: list[Line]) -> float:
    for line in lines:
        if line.matches(name):
            return line.multiplier
    return 1.0


def product(multiplier: float, update: Any) -> np.ndarray:
    """In float32, then rounded to the update's dtype; integers are left alone."""
    update = np.asarray(update)
    if update.dtype.kind in "bi" or multiplier == 1:
        return update
    if multiplier == 0:
        return np.zeros_like(update)
    with np.errstate(all="ignore"):
        return (np.float32(multiplier) * update.astype("float32")).astype(update.dtype)


def expected(updates: Any, lines: list[Line]) -> list[np.ndarray]:
    rows = named_leaves(updates)
    return [product(multiplier_of(name, lines), leaf) for name, leaf in rows]


def assert_same(ours: Any, leaves: list[np.ndarray]) -> None:
    """Bit for bit, with dtypes and shapes."""
    for mine, other in zip(jax.tree.leaves(ours), leaves, strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        # NumPy's comparison knows no NaN of bfloat16; float32 holds all its values.
        np.testing.assert_array_equal(*map(normal, (mine, other)))


def normal(array: Any) -> np.ndarray:
    """In float32, without what is too small for its exponent, which XLA drops."""
    array = np.asarray(array).astype("float32")
    return np.where(np.abs(array) < np.finfo("float32").tiny, 0, array)


ANY_VALUE = st.floats(width=16) | st.sampled_from([3e38, -2e-38, math.nan, math.inf])


@many
@hypothesis.given(trees([*FLOATS, "int32", "bool"], st.floats(-8, 8, width=16)), TABLES)
def test_names_are_those_of_a_plain_walk(tree: Any, lines: list[Line]) -> None:
    rows = olm.assign(tree, rules_of(lines))
    names = [name for name, _ in named_leaves(tree)]
    assert [row.name for row in rows] == names
    assert [row.multiplier for row in rows] == [multiplier_of(n, lines) for n in names]


@many
@hypothesis.given(trees(FLOATS, ANY_VALUE), TABLES)
def test_an_update_is_the_product_of_a_plain_walk(tree: Any, lines: list[Line]) -> None:
    tx = olm.scale_by_name_multiplier(rules_of(lines), on_unmatched="ignore")
    ours, _ = tx.update(tree, optax.EmptyState())
    assert jax.tree.structure(ours) == jax.tree.structure(tree)
    assert_same(ours, expected(tree, lines))


@many
@hypothesis.given(trees(FLOATS), TABLES)
def test_around_adam_the_state_is_adams(tree: Any, lines: list[Line]) -> None:
    plain = optax.adam(0.1)
    tx = olm.with_name_multipliers(plain, rules_of(lines), on_unmatched="ignore")
    state = plain.init(tree)
    chex.assert_trees_all_equal(tx.init(tree), state)
    theirs, their_state = plain.update(tree, state, tree)
    ours, our_state = tx.update(tree, state, tree)
    chex.assert_trees_all_equal(our_state, their_state)
    assert_same(ours, expected(theirs, lines))


CORES: list[Callable[[], Any]] = [
    optax.identity,
    optax.scale_by_adam,
    optax.scale_by_lion,
    optax.scale_by_rms,
    optax.scale_by_sign,
]
BEFORE: list[Callable[[], Any]] = [
    lambda: optax.clip_by_global_norm(1.0),
    lambda: optax.clip(0.5),
    lambda: optax.add_decayed_weights(0.1),
]
AFTER: list[Callable[[], Any]] = [
    lambda: optax.add_decayed_weights(0.1),
    lambda: optax.scale_by_learning_rate(0.01),
    lambda: optax.scale(-3.0),
    lambda: optax.trace(0.9),
    lambda: optax.scale_by_schedule(optax.linear_schedule(1.0, 0.0, 5)),
    lambda: optax.ema(0.5),
]
links = st.tuples(
    st.lists(st.sampled_from(BEFORE), max_size=2),
    st.sampled_from(CORES),
    st.lists(st.sampled_from(AFTER), max_size=3),
)


@many
@hypothesis.given(trees(["float32"]), TABLES, links, st.data())
def test_anywhere_in_a_chain_it_multiplies_what_it_is_given(
    tree: Any, lines: list[Line], links: Any, data: st.DataObject
) -> None:
    # XLA drops what is too small for its exponent, and a later link may enlarge it.
    hypothesis.assume(all(not 0 < abs(line.multiplier) < 1e-30 for line in lines))
    before, core, after = links
    place = data.draw(st.integers(0, len(after)))
    front = [make() for make in (*before, core, *after[:place])]
    back = [make() for make in after[place:]]
    scale = olm.scale_by_name_multiplier(rules_of(lines), on_unmatched="ignore")
    tx, front, back = optax.chain(*front, scale, *back), *map(of, (front, back))
    state = tx.init(tree)
    front_state, back_state = front.init(tree), back.init(tree)
    for _ in range(2):
        ours, state = tx.update(tree, state, tree)
        given, front_state = front.update(tree, front_state, tree)
        scaled = jax.tree.unflatten(jax.tree.structure(tree), expected(given, lines))
        theirs, back_state = back.update(scaled, back_state, tree)
        assert_same(ours, jax.tree.leaves(theirs))


def of(links: list[Any]) -> Any:
    return optax.with_extra_args_support(optax.chain(optax.identity(), *links))


@many
@hypothesis.given(trees(FLOATS), TABLES)
def test_a_table_comes_back_from_its_config(tree: Any, lines: list[Line]) -> None:
    config = json.loads(json.dumps(olm.rules_to_config(rules_of(lines))))
    again = olm.rules_from_config(config)
    assert again == rules_of(lines)
    rows = olm.assign(tree, again)
    plain = [multiplier_of(name, lines) for name, _ in named_leaves(tree)]
    assert [row.multiplier for row in rows] == plain


POSITIVE = st.floats(1e-6, 10)
CONFIGS = st.builds(
    olm.AdamLRMultConfig,
    learning_rate=POSITIVE,
    b1=st.floats(0, 0.999),
    b2=st.floats(0, 0.999),
    eps=POSITIVE,
    decay=POSITIVE,
    amsgrad=st.booleans(),
    multipliers=st.none() | st.dictionaries(TEXTS, NUMBERS, max_size=3),
    clipnorm=st.none() | POSITIVE,
    clipvalue=st.none() | POSITIVE,
)


@many
@hypothesis.given(CONFIGS)
def test_a_config_comes_back_from_keras(config: olm.AdamLRMultConfig) -> None:
    saved = json.loads(json.dumps(config.to_keras()))
    assert olm.AdamLRMultConfig.from_keras(saved) == config
