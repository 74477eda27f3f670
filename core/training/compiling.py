"""torch.compile: when a run's step is compiled, what it needs on this machine, and how its errors are told.

A rule decides. On a GPU compiling pays in runs of more than a minute or so. On a CPU it spares a small modern model a
quarter of its step and a large one nothing, and takes half a minute the first time (docs/LOG.md): there it is compiled
only where the config says so.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from core import files, process
from core.config import Train
from core.errors import UserError
from core.training.machine import Machine

LONG_STEPS, LONG_MINUTES = 1_000, 1.0  # from which on a run on a GPU is compiled
Function = TypeVar("Function", bound=Callable[..., Any])


def is_worth_compiling(config: Train, device: torch.device) -> bool:
    """Whether train.runtime.compile = "auto" means to compile."""
    minutes = config.runtime.max_minutes
    is_long = config.schedule.max_iters >= LONG_STEPS if minutes is None else minutes >= LONG_MINUTES
    return device.type == "cuda" and is_long and not missing(device)


def compiled(function: Function, machine: Machine) -> Function:
    """The function, compiled for one shape when it is first called, if the machine compiles.

    One function at a time: what was compiled before is dropped, and with it torch's limit on how many there may be.
    """
    if not machine.compile:
        return function
    with contextlib.suppress(RuntimeError):  # a user without a home
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(files.cache_folder() / "compiled"))
    options: dict[str, Any] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch about its own parts, as it imports them
        if machine.device.type == "cpu":
            process.be_deterministic(compiling=True)
            options = {"cpp_wrapper": True}  # the calls between kernels in C++ too: 5 % of a small model's step
        torch.compiler.reset()
        return torch.compile(function, dynamic=False, options=options)  # type: ignore[return-value]


def compiler(device: torch.device) -> str:
    """The program that torch.compile starts. For a GPU it makes what launches the kernels."""
    if device.type == "cuda":
        return os.environ.get("CC") or next(filter(shutil.which, ("gcc", "clang")), "gcc")
    return os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")


def missing(device: torch.device) -> str:
    """What torch.compile needs on this machine and cannot find; "" where nothing is known to be missing."""
    if device.type == "cuda" and not importlib.util.find_spec("triton"):
        return "triton"
    return "" if shutil.which(compiler(device)) else f"the compiler {compiler(device)}"


def compiler_version(device: torch.device) -> str | None:
    """What the compiler says of itself; None where it is not available."""
    return version_of(compiler(device))


@functools.cache
def version_of(program: str) -> str | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.partition("\n")[0] or None


def refuse_without_compiler(device: torch.device) -> None:
    """Raise UserError where train.runtime.compile = true cannot work."""
    if found := missing(device):
        raise UserError(
            f"steps are to be compiled, and {found} cannot be found",
            place="train.runtime.compile = true",
            remedy="Install it, or train without: `train.runtime.compile=false`; a run that has begun, with `resume=True`.",
        )


def is_compilers(error: Exception) -> bool:
    """Whether an error is torch.compile's."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def as_user_error(error: Exception, steps: int) -> UserError:
    """What to tell the user where a run of so many steps cannot be compiled."""
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return UserError(
        f"the step cannot be compiled: {first_line}",
        place="train.runtime.compile",
        remedy=f"Train without: {'`resume=True`' if steps else '`fresh=True`'} `train.runtime.compile=false`",
    )
