"""The original optimizer's configuration, as Keras saves it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import optax

from optax_lrmult.core.assignment import OnUnmatched
from optax_lrmult.core.expect import expect, nearest
from optax_lrmult.core.rules import Rule, Rules, RulesLike, as_rules
from optax_lrmult.core.values import as_scalar, is_number
from optax_lrmult.keras.adam import KERAS_EPSILON
from optax_lrmult.keras.optimizer import adam_lr_mult

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


@dataclasses.dataclass(frozen=True)
class AdamLRMultConfig:
    """The arguments of `adam_lr_mult` as a value, from and to Keras.

    The attributes are the arguments of `adam_lr_mult`, with its defaults and units.

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
        """Copies the tables: later changes to them have no effect."""
        for field in ("multipliers", "constraints"):
            if (table := getattr(self, field)) is not None:
                object.__setattr__(self, field, as_rules(table, f"The table {field}"))

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
          ValueError: it is that of another optimizer, or it has a key that the original
            does not know.

        Example:
          >>> AdamLRMultConfig.from_keras({"lr": 0.01, "clipnorm": 1.0}).clipnorm
          1.0
        """
        if isinstance(config.get("config"), Mapping):
            name, wanted = config.get("class_name", _CLASS), repr(_CLASS)
            hint = "(of a copy under another name, pass config['config'])"
            expect(name == _CLASS, "The class of the config", f"{wanted} {hint}", name)
            config = config["config"]
        values = {key: v for key, v in config.items() if key != "debug_verbose"}
        for key in values:
            wanted = f"one of {list(_FIELD_OF)} (near: {nearest(key, _FIELD_OF)})"
            expect(key in _FIELD_OF, "A key of the original's config", wanted, key)
        return cls(**{_FIELD_OF[key]: value for key, value in values.items()})

    def to_keras(self) -> dict[str, Any]:
        """The dictionary that the original's `get_config()` would give.

        Returns:
          A dictionary that JSON can hold, with Keras' names.

        Raises:
          ValueError: the original has no way to say it: a schedule, a pattern that is
            no substring, or constraints (Keras keeps these with the layers).

        Example:
          >>> AdamLRMultConfig(multipliers={"stem": 0}).to_keras()["multipliers"]
          {'stem': 0.0}
        """
        if self.constraints:
            raise ValueError(
                "Keras keeps constraints with the layers, not with the optimizer; use "
                "dataclasses.replace(config, constraints=None).to_keras()."
            )
        is_fixed = not callable(self.learning_rate)
        expect(is_fixed, "The original's rate", "a number", self.learning_rate)
        config = {key: getattr(self, field) for key, field in _FIELD_OF.items()}
        config["epsilon"] = KERAS_EPSILON if self.eps is None else self.eps
        if self.multipliers is not None:
            config["multipliers"] = _as_dictionary(Rules(self.multipliers))
        may_lack = ("clipnorm", "clipvalue")
        return {k: v for k, v in config.items() if k not in may_lack or v is not None}

    def make(self) -> optax.GradientTransformationExtraArgs:
        """The optimizer `adam_lr_mult` with these arguments."""
        fields = dataclasses.fields(self)
        return adam_lr_mult(**{f.name: getattr(self, f.name) for f in fields})


def _as_dictionary(rules: Rules) -> dict[str, float]:
    dictionary: dict[str, float] = {}
    for rule in rules:
        owner, wanted = f"Rule {rule}", "a substring and a number, as in the original"
        is_row = isinstance(rule, Rule) and rule.pattern.kind == "contains"
        number: Any = as_scalar(rule.value, owner) if is_row else None
        expect(is_number(number), owner, wanted, rule.value)
        # The first rule wins here as there, and a dictionary has each key once.
        for text in rule.pattern.texts if isinstance(rule, Rule) else ():
            dictionary.setdefault(text, number)
    return dictionary
