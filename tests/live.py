"""The live view for tests: run folders without training, and a server that shows them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import PREPARE, TINY
from serving import Answer, Running, listening

from core.cli.main import cli
from core.cli.reading import read_command
from core.serve.limits import Limits
from core.serve.models import Shelf
from core.serve.server import Address
from core.serve.setting_up import set_up
from core.toml import dump, load_config

READ = partial(read_command, cli)  # as the command serve has it
TOKEN = "a-token-for-tests"


def write_experiment(folder: Path) -> Path:
    """An experiment that could be trained in a moment."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(TINY)
    return folder


def write_run(
    experiment: Path, name: str, settings: Sequence[str] = (), *, rows: int = 20, variant: str = "", **summary: Any
) -> Path:
    """A run of an experiment that is as if it had been trained. settings: KEY=VALUE; summary: fields besides the usual ones."""
    folder = experiment / "out" / name
    folder.mkdir(parents=True)
    seed = summary.get("seed", 0)
    config, _ = load_config(experiment, variant, (f"train.runtime.seed={seed}", *settings))
    (folder / "config.toml").write_text(dump(config.model_dump()))
    usual = {"experiment": experiment.name, "run": name, "status": "completed", "seed": 0, "steps": 10 * rows}
    usual |= {"best_val_loss": 0.5, "started": "2026-01-01T00:00:00", "data_hash": "d", "train_seconds": 9.0}
    usual |= {"command": f"python -m core.cli train {experiment.name} --run {name}"}
    (folder / "summary.json").write_text(json.dumps(usual | summary))
    lines = ["step,tokens,seconds,train_loss,val_loss,val_accuracy"]
    lines += [f"{10 * n},{100 * n},{n / 2},{3 / (n + 1)},{4 / (n + 1)},{n / (rows + 1)}" for n in range(1, rows + 1)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


class LiveServer(Running):
    """A server of the live view."""

    def get(self, path: str, **headers: str) -> Answer:
        """GET /live/PATH."""
        return self.ask(f"/live/{path}", headers=headers)

    def post(self, action: str, body: Any, token: str = TOKEN, **headers: str) -> Answer:
        """POST /live/ACTION."""
        return self.ask(f"/live/{action}", body, headers={"Authorization": f"Bearer {token}", **headers})


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What a condition gives when it holds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@contextmanager
def waiting_commands(server: LiveServer, folder: Path) -> Iterator[None]:
    """Commands that are started only say their words, and wait for Ctrl-C. They are stopped at the end."""
    script = folder / "python"
    script.write_text("#!/bin/sh\ntrap 'exit 130' INT\necho \"$@\"\nwhile :; do sleep 0.05; done\n")
    script.chmod(0o755)

    def running() -> list[str]:
        return [job["job"] for job in server.get("jobs").json["jobs"] if job["status"] == "running"]

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "executable", str(script))
        yield
        until(lambda: not [server.post("stop", {"id": job}) for job in running()])


@contextmanager
def showing(*names: str, **options: Any) -> Iterator[LiveServer]:
    """A server of the live view, of the current folder's experiments or of folders of experiments. Its actions ask for TOKEN."""
    limits = Limits()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("core.serve.setting_up.secrets.token_urlsafe", lambda size: TOKEN)
        site = set_up(names, "", (), limits, **({"address": Address(), "read": READ} | options))
    with listening(site.app, limits) as port:
        yield LiveServer(Shelf(()), port)
