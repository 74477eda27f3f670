"""What loop, evaluate and sample do with a trained run."""

from __future__ import annotations

import functools
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import files
from core.cli.lab import Lab
from core.cli.sampling import draw
from core.config import Config
from core.data.dataset import Dataset, load_dataset
from core.encoders.base import identity
from core.errors import UserError
from core.evaluation.evaluate import Evaluation
from core.evaluation.exact_match import Answer
from core.report.log import write_log_entry
from core.report.nearest import nearest
from core.report.plots import write_plots
from core.report.run_report import SHOWN_MISTAKES, write_report
from core.report.samples import Mistake, Sample, Written, after_first, as_text, write_samples
from core.sampling.load import Trained, load_run, run_config
from core.tracking.run import Run, find_run

MOST_SEARCHED = 20_000  # training examples, evenly spaced; decoding more would take seconds


@dataclass
class Work:
    """A trained run, opened with the lab that it belongs to."""

    lab: Lab
    run: Run
    trained: Trained

    @classmethod
    def open(cls, lab: Lab, name: str | None) -> Work:
        """Find the run and load its best checkpoint; the lab's overrides are laid over the run's own config."""
        folder = find_run(lab.experiment, lab.out, name or lab.default_run)
        config = run_config(folder, lab.overrides)
        return cls(lab, Run(lab.experiment, folder.name, config), load_run(folder, config, lab.code))

    @property
    def config(self) -> Config:
        return self.run.config

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The dataset that the run was trained on. Raises UserError if it has become another one."""
        dataset = load_dataset(self.run.experiment.folder / Path(self.config.prepare.dataset_dir).expanduser())
        again = f"{self.run.experiment.command.format('train')} --run {shlex.quote(self.run.name)} --fresh"
        remedy = f"Make the old data again with the settings in {self.run.folder / 'config.toml'}, or train anew on this: {again}"
        if identity(dataset.encoder) != identity(self.trained.encoder):
            raise UserError(
                "the dataset was made with another encoder than the checkpoint",
                place=str(dataset.folder),
                remedy=remedy,
            )
        if dataset.fingerprint != self.trained.fingerprint:
            raise UserError(
                f"the dataset is not the one that {self.run.title} was trained on",
                place=str(dataset.folder),
                remedy=remedy,
            )
        return dataset

    @functools.cached_property
    def closing(self) -> tuple[dict[str, float], list[Answer]]:
        """Metrics over the whole validation side, and the greedy answers to its prompts."""
        return Evaluation(self.dataset, self.config, self.trained.machine).closing(self.trained.model)

    def evaluate(self) -> dict[str, Any]:
        """All metrics of the checkpoint on the whole validation side, those of prepare.py's `evaluate` among them."""
        metrics, answers = self.closing
        extra = self.own_metrics()
        files.write_json(self.run.folder / "evaluation.json", metrics | extra)
        self.show(metrics | extra, answers)
        return {
            "experiment": self.run.experiment.name,
            "run": self.run.name,
            "step": self.trained.step,
            **metrics,
            **extra,
        }

    def own_metrics(self) -> dict[str, float | None]:
        """What `evaluate` of prepare.py returns, as plain numbers; null where one is not finite. Raises UserError for anything else."""
        own = getattr(self.lab.code, "evaluate", None)
        values = own(self.run, self.trained.model, self.trained.encoder) if own else {}
        try:
            numbers = {str(name): float(value) for name, value in values.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"evaluate returned something else than a dict of numbers: {error}",
                place=str(self.run.experiment.folder / "prepare.py"),
                remedy='Return a dict: name of a metric -> number, such as {"words": 0.9}.',
            ) from None
        return {name: value if math.isfinite(value) else None for name, value in numbers.items()}

    def show(self, metrics: dict[str, Any], answers: list[Answer]) -> None:
        """The metrics, and the first wrong answers, in a few lines."""
        say = self.lab.console.say
        say(f"evaluated {self.run.title} at step {self.trained.step}:")
        for name, value in metrics.items():
            shown = f"{value:.1%}" if "accuracy" in name else f"{value:.4f}" if isinstance(value, float) else value
            say(f"  {name:<28} {shown}")
        for answer in [answer for answer in answers if not answer.correct][:5]:
            say(f"  wrong: {answer.example.prompt!r} -> {answer.text!r}, not {answer.example.completion!r}")

    def sample(self, **choices: Any) -> list[Sample]:
        """Draw samples and show them; on a terminal the first one as it is written."""
        console = self.lab.console
        samples = draw(self, choices, console.write if console.interactive else None)
        streamed = console.interactive and samples[0].truth is None
        console.write(after_first(samples) if streamed else as_text(samples))
        return samples

    def written(self, samples: list[Sample]) -> Written:
        """Samples, and the wrong answers with the training examples nearest to them."""
        wrong = [answer for answer in self.closing[1] if not answer.correct]
        examples = self.dataset.examples("train", MOST_SEARCHED) if wrong else []
        mistakes = [
            Mistake(
                answer.example.prompt,
                answer.text,
                answer.example.completion,
                answer.example.group,
                [(near.prompt, near.completion) for near in nearest(answer.example.prompt, examples)],
            )
            for answer in wrong[:SHOWN_MISTAKES]
        ]
        return Written(samples, mistakes, len(wrong), len(examples))

    def report(self, samples: list[Sample]) -> None:
        """Write samples, curves and the page of the run."""
        write_samples(self.run.folder, self.written(samples))
        write_plots(self.run.folder)
        page = write_report(self.run.folder)
        write_log_entry(self.run)  # the samples are there now
        self.lab.console.say(f"report: {page}")
