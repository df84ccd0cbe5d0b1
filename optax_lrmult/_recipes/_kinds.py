r"""Rules by what a parameter is: a bias, a norm's, an embedding, a kernel.

Kinds are told by names, and each name has one kind at most. `norm` goes before `bias`:
the bias of a norm is a norm's.
"""

import itertools
import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

from optax_lrmult._names import ParamLabels, PyTree
from optax_lrmult._notation import regex_of_kinds
from optax_lrmult._recipes._arguments import as_flag
from optax_lrmult._recipes._named import Shape, rules_by_name, shapes_by_name
from optax_lrmult._rules import Pattern, Rules
from optax_lrmult._values import as_multiplier, shown

# A name has the first kind whose expression matches it in full.
_KINDS = {
    "norm": r"(?i:.*(norm(?!al(?!i))|(?<![a-z])([lbg]n|rms)(?![a-z])).*|"
    r"(.*/)?(scale|gamma))",
    "bias": r"(.*/)?(([^/]*_)?bias|b|offset|beta)",
    "embedding": r"(?i:(.*/)?([^/]*embed[^/]*|(?![^/]*patch)[^/]*embed[^/]*/weight))",
    "kernel": r"(.*/)?(kernel|w|weight)",
}


def freeze(*patterns: Pattern) -> Rules:
    """Rules that freeze: the multiplier 0 for each pattern.

    $$m = 0$$

    Behind another table, `freeze("")` freezes what that table has no rule for.

    Args:
      *patterns: patterns of rules.

    Returns:
      The rules, in the order of the patterns.

    Raises:
      TypeError: a pattern is no `str` and no compiled regular expression.
      ValueError: there are no patterns.

    Example:
      >>> freeze("stem", "block_0/")
      Rules([('stem', 0.0), ('block_0/', 0.0)])
      >>> Rules({"head": 1}) + freeze("")
      Rules([('head', 1.0), ('', 0.0)])
    """
    if not patterns:
        raise ValueError(
            "freeze needs at least one pattern. To freeze everything write freeze('')."
        )
    return Rules([(pattern, 0.0) for pattern in patterns])


def by_kind(
    params: PyTree = None,
    *,
    bias: Any = None,
    norm: Any = None,
    kernel: Any = None,
    embedding: Any = None,
    param_labels: ParamLabels = None,
) -> Rules:
    r"""Multipliers by what a parameter is, as its name tells.

    $$m(p) = m_{\mathrm{kind}(p)}$$

    A name has the first kind that it fits, whether that kind is asked for or not:

    - norm: a segment says `norm` (not `normal`), or `ln`, `bn`, `gn` or `rms` as a word
      (`ln_1`, `pre_ln`), in any case; or the last one is `scale` or `gamma`. All of a
      norm's parameters, its bias too.
    - bias: the last segment is `bias`, `b`, `offset`, `beta`, or ends in `_bias`.
    - embedding: the last segment says `embed`, or is `weight` in one that does (but not
      in a `patch_embed`, which is a convolution).
    - kernel: the last segment is `kernel`, `w` or `weight`.

    Args:
      params: the parameters, or their shapes from `jax.eval_shape`. If they are given,
        those of one axis that are no norm's are biases, whatever their name, and the
        rules have the names themselves as patterns.
      bias: multiplier of biases, as in any rule; `None` writes no rule.
      norm: multiplier of the parameters of norms.
      kernel: multiplier of kernels.
      embedding: multiplier of embeddings.
      param_labels: the names of `params`, if not those of `path_labels`.

    Returns:
      The rules, in the order of the kinds.

    Raises:
      TypeError: a multiplier is of a wrong type.
      ValueError: no kind is asked for, a multiplier is not finite, or `params` have no
        parameter of a kind that is asked for.

    Example:
      >>> table = by_kind(bias=2, norm=0.5)
      >>> names = "conv_1/bias", "conv_1/kernel", "ln_1/bias", "BatchNorm_0/scale"
      >>> [table.find(name)[1] for name in names]
      [2.0, 1.0, 0.5, 0.5]
      >>> import jax
      >>> shape = jax.ShapeDtypeStruct((8,), "float32")
      >>> by_kind({"conv_1": {"bias": shape}, "conv_2": {"bias": shape}}, bias=2)
      Rules([(re.compile('conv_\\d+/bias'), 2.0)])
    """
    given = {"norm": norm, "bias": bias, "embedding": embedding, "kernel": kernel}
    asked = {k: as_multiplier(m, k) for k, m in given.items() if m is not None}
    if not asked:
        raise ValueError("by_kind needs a multiplier for one kind at least: bias=2.0.")
    if params is None:
        return Rules([(_pattern([kind], asked), asked[kind]) for kind in asked])
    kinds = _kinds_of(params, param_labels)
    for kind in asked:
        _check_present(kind, kinds)
    return rules_by_name(kinds, asked)


def no_decay(
    params: PyTree = None,
    *,
    bias: bool = True,
    norm: bool = True,
    embedding: bool = False,
    param_labels: ParamLabels = None,
) -> Rules:
    r"""The table for weight decay: 0 for biases and norms, and embeddings on request.

    $$m(p) = 0 \text{ if } \mathrm{kind}(p) \text{ is among them}$$

    For `add_decayed_weights_by_name`. Optax's own decay takes a mask, not a table:
    `optax.adamw(1e-3, mask=trainable(no_decay()))`. Kinds are those of `by_kind`.

    Args:
      params: the parameters, or their shapes; as in `by_kind`. With them, kinds that
        a model does not have are left out.
      bias: biases do not decay.
      norm: the parameters of norms do not decay.
      embedding: embeddings do not decay.
      param_labels: the names of `params`, if not those of `path_labels`.

    Returns:
      One rule of multiplier 0 for all of them, or with `params` as many as it takes.

    Raises:
      TypeError: `bias`, `norm` or `embedding` is no `bool`.

    Example:
      >>> table = no_decay()
      >>> [table.find(name)[1] for name in ("a/kernel", "a/bias", "LayerNorm_0/scale")]
      [1.0, 0.0, 0.0]
    """
    flags = {"norm": norm, "bias": bias, "embedding": embedding}
    asked = [kind for kind in flags if as_flag(flags[kind], kind)]
    if params is not None:
        kinds = _kinds_of(params, param_labels)
        return rules_by_name({n: k in asked for n, k in kinds.items()}, {True: 0.0})
    return Rules([(_pattern(asked, asked), 0.0)] if asked else [])


def kind_of(name: str, shape: Shape | None = None) -> str | None:
    """The kind that a parameter's name tells, and its shape if that is known."""
    kinds = (kind for kind, regex in _KINDS.items() if re.fullmatch(regex, name))
    kind = next(kinds, None)
    return "bias" if kind != "norm" and shape and len(shape) == 1 else kind


def _kinds_of(params: PyTree, param_labels: ParamLabels) -> dict[str, str | None]:
    if isinstance(params, str | int | float):
        raise TypeError(
            "by_kind and no_decay take the parameters first, not "
            f"{shown(params)} ({type(params).__name__}). Multipliers have names, as in "
            "by_kind(bias=2), and a table is what a call returns: no_decay()."
        )
    shapes = shapes_by_name(params, param_labels)
    return {name: kind_of(name, shape) for name, shape in shapes.items()}


def _pattern(kinds: Iterable[str], in_table: Container[str]) -> re.Pattern[str]:
    return re.compile(regex_of_kinds({kind: _regex(kind, in_table) for kind in kinds}))


def _regex(kind: str, in_table: Container[str]) -> str:
    """The names of a kind, without those of a former kind that has no rule."""
    former = itertools.takewhile(lambda other: other != kind, _KINDS)
    others = "|".join(f"{_KINDS[k]}$" for k in former if k not in in_table)
    return f"(?!{others}){_KINDS[kind]}" if others else _KINDS[kind]


def _check_present(kind: str, kinds: Mapping[str, str | None]) -> None:
    if kind not in kinds.values():
        present = sorted({kind for kind in kinds.values() if kind})
        raise ValueError(
            f"by_kind has a multiplier for {kind}, but none of the {len(kinds)} "
            f"parameters is of that kind. They have the kinds {present}."
        )
