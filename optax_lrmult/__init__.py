"""Per-parameter learning-rate multipliers for JAX and Optax, by parameter name.

    params --names--> rules --multipliers--> transform --> updates
                        ^         |
    recipes, configs, --+         +--> preview, diff, learning rates
    other libraries' tables

A parameter has a name; a rule gives the name a multiplier; the transform multiplies the
parameter's update by it, and the preview shows all of it before the first step.
"""

from optax_lrmult._names import path_labels as path_labels

from optax_lrmult._values import per_layer as per_layer
from optax_lrmult._rules import Rule as Rule
from optax_lrmult._rules import Rules as Rules
from optax_lrmult._patterns import by_prefix as by_prefix
from optax_lrmult._patterns import glob as glob
from optax_lrmult._config import rules_from_config as rules_from_config
from optax_lrmult._config import rules_to_config as rules_to_config

from optax_lrmult._recipes._layer_decay import layer_decay as layer_decay
from optax_lrmult._recipes._discriminative import discriminative as discriminative
from optax_lrmult._recipes._unfreezing import unfreeze_at as unfreeze_at
from optax_lrmult._recipes._unfreezing import unfreeze_from_top as unfreeze_from_top
from optax_lrmult._recipes._lora import lora_plus as lora_plus
from optax_lrmult._recipes._mup import mup as mup
from optax_lrmult._recipes._kinds import by_kind as by_kind
from optax_lrmult._recipes._kinds import freeze as freeze
from optax_lrmult._recipes._kinds import no_decay as no_decay

from optax_lrmult._converters import GroupRules as GroupRules
from optax_lrmult._converters import from_big_vision as from_big_vision
from optax_lrmult._converters import (
    from_keras_lr_multiplier as from_keras_lr_multiplier,
)
from optax_lrmult._converters import from_mmengine as from_mmengine
from optax_lrmult._converters import from_torch_param_groups as from_torch_param_groups

from optax_lrmult._multipliers import Assignment as Assignment
from optax_lrmult._multipliers import assign as assign
from optax_lrmult._multipliers import check_rules as check_rules
from optax_lrmult._preview import Preview as Preview
from optax_lrmult._preview import preview as preview
from optax_lrmult._comparison import AssignmentDiff as AssignmentDiff
from optax_lrmult._comparison import assignment_diff as assignment_diff
from optax_lrmult._rates import learning_rates as learning_rates
from optax_lrmult._plots._bars import plot_multipliers as plot_multipliers
from optax_lrmult._plots._lines import plot_schedule as plot_schedule

from optax_lrmult._transform import scale_by_name_multiplier as scale_by_name_multiplier
from optax_lrmult._transform import with_name_multipliers as with_name_multipliers
from optax_lrmult._injection import (
    ScaleByNameMultiplierState as ScaleByNameMultiplierState,
)
from optax_lrmult._injection import set_multipliers as set_multipliers
from optax_lrmult._masks import trainable as trainable
from optax_lrmult._decay import (
    add_decayed_weights_by_name as add_decayed_weights_by_name,
)
from optax_lrmult._constraints import constrain_by_name as constrain_by_name
from optax_lrmult._constraints import max_norm as max_norm
from optax_lrmult._constraints import non_negative as non_negative
from optax_lrmult._constraints import unit_norm as unit_norm

from optax_lrmult._packed import packed as packed
from optax_lrmult._packed_state import packed_state as packed_state
from optax_lrmult._packed_state import unpacked_state as unpacked_state

from optax_lrmult._effective import effective_multipliers as effective_multipliers

from optax_lrmult._optimizers import adam as adam
from optax_lrmult._optimizers import adamw as adamw
from optax_lrmult._adam import scale_by_keras_adam as scale_by_keras_adam
from optax_lrmult._keras import adam_lr_mult as adam_lr_mult
from optax_lrmult._keras_config import AdamLRMultConfig as AdamLRMultConfig
from optax_lrmult._keras_weights import (
    state_from_keras_weights as state_from_keras_weights,
)

__version__ = "0.1.0"
