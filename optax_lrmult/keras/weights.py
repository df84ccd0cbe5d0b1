"""The original optimizer's state, as Keras saves it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_lrmult.core.assignment import assign
from optax_lrmult.core.expect import expect
from optax_lrmult.core.names import PyTree, names_of

_PASS_NAMES = "pass names=[w.name for w in model.trainable_weights]"


def state_from_weights(
    weights: Sequence[Any],
    params: PyTree,
    *,
    names: Sequence[str] | None = None,
    amsgrad: bool | None = None,
) -> optax.OptState:
    r"""The state of `adam_lr_mult` from the weights of the original optimizer.

    Keras lists `[iterations] + ms + vs + vhats`, each in the order in which its layers
    were built. A JAX tree is in the order of its sorted keys, so the order has to be
    said: by `names`, or by a mapping that still has it.

    Args:
      weights: what `optimizer.get_weights()` of the original gives: `1 + 3n` arrays for
        n parameters (without AMSGrad the vhats are of shape `(1,)`, or left out).
      params: the parameters, a pytree of arrays of the shapes that Keras has.
      names: the names of the parameters in Keras' order, with or without Keras' `:0`,
        such as `[w.name for w in model.trainable_weights]`. By default the order in
        which `params` is written, as in `{w.name: value for w in ...}`.
      amsgrad: whether the state is AMSGrad's; by default the shapes of vhats tell.

    Returns:
      An `optax.ScaleByAdamState` or `optax.ScaleByAmsgradState`, in the dtypes of
      `params`.

    Raises:
      ValueError: the number, the names or the shapes of the weights do not fit, or they
        do not tell the order or whether it is AMSGrad.

    Example:
      >>> params = {"layer_1": {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)}}
      >>> moments = [np.full((2, 1), 0.1), np.full(1, 0.2)]
      >>> weights = [np.array(7), *moments, *moments]
      >>> state = state_from_weights(weights, params)
      >>> print(state.count, state.mu["layer_1"]["bias"])
      7 [0.2]
    """
    shapes = {row.name: row.shape for row in assign(params, None)}
    order = _order(params, list(shapes)) if names is None else _matched(names, shapes)
    if names is None:
        # Sorted names of equal shapes may be in JAX's order instead of Keras'.
        is_told = order != list(shapes) or len(set(shapes.values())) == len(order)
        wanted = f"told by names, since some shapes are equal: {_PASS_NAMES}"
        expect(is_told, "Keras' order of the parameters", wanted, order)
    count = len(order)
    without, whole = 1 + 2 * count, 1 + 3 * count
    sizes = (whole,) if amsgrad else (without, whole)
    wanted = (
        f"{whole} for {count} parameters ([iterations] + ms + vs + vhats), or "
        f"{without} if it is not AMSGrad's"
    )
    expect(len(weights) in sizes, "The number of weights", wanted, len(weights))
    ms, vs, vhats = (weights[1 + i * count : 1 + (i + 1) * count] for i in range(3))
    if amsgrad is None:
        amsgrad = _tells_amsgrad(vhats, [shapes[name] for name in order])
    steps = np.asarray(weights[0])
    is_count = steps.size == 1 and steps.item() >= 0 and steps.item() % 1 == 0
    expect(is_count, "The first weight", "the number of iterations", weights[0])
    iterations = jnp.asarray(steps.item(), jnp.int32)

    def tree_of(arrays: Sequence[Any]) -> PyTree:
        by_name = dict(zip(order, arrays, strict=True))
        leaves, treedef = jax.tree.flatten(params)
        rows = zip(shapes, leaves, strict=True)
        return treedef.unflatten([_like(n, by_name[n], leaf) for n, leaf in rows])

    if amsgrad:
        return optax.ScaleByAmsgradState(iterations, *map(tree_of, (ms, vs, vhats)))
    return optax.ScaleByAdamState(iterations, tree_of(ms), tree_of(vs))


def _order(tree: PyTree, names: list[str]) -> list[str]:
    order = list(_written_order(tree))
    return order if sorted(order) == sorted(names) else names


def _written_order(tree: PyTree, prefix: str = "") -> Iterator[str]:
    """Names in the order in which nested mappings are written, not in sorted order."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _written_order(value, f"{prefix}{key}/")
    else:
        yield from ((prefix + name).rstrip("/") for name in names_of(tree))


def _matched(names: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """The parameters that Keras' names stand for; Keras adds `:0` to each."""
    order = [name if name in known else re.sub(r":\d+$", "", name) for name in names]
    odd = sorted(set(order) ^ set(known))
    fits = sorted(order) == sorted(known)
    expect(
        fits, "names", f"those of the parameters, each once; not on both: {odd}", names
    )
    return order


def _tells_amsgrad(vhats: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> bool:
    found = [np.shape(vhat) for vhat in vhats]
    is_plain = found == [(1,)] * len(found)
    is_told = not found or not is_plain or found != list(shapes)
    wanted = "True or False, since all parameters have the shape (1,)"
    expect(is_told, "amsgrad", wanted, None)
    return not is_plain


def _like(name: str, array: Any, leaf: Any) -> jax.Array:
    wanted = (
        f"{jnp.shape(leaf)}, as the parameter's; if the order is wrong, {_PASS_NAMES}"
    )
    fits = np.shape(array) == jnp.shape(leaf)
    expect(fits, f"The shape of Keras' weight for {name!r}", wanted, np.shape(array))
    return jnp.asarray(array, jnp.asarray(leaf).dtype)
