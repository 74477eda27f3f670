"""One run on several processes: the main one leads, the others follow. A follower opens no run folder and no dataset.

What a follower needs comes from the main process: the settings, the weights, the batches. So it needs the experiment's
folder, for its code, and nothing else on disk.
"""

from __future__ import annotations

import contextlib
import socket
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch

from core.config import Config, Train, replaced
from core.data.dataset import Dataset
from core.errors import Interrupted, RunFailed, UserError
from core.exits import exit_of
from core.lab.assemble import Fresh, fresh_model, shared_step
from core.lab.opened import Opened, open_folder
from core.lab.settle import Settled
from core.process import StopRequest, launch, noting_signals
from core.tracking.run import Run
from core.training import memory
from core.training.link import Dismissed, Lost
from core.training.machine import choose_device, choose_machine
from core.training.team import Team, dismiss, joined
from core.training.team_step import TeamStep, help_with_steps


@contextlib.contextmanager
def leading() -> Iterator[Team]:
    """The processes that help this one, the main one, to train. At the end they learn how its work has ended."""
    try:
        with joined() as team:
            try:
                yield team
            except BaseException as error:
                ended = exit_of(error)
                # A signal ends a run in order; any other error may come in the middle of a step.
                dismiss(team, ended.code if ended else 1, resting=isinstance(error, Interrupted))
                raise
            dismiss(team, 0, resting=True)
    except Lost as lost:
        raise RunFailed(f"{lost}.") from None


@contextlib.contextmanager
def helped(team: Team, opened: Opened, run: Run, dataset: Dataset, fresh: Fresh) -> Iterator[None]:
    """Train a run in this context: the other processes build what they need to help with its steps, and help."""
    # The others need not decide by their own memory. JAX decides by that of its devices, which is the same for all.
    chosen = {} if fresh.by_jax else {"train.runtime.parallel": "fsdp" if fresh.divided else "ddp"}
    team.be_patient(run.config.train.runtime.team_timeout)
    team.broadcast(
        {
            "experiment": str(opened.experiment.folder.absolute()),
            "run": run.title,
            "variant": opened.variant,
            "overrides": opened.overrides,
            "config": replaced(run.config, chosen).model_dump(),
            "vocab_size": dataset.encoder.vocab_size,
        }
    )
    yield
    team.broadcast({"do": "end"})


def follow() -> int:
    """Help the main process with its runs, until it ends its work. Returns its exit code.

    Raises UserError and RunFailed, which name this process, for what only goes wrong here.
    """
    here = launch()
    name = f"process {here.rank} of {here.world}"
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")  # the main process gives the same ones
        try:
            team = stack.enter_context(joined())
            while True:
                help_to_train(team)
        except Dismissed as dismissed:
            return dismissed.code
        except Lost as lost:
            raise RunFailed(f"{name}: {lost}.") from None
        except memory.NoRoom as error:
            raise RunFailed(f"{name} on {socket.gethostname()}: memory ran out: {error.__cause__}") from None
        except UserError as error:
            raise UserError(f"{name} on {socket.gethostname()}: {error.message}", place=error.place, remedy=error.remedy) from None  # fmt: skip


def help_to_train(team: Team) -> None:
    """Help with the steps of the next run of the main process, until they end."""
    order, _ = team.broadcast()
    if "leave" in order:
        raise Dismissed(order["leave"])
    config = Config.model_validate(order["config"])
    opened = open_folder(order["experiment"], order["variant"], order["overrides"])
    runtime = config.train.runtime
    team.be_patient(runtime.team_timeout)
    device = device_of(team, config.train)
    machine = choose_machine(device, runtime.dtype, runtime.compile, runtime.threads, runtime.attention, runtime.float8)
    with memory.noticing(), machine.computing(), noting_signals(StopRequest()) as stop:
        config = replaced(config, {"train.runtime.device": device})
        fresh = fresh_model(
            Settled(config, replace(machine, processes=team.world)), order["vocab_size"], opened.plugins
        )
        step = shared_step(fresh, team, opened.plugins, stop)
        assert isinstance(step, TeamStep)
        help_with_steps(step, order["run"])


def device_of(team: Team, config: Train) -> str:
    """The device of a process: each has a GPU of its own."""
    device = choose_device(config.runtime.device)
    if device.type != "cuda" or team.world == 1:
        return config.runtime.device
    count = torch.cuda.device_count()
    if team.local >= count:
        raise UserError(
            f"there is no GPU for process {team.local + 1} of this machine, which has {count}",
            place="train.runtime.device",
            remedy=f"Start {count} processes, one for each GPU, or set train.runtime.device = \"cpu\".",
        )  # fmt: skip
    torch.cuda.set_device(team.local)
    return f"cuda:{team.local}"


def refuse_unshareable(team: Team, config: Train) -> None:
    """Raise UserError for a run that this team cannot train."""
    data, runtime = config.data, config.runtime
    if runtime.cuda_graphs is True and (team.world > 1 or runtime.exact_across):
        raise UserError(
            "a step that processes can share is not recorded",
            place="train.runtime.cuda_graphs = true",
            remedy="Leave it out, or start one process, without exact_across.",
        )
    if team.world == 1:
        return
    device = choose_device(runtime.device)
    if device.type not in ("cpu", "cuda"):
        raise UserError(
            f"{team.world} processes cannot work together on {device.type}",
            place=f'train.runtime.device = "{runtime.device}"',
            remedy='Start one process, or set train.runtime.device = "cpu".',
        )
    if device.index is not None:
        raise UserError(
            f"this names one GPU, and each of {team.world} processes needs its own",
            place=f'train.runtime.device = "{runtime.device}"',
            remedy='Set train.runtime.device = "cuda": each process takes the GPU of its own number.',
        )
    device_of(team, config)
    if runtime.parallel == "fsdp" and runtime.exact_across:
        raise UserError(
            "exact_across needs the whole model in every process",
            place='train.runtime.parallel = "fsdp"',
            remedy='Set train.runtime.parallel = "ddp", or leave exact_across out.',
        )
    rows = data.grad_accum_steps * data.batch_size
    if config.objective.kind == "reward":  # how many rows there are depends on the answers
        return
    if runtime.exact_across and data.grad_accum_steps < team.world:
        raise UserError(
            f"{team.world} processes cannot share {data.grad_accum_steps} micro-batch{'es' * (data.grad_accum_steps != 1)}: with exact_across, one is never cut",
            place="train.data.grad_accum_steps",
            remedy=f"Start {data.grad_accum_steps} or fewer, or cut the step into more: of its {rows} rows, "
            f"{suggestion(rows, team.world)}. Runs that are compared must have the same values.",
        )
    if rows < team.world:
        raise UserError(
            f"{team.world} processes cannot share {rows} row{'s' * (rows != 1)}",
            place="train.data.batch_size",
            remedy=f"Start {rows} or fewer processes, or raise train.data.batch_size.",
        )


def suggestion(rows: int, world: int) -> str:
    """Settings that cut a step into enough micro-batches."""
    parts = next((parts for parts in range(world, rows + 1) if rows % parts == 0), None)
    if parts is None:
        return "there are too few; raise train.data.batch_size"
    return f"`train.data.grad_accum_steps={parts}` `train.data.batch_size={rows // parts}`"
