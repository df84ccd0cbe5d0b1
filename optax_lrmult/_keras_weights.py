"""The original optimizer's state, as Keras saves it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_lrmult._hyperparameters import check_flag
from optax_lrmult._multipliers import assign
from optax_lrmult._names import PyTree, names_of
from optax_lrmult._values import shown


def state_from_keras_weights(
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
      TypeError: `weights` or `names` is no list, or a weight is not of real numbers.
      ValueError: the number, the names or the shapes of the weights do not fit, or they
        do not tell the order or whether it is AMSGrad.

    Example:
      >>> params = {"layer_1": {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)}}
      >>> moments = [np.full((2, 1), 0.1), np.full(1, 0.2)]
      >>> weights = [np.array(7), *moments, *moments]
      >>> state = state_from_keras_weights(weights, params)
      >>> print(state.count, state.mu["layer_1"]["bias"])
      7 [0.2]
    """
    if isinstance(weights, str) or not isinstance(weights, Sequence | np.ndarray):
        raise TypeError(
            "state_from_keras_weights takes the list of get_weights(), not "
            f"{shown(weights)} ({type(weights).__name__})."
        )
    if amsgrad is not None:
        check_flag(amsgrad, "amsgrad")
    labels = [row.name for row in assign(params, ())]
    order = list(_written_order(params)) if names is None else _matched(names, labels)
    count, sizes = len(order), (1 + 2 * len(order), 1 + 3 * len(order))
    if len(weights) not in sizes:
        raise ValueError(
            f"The original saves {sizes[1]} weights for {count} parameters "
            f"([iterations] + ms + vs + vhats; {sizes[0]} without vhats), not "
            f"{len(weights)}."
        )
    ms, vs, vhats = (weights[1 + i * count : 1 + (i + 1) * count] for i in range(3))
    shapes = dict(zip(labels, map(jnp.shape, jax.tree.leaves(params)), strict=True))
    if names is None:
        _check_order_is_told(order, labels, shapes)
    if amsgrad and len(vhats) != count:
        raise ValueError(
            f"amsgrad=True needs vhats, and {len(weights)} weights have none."
        )
    if amsgrad is None:
        amsgrad = _tells_amsgrad(vhats, [shapes[name] for name in order])

    def tree_of(arrays: Sequence[Any]) -> PyTree:
        by_name = dict(zip(order, arrays, strict=True))
        leaves, treedef = jax.tree.flatten(params)
        rows = zip(labels, leaves, strict=True)
        return treedef.unflatten([_like(n, by_name[n], leaf) for n, leaf in rows])

    iterations = jnp.asarray(_iterations(weights[0]), jnp.int32)
    if amsgrad:
        return optax.ScaleByAmsgradState(iterations, *map(tree_of, (ms, vs, vhats)))
    return optax.ScaleByAdamState(iterations, tree_of(ms), tree_of(vs))


def _iterations(weight: Any) -> int:
    steps = np.asarray(weight)
    is_count = steps.size == 1 and steps.dtype.kind in "iuf"
    if not is_count or not 0 <= steps.item() < 2**31 or steps.item() % 1:
        raise ValueError(
            "The first weight must be the number of iterations, an integer of 32 bits, "
            f"not {shown(weight)}."
        )
    return int(steps.item())


def _written_order(tree: PyTree, prefix: str = "") -> Iterator[str]:
    """Names in the order in which nested mappings are written, not in sorted order."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _written_order(value, f"{prefix}{key}/")
    else:
        yield from ((prefix + name).rstrip("/") for name in names_of(tree))


def _matched(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The labels that Keras' names stand for; Keras adds `:0` to each."""
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    if not is_list or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be a list of names, not {shown(names)}.")
    known = set(labels)
    order = [name if name in known else re.sub(r":\d+$", "", name) for name in names]
    if sorted(order) != sorted(labels):
        odd = sorted(set(order) ^ known)
        raise ValueError(
            f"names must be those of the parameters, {shown(sorted(labels))}, each "
            "once; "
            f"these are on one side only: {shown(odd)}."
        )
    return order


def _check_order_is_told(
    order: Sequence[str], labels: Sequence[str], shapes: Mapping[str, Any]
) -> None:
    """Sorted names of equal shapes may be in JAX's order instead of Keras'."""
    is_told = order != list(labels) or len(set(shapes.values())) == len(order)
    if not is_told:
        raise ValueError(
            "The parameters are in sorted order and some are of one shape, so nothing "
            "tells Keras' order of them: pass names=[w.name for w in "
            "model.trainable_weights]."
        )


def _tells_amsgrad(vhats: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> bool:
    found = [np.shape(vhat) for vhat in vhats]
    if not found or (found == [(1,)] * len(found) and found != list(shapes)):
        return False
    if found == [(1,)] * len(found):
        raise ValueError(
            "All parameters are of shape (1,), as vhats are without AMSGrad: pass "
            "amsgrad=True or amsgrad=False."
        )
    return True


def _like(name: str, array: Any, leaf: Any) -> jax.Array:
    if np.shape(array) != jnp.shape(leaf):
        raise ValueError(
            f"Keras' weight for the parameter {shown(name)} has the shape "
            f"{np.shape(array)}, but the parameter has {jnp.shape(leaf)}. Are the "
            "names in Keras' order? Pass names=[w.name for w in "
            "model.trainable_weights]."
        )
    if np.asarray(array).dtype.kind not in "iuf":
        raise TypeError(
            f"Keras' weight for the parameter {shown(name)} is not of real numbers, "
            f"but {shown(array)}."
        )
    return jnp.asarray(array, jnp.asarray(leaf).dtype)
