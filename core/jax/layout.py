"""Where arrays of JAX are: the devices of all processes as one line, the batch cut by rows, and large weights in pieces.

Each device takes some rows of every micro-batch. Weights are whole on each device, or, with `fsdp`, cut into as many pieces as there are
devices along their largest dimension that allows it; what a layer needs is collected when it is needed.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from core.config import Runtime
from core.errors import UserError, first_line
from core.process import launch
from core.training.team import Team, reaching

AXIS = "data"
SHARE = 0.5  # of a device's memory that weights, gradient and optimizer may take before they are cut into pieces


@dataclass(frozen=True)
class Placement:
    """The devices, and whether large tensors are divided among them."""

    mesh: Mesh
    divided: bool

    @property
    def devices(self) -> int:
        return int(self.mesh.devices.size)

    @property
    def platform(self) -> str:
        """cpu, gpu or tpu."""
        return str(self.mesh.devices.flat[0].platform)

    def whole(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def rows(self, before: int = 0) -> NamedSharding:
        """Cut along the dimension that follows `before` others."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * before, AXIS))

    def of_weight(self, shape: tuple[int, ...]) -> NamedSharding:
        """How a weight, or its moments, are divided."""
        fitting = [(size, -place) for place, size in enumerate(shape) if size % self.devices == 0]
        if not (self.divided and fitting and len(shape) > 1):
            return self.whole()
        return self.rows(-max(fitting)[1])

    def padded(self, array: np.ndarray[Any, Any], filling: int) -> np.ndarray[Any, Any]:
        """(G, B, ...) with as many rows more as it takes to give each device as many."""
        missing = -array.shape[1] % self.devices
        return np.pad(array, [(0, 0), (0, missing), *[(0, 0)] * (array.ndim - 2)], constant_values=filling)


def put(array: np.ndarray[Any, Any], sharding: NamedSharding) -> jax.Array:
    """An array that every process has, on the devices. It must be nobody else's: on a CPU it may become the device's own memory."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def taken(array: jax.Array) -> np.ndarray[Any, Any]:
    """A whole array in main memory. If other processes have pieces of it, they call this too."""
    if not (array.is_fully_addressable or array.is_fully_replicated):
        from jax.experimental.multihost_utils import process_allgather

        array = process_allgather(array, tiled=True)
    return np.asarray(array)


def laid_out(runtime: Runtime, state: int) -> Placement:
    """All devices that JAX has. state: bytes of weights, gradient and optimizer, which decide if train.runtime.parallel = "auto"."""
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")  # a CPU does not say
    large = memory is not None and state > SHARE * memory
    return Placement(mesh, runtime.parallel == "fsdp" or (runtime.parallel == "auto" and large))


def devices_here() -> str | None:
    """The devices of a process alone, such as "8 x tpu". None for one of several: they must know each other before JAX is asked.

    Raises UserError if JAX finds none.
    """
    if launch().world > 1:
        return None
    try:
        return f"{jax.device_count()} x {jax.devices()[0].platform}"
    except RuntimeError as error:
        raise UserError(
            f"JAX has no device: {first_line(error)}",
            place='train.runtime.backend = "jax"',
            remedy="If another program uses the device, end it. Or let JAX choose another kind: JAX_PLATFORMS=cpu, or leave JAX_PLATFORMS out.",
        ) from None


def is_accelerated() -> bool:
    """Whether the devices are no CPUs. One of several processes cannot ask JAX yet: if packages for a TPU or GPU are installed, they are.

    Raises UserError if JAX has no device.
    """
    here = devices_here()
    if here is None:
        return any(map(importlib.util.find_spec, ("libtpu", "jax_plugins")))
    return not here.endswith("cpu")


def join(team: Team) -> None:
    """Let the JAX of all processes of a team know each other. Does nothing for a process alone, or a second time.

    The main process chooses a port of the machine that torchrun names in MASTER_ADDR.
    """
    if team.world == 1 or jax.distributed.is_initialized():
        return
    address = ""
    if not team.rank:
        with socket.socket() as free:
            free.bind(("", 0))
            address = f"{os.environ['MASTER_ADDR']}:{free.getsockname()[1]}"
    given, _ = team.broadcast({"address": address})
    # The team looks after its processes. JAX would wait for a lost one when this one ends, and take SIGTERM for itself.
    if hasattr(jax.config, "jax_enable_recoverability"):
        jax.config.update("jax_enable_recoverability", True)
    noted_by = signal.getsignal(signal.SIGTERM)
    with reaching(team.world):
        jax.distributed.initialize(
            given["address"], team.world, team.rank, initialization_timeout=60, cluster_detection_method="deactivate"
        )
    signal.signal(signal.SIGTERM, noted_by)


def from_torch(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A copy of a tensor, in its precision."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # numpy has none of its own
        return np.array(tensor.float().numpy(), jax.numpy.bfloat16)
    return np.array(tensor.numpy(), copy=True)


def to_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A copy of an array, in its precision."""
    if array.dtype == jax.numpy.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array, copy=True))
