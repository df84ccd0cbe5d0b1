"""Random trees, tables, numbers and chains, against a reading in plain Python."""

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

KEYS = ["stem", "block_1", "block_10", "bias", "kernel", "x"]
FLOATS = ["float32", "bfloat16", "float16"]
SHAPES = [(), (3,), (0,), (2, 3)]


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

    def takes(self, name: str) -> bool:
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
        patterns = {
            "is": re.compile(re.escape(self.text)),
            "ends": olm.glob(f"**/{self.text}"),
            "prefix": olm.prefix(self.text),
            "contains": self.text,
        }
        return olm.Rule(patterns[self.how], self.multiplier)


NUMBERS = st.sampled_from([0.0, 1.0, 0.5, -1.0, 4.0]) | st.floats(-1e3, 1e3)
WORDS = st.sampled_from([*KEYS, "0", "1", "first"])
TEXTS = WORDS | st.builds("/".join, st.lists(WORDS, min_size=2, max_size=3))
LINES = st.builds(Line, st.sampled_from(["contains", "is", "prefix"]), TEXTS, NUMBERS)
TABLES = st.lists(LINES | st.builds(Line, st.just("ends"), WORDS, NUMBERS), max_size=4)


def rules_of(lines: list[Line]) -> olm.Rules:
    return olm.Rules([line.rule() for line in lines])


def value_of(name: str, lines: list[Line], default: Any) -> Any:
    found = (line.multiplier for line in lines if line.takes(name))
    return next(found, default)


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
    return [product(value_of(name, lines, 1.0), leaf) for name, leaf in rows]


def assert_same(ours: Any, leaves: list[np.ndarray]) -> None:
    """Bit for bit, with dtypes and shapes: one eager product is rounded once."""
    for mine, other in zip(jax.tree.leaves(ours), leaves, strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        # NumPy's comparison knows no NaN of bfloat16; float32 holds all its values.
        np.testing.assert_array_equal(*map(normal, (mine, other)))


def normal(array: Any) -> np.ndarray:
    """In float32, without what is too small for its exponent, which XLA drops."""
    array = np.asarray(array).astype("float32")
    return np.where(np.abs(array) < np.finfo("float32").tiny, 0, array)


ANY_VALUE = st.floats(width=16) | st.sampled_from([3e38, -2e-38, math.nan, math.inf])


@hypothesis.given(trees([*FLOATS, "int32", "bool"]), TABLES)
def test_rows_are_those_of_a_plain_walk(tree: Any, lines: list[Line]) -> None:
    """Also after the table has been written as plain data and read again."""
    config = json.loads(json.dumps(rules_of(lines).to_config()))
    names = [name for name, _ in named_leaves(tree)]
    for rules in rules_of(lines), olm.Rules.from_config(config):
        rows = olm.assign(tree, rules)
        assert [row.name for row in rows] == names
        assert [row.value for row in rows] == [value_of(n, lines, None) for n in names]


@hypothesis.given(trees([*FLOATS, "int32"], ANY_VALUE), TABLES)
def test_an_update_is_the_product_of_a_plain_walk(tree: Any, lines: list[Line]) -> None:
    tx = olm.scale_by_name_multiplier(rules_of(lines), on_unmatched="ignore")
    ours, _ = tx.update(tree, optax.EmptyState())
    assert jax.tree.structure(ours) == jax.tree.structure(tree)
    assert_same(ours, expected(tree, lines))


@hypothesis.settings(max_examples=25)
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


BEFORE: list[Callable[[], Any]] = [
    lambda: optax.clip_by_global_norm(1.0),
    lambda: optax.clip(0.5),
    optax.scale_by_adam,
    optax.scale_by_lion,
]
AFTER: list[Callable[[], Any]] = [
    lambda: optax.add_decayed_weights(0.1),
    lambda: optax.scale_by_learning_rate(0.01),
    lambda: optax.trace(0.9),
    lambda: optax.scale_by_schedule(optax.linear_schedule(1.0, 0.0, 5)),
]


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    trees(["float32"]),
    TABLES,
    st.lists(st.sampled_from(BEFORE), max_size=2),
    st.lists(st.sampled_from(AFTER), max_size=2),
)
def test_anywhere_in_a_chain_it_multiplies_what_it_is_given(
    tree: Any, lines: list[Line], before: Any, after: Any
) -> None:
    # XLA drops what is too small for its exponent, and a later link may enlarge it.
    hypothesis.assume(all(not 0 < abs(line.multiplier) < 1e-30 for line in lines))
    scale = olm.scale_by_name_multiplier(rules_of(lines), on_unmatched="ignore")
    front, back = (
        optax.chain(optax.identity(), *[make() for make in links])
        for links in (before, after)
    )
    tx = optax.chain(front, scale, back)
    state = tx.init(tree)
    front_state, back_state = front.init(tree), back.init(tree)
    for _ in range(2):
        ours, state = tx.update(tree, state, tree)
        given, front_state = front.update(tree, front_state, tree)
        scaled = jax.tree.unflatten(jax.tree.structure(tree), expected(given, lines))
        theirs, back_state = back.update(scaled, back_state, tree)
        assert_same(ours, jax.tree.leaves(theirs))
