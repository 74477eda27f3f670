"""Whether compiling a run's step pays on this machine: the step and the run's length go in, yes or no comes out.

On a CPU torch.compile spares a small modern model a quarter of its step, and a large one nothing; it takes half a minute
the first time and seconds after that (docs/LOG.md). So it is tried in long runs only, once per machine and shape, and what
was found serves the shorter ones too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
import shutil
import subprocess
import sys
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
from core.training.tuning import WORTH, Step, Way, in_turn, seconds_of

# Seconds until a compiled step has been taken: the first time, and when it lies compiled on the disk already.
COLD_SECONDS, WARM_SECONDS = 25.0, 6.0
SHARE = 1 / 10  # of a run's time that may be spent on finding out
LONGEST_STEP = 2.0  # seconds: longer ones gain nothing that was ever seen, and would take minutes to compare
KEY = "compile"  # how the keys of what is remembered begin


@dataclass(frozen=True)
class Trial:
    """What a micro-batch's step takes as it is and, if that was tried, compiled; `failed` says why it could not be."""

    eager_seconds: float
    compiled_seconds: float | None = None
    failed: str = ""


def forward_of(model: torch.nn.Module, machine: Machine) -> Callable[..., Any]:
    """What takes the model's steps: the model itself or, where the machine compiles, what torch compiles when it is first
    called, for one shape. One model at a time: what was compiled for another one is dropped, and with it torch's limit on
    how many there may be."""
    if not machine.compile:
        return model
    # Beside measured.json, which says how soon such a step is compiled: both are there, or neither is.
    with contextlib.suppress(RuntimeError):  # a user without a home
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(files.cache_folder() / "compiled"))
    options: dict[str, Any] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch about its own parts, as it imports them
        if machine.device.type == "cpu":
            be_deterministic(compiling=True)
            options = {"cpp_wrapper": True}  # the calls between kernels in C++ too: 5 % of a small model's step
        torch.compiler.reset()
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
    return version_of(compiler(device))


@functools.cache
def version_of(program: str) -> str | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.partition("\n")[0] or None


def refuse_without_compiler(device: torch.device) -> None:
    """Raise UserError where train.runtime.compile = true cannot be had."""
    if missing := lacking(device):
        raise UserError(
            f"steps are to be compiled, and {missing} is not to be found",
            place="train.runtime.compile = true",
            remedy="Install it, or train without: -s train.runtime.compile=false; a run that has begun, with --resume.",
        )


def is_compilers(error: Exception) -> bool:
    """Whether an error is torch.compile's."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def as_user_error(error: Exception, steps: int) -> UserError:
    """What to tell the user where a run of so many steps cannot be compiled; what was found about compiling is forgotten."""
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
    key: str, way: Way, step: Callable[[Way], Step], run_seconds: Callable[[float], float], say: Callable[[str], Any]
) -> tuple[bool, dict[str, float]]:
    """Whether a run in this way is over sooner when it is compiled, and what was timed: name of a way -> milliseconds.

    key: what the answer depends on, KEY first. step: makes the step of a way, with all rows of a micro-batch. run_seconds:
    what the run takes, from what such a step takes. say: tells the user what is going on.
    What is measured is remembered, and decides: runs of one shape and length must not differ by the machine's mood.
    """
    trial = remembered(key)
    if trial is None:
        trial = Trial(eager_seconds=seconds_of(step(way)))
        remember(key, asdict(trial))
    run = run_seconds(trial.eager_seconds)
    if trial.compiled_seconds is None and not trial.failed:
        if run * SHARE < COLD_SECONDS or trial.eager_seconds > LONGEST_STEP:
            return False, {}
        say("trying whether compiling the step pays: half a minute, once for this machine and shape")
        trial = try_out(trial, way, step)
        remember(key, asdict(trial))
    if trial.compiled_seconds is None:
        if run * SHARE >= COLD_SECONDS:
            say(f"the step is not compiled: {trial.failed}")
        return False, {}
    eager, compiled = trial.eager_seconds, trial.compiled_seconds
    timings = {f"{way}, all rows": eager, f"{replace(way, compile=True)}, all rows": compiled}
    return (
        compiled < WORTH * eager and run * (1 - compiled / eager) > WARM_SECONDS,
        {name: round(1000 * seconds, 3) for name, seconds in timings.items()},
    )


def try_out(trial: Trial, way: Way, step: Callable[[Way], Step]) -> Trial:
    """Compile the step, and time it against the one that is not, in turn."""
    try:
        found = in_turn(way, replace(way, compile=True), step, math.inf)
        assert found is not None  # it has all the time that it needs
        return Trial(*found)
    except Exception as error:  # a compiler may fail in any way, and the run goes on without
        if used_up(error):
            raise
        return replace(trial, failed=first_line(error))
    finally:
        torch.compiler.reset()  # what it holds of a model that is thrown away


def remembered(key: str) -> Trial | None:
    """What was found under a key before."""
    try:
        trial = Trial(**recall(key))  # type: ignore[arg-type]
        sound = all(0 < seconds < math.inf for seconds in (trial.eager_seconds, trial.compiled_seconds or 1.0))
    except TypeError:
        return None
    return trial if sound else None
