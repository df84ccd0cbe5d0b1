"""Trainers with packages of their own: `.ci/run` gives each an environment.

The main run does not collect this folder (`norecursedirs` in pyproject.toml).
"""

import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "allow")  # Their models need it.
