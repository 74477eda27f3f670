"""Where and how a run computes: device, precision, compilation, attention, threads."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import torch

from core import process
from core.config import Attention, Model
from core.errors import UserError
from core.models.build import build_model, use_attention
from core.models.float8 import refuse_without_float8, use_float8
from core.models.gpt import GPT
from core.models.loss import gpu_logits, use_loss_chunks
from core.plugins.manager import Plugins

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """The device, the precision of matrix products (weights stay float32), and the other choices of a run."""

    device: torch.device
    dtype: torch.dtype
    compile: bool = False
    attention: Attention = "auto"  # as in [train.runtime]; "auto" chooses by shape
    threads: int = 1  # CPU threads
    cuda_graphs: bool = False  # record the step and replay it
    float8: bool = False  # products of blocks in training
    processes: int = 1  # that share the steps, each with its own device or threads

    @property
    def dtype_name(self) -> Literal["float32", "bfloat16"]:
        """The precision as [train.runtime] names it."""
        return "float32" if self.dtype == torch.float32 else "bfloat16"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which matrix products use `dtype`."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @contextlib.contextmanager
    def computing(self) -> Any:
        """A context that uses this device and its threads; see `core.process.computing`."""
        with process.computing(self.device.type):
            process.set_threads(self.threads)
            yield


def model_on(
    machine: Machine, config: Model, vocab_size: int, plugins: Plugins, *, place: torch.device | None = None
) -> torch.nn.Module:
    """Build a freshly initialised model for the machine. place: where its weights are; None: on the machine's device."""
    model = build_model(config, vocab_size, plugins).to(place or machine.device)
    use_attention(model, machine.attention)
    if machine.float8:
        use_float8(model)
    if machine.cuda_graphs and isinstance(model, GPT):
        model.replays = True
    if machine.device.type == "cuda":
        use_loss_chunks(model, gpu_logits(machine.device))
    return model


def choose_machine(
    device: str,
    dtype: str,
    compile: str | bool,
    threads: int | str,
    attention: Attention = "auto",
    float8: bool = False,
) -> Machine:
    """The machine for these settings. "auto" is what is usually fastest on this hardware, not compiled.

    Raises UserError for a device that this computer does not have, and for float8 on one that does not multiply in it.
    """
    place = choose_device(device)
    if float8:
        refuse_without_float8(place)
    precision = fastest_dtype(place) if dtype == "auto" else DTYPES[dtype]
    count = threads if isinstance(threads, int) else torch.get_num_threads()
    return Machine(place, precision, compile is True, attention, count, float8=float8)


def choose_device(name: str) -> torch.device:
    """The named device; for "auto" the best one available. Raises UserError if it is not available."""
    if name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if name.partition(":")[0] == "mps":  # torch would list every backend and operator
            reason = "this machine has no Apple GPU, or torch was built without it"
        else:
            reason = str(error).splitlines()[0]
        raise UserError(
            f'device "{name}" is not available: {reason}',
            place="train.runtime.device",
            remedy='"auto" takes the best device of this machine; "cpu" always works.',
        ) from None
    return device


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if the hardware multiplies it faster than float32. A CPU needs special instructions for that."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32
