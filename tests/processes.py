"""What a process that a test starts gets from the one that starts it."""

import os
from pathlib import Path

import optax_lrmult


def environment() -> dict[str, str]:
    """This process's environment, with this library and without its devices."""
    library = str(Path(optax_lrmult.__file__).parents[1])
    paths = [library, *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return {**own, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)}
