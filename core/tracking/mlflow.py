"""Log a run to MLflow: in a SQLite file next to the runs, or at $MLFLOW_TRACKING_URI.

To view it: `mlflow ui --backend-store-uri sqlite:///EXPERIMENT/out/logs/mlflow/mlflow.db`
(https://mlflow.org/docs/latest).
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, Any

from core import durable, files, process
from core.errors import UserError
from core.roles import flat
from core.tracking.run import read_config
from core.tracking.trackers import need

if TYPE_CHECKING:
    from core.tracking.run import Run

ADDRESS = "MLFLOW_TRACKING_URI"
SEND_EVERY = 5.0  # seconds: a call takes about 20 ms, for one row or for many
PATIENCE = 60.0  # seconds to wait for another process that creates the SQLite file
PARAMETERS = 100  # per call, at most
MEASUREMENTS = 1000
# The last one: we store no artifacts, and MLflow would record the full path of a folder for them.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
}
ENDINGS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflow:
    """A tracker. The package is imported with the first row, so that it does not delay the first step."""

    def __init__(self, run: Run) -> None:
        self.run, self.status = run, "interrupted"
        self.folder = run.folder.parent / "logs" / "mlflow"
        self.client: Any = None
        self.identity = ""
        self.waiting: list[tuple[str, float, int, int]] = []  # name, value, milliseconds, step
        self.sent = -math.inf

    @staticmethod
    def check() -> None:
        """Raise UserError if MLflow, or what its SQLite file needs, is not installed."""
        for module in ("mlflow", *([] if ADDRESS in os.environ else ["sqlalchemy", "alembic"])):
            need(module, "mlflow")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Queue each number of a row under its column's name. They are sent together every few seconds."""
        stamp = int(1000 * time.time())
        self.waiting += [(name, value, stamp, step) for name, value in metrics.items() if name != "step"]
        if time.monotonic() - self.sent > SEND_EVERY:
            self.send()

    def send(self) -> None:
        """Send the queued numbers."""
        if self.client is None:
            self.begin()
        from mlflow.entities import Metric

        for part in batches(self.waiting, MEASUREMENTS):
            self.client.log_batch(self.identity, metrics=[Metric(*measurement) for measurement in part])
        self.waiting, self.sent = [], time.monotonic()

    def begin(self) -> None:
        """Start the MLflow run, or resume the one that belongs to this run."""
        with process.environment(QUIET):
            self.connect()

    def connect(self) -> None:
        """Find or create the MLflow run."""
        from mlflow.entities import Param

        if ADDRESS in os.environ:
            from mlflow import MlflowClient

            self.client = MlflowClient(os.environ[ADDRESS])
        else:
            self.client = self.own_store()
        path = self.run.folder / "logs" / "mlflow-run"
        if path.is_file() and self.goes_on(path.read_text().strip()):
            return
        self.identity = self.new_run()
        settings = [Param(key, str(value)) for key, value in flat(read_config(self.run.folder)).items()]
        for part in batches(settings, PARAMETERS):
            self.client.log_batch(self.identity, params=part)
        durable.make_folders(path.parent)
        files.write_text(path, self.identity)

    def own_store(self) -> Any:
        """A client of the SQLite file. If it does not exist, one process creates it while others wait."""
        from mlflow import MlflowClient

        until = time.monotonic() + PATIENCE
        while True:
            try:
                with files.lock(self.folder / ".lock", "the store of MLflow"):
                    return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
            except UserError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def goes_on(self, identity: str) -> bool:
        """Resume an MLflow run. Returns False if the store does not have it."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_terminated(identity, "RUNNING")
        except MlflowException:
            return False
        self.identity = identity
        return True

    def new_run(self) -> str:
        """Create an MLflow run in the experiment of this name. Returns its id."""
        from mlflow.exceptions import MlflowException

        name = self.run.experiment.name
        if (experiment := self.client.get_experiment_by_name(name)) is None:
            with contextlib.suppress(MlflowException):  # another process was faster
                self.client.create_experiment(name)
            experiment = self.client.get_experiment_by_name(name)
        # MLflow would record the user and the program's path in these.
        blank = {"mlflow.user": "", "mlflow.source.name": "terrarium"}
        tags = blank | {"experiment": name, "run": self.run.name, "mlflow.note.content": self.run.description}
        return str(self.client.create_run(experiment.experiment_id, run_name=self.run.name, tags=tags).info.run_id)

    def end(self, status: str) -> None:
        self.status = status

    def close(self) -> None:
        """Send the rest, and how the run ended."""
        if self.waiting or self.client is not None:
            self.send()
            self.client.set_terminated(self.identity, ENDINGS[self.status])


def batches(values: list[Any], most: int) -> list[list[Any]]:
    """Split values into lists of at most `most`."""
    return [values[start : start + most] for start in range(0, len(values), most)]
