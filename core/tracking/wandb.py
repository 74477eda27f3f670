"""Rows of a run for Weights & Biases, in logs/wandb of the run; sent nowhere unless the user's environment says so.

https://docs.wandb.ai: `wandb sync out/RUN/logs/wandb/offline-run-*` sends what was written offline.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING, Any

from core import durable, files
from core.roles import flat
from core.tracking.run import read_config
from core.tracking.trackers import need

if TYPE_CHECKING:
    from core.tracking.run import Run


class WandB:
    """A tracker. The package is imported with the first row, so that it never stands before the first step."""

    def __init__(self, run: Run) -> None:
        self.run, self.status = run, "interrupted"
        self.folder = run.folder / "logs" / "wandb"
        self.remote: Any = None

    @staticmethod
    def check() -> None:
        """Raise UserError where wandb is not installed."""
        need("wandb", "wandb")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write each number of a row under its column's name."""
        if self.remote is None:
            self.remote = self.begin()
        # wandb's own count of steps may not go back, as a run after a resume or a loss that is not finite does.
        self.remote.log(metrics | {"step": step})

    def begin(self) -> Any:
        """Start the run of wandb, or go on with the one that this run has."""
        import wandb

        durable.make_folders(self.folder)
        remote = wandb.init(
            project=os.environ.get("WANDB_PROJECT", self.run.experiment.name),
            name=self.run.name,
            notes=self.run.description or None,
            id=self.identity(),
            resume="allow",
            dir=str(self.folder.parent),
            mode=mode(),  # type: ignore[arg-type]
            config=flat(read_config(self.run.folder)),
            settings=wandb.Settings(**PRIVATE),
        )
        remote.define_metric("*", step_metric="step")
        self.forget()
        return remote

    def forget(self) -> None:
        """Remove wandb's notes on its own doings: they tell where the home folder is."""
        for path in [*self.folder.glob("*run-*/logs"), *self.folder.glob("debug*.log")]:
            with contextlib.suppress(PermissionError):  # Windows keeps an open file
                durable.remove_tree(path)

    def identity(self) -> str:
        """The id of the run of wandb, the same after a resume."""
        path = self.folder / "id"
        if not path.is_file():
            files.write_text(path, uuid.uuid4().hex[:12])
        return path.read_text().strip()

    def end(self, status: str) -> None:
        self.status = status

    def close(self) -> None:
        """Finish the run of wandb: as successful, or not."""
        if self.remote is not None:
            self.remote.finish(exit_code=int(self.status != "completed"))
            self.forget()


def mode() -> str | None:
    """None, for what $WANDB_MODE says or, with $WANDB_API_KEY, online; else offline."""
    return None if {"WANDB_MODE", "WANDB_API_KEY"} & os.environ.keys() else "offline"


# No host, user, path, code, list of packages or use of the machine; what the terminal shows stays there.
PRIVATE: dict[str, Any] = {
    "host": "", "username": "", "email": "", "silent": True, "console": "off", "disable_git": True, "disable_code": True,
    "disable_job_creation": True, "save_code": False, "x_disable_meta": True, "x_disable_machine_info": True,
    "x_disable_stats": True, "x_save_requirements": False, "symlink": False,
}  # fmt: skip
