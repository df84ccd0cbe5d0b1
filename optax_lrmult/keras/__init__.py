"""The Keras 2 optimizer `Adam_lr_mult`, whole."""

from optax_lrmult.keras.optimizer import adam_lr_mult as adam_lr_mult
from optax_lrmult.keras.adam import scale_by_adam as scale_by_adam
from optax_lrmult.keras.config import AdamLRMultConfig as AdamLRMultConfig
from optax_lrmult.keras.weights import state_from_weights as state_from_weights
from optax_lrmult.keras.constraints import (
    constrain_by_name as constrain_by_name,
    max_norm as max_norm,
    non_negative as non_negative,
    unit_norm as unit_norm,
)
