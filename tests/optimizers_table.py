"""Every optimizer of optax that has a learning rate, and the laws that it breaks."""

import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import optax
from optax import contrib

import optax_lrmult as olm

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Row:
    """One optimizer.

    Attributes:
      options: what its factory is given besides the learning rate.
      breaks: the laws that it breaks, each with the reason. A law that holds after all
        is a failure, too.
      per_example: True if it takes one gradient for each example.
    """

    options: Mapping[str, Any] = NOTHING
    breaks: Mapping[str, str] = NOTHING
    per_example: bool = False


def spared(reason: str, *laws: str, **options: Any) -> Row:
    return Row(options, dict.fromkeys(laws, reason))


def with_options(**options: Any) -> Row:
    return Row(options)


GLOBAL = "one number of its state is made of all parameters, so groups are not apart"
NOISE = "it draws its noise by the place in the tree, which is another one in a group"
OPTIMIZERS: dict[str, Row] = {
    "adabelief": Row(),
    "adadelta": Row(),
    "adafactor": with_options(min_dim_size_to_factor=2),
    "adagrad": Row(),
    "adam": Row(),
    "adamax": Row(),
    "adamaxw": Row(),
    "adamw": with_options(weight_decay=0.1),
    "adan": Row(),
    "amsgrad": Row(),
    "fromage": Row(),
    "lamb": with_options(weight_decay=0.1),
    "lars": with_options(weight_decay=0.1),
    "lbfgs": Row(),
    "lion": Row(),
    "nadam": Row(),
    "nadamw": Row(),
    "noisy_sgd": with_options(key=0),
    "novograd": Row(),
    "optimistic_adam": with_options(optimism=0.01),
    "optimistic_adam_v2": Row(),
    "optimistic_gradient_descent": Row(),
    "polyak_sgd": Row(),
    "radam": Row(),
    "rmsprop": with_options(momentum=0.9, centered=True),
    "rprop": Row(),
    "sgd": with_options(momentum=0.9, nesterov=True),
    "sign_sgd": Row(),
    "signum": Row(),
    "sm3": Row(),
    "yogi": Row(),
    "contrib.acprop": Row(),
    "contrib.ademamix": Row(),
    "contrib.adopt": Row(),
    "contrib.cocob": Row(),
    "contrib.dadapt_adamw": Row(),
    "contrib.dog": Row(),
    "contrib.dowg": Row(),
    "contrib.dpsgd": Row(
        {"l2_norm_clip": 1.0, "noise_multiplier": 0.1, "seed": 0}, per_example=True
    ),
    "contrib.galore": Row(),
    "contrib.madgrad": Row(),
    "contrib.momo": Row(),
    "contrib.momo_adam": Row(),
    "contrib.muon": Row(),
    "contrib.prodigy": Row(),
    "contrib.schedule_free": with_options(base_optimizer=optax.sgd(0.01)),
    "contrib.schedule_free_adamw": Row(),
    "contrib.schedule_free_sgd": Row(),
    "contrib.simplified_ademamix": Row(),
    "contrib.sophia": Row(),
    "olm.adam": with_options(amsgrad=True, max_of="raw"),
    "olm.adam_lr_mult": Row(),
}
NO_OPTIMIZERS = {
    "scale_by_learning_rate": "a factor, the last link of the chains above",
    "scale_by_rprop": "the core of rprop, and all of it but the sign",
    "contrib.scale_by_madgrad": "the core of madgrad, without its decay",
}
NAMESPACES = {"": optax, "contrib.": contrib, "olm.": olm}


def factory(name: str) -> Any:
    """The function of that name; `None` in a release of optax without it."""
    module, _, function = name.rpartition(".")
    return getattr(NAMESPACES[f"{module}." if module else ""], function, None)


def make(name: str, rate: float) -> Any:
    """The optimizer at a learning rate."""
    function, options = factory(name), OPTIMIZERS[name].options
    parameters = inspect.signature(function).parameters
    (argument,) = {"learning_rate", "max_learning_rate"} & set(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Some are on the way out.
        return function(**{argument: rate}, **options)


def with_learning_rates() -> list[str]:
    """All functions of the installed optax that take a learning rate."""
    return [
        prefix + name
        for prefix, module in NAMESPACES.items()
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if any("learning_rate" in p for p in inspect.signature(function).parameters)
        and prefix != "olm."
    ]


INSTALLED = [name for name in OPTIMIZERS if factory(name)]
