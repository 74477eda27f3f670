"""Whether compiling a run's step pays on this machine: the step and the run's length go in, yes or no comes out.

On a CPU torch.compile spares a small modern model a quarter of its step, and a large one nothing; it takes half a minute
the first time and seconds after that (docs/LOG.md). So it is tried in long runs only, once per machine and shape, and what
was found serves the shorter ones too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from core import files
from core.errors import UserError
from core.training.machine import Machine, be_deterministic
from core.training.measured import forget, recall, remember
from core.training.memory import used_up
from core.training.tuning import WORTH, Step, Way, in_turn

# Seconds until a compiled step has been taken: the first time, and when it lies compiled on the disk already.
COLD_SECONDS, WARM_SECONDS = 25.0, 6.0
SHARE = 1 / 10  # of a run's time that may be spent on finding out
KEY = "compile"  # how the keys of what is remembered begin


@dataclass(frozen=True)
class Trial:
    """What a micro-batch's step takes as it is and compiled; `failed` says why that is not known."""

    eager_seconds: float = 0.0
    compiled_seconds: float = 0.0
    failed: str = ""


def compiled_forward(model: torch.nn.Module, machine: Machine) -> Callable[..., Any]:
    """The model's forward, which torch compiles when it is first called, for one shape."""
    # Beside measured.json, which says how soon such a step is compiled: both are there, or neither is.
    with contextlib.suppress(RuntimeError):  # a user without a home
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(files.cache_folder() / "compiled"))
    options: dict[str, Any] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch about its own parts, as it imports them
        if machine.device.type == "cpu":
            be_deterministic(compiling=True)
            options = {"cpp_wrapper": True}  # the calls between kernels in C++ too: 5 % of a small model's step
        return torch.compile(model, dynamic=False, options=options)


def compiler(device: torch.device) -> str:
    """The program that torch.compile starts: for a GPU it makes what launches the kernels."""
    if device.type == "cuda":
        return os.environ.get("CC") or next(filter(shutil.which, ("gcc", "clang")), "gcc")
    return os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")


def lacking(device: torch.device) -> str:
    """What torch.compile would need here and cannot find, "" where nothing is known to be missing."""
    if device.type == "cuda" and not importlib.util.find_spec("triton"):
        return "triton"
    return "" if shutil.which(compiler(device)) else f"the compiler {compiler(device)}"


def compiler_version(device: torch.device) -> str | None:
    """What the compiler says of itself; None where it is not to be had."""
    try:
        said = subprocess.run([compiler(device), "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.partition("\n")[0] or None


def refuse_without_compiler(device: torch.device) -> None:
    """Raise UserError where train.runtime.compile = true cannot be had."""
    if missing := lacking(device):
        raise UserError(
            f"torch.compile needs {missing}, which is not to be found",
            place="train.runtime.compile = true",
            remedy="Install it, or train without: -s train.runtime.compile=false; a run that has begun, with --resume.",
        )


def as_user_error(error: Exception, steps: int) -> UserError | None:
    """What to tell the user of an error of torch.compile in a run of so many steps; None for an error of something else.

    What was found about compiling is forgotten: it is no longer true.
    """
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return None
    forget(KEY)
    return UserError(
        f"the step cannot be compiled: {first_line(error)}",
        place="train.runtime.compile",
        remedy=f"Train without: {'--resume' if steps else '--fresh'} -s train.runtime.compile=false",
    )


def first_line(error: Exception) -> str:
    """The beginning of what an error says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def pays(
    key: str,
    way: Way,
    step: Callable[[Way], Step],
    run_seconds: Callable[[float | None], float],
    say: Callable[[str], Any],
) -> tuple[bool, dict[str, float]]:
    """Whether a run in this way is over sooner when it is compiled, and what was timed: name of a way -> milliseconds.

    key: what the answer depends on, KEY first. step: makes the step of a way. run_seconds: what the run takes as it is, from
    the seconds of its step if they are known. say: tells the user what is going on.
    """
    trial = remembered(key)
    if trial is None:
        if run_seconds(None) * SHARE < COLD_SECONDS:
            return False, {}
        say("trying whether compiling the step pays: half a minute, once for this machine and shape")
        trial = try_out(way, step)
        remember(key, asdict(trial))
        if trial.failed:
            say(f"the step is not compiled: {trial.failed}")
    if trial.failed:
        return False, {}
    eager, compiled = trial.eager_seconds, trial.compiled_seconds
    timings = {str(way): round(1000 * eager, 3), str(replace(way, compile=True)): round(1000 * compiled, 3)}
    return compiled < WORTH * eager and run_seconds(eager) * (1 - compiled / eager) > WARM_SECONDS, timings


def try_out(way: Way, step: Callable[[Way], Step]) -> Trial:
    """Compile the step, and time it against the one that is not, in turn. What is wrong with that one is raised."""
    step(way)()
    try:
        found = in_turn(way, replace(way, compile=True), step, time.perf_counter() + 2 * COLD_SECONDS)
    except Exception as error:  # a compiler may fail in any way, and the run goes on without
        if used_up(error):
            raise
        return Trial(failed=first_line(error))
    finally:
        torch.compiler.reset()  # what it holds of a model that is thrown away
    return Trial(*found) if found else Trial(failed="its steps take too long for a comparison")


def remembered(key: str) -> Trial | None:
    """What was found under a key before."""
    try:
        trial = Trial(**recall(key))  # type: ignore[arg-type]
        sound = bool(trial.failed) or (0 < trial.compiled_seconds < math.inf and 0 < trial.eager_seconds < math.inf)
    except TypeError:
        return None
    return trial if sound else None
