"""Build what the training loop needs: model, optimizer, batches, evaluation, trackers."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from core.chat.tools import responder
from core.config import Config, Runtime, Train, replaced
from core.data.batches import batch, epochs_read
from core.data.dataset import Dataset, Side
from core.data.params import keywords
from core.errors import UserError
from core.evaluation.exact_match import Answer
from core.lab.opened import Opened
from core.lab.own import evaluation, objective_of, own_function, own_metrics, scoring_of, tools_of
from core.lab.settle import OWN, Settled, settle
from core.listener import SILENT, Answers, AskedPrompt, tell
from core.models.build import MODEL_PARAMS, builder
from core.models.float8 import refuse_without_float8
from core.optional import needed
from core.plugins.manager import Plugins
from core.process import StopRequest, computing
from core.reward.collapse import collapsed
from core.reward.collect import FIGURES, Collector, collector
from core.sampling.rollouts import Respond
from core.tracking.answers import write_answers
from core.tracking.metrics import COLUMNS, EPOCH
from core.tracking.run import Run
from core.tracking.trackers import find_trackers, open_trackers
from core.training.graphed import refuse_without_graphs, step_of
from core.training.machine import Machine, choose_device, model_on
from core.training.objectives import Objective
from core.training.optimizers import OPTIM_PARAMS, build_optimizer
from core.training.room import divides, memory_of, state_bytes
from core.training.saver import Saver, saving_thread
from core.training.speed import Speed
from core.training.step import Step
from core.training.team import ALONE, Team
from core.training.team_step import team_step
from core.training.trainer import Parts

MOST_TOLD = 3  # answers of an evaluation that a listener hears of, from all over the prompts


def refuse_unknown(opened: Opened) -> None:
    """Raise UserError for a model, optimizer, tracker or device that is not available, and for params that these do not have.

    Call it before making anything.
    """
    config, plugins, place_of = opened.config.train, opened.plugins, opened.settings.place_of
    keywords(builder(config.model, plugins), config.model.params, MODEL_PARAMS, place_of)
    optimizer = plugins.get("optimizers", str(config.optim.name), "train.optim.name")
    keywords(optimizer, config.optim.params, OPTIM_PARAMS, place_of)
    find_trackers(config.runtime.trackers, plugins)
    if config.runtime.backend == "jax":
        refuse_own_code(opened)
        needed("jax", 'train.runtime.backend = "jax"', "jax")
    device = choose_device(config.runtime.device)
    if config.runtime.cuda_graphs is True:
        refuse_without_graphs(device)
    if config.runtime.float8:
        refuse_without_float8(device)


def refuse_own_code(opened: Opened) -> None:
    """Raise UserError for a model or a loss of prepare.py, which are torch's code."""
    for name in OWN:
        if (name == "loss" and own_function(opened.code, name) is None) or not hasattr(opened.code, name):
            continue
        raise UserError(
            f"prepare.py has its own {name}(), which JAX cannot compute",
            place='train.runtime.backend = "jax"',
            remedy=f'Set backend = "torch", or remove {name}() from prepare.py.',
        )


@dataclass(frozen=True)
class Fresh:
    """A model with fresh weights and its optimizer, on the chosen machine.

    start: a copy with the weights that the run begins with, where the objective measures the distance to them.
    divided: the weights will be divided among processes. They are in main memory then, not on the machine's device.
    """

    settled: Settled
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    start: torch.nn.Module | None = None
    divided: bool = False

    @functools.cached_property
    def step(self) -> Step:
        """The optimizer step."""
        grad_clip = self.settled.config.train.optim.grad_clip
        step = step_of(self.model, self.optimizer, self.settled.machine, grad_clip, self.objective)
        return by_jax(step, self.settled.config.train.runtime) if self.by_jax else step

    @property
    def by_jax(self) -> bool:
        """Whether JAX takes the steps."""
        return self.settled.config.train.runtime.backend == "jax"

    @functools.cached_property
    def speed(self) -> Speed:
        return Speed.of(self.settled.config.train, self.settled.machine, self.model)


def fresh_model(settled: Settled, vocab_size: int, plugins: Plugins) -> Fresh:
    """Build model and optimizer, with weights drawn from the run's seed."""
    train = settled.config.train
    torch.manual_seed(train.runtime.seed)
    machine, objective = settled.machine, objective_of(train.objective, plugins)
    if machine.processes == 1 or train.runtime.parallel == "ddp" or train.runtime.backend == "jax":
        model = model_on(machine, train.model, vocab_size, plugins)
        return Fresh(settled, model, build_optimizer(model, train.optim, plugins), objective)
    model = model_on(machine, train.model, vocab_size, plugins, place=torch.device("cpu"))
    optimizer = build_optimizer(model, train.optim, plugins)
    divided = divides(train.runtime, machine.processes, state_bytes(model, optimizer), memory_of(machine.device))
    model.to("cpu" if divided else machine.device)
    return Fresh(settled, model, optimizer, objective, divided=divided)


def by_jax(step: Step, runtime: Runtime, team: Team = ALONE, stop: StopRequest | None = None) -> Step:
    """A step as JAX takes it."""
    from core.jax.step import jax_step  # of an extra

    return jax_step(step, runtime, team, stop or StopRequest())


def shared_step(fresh: Fresh, team: Team, plugins: Plugins, stop: StopRequest) -> Step:
    """The step of a fresh model as a team takes it. stop: notes a signal."""
    train = fresh.settled.config.train
    if fresh.by_jax:
        return by_jax(fresh.step, train.runtime, team, stop)
    if not fresh.divided:
        return team_step(fresh.step, team, exact=train.runtime.exact_across, stop=stop)
    from core.training.divided_step import divided_step  # its imports take a second

    return divided_step(fresh.step, team, lambda model: build_optimizer(model, train.optim, plugins), stop)


def assemble(opened: Opened, run: Run, dataset: Dataset, fresh: Fresh, saver: Saver, step: Step | None = None) -> Parts:
    """Build the parts of the training loop. step: how a step is taken, if not by this process alone."""
    config, machine = run.config.train, fresh.settled.machine
    by_reward = rewarded(opened, dataset, fresh)
    return Parts(
        model=fresh.model,
        optimizer=fresh.optimizer,
        machine=machine,
        batch=collecting(by_reward, step or fresh.step)
        if by_reward
        else lambda step: batch(dataset.train, config.data, config.runtime.seed, step),
        step=step or fresh.step,
        evaluate=evaluation_of(opened, run, dataset, machine),
        trackers=open_trackers(run, config.runtime.trackers, opened.plugins),
        plugins=opened.plugins,
        identity=identity_of(dataset),
        saver=saver,
        speed=fresh.speed,
        listener=opened.listener,
        epochs=functools.partial(epochs_read, dataset.train, config.data) if reads_epochs(config) else None,
        figures=None if by_reward is None else lambda: by_reward.figures,
        collapsed=None if by_reward is None else collapsed,
    )


def rewarded(opened: Opened, dataset: Dataset, fresh: Fresh) -> Collector | None:
    """What draws the batches of train.objective.kind = "reward"; None for another kind. Raises UserError."""
    config = fresh.settled.config.train
    if config.objective.kind != "reward":
        return None
    return collector(
        fresh.model,
        fresh.start,
        dataset,
        config,
        fresh.settled.machine,
        scoring_of(opened),
        responding(opened, dataset),
    )


def collecting(collector: Collector, step: Step) -> Callable[[int], tuple[Any, ...]]:
    """What draws the batches of training by reward, with all weights."""

    def batch(number: int) -> tuple[Any, ...]:
        with step.whole():
            return collector.batch(number)

    return batch


def responding(opened: Opened, dataset: Dataset) -> Respond | None:
    """What answers the calls of tools in conversations; None for other data."""
    if not dataset.train.whole:
        return None
    return responder(dataset.encoder, tools_of(opened, conversations=True))


def reads_epochs(config: Train) -> bool:
    """Whether the batches of a run are the training side, read in epochs."""
    return config.data.order == "epochs" and config.objective.kind != "reward"


def evaluation_of(
    opened: Opened, run: Run, dataset: Dataset, machine: Machine
) -> Callable[[torch.nn.Module, int], dict[str, float]]:
    """What measures a model at a step of training: the built-in metrics, and at some steps prepare.py's `evaluate`."""

    asked_at = 0

    def hear(side: Side, answers: Sequence[Answer]) -> None:
        if side == "val" and answers:
            write_answers(run.folder, asked_at, list(map(as_told, answers)))
            tell(opened.listener, Answers(list(map(as_told, answers[:: -(-len(answers) // MOST_TOLD) or 1]))))

    measured = evaluation(opened, run.config, dataset, machine, hear=hear)
    every, interval = run.config.evaluate.every, run.config.train.runtime.eval_interval
    taken = {*COLUMNS, *FIGURES, EPOCH} if reads_epochs(run.config.train) else {*COLUMNS, *FIGURES}

    def evaluate(model: torch.nn.Module, step: int) -> dict[str, float]:
        nonlocal asked_at
        asked_at = step
        row = measured.while_training(model)
        if every and (step % interval or step // interval % every == 0):  # the closing one may be at any step
            own = own_metrics(opened, run, model, dataset.encoder, {*taken, *row})
            row |= {name: value for name, value in own.items() if value is not None}
        return row

    return evaluate


def as_told(answer: Answer) -> AskedPrompt:
    """An answer, as listeners hear of it."""
    return AskedPrompt(answer.example.prompt, answer.example.completion, answer.text, answer.correct)


def identity_of(dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint stores about its dataset: enough to sample without it and to detect another one."""
    return {
        "dataset_fingerprint": dataset.fingerprint,
        "data_hash": dataset.data_hash,
        "encoder": {"kind": dataset.encoder.kind, "state": dataset.encoder.state()},
        "stop": dataset.stop,
        "has_examples": dataset.has_examples,
        "conversations": dataset.train.whole,
        "begin": dataset.begin,
    }


def never_compiled(config: Config) -> Config:
    """The config, not compiled where it leaves that open: what takes seconds is not worth half a minute of compiling."""
    return replaced(config, {"train.runtime.compile": False}) if config.train.runtime.compile == "auto" else config


@contextlib.contextmanager
def temporary_model(opened: Opened, config: Config, dataset: Dataset) -> Iterator[Fresh]:
    """A model with fresh weights, on the machine that is chosen for it. Compute with it inside this context."""
    with computing(choose_device(config.train.runtime.device).type):
        settled = settle(opened.experiment, config, dataset, opened.plugins)
        with settled.machine.computing():
            yield fresh_model(settled, dataset.encoder.vocab_size, opened.plugins)


@contextlib.contextmanager
def throwaway(opened: Opened, dataset: Dataset, *, compiling: bool = True) -> Iterator[tuple[Run, Parts]]:
    """A temporary run in a folder next to the real ones, with the parts of its loop. It is removed at the end.

    compiling: its step may be compiled where the config leaves that open.
    """
    out = opened.out
    out.mkdir(parents=True, exist_ok=True)
    try:
        # The time to save depends on the disk, so we use the disk of the runs.
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=out) as folder, saving_thread() as saver:
            changes = {"train.runtime.trackers": [], "train.runtime.out_dir": folder}
            config = replaced(opened.config if compiling else never_compiled(opened.config), changes)
            with temporary_model(opened, config, dataset) as fresh:
                run = Run(opened.experiment, "bench", fresh.settled.config)
                run.folder.mkdir()
                yield run, assemble(replace(opened, listener=SILENT), run, dataset, fresh, saver)
    finally:
        with contextlib.suppress(OSError):  # fails if the folder is not empty
            out.rmdir()
