"""What a process that a test starts gets from the one that starts it."""

import os
from pathlib import Path

import optax_lrmult

OF_TESTS = {"MPLBACKEND", "XLA_FLAGS"}


def environment() -> dict[str, str]:
    """This process's environment, with this library and without what is for tests."""
    library = str(Path(optax_lrmult.__file__).parents[1])
    paths = [library, *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {name: os.environ[name] for name in os.environ.keys() - OF_TESTS}
    return {**own, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)}
