"""Compile a run's step with torch.compile: when, what it needs on this machine, and its errors.

On a GPU compiling takes 20 to 40 seconds and saves 40 to 60 % of a step that is started operation by operation, so it pays off
in runs of a minute. A step that waits for Python is recorded instead, which takes less than a second (core/training/graphed.py).
On a CPU compiling saves a small modern model a quarter of its step and a large one nothing, and takes half a minute the first time
(docs/LOG.md). So on a CPU a step is compiled only if the config says so.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from core import process
from core.config import Train
from core.defaults import PRETRAINED_KIND
from core.errors import UserError, first_line
from core.training.machine import Machine

LONG = 60.0  # seconds; on a GPU, runs at least this long are compiled
# Operations per second in the matrices of the blocks, of an H100 that is not compiling: 124M takes 110 ms for 32 x 1024 tokens.
SPEED = 150e12
PYTHON, REPLAY = 10e-3, 1e-3  # seconds that starting the operations of a step takes, one by one and recorded
Function = TypeVar("Function", bound=Callable[..., Any])


def is_worth_compiling(config: Train, device: torch.device, *, recorded: bool = False) -> bool:
    """Whether train.runtime.compile = "auto" means to compile. Not if a condition may end the run early, and no pretrained model:
    its code is not ours, and its loss must not keep all logits. recorded: its operations are not started one by one."""
    if config.model.kind == PRETRAINED_KIND:
        return False
    minutes = config.runtime.max_minutes
    seconds = seconds_of(config, recorded) if minutes is None else 60 * minutes
    return device.type == "cuda" and seconds >= LONG and not config.runtime.stop_when and not missing(device)


def seconds_of(config: Train, recorded: bool) -> float:
    """How long the steps of a run take on a GPU, roughly, if it does not compile."""
    return config.schedule.max_iters * max(REPLAY if recorded else PYTHON, operations(config) / SPEED)


def operations(config: Train) -> float:
    """Floating point operations of a step in the matrices of the blocks, roughly: 6 for each number and token."""
    return 6.0 * 12 * config.model.n_layer * config.model.n_embd**2 * config.data.tokens_per_step


def compiled(function: Function, machine: Machine) -> Function:
    """Compile a function for one shape, at its first call, if the machine compiles.

    What was compiled before is dropped, because torch limits the number of compiled functions.
    """
    if not machine.compile:
        return function
    options: dict[str, Any] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, about its own modules
        if machine.device.type == "cpu":
            process.be_deterministic(compiling=True)
            options = {"cpp_wrapper": True}  # calls kernels from C++ too: saves 5 % of a small model's step
        if process.Owner.owned:  # else it would drop what the caller has compiled, too
            torch.compiler.reset()
        return torch.compile(function, dynamic=False, options=options)  # type: ignore[return-value]


def compiler(device: torch.device) -> str:
    """The compiler that torch.compile runs. On a GPU it builds the code that launches the kernels."""
    if device.type == "cuda":
        return os.environ.get("CC") or next(filter(shutil.which, ("gcc", "clang")), "gcc")
    return os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")


def missing(device: torch.device) -> str:
    """What torch.compile needs and this machine does not have; "" if nothing is known to be missing."""
    if device.type == "cuda" and not importlib.util.find_spec("triton"):
        return "triton"
    if device.type == "cuda" and not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's header Python.h"
    return "" if shutil.which(compiler(device)) else f"the compiler {compiler(device)}"


def compiler_version(device: torch.device) -> str | None:
    """The first line of the compiler's --version; None if it is not available."""
    try:
        done = subprocess.run([compiler(device), "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.partition("\n")[0] or None


def refuse_without_compiler(device: torch.device) -> None:
    """Raise UserError if train.runtime.compile = true cannot work here."""
    if found := missing(device):
        raise UserError(
            f"the step cannot be compiled: {found} is not found",
            place="train.runtime.compile = true",
            remedy="Install it, or do not compile: `train.runtime.compile=false`, with `resume=True` if the run has begun.",
        )


def is_compilers(error: Exception) -> bool:
    """Whether an error comes from torch.compile."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def as_user_error(error: Exception, steps: int) -> UserError:
    """The message for a step that cannot be compiled. steps: taken so far."""
    return UserError(
        f"the step cannot be compiled: {first_line(error)}",
        place="train.runtime.compile",
        remedy=f"Do not compile: {'`resume=True`' if steps else '`fresh=True`'} `train.runtime.compile=false`",
    )
