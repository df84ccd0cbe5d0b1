"""Every optimizer of optax that has a learning rate, and the laws that it breaks."""

import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import optax
from optax import contrib

import optax_lrmult as olm


@dataclasses.dataclass(frozen=True)
class Row:
    """One optimizer.

    Attributes:
      options: what its factory is given besides the learning rate.
      breaks: the laws that it breaks, each with the reason. A law that holds after all
        is a failure, too, unless XLA's rounding decides it.
      per_example: True if it takes one gradient for each example.
      rate: its learning rate.
    """

    options: Mapping[str, Any]
    breaks: Mapping[str, str]
    per_example: bool
    rate: float


def row(
    *breaks: tuple[str, str],
    per_example: bool = False,
    rate: float = 0.01,
    **options: Any,
) -> Row:
    """A row whose exceptions are pairs of a law and a reason."""
    return Row(options, dict(breaks), per_example, rate)


def not_by_group(reason: str) -> tuple[str, str]:
    return "it_equals_one_optimizer_per_group", reason


def not_masked(reason: str) -> tuple[str, str]:
    return "masking_the_frozen_changes_no_other", reason


def not_compiled(reason: str) -> tuple[str, str]:
    return "compiled_products_are_within_ulps", reason


def not_eager(reason: str) -> tuple[str, str]:
    return "eager_and_jit_agree", reason


ALL = "it reads {} of all parameters together, and a group has its own"
NOISE = "it draws noise by a leaf's place in the tree, which in a group is another"
DIFFERENCE = "its update is a difference of parameters, rounded as these are"
AVERAGE = "its update is the way to an average, and the rate multiplies one end of it"
NEWTON = "its Newton-Schulz iteration makes hundreds of ulps of one, in plain optax too"
WEAK_ONCE = "its first state is weakly typed in optax 0.2.5, by itself too"
# One release of XLA or optax does so, and another one does not.
LEFT_TO_RELEASES = (DIFFERENCE, NEWTON, WEAK_ONCE)
OPTIMIZERS: dict[str, Row] = {
    "adabelief": row(),
    "adadelta": row(),
    "adafactor": row(min_dim_size_to_factor=2),
    "adagrad": row(),
    "adam": row(),
    "adamax": row(),
    "adamaxw": row(),
    "adamw": row(weight_decay=0.1),
    "adan": row(),
    "amsgrad": row(),
    "fromage": row(not_by_group("it shrinks weights by a root of its rate")),
    "lamb": row(weight_decay=0.1),
    "lars": row(weight_decay=0.1),
    "lion": row(),
    "nadam": row(),
    "nadamw": row(),
    "noisy_sgd": row(not_by_group(NOISE), key=0),
    "novograd": row(),
    "optimistic_adam": row(),
    "optimistic_adam_v2": row(),
    "optimistic_gradient_descent": row(),
    "polyak_sgd": row(
        not_by_group(ALL.format("the gradient's norm")),
        not_masked(ALL.format("the gradient's norm")),
        rate=10.0,  # Which its own bound cuts down.
    ),
    "radam": row(),
    "rmsprop": row(momentum=0.9, centered=True),
    "rprop": row(not_by_group("its rate is a first step, with bounds of its own")),
    "sgd": row(momentum=0.9, nesterov=True),
    "sign_sgd": row(),
    "signum": row(),
    "sm3": row(),
    "yogi": row(),
    "contrib.acprop": row(),
    "contrib.ademamix": row(),
    "contrib.adopt": row(),
    "contrib.cocob": row(not_by_group("its rate stands before a core without scale")),
    "contrib.dadapt_adamw": row(
        not_by_group(ALL.format("an estimate of the distance")),
        not_masked(ALL.format("an estimate of the distance")),
        rate=1.0,  # It finds its own.
    ),
    "contrib.dog": row(
        not_by_group(ALL.format("the distance from the start")),
        not_masked(ALL.format("the distance from the start")),
    ),
    "contrib.dowg": row(
        not_by_group(ALL.format("the distance from the start")),
        not_masked(ALL.format("the distance from the start")),
    ),
    "contrib.dpsgd": row(
        not_by_group(NOISE),
        not_masked("it is refused: its gradients have an axis of examples"),
        per_example=True,
        l2_norm_clip=1.0,
        noise_multiplier=0.1,
        seed=0,
    ),
    "contrib.galore": row(),
    "contrib.madgrad": row(not_by_group(AVERAGE), not_eager(DIFFERENCE)),
    "contrib.momo": row(
        not_by_group(ALL.format("the gradient's norm")),
        not_masked(ALL.format("the gradient's norm")),
        rate=10.0,  # Which its own bound cuts down.
    ),
    "contrib.momo_adam": row(
        not_by_group(ALL.format("the gradient's norm")),
        not_masked(ALL.format("the gradient's norm")),
        rate=10.0,  # Which its own bound cuts down.
    ),
    "contrib.muon": row(not_compiled(NEWTON), not_eager(NEWTON)),
    "contrib.prodigy": row(
        not_by_group(ALL.format("an estimate of the distance")),
        not_masked(ALL.format("an estimate of the distance")),
        rate=1.0,  # It finds its own.
    ),
    "contrib.schedule_free": row(not_by_group(AVERAGE), base_optimizer=optax.sgd(0.01)),
    "contrib.schedule_free_adamw": row(not_by_group(AVERAGE), not_eager(DIFFERENCE)),
    "contrib.schedule_free_sgd": row(not_by_group(AVERAGE)),
    "contrib.simplified_ademamix": row(("it_compiles_once", WEAK_ONCE)),
    "contrib.sophia": row(not_masked("it is refused: it evaluates the loss itself")),
    "olm.adam": row(amsgrad=True),
    "olm.keras.adam_lr_mult": row(),
}
NO_OPTIMIZERS = {
    "scale_by_learning_rate": "a factor, the last link of the chains above",
    "scale_by_rprop": "the core of rprop, and all of it but the sign",
    "scale_by_polyak": "the last link of polyak_sgd",
    "scale_by_backtracking_linesearch": "a search, to stand behind an optimizer",
    "lbfgs": "it ends in a line search, which the wrapper refuses",
    "scale_by_zoom_linesearch": "the last link of lbfgs",
    "contrib.scale_by_madgrad": "the core of madgrad, without its decay",
}
NAMESPACES = {"": optax, "contrib.": contrib, "olm.": olm, "olm.keras.": olm.keras}


def factory(name: str) -> Any:
    """The function of that name; `None` in a release of optax without it."""
    module, _, function = name.rpartition(".")
    return getattr(NAMESPACES[f"{module}." if module else ""], function, None)


def make(name: str, multiplier: float = 1.0) -> Any:
    """The optimizer at a multiple of its learning rate."""
    function, options = factory(name), OPTIMIZERS[name].options
    rate = multiplier * OPTIMIZERS[name].rate
    parameters = inspect.signature(function).parameters
    (argument,) = {"learning_rate", "max_learning_rate"} & set(parameters)
    if "key" in options and "key" not in parameters:  # So it was called in optax 0.2.4.
        options = {"seed": options["key"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Some are on the way out.
        return function(**{argument: rate}, **options)


def with_learning_rates() -> list[str]:
    """All public functions of the installed optax that take a learning rate."""
    return [
        prefix + name
        for prefix, module in (("", optax), ("contrib.", contrib))
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_")
        and any("learning_rate" in p for p in inspect.signature(function).parameters)
    ]


INSTALLED = [name for name in OPTIMIZERS if factory(name)]
