"""From the state of one optimizer to that of another one, for checkpoints."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_flatten_with_path

from optax_lrmult.core.expect import expect, nearest
from optax_lrmult.core.names import PyTree, is_hidden, unboxed
from optax_lrmult.transforms.by_name import COUNTS_STEPS, step_of
from optax_lrmult.transforms.packed import Packed

Place = tuple[str, ...]  # The class of a state, its field, and the keys from there on.


def move_state(state: optax.OptState, like: optax.OptState) -> optax.OptState:
    """The numbers of an optimizer's state, in the structure of another optimizer's.

    Moments go by the class of their state and by the names of the parameters, so that
    wrappers and members of a chain may come and go: multipliers, schedules,
    `mask_frozen`, `optax.masked`, `optax.partition`, `optax.inject_hyperparams`. A
    schedule that is new begins at the number of steps that were taken.

    Moments of what is frozen by `mask_frozen` now are left out. What was frozen so, and
    learns now, begins with moments of 0 in the middle of the count, by which Adam
    corrects them no longer: with the usual betas its first steps are up to 6.5 times as
    large as at the start of a training. A schedule as the multiplier makes up for it:
    `(1 - b2**k) ** 0.5 / (1 - b1**k)` in the `k`-th step since then.

    Args:
      state: the state to move. A checkpoint is restored into the old optimizer's
        `init(params)` first, since files do not say which class a state is of.
      like: the new optimizer's `init(params)`, or an `nnx.Optimizer`'s `opt_state`.
        Hyperparameters are those of `state` where it has them.

    Returns:
      The state, in the structure and the dtypes of `like`.

    Raises:
      ValueError: one of the states has something that the other one has no place for,
        as after a change of the optimizer or of the network.

    Example:
      >>> params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
      >>> old = optax.adam(1e-3)
      >>> _, old_state = old.update(params, old.init(params))
      >>> tx = optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(jnp.cos))
      >>> print(move_state(old_state, tx.init(params))[1])
      ScaleByScheduleState(count=Array(1, dtype=int32))
    """
    state = unboxed(state)
    old, new = _Entries(state), _Entries(unboxed(like))
    for place in old.numbers:
        is_settled = place in new.numbers or new.hides(place) or _may_begin_anew(place)
        if not is_settled:
            raise _misfit(place, old, new)
    # Of two states of one class, the first one's numbers go to the first one.
    in_order = {
        place: iter(found)
        for place, found in old.numbers.items()
        if len(found) == len(new.numbers.get(place, ()))
    }
    moved: list[Any] = []
    for place, fresh in new.all:
        if place in in_order:
            moved.append(_fitted(next(in_order[place]), fresh, place))
        elif _is_count_of_steps(place):
            moved.append(_fitted(_steps_of(state, place), fresh, place))
        elif place not in old.numbers and (_may_begin_anew(place) or old.hides(place)):
            moved.append(fresh)
        else:
            raise _misfit(place, old, new)
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(moved))


class _Entries:
    """What a state holds, by places; two states of one class share them."""

    def __init__(self, state: PyTree):
        entries = list(_entries(state, ("", "")))
        self.hidden = {place for place, entry in entries if is_hidden(entry)}
        self.all = [(p, entry) for p, entry in entries if not is_hidden(entry)]
        self.numbers: dict[Place, list[Any]] = {}
        for place, entry in self.all:
            self.numbers.setdefault(place, []).append(entry)

    def hides(self, place: Place) -> bool:
        """True if a mask hides the place, or a node that it is part of."""
        lengths = range(2, len(place) + 1)
        return any(place[:length] in self.hidden for length in lengths)


def _entries(node: PyTree, place: Place) -> Iterator[tuple[Place, Any]]:
    """Arrays, and what a mask hides, in the order of the leaves."""
    for keys, child in tree_flatten_with_path(node, is_leaf=_is_no_part_of_a_name)[0]:
        if isinstance(child, Packed):
            raise ValueError(
                "move_state goes by names, and in a packed state there are none: give "
                "it unpacked_state(...) of both, and what it returns to packed_state."
            )
        if _is_state(child):
            for field, part in zip(child._fields, child, strict=True):
                yield from _entries(part, (type(child).__name__, field))
        else:
            yield (*place, *(keystr((key,), simple=True) for key in keys)), child


def _is_no_part_of_a_name(node: Any) -> bool:
    return _is_state(node) or is_hidden(node) or isinstance(node, Packed)


def _is_state(node: Any) -> bool:
    """True for a state of optax, told by its name from other named tuples."""
    name = type(node).__name__
    is_known = name.endswith("State") or name in ("ApplyEvery", "WeightDecaySchedule")
    return is_known and hasattr(node, "_fields")


def _is_count_of_steps(place: Place) -> bool:
    return place[1:] == ("count",) and COUNTS_STEPS.fullmatch(place[0]) is not None


def _may_begin_anew(place: Place) -> bool:
    """True for what no training has learned: counts of steps, and settings."""
    return place[1] == "hyperparams" or _is_count_of_steps(place)


def _steps_of(state: optax.OptState, place: Place) -> jax.Array:
    try:
        return step_of(state)
    except ValueError:
        raise ValueError(
            f"{_shown(place)} of the new state is the number of steps taken, which the "
            "old state does not count. Give it beside the state: move_state((state, "
            "optax.ScaleByScheduleState(count=steps)), like)."
        ) from None


def _fitted(value: Any, fresh: Any, place: Place) -> Any:
    """A number of the old state, in the dtype of what it stands for."""
    shape, dtype = jnp.shape(fresh), jnp.result_type(fresh)
    wanted = f"of the shape {shape}, as in the new one"
    owner = f"{_shown(place)} of the old state"
    expect(jnp.shape(value) == shape, owner, wanted, jnp.shape(value))
    is_alike = getattr(value, "dtype", None) == dtype
    return value if is_alike else jnp.asarray(value, dtype)


def _misfit(place: Place, old: "_Entries", new: "_Entries") -> ValueError:
    times = [len(entries.numbers.get(place, ())) for entries in (old, new)]
    known = map(_shown, (new if times[0] else old).numbers)
    close = [] if all(times) else nearest(_shown(place), known)
    why = (
        "Moments of other parameters or of another optimizer can't be moved. If the "
        "optimizer is inside of something new that has a state, move into there: "
        "like._replace(inner_opt_state=move_state(state, like.inner_opt_state))."
    )
    if any(not owner for owner, *_ in [place, *old.numbers]):
        why = (
            "The old state must be one of optax: restore a checkpoint into the old "
            "optimizer's init(params), and of a TrainState take the opt_state."
        )
    return ValueError(
        f"move_state: of {_shown(place)}, the old state has {times[0]} and the new one "
        f"{times[1]}.{''.join(f' Nearest: {text}.' for text in close)} {why}"
    )


def _shown(place: Place) -> str:
    owner, name = ".".join(place[:2]), "/".join(place[2:])
    if not place[0]:
        return repr(name)
    return f"{owner} at {name!r}" if name else owner
