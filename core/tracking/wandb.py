"""Log a run to Weights & Biases, in the run's logs/wandb. Nothing is sent unless the user's environment asks for it.

To upload it later: `wandb sync out/RUN/logs/wandb/offline-run-*` (https://docs.wandb.ai).
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
    """A tracker. The package is imported with the first row, so that it does not delay the first step."""

    def __init__(self, run: Run) -> None:
        self.run, self.status = run, "interrupted"
        self.folder = run.folder / "logs" / "wandb"
        self.remote: Any = None

    @staticmethod
    def check() -> None:
        """Raise UserError if wandb is not installed."""
        need("wandb", "wandb")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write each number of a row under its column's name."""
        if self.remote is None:
            self.remote = self.begin()
        # wandb's own step counter cannot go back, as a run does after a resume or a loss that is not finite.
        self.remote.log(metrics | {"step": step})

    def begin(self) -> Any:
        """Start the wandb run, or resume the one that belongs to this run."""
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
        """Remove wandb's own logs, because they contain the path of the home folder."""
        for path in [*self.folder.glob("*run-*/logs"), *self.folder.glob("debug*.log")]:
            with contextlib.suppress(PermissionError):  # Windows does not remove an open file
                durable.remove_tree(path)

    def identity(self) -> str:
        """The id of the wandb run, the same after a resume."""
        path = self.folder / "id"
        if not path.is_file():
            files.write_text(path, uuid.uuid4().hex[:12])
        return path.read_text().strip()

    def end(self, status: str) -> None:
        self.status = status

    def close(self) -> None:
        """Finish the wandb run, as successful or not."""
        if self.remote is not None:
            self.remote.finish(exit_code=int(self.status != "completed"))
            self.forget()


def mode() -> str | None:
    """None if $WANDB_MODE or $WANDB_API_KEY is set, so that wandb decides; else offline."""
    return None if {"WANDB_MODE", "WANDB_API_KEY"} & os.environ.keys() else "offline"


# Record no host, user, path, code, packages or machine load, and do not capture the terminal.
PRIVATE: dict[str, Any] = {
    "host": "", "username": "", "email": "", "silent": True, "console": "off", "disable_git": True, "disable_code": True,
    "disable_job_creation": True, "save_code": False, "x_disable_meta": True, "x_disable_machine_info": True,
    "x_disable_stats": True, "x_save_requirements": False, "symlink": False,
}  # fmt: skip
