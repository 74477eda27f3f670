"""Whether the state of a run fits the memory of one process, which decides between a whole model and a divided one.

    state = weights + gradients + optimizer

Weights and buffers have their own precision. A gradient is as large as what is trained. Of that, Adam keeps two copies, Muon one, SGD one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from core.config import Runtime

COPIES = 2  # that an optimizer keeps of what it trains, unless it is known better
MEMORY = Path("/proc/meminfo")


def state_bytes(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights, gradients and the optimizer's state. Activations come on top."""
    held = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    for group in optimizer.param_groups:
        held += (1 + copies_of(optimizer, group)) * sum(each.nbytes for each in group["params"])
    return int(held)


def copies_of(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> int:
    """How many numbers the optimizer keeps for each one that it trains."""
    if isinstance(optimizer, torch.optim.SGD):
        return int(bool(group["momentum"]))
    return 1 if group.get("muon") else COPIES


def memory_of(device: torch.device) -> int | None:
    """Bytes that one process has: a GPU's memory, or its share of the machine's. None if the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        kilobytes = next(
            int(line.split()[1]) for line in MEMORY.read_text().splitlines() if line.startswith("MemTotal:")
        )
    except (OSError, StopIteration, ValueError):
        return None
    return 1024 * kilobytes // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def divides(runtime: Runtime, processes: int, state: int, memory: int | None) -> bool:
    """Whether the weights are divided among processes: if the config says so, or if it leaves that open and the state does not fit.

    state, memory: bytes.
    """
    if processes == 1 or runtime.parallel == "ddp":
        return False
    if runtime.parallel == "fsdp":
        return True
    return not runtime.exact_across and memory is not None and state > memory
