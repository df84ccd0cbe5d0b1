"""What the state of a wrapped optimizer tells: its step, and whether it fits."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_leaves_with_path

from optax_lrmult._names import PyTree
from optax_lrmult._packed_tree import is_packed, packs_in
from optax_lrmult._values import shown


def step_of(state: optax.OptState) -> jax.Array:
    """The optimizer's own count of its steps."""
    for _, count in optax.tree.get_all_with_path(state, "count"):
        if getattr(count, "shape", None) == () and _is_integer(count):
            return count
    raise ValueError(
        "A schedule needs the number of steps taken, and the optimizer's state has no "
        "count of them. Use optax.chain(tx, scale_by_name_multiplier(multipliers)), "
        "which keeps its own. Of a state made under vmap, map the update too."
    )


def _is_integer(count: jax.Array) -> bool:
    return jnp.issubdtype(count.dtype, jnp.integer)


def check_fits(
    tx: optax.GradientTransformation, state: optax.OptState, params: PyTree
) -> None:
    """Raises a `ValueError` if the state is not that of this optimizer's parameters.

    For the update that has failed: a mask has changed, or a parameter has.
    """
    new = jax.eval_shape(tx.init, params)
    wanted, found = _parts(new), _parts(state)
    wrong = [f"lacks {shown(path)}" for path in sorted(wanted.keys() - found)[:1]]
    wrong += [f"has {shown(path)}" for path in sorted(found.keys() - wanted)[:1]]
    other = [path for path in wanted if wanted[path] != found.get(path)]
    if other and not wrong:
        path = other[0]
        wrong = [f"has {shown(path)} {found[path]}, not {wanted[path]}"]
    if wrong:
        raise ValueError(
            "The state is that of another optimizer, or of other parameters: it "
            f"{' and '.join(wrong)}.{_hint(new, state)}"
        ) from None


def _parts(state: optax.OptState) -> dict[str, str]:
    """What is where: an array of a shape, or what a mask or `packed` has made of it."""
    leaves = tree_leaves_with_path(state, is_leaf=_is_special)
    return {keystr(path): _described(leaf) for path, leaf in leaves}


def _is_special(node: Any) -> bool:
    return is_packed(node) or isinstance(node, optax.MaskedNode)


def _described(leaf: Any) -> str:
    if is_packed(leaf):
        return "packed"
    if isinstance(leaf, optax.MaskedNode):
        return "hidden by a mask"
    return f"of shape {getattr(leaf, 'shape', ())}"  # Also of abstract arrays.


def _hint(*states: optax.OptState) -> str:
    hint = ""
    if any("Masked" in str(jax.tree.structure(state)) for state in states):
        hint += (
            " With mask_frozen=True a state has no moments of frozen parameters: "
            "restore it with the rules that it was saved with, or take its moments "
            "over as README's Checkpoints shows. What is to thaw later is better "
            "frozen by a schedule."
        )
    if any(map(packs_in, states)):
        hint += (
            " unpacked_state and packed_state lead out of a state of packed and into "
            "it."
        )
    return hint
