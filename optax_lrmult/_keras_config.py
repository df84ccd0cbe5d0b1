"""The original optimizer's configuration, as Keras saves it."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import optax

from optax_lrmult._constraints import KERAS_EPSILON
from optax_lrmult._keras import adam_lr_mult
from optax_lrmult._multipliers import OnUnmatched
from optax_lrmult._rules import Rules, RulesLike
from optax_lrmult._values import is_number, shown

_FIELD_OF = {
    "lr": "learning_rate",
    "beta_1": "b1",
    "beta_2": "b2",
    "epsilon": "eps",
    "decay": "decay",
    "amsgrad": "amsgrad",
    "multipliers": "multipliers",
    "clipnorm": "clipnorm",
    "clipvalue": "clipvalue",
}
_CLASS = "Adam_lr_mult"
_OPTIONAL = ("clipnorm", "clipvalue")


@dataclasses.dataclass(frozen=True)
class AdamLRMultConfig:
    """The arguments of `adam_lr_mult` as a value, from and to Keras.

    The attributes are the arguments of `adam_lr_mult`, with its defaults and units;
    tables are read into `Rules`, `None` among them stays.

    Raises:
      TypeError: a number, an option or a rule is of a wrong type.
      ValueError: a number is out of range or not finite.

    Example:
      >>> saved = {"lr": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-07,
      ...          "decay": 0.0, "amsgrad": True, "multipliers": {"layer_1": 0.5}}
      >>> config = AdamLRMultConfig.from_keras(saved)
      >>> config.amsgrad, config.multipliers
      (True, Rules([('layer_1', 0.5)]))
      >>> config.to_keras() == saved
      True
      >>> tx = config.make()
    """

    learning_rate: optax.ScalarOrSchedule = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float | None = None
    decay: float = 0.0
    amsgrad: bool = False
    multipliers: RulesLike = None
    constraints: RulesLike = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    on_unmatched: OnUnmatched = "error"

    def __post_init__(self) -> None:
        """Checks all, and copies the tables: later changes to them have no effect."""
        for field in ("multipliers", "constraints"):
            if (table := getattr(self, field)) is not None:
                object.__setattr__(self, field, Rules(table))
        self.make()

    @classmethod
    def from_keras(cls, config: Mapping[str, Any]) -> "AdamLRMultConfig":
        """The arguments that Keras saved.

        Args:
          config: what `get_config()` of the original gives, or the `optimizer_config`
            of a saved model, with `class_name` and `config`. What is missing has its
            default; `debug_verbose` is left out.

        Returns:
          The configuration.

        Raises:
          TypeError: `config` is no mapping, or a value is of a wrong type.
          ValueError: it is that of another optimizer, it has a key that the original
            does not know, or a number is out of range.

        Example:
          >>> AdamLRMultConfig.from_keras({"lr": 0.01, "clipnorm": 1.0}).clipnorm
          1.0
        """
        if not isinstance(config, Mapping):
            raise TypeError(
                f"from_keras takes the dictionary of get_config(), not {shown(config)}."
            )
        if isinstance(config.get("config"), Mapping):
            _check_class(config)
            config = config["config"]
        values = {key: v for key, v in config.items() if key != "debug_verbose"}
        for key in values:
            if key not in _FIELD_OF:
                near = difflib.get_close_matches(str(key), _FIELD_OF, n=1, cutoff=0.0)[
                    0
                ]
                raise ValueError(
                    f"The key {shown(key)} is none of the original's: "
                    f"{list(_FIELD_OF)}. Did you mean {shown(near)}?"
                )
        try:
            return cls(**{_FIELD_OF[key]: value for key, value in values.items()})
        except (TypeError, ValueError) as error:
            raise type(error)(f"In the config {shown(values)}: {error}") from None

    def to_keras(self) -> dict[str, Any]:
        """The dictionary that the original's `get_config()` would give.

        Returns:
          A dictionary that JSON can hold, with Keras' names.

        Raises:
          ValueError: the original has no way to say it: a schedule, a regular
            expression, or constraints (Keras keeps these with the layers).

        Example:
          >>> AdamLRMultConfig(multipliers={"stem": 0}).to_keras()["multipliers"]
          {'stem': 0.0}
        """
        if self.constraints:
            raise ValueError(
                "Keras keeps constraints with the layers, not with the optimizer; use "
                "dataclasses.replace(config, constraints=None).to_keras()."
            )
        if callable(self.learning_rate):
            raise ValueError("The original takes no schedule as its learning rate.")
        config = {key: getattr(self, field) for key, field in _FIELD_OF.items()}
        config["epsilon"] = KERAS_EPSILON if self.eps is None else self.eps
        if self.multipliers is not None:
            config["multipliers"] = _as_dictionary(Rules(self.multipliers))
        return {k: v for k, v in config.items() if k not in _OPTIONAL or v is not None}

    def make(self) -> optax.GradientTransformationExtraArgs:
        """The optimizer.

        Returns:
          `adam_lr_mult` with these arguments.

        Example:
          >>> state = AdamLRMultConfig().make().init({"kernel": 1.0})
          >>> print(state.count)
          0
        """
        fields = dataclasses.fields(self)
        return adam_lr_mult(
            **{field.name: getattr(self, field.name) for field in fields}
        )


def _check_class(config: Mapping[str, Any]) -> None:
    name = config.get("class_name", _CLASS)
    if name != _CLASS:
        raise ValueError(
            f"This is the config of {shown(name)}, not of {_CLASS!r}. If it is a copy "
            "of the original under another name, pass config['config']."
        )


def _as_dictionary(rules: Rules) -> dict[str, float]:
    dictionary: dict[str, float] = {}
    for rule in rules:
        if not isinstance(rule.pattern, str) or not is_number(rule.multiplier):
            raise ValueError(
                f"The original knows substrings and numbers only, but rule {rule} has "
                f"the multiplier {shown(rule.multiplier)}."
            )
        # The first rule wins here as there, and a dictionary has each key once.
        dictionary.setdefault(rule.pattern, rule.multiplier)
    return dictionary
