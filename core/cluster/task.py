"""What a worker of a cluster does: train a run in a child process, or encode a group of documents."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.data.dataset import build_encoder
from core.data.script import is_script
from core.encoders.base import Encoder, identity
from core.errors import UserError
from core.plugins.code import load_code
from core.plugins.discovery import find
from core.plugins.manager import Plugins, plugins, plugins_with

if TYPE_CHECKING:
    from core.sweeps.processes import Request

POLL = 0.2  # seconds between two looks at the file that stops a run
OURS = ("TERRARIUM_", "OMP_", "GOMP_")  # variables that a run takes from the sweep; all others are the worker's own


def sent(request: Request) -> Request:
    """A request as a worker gets it, which has an environment of its own."""
    kept = {name: value for name, value in request.environment.items() if name.startswith(OURS)}
    return replace(request, environment=kept)


def environment_here(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run: this worker's, with the sweep's variables. Ray gives its workers a number of threads, which is not meant."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return own | dict(given)


def train(request: Request, stop: Path) -> int:
    """Train a run in a child process, which ends with this one. Returns its exit code.

    stop: once this file is there, the run is told to save and end. Returns GONE if someone else has ended it: then it was the
    machine, and not the run.
    """
    from core.sweeps import processes
    from core.sweeps.launching import GONE
    from core.sweeps.workers import STOPPED

    if stop.exists():
        return 128 + signal.SIGTERM
    child = processes.start(replace(request, environment=environment_here(request.environment)))
    asked = False
    try:
        while child.exitcode is None:
            child.join(POLL)
            if not asked and stop.exists():
                child.terminate()
                asked = True
    except BaseException:  # Ray takes the task back
        child.terminate()
        raise
    killed = child.exitcode == -signal.SIGKILL or (child.exitcode in STOPPED and not asked)
    return GONE if killed else child.exitcode


@dataclass(frozen=True)
class Encoding:
    """An encoder as another process can rebuild it. key: tells encoders apart. folder: of the experiment."""

    key: str
    described: dict[str, Any]
    folder: Path


KNOWN: dict[str, Encoder] = {}  # in a worker: the encoder that it used last


def encoding_of(encoder: Encoder, folder: Path) -> Encoding:
    return Encoding(identity(encoder), {"kind": encoder.kind} | encoder.state(), folder)


def encode(
    key: str, described: Callable[[], Encoding], work: Callable[[Encoder, Any], Any], item: Any
) -> tuple[Any, UserError | None]:
    """Apply `work` to a group of documents. Returns its result, or the user's mistake in the documents.

    described: called if this worker does not have the encoder yet.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the other cores have workers of their own
    if key not in KNOWN:
        encoding = described()
        KNOWN.clear()
        KNOWN[key] = rebuilt_encoder(encoding)
    try:
        return work(KNOWN[key], item), None
    except UserError as error:
        return None, error


def rebuilt_encoder(encoding: Encoding) -> Encoder:
    """The encoder. Only where its kind is the experiment's own, prepare.py is imported."""
    known: Plugins = plugins()
    if encoding.described["kind"] not in known.registered("encoders"):
        experiment = find(str(encoding.folder))
        known = plugins_with(None if is_script(encoding.folder / "prepare.py") else load_code(experiment))
    return build_encoder(encoding.described, encoding.folder / "dataset.json", known)


def unseen(folders: tuple[str, ...]) -> tuple[str, ...]:
    """The folders that a worker does not see on its machine."""
    return tuple(folder for folder in folders if not Path(folder).is_dir())
