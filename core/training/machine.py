"""Choose device, precision, compilation and threads: in goes [train.runtime] with its "auto", out comes a Machine."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch

from core.config import Attention, Model
from core.errors import UserError
from core.models.build import build_model, use_attention
from core.training.memory import refuse_more_than_there_is

ALL_THREADS = torch.get_num_threads()  # one per core that this process may use, unless OMP_NUM_THREADS says otherwise
# Options of glibc's mallopt (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """Where tensors live and in which precision matrices are multiplied; weights stay float32."""

    device: torch.device
    dtype: torch.dtype
    compile: bool = False
    attention: Attention = "auto"  # as in [train.runtime]; "auto": by shape

    @property
    def dtype_name(self) -> Literal["float32", "bfloat16"]:
        """The precision as [train.runtime] names it."""
        return "float32" if self.dtype == torch.float32 else "bfloat16"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Matrix products in `dtype` inside this context."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def model_on(machine: Machine, config: Model, vocab_size: int, code: ModuleType | None) -> torch.nn.Module:
    """A freshly initialised model where the machine computes, with its form of attention. code: as for `build_model`."""
    model = build_model(config, vocab_size, code).to(machine.device)
    use_attention(model, machine.attention)
    return model


def choose_machine(
    device: str,
    dtype: str,
    compile: str | bool,
    threads: int | str,
    attention: Attention = "auto",
) -> Machine:
    """The machine that the settings name; "auto" takes what is mostly fastest on such hardware, not compiled.

    Raises UserError for a device that this machine does not have.
    """
    torch.set_num_threads(threads if isinstance(threads, int) else ALL_THREADS)
    place = choose_device(device)
    if place.type == "cpu":
        keep_freed_memory()
        refuse_more_than_there_is()
        be_deterministic(compiling=False)
    precision = fastest_dtype(place) if dtype == "auto" else DTYPES[dtype]
    return Machine(place, precision, compile is True, attention)


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next tensor of this process instead of giving it back to the system.

    A step frees and takes the same large blocks again, and new pages must be zeroed each time: a sixth to a third of a
    step (docs/LOG.md). Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    if not mallopt(M_MMAP_THRESHOLD, 1 << 30):  # older versions allow 32 MB
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 << 20)


def be_deterministic(*, compiling: bool) -> None:
    """Have torch use algorithms that give the same bits each time. It must be said before anything is compiled: two
    compiled runs on two threads differ without it. What torch would do besides, filling new memory, changes nothing."""
    if compiling:
        torch.use_deterministic_algorithms(True)
    else:  # the same for what is not compiled, without importing the compiler (0.8 s)
        torch._C._set_deterministic_algorithms(True, warn_only=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def choose_device(name: str) -> torch.device:
    """The named device, or the best one there is for "auto". Raises UserError if it is not here."""
    if name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f'device "{name}" is not to be had: {str(error).splitlines()[0]}',
            place="train.runtime.device",
            remedy='"auto" takes the best device of this machine; "cpu" is always there.',
        ) from None
    return device


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster than float32, which a CPU without such instructions does not."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32
