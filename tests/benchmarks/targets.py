"""Machines to compile for, without these machines: their compilers are enough."""

import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from tests.benchmarks.trees import PyTree

VERSION = importlib.metadata.version("jax")
TPU = f"pip install 'jax[tpu]=={VERSION}'"
CUDA = (
    f"pip install --no-deps jax-cuda13-plugin=={VERSION} jax-cuda13-pjrt=={VERSION} "
    "nvidia-cuda-nvcc nvidia-nvvm"
)
PACKAGES = (
    *("jax", "jaxlib", "optax", "libtpu", "jax-cuda13-plugin", "jax-cuda13-pjrt"),
    *("nvidia-cuda-nvcc", "nvidia-nvvm"),
)


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine to compile for.

    Attributes:
      platform: as JAX calls it.
      install: a command that installs its compiler.
      module: what the command brings; the compiler is there if this is.
      topology: what `get_topology_desc` is to be told besides the platform. There are
        no topologies of CPUs: that target is the CPU that is here.
    """

    platform: str
    install: str
    module: str
    topology: Mapping[str, str] | None

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    def devices(self) -> Any:
        """Devices to compile for, which nothing can run on."""
        if self.topology is None:
            return jax.devices(self.platform)
        # Without these, libtpu asks a cloud's metadata server where it is, and refuses
        # to be in two processes at a time, as on a machine with a TPU.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        # As of jax 0.12; in older versions names and arguments differ.
        return topologies.get_topology_desc(
            platform=self.platform, **self.topology
        ).devices

    def placed(self, tree: PyTree) -> PyTree:
        """The shapes of a tree, on the first of the devices."""
        here = SingleDeviceSharding(self.devices()[0])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree
        )


def _tpu(name: str) -> Target:
    return Target("tpu", TPU, "libtpu", {"topology_name": name})


def _gpu(description: str) -> Target:
    text = (Path(__file__).parent / description).read_text(encoding="utf-8")
    topology = {"topology_name": "", "target_config": text, "topology": "1x1x1"}
    return Target("cuda", CUDA, "jax_cuda13_plugin", topology)


TARGETS = {
    "CPU": Target("cpu", "pip install jax", "jax", None),
    "H100": _gpu("h100.txtpb"),
    "TPU v5e": _tpu("v5e:2x2"),
    "TPU v5p": _tpu("v5p:2x2x1"),
    "TPU v6e": _tpu("v6e:2x2"),
    "TPU v7x": _tpu("tpu7x:2x2x1"),
}
PODS = {"TPU v5e": _tpu("v5e:16x16"), "TPU v6e": _tpu("v6e:16x16")}
"""256 chips."""


def versions() -> dict[str, str]:
    """Of JAX, of optax and of the compilers that are installed."""
    there = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    return {
        name: importlib.metadata.version(name) for name in PACKAGES if name in there
    }
