"""Parameter groups for JAX and Optax, by parameter name.

    params --names--> name --rules--> its value --assign--> rows --transforms--> updates
                             ^                               |
                    recipes write them                       +--report--> preview, plots

A parameter has a name; the first rule whose pattern takes the name gives it a value.
What a value means is for its reader to say: a multiplier, a weight decay, a beta.
"""

from optax_lrmult import keras as keras, recipes as recipes, report as report
from optax_lrmult.core import (
    path_labels as path_labels,
    Rule as Rule,
    Rules as Rules,
    glob as glob,
    prefix as prefix,
    per_layer as per_layer,
    groups as groups,
    assign as assign,
    Assignment as Assignment,
)
from optax_lrmult.report import preview as preview
from optax_lrmult.transforms import (
    scale_by_name_multiplier as scale_by_name_multiplier,
    with_name_multipliers as with_name_multipliers,
    trainable as trainable,
    by_name as by_name,
    add_decayed_weights_by_name as add_decayed_weights_by_name,
    scale_by_adam as scale_by_adam,
    adam as adam,
    adamw as adamw,
    packed as packed,
    packed_state as packed_state,
    unpacked_state as unpacked_state,
)
from optax_lrmult.moving import move_state as move_state

__version__ = "0.2.0"
