"""Whether compiling a run's step pays on this machine: the step and the run's length go in, yes or no comes out.

On a CPU torch.compile spares a small modern model a quarter of its step, and a large one nothing; it takes half a minute
the first time and seconds after that (docs/LOG.md). So it is tried in long runs only, once per machine and shape, and what
was found serves the shorter ones too.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from core.errors import UserError
from core.training.machine import Machine, be_deterministic
from core.training.measured import recall, remember
from core.training.tuning import WORTH, Step, Way, in_turn

# Seconds until a compiled step has been taken: the first time, and when torch's cache on the disk has it already.
COLD_SECONDS, WARM_SECONDS = 25.0, 6.0
SHARE = 1 / 10  # of a run's time that may be spent on finding out
WITHOUT = "-s train.runtime.compile=false"


@dataclass(frozen=True)
class Trial:
    """Seconds of a micro-batch's step as it is and compiled; `failed` says why there is none."""

    eager: float
    compiled: float
    failed: str = ""


def compiled(model: torch.nn.Module, machine: Machine) -> Callable[..., Any]:
    """The model's forward, which torch compiles when it is first called, for one shape."""
    # On a CPU the calls between kernels in C++ too: 5 % of a small model's step.
    options: dict[str, Any] | None = {"cpp_wrapper": True} if machine.device.type == "cpu" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch about its own parts, as it imports them
        return torch.compile(model, dynamic=False, options=options)


def refuse_without_compiler(device: torch.device) -> None:
    """Raise UserError where train.runtime.compile = true cannot be had."""
    if missing := lacking(device):
        raise UserError(
            f"torch.compile needs {missing}, which is not to be found",
            place="train.runtime.compile = true",
            remedy=f"Install it, or train without: {WITHOUT}",
        )


def as_user_error(error: Exception) -> UserError | None:
    """What to tell the user of an error of torch.compile; None for another one's."""
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return None
    return UserError(
        f"the step cannot be compiled: {first_line(error)}",
        place="train.runtime.compile = true",
        remedy=f"Train without: --fresh {WITHOUT}",
    )


def first_line(error: Exception) -> str:
    """The beginning of what an error says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def lacking(device: torch.device) -> str:
    """What torch.compile would need here and cannot find, "" where nothing is missing."""
    if device.type == "cuda":
        return "" if importlib.util.find_spec("triton") else "triton"
    if device.type != "cpu":
        return f"a backend for {device.type}"
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return "" if shutil.which(compiler) else f"the C++ compiler {compiler}"


def pays(
    key: str, way: Way, step: Callable[[Way], Step], seconds: Callable[[], float], say: Callable[[str], Any] | None
) -> tuple[bool, dict[str, float]]:
    """Whether a run in this way is over sooner when it is compiled, and what was timed: name of a way -> milliseconds.

    key: what the answer depends on. step: makes the step of a way. seconds: what the run takes as it is, asked for only
    if that matters. say: tells the user what is going on; None: nothing is tried, what was found before decides.
    """
    trial = remembered(key)
    if trial is None:
        if say is None or seconds() * SHARE < COLD_SECONDS:
            return False, {}
        say("trying whether compiling the step pays: half a minute, once for this machine and shape")
        trial = try_out(way, step)
        remember(key, asdict(trial))
        if trial.failed:
            say(f"it cannot be compiled here: {trial.failed}")
    if trial.failed:
        return False, {}
    timings = {
        str(replace(way, compile=compile)): round(1000 * value, 3)
        for compile, value in ((False, trial.eager), (True, trial.compiled))
    }
    share = 1 - trial.compiled / trial.eager
    return trial.compiled < WORTH * trial.eager and share * seconds() > WARM_SECONDS, timings


def try_out(way: Way, step: Callable[[Way], Step]) -> Trial:
    """Compile the step, and time it against the one that is not, in turn."""
    be_deterministic(compiling=True)
    try:
        found = in_turn(way, replace(way, compile=True), step, math.inf)
        assert found is not None  # there is no limit to its time
        return Trial(*found)
    except Exception as error:  # a compiler may fail in any way, and the run goes on without
        return Trial(0.0, 0.0, first_line(error))
    finally:
        torch.compiler.reset()  # what it holds of a model that is thrown away


def remembered(key: str) -> Trial | None:
    """What was found under a key before."""
    try:
        trial = Trial(**recall(key))  # type: ignore[arg-type]
        sound = bool(trial.failed) or (0 < trial.compiled < math.inf and 0 < trial.eager < math.inf)
    except TypeError:
        return None
    return trial if sound else None
