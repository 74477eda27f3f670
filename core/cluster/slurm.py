"""Train the runs of a sweep as jobs of SLURM, handed in by submitit. sbatch's own variables choose partition, account, time and GPUs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cluster import task
from core.cluster.extra import needed
from core.errors import UserError

if TYPE_CHECKING:
    from core.lab.opened import Opened
    from core.sweeps.processes import Request, Share

CLUSTER = "slurm"  # submitit's name for it
JOBS = 256  # handed in at a time, if the user does not say
MINUTES = 24 * 60  # of a job, where SBATCH_TIMELIMIT says nothing else
POLL = 0.5  # seconds


@contextlib.contextmanager
def open_slurm(opened: Opened, jobs: int | None, address: str) -> Iterator[Slurm]:
    """The SLURM that this machine hands jobs to. Raises UserError if there is none."""
    from core.sweeps.launching import refuse_address

    refuse_address("slurm", address)
    submitit = needed("submitit", "slurm")
    if CLUSTER == "slurm" and not shutil.which("sbatch"):
        raise UserError(
            "there is no sbatch on this machine",
            place="on",
            remedy="Start the sweep on a machine that hands jobs to SLURM, such as a login node.",
        )
    slurm = Slurm(submitit, opened, jobs or JOBS)
    try:
        yield slurm
    finally:  # a sweep waits for its jobs, however it ends
        slurm.clean()


class Slurm:
    """A launcher, see `core.sweeps.launching`. A job asks for as many CPUs as train.runtime.threads says, one for "auto"."""

    is_here = False

    def __init__(self, submitit: Any, opened: Opened, jobs: int) -> None:
        self.submitit, self.jobs = submitit, jobs
        threads = opened.config.train.runtime.threads
        self.threads = threads if isinstance(threads, int) else 1
        self.folder: Path | None = None  # submitit's own files

    @property
    def shares(self) -> list[Share]:
        from core.sweeps.processes import Share

        return [Share(self.threads)] * self.jobs

    def start(self, request: Request) -> SlurmWork:
        """Hand in a job."""
        stop = request.log.with_suffix(".stop")
        stop.unlink(missing_ok=True)
        self.folder = request.log.parent / "slurm"
        executor = self.submitit.AutoExecutor(folder=self.folder, cluster=CLUSTER)
        minutes = {"timeout_min": MINUTES} if not os.environ.get("SBATCH_TIMELIMIT") else {}
        executor.update_parameters(name=f"terrarium-{request.wish.name}", cpus_per_task=self.threads, **minutes)
        try:
            job = executor.submit(task.train, task.sent(request), stop)
        except self.submitit.core.utils.FailedJobError as error:
            raise refused(error) from None
        return SlurmWork(self.submitit, job, request.log, stop)

    def clean(self) -> None:
        """Remove submitit's files. What a run has said is in its log."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def refused(error: Exception) -> UserError:
    """The error for a job that sbatch does not take."""
    return UserError(
        f"SLURM does not take the job: {' '.join(str(error).split())[:300]}",
        place="sbatch",
        remedy="Choose partition, account and time by SBATCH_PARTITION, SBATCH_ACCOUNT and SBATCH_TIMELIMIT.",
    )


class SlurmWork:
    """A job. It stops by a file beside its log, as SLURM would not wait until it has saved."""

    def __init__(self, submitit: Any, job: Any, log: Path, stop: Path) -> None:
        self.submitit, self.job, self.log, self.stop = submitit, job, log, stop
        self.code: int | None = None

    @property
    def exitcode(self) -> int | None:
        if self.code is None and self.job.done():
            self.code = self.result()
            self.stop.unlink(missing_ok=True)
        return self.code

    def result(self) -> int:
        """The exit code of the run; GONE for a job that ended without a word; 1 for an error of the job itself."""
        from core.sweeps.launching import GONE

        try:
            return int(self.job.result())
        except self.submitit.core.utils.FailedJobError as error:  # an exception in the job
            self.log.write_text(f"failed: the job {self.job.job_id} could not train: {error}\n", encoding="utf-8")
            return 1
        except self.submitit.core.utils.UncompletedJobError:  # killed: its machine, its time or its memory ended
            return GONE

    def terminate(self) -> None:
        self.stop.touch()
        if self.job.state in ("PENDING", "CONFIGURING"):
            self.job.cancel()

    def join(self) -> None:
        while self.exitcode is None:
            time.sleep(POLL)
