"""Tables that people already have, read with the semantics of where they come from."""

from optax_lrmult._converters._big_vision import from_big_vision as from_big_vision
from optax_lrmult._converters._keras_lr_multiplier import (
    from_keras_lr_multiplier as from_keras_lr_multiplier,
)
from optax_lrmult._converters._mmengine import from_mmengine as from_mmengine
from optax_lrmult._converters._tables import GroupRules as GroupRules
from optax_lrmult._converters._torch import (
    from_torch_param_groups as from_torch_param_groups,
)
