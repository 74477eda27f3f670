"""A trained model, loaded from its run: evaluate it, sample from it, look inside."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from core import files
from core.chat.render import begun_text
from core.chat.tools import Tools
from core.config import Config, Sampling
from core.data.dataset import Dataset, load_dataset
from core.data.lines import as_examples
from core.encoders.base import Encoder, identity
from core.errors import UserError
from core.evaluation.answers import DETAILS, details
from core.evaluation.evaluate import Closing, Evaluation
from core.evaluation.exact_match import Answer
from core.lab.opened import Opened
from core.lab.own import evaluation as evaluation_of
from core.lab.own import own_metrics, tools_of
from core.process import computing
from core.sampling.asking import ask
from core.sampling.generate import complete, pieces, prompt_ids, seen
from core.sampling.load import Trained, load_run, run_config
from core.sampling.rollouts import Rollout
from core.toml import is_of_stage
from core.tracking.run import Run, find_run, name_of
from core.training import ladder
from core.training.machine import choose_device


@dataclass(frozen=True)
class LoadedModel:
    """The model of a checkpoint, and its run."""

    opened: Opened
    run: Run
    trained: Trained

    def __repr__(self) -> str:
        return f"LoadedModel({self.run.title!r}, step={self.step})"

    @property
    def config(self) -> Config:
        """The run's config, with the overrides of the open experiment."""
        return self.run.config

    @property
    def module(self) -> torch.nn.Module:
        """Token ids (B, T) -> logits (B, T, V)."""
        return self.trained.model

    @property
    def block_size(self) -> int:
        """Tokens that the model sees at once."""
        return int(self.module.block_size)  # type: ignore[arg-type]

    @property
    def encoder(self) -> Encoder:
        """Text to ids and back."""
        return self.trained.encoder

    @property
    def step(self) -> int:
        """The checkpoint's optimizer step."""
        return self.trained.step

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The dataset that the run was trained on. Raises UserError if it has changed since."""
        folder = self.run.experiment.path(self.config.prepare.dataset_dir)
        dataset = as_examples(load_dataset(folder, self.opened.plugins), self.config.prepare)
        wrong = ""
        if identity(dataset.encoder) != identity(self.encoder):
            wrong = "the dataset was made with another encoder than the checkpoint"
        elif not dataset.is_of(self.trained.data):
            wrong = f"the dataset is not the one that {self.run.title} was trained on"
        if wrong:
            raise UserError(
                wrong,
                place=str(dataset.folder),
                remedy=f"Make the old data again with the settings in {self.run.folder / 'config.toml'}, or train again on "
                f"this: {self.run.experiment.command.format('train')} `run={self.run.name}` `fresh=True`",
            )
        return dataset

    @functools.cached_property
    def closing(self) -> Closing:
        """Metrics on the whole sides, the greedy answers to the prompts of each, and the validation loss by batch."""
        if self.dataset.held_out:
            asked = self.dataset.examples("held_out", self.config.evaluate.max_prompts)
            self.say_what_is_cut([example.prompt for example in asked])
        with self.trained.machine.computing():
            return self.evaluation(self.dataset).closing(self.module)

    @functools.cached_property
    def tools(self) -> Tools:
        """The tools that it may call, by their names. Raises UserError where prepare.py's `tools` returns something else."""
        return tools_of(self.opened, conversations=self.trained.conversations)

    def evaluation(self, dataset: Dataset) -> Evaluation:
        """What measures the model on a dataset, with prepare.py's functions."""
        return evaluation_of(self.opened, self.config, dataset, self.trained.machine, self.tools)

    def asked(self, prompts: Sequence[str], **choices: Any) -> list[Rollout]:
        """Its answers to prompts of conversations, with its tools. choices: as for `core.sampling.asking.ask`."""
        return ask(self.module, self.encoder, prompts, self.tools, **choices)

    @property
    def mistakes(self) -> list[Answer]:
        """The wrong greedy answers to held-out prompts."""
        return [answer for answer in self.closing.answers["val"] if not answer.correct]

    def evaluate(self) -> dict[str, Any]:
        """Evaluate on the whole validation side, with prepare.py's `evaluate`. Also writes the run's evaluation.json, but not of a
        step that was kept on the way."""
        metrics: dict[str, float | None] = dict(self.closing.metrics)
        metrics |= own_metrics(self.opened, self.run, self.module, self.encoder, metrics)
        if not self.trained.kept:
            files.write_figures(self.run.folder / "evaluation.json", metrics | {DETAILS: self.details})
        return {
            "experiment": self.run.experiment.name,
            "run": self.run.name,
            "step": self.step,
            **metrics,
            DETAILS: self.details,
        }

    @functools.cached_property
    def details(self) -> dict[str, Any]:
        """What the answers to held-out prompts get right and wrong: {"step": ..., side: `details`}. Without Examples only the step."""
        asked = [side for side, answers in self.closing.answers.items() if answers and side != "train"]
        return {"step": self.step} | {
            side: details(self.closing.answers[side], self.encoder, self.trained.stop) for side in asked
        }

    def complete(self, prompts: Sequence[str], *, seed: int = 0, **choices: Any) -> list[str]:
        """Complete each prompt. Returns the completions, without the prompts.

        choices: max_new_tokens, temperature (0 is greedy), top_k, top_p, stop; the defaults are in [sample.sample] of the
        run's config. Raises UserError for a prompt that the encoder cannot encode, and for an unknown choice.
        """
        if isinstance(prompts, str):
            raise UserError("prompts is one text", place="prompts", remedy='Give a list of texts: ["cab: "].')
        settings = self.decoding(choices)
        begun = [self.begun(prompt) for prompt in prompts]
        self.say_what_is_cut(begun)
        with self.trained.machine.computing():
            return complete(self.module, self.encoder, begun, seed=seed, **settings)

    def stream(self, prompt: str, *, seed: int = 0, **choices: Any) -> Iterator[str]:
        """Yield the completion of one prompt in pieces. choices: as for `complete`."""
        settings = self.decoding(choices)
        prompt = self.begun(prompt)
        self.say_what_is_cut([prompt])
        steps = pieces(self.module, self.encoder, prompt, seed=seed, **settings)
        while True:
            with self.trained.machine.computing():  # not around the yield, where it would affect the caller
                piece = next(steps, None)
            if piece is None:
                return
            yield piece

    def begun(self, prompt: str) -> str:
        """A prompt as documents begin in training: with the token that begins them, if there is one. Raises UserError for text that cannot be encoded."""
        return begun_text(prompt, self.trained.begin, self.encoder)

    def say_what_is_cut(self, prompts: Sequence[str]) -> None:
        """Tell the listener which of the prompts are longer than the model's context, and what it sees of the first."""
        block_size = self.block_size
        different = list(dict.fromkeys(prompts))
        long = [ids for ids in (prompt_ids(self.encoder, prompt) for prompt in different) if len(ids) > block_size]
        if long:
            end = self.encoder.decode(long[0][-seen(len(long[0]), block_size) :])
            which = "the prompt" if len(different) == 1 else f"{len(long):,} of {len(different):,} prompts; the first"
            self.opened.listener.say(
                f"cut: {which} has {len(long[0]):,} tokens, and block_size is {block_size:,}. The model sees only its end: {end!r}"
            )

    def decoding(self, choices: dict[str, Any]) -> dict[str, Any]:
        """The sampling settings: the run's own, overridden by `choices`. Raises UserError for one that is unknown or wrong."""
        own = self.config.sample.sample
        settings: dict[str, Any] = own.model_dump(include={"max_new_tokens", "temperature", "top_k", "top_p", "stop"})
        if unknown := choices.keys() - settings.keys():
            raise UserError(
                f"no choice is called '{min(unknown)}'", place="complete", remedy=f"Choices: {', '.join(settings)}."
            )
        settings |= {name: value for name, value in choices.items() if value is not None}
        try:
            Sampling.model_validate(settings)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise UserError(
                f"{wrong['loc'][0]} = {wrong['input']!r}: {wrong['msg'].lower()}",
                place="complete",
                remedy="docs/reference/config.md has the values of [sample.sample].",
            ) from None
        settings["stop"] = settings["stop"] or self.trained.stop
        if settings["temperature"] is None:  # an answer is right or wrong, so randomness only hurts
            settings["temperature"] = 0.0 if self.trained.has_examples else 0.8
        return settings


def load_model(opened: Opened, name: str | None = None, checkpoint: str | int = "best") -> LoadedModel:
    """Load a run's checkpoint: best, last, or the number of a kept step. The experiment's overrides apply on top of the run's own config.

    Raises UserError if there is no such run, or no whole checkpoint.
    """
    folder = find_run(opened.experiment, opened.out, name or opened.default_run)
    checkpoint = checkpoint_name(folder, checkpoint)
    config = run_config(folder, tuple(text for text in opened.overrides if is_for_run(opened, text)))
    with computing(choose_device(config.sample.runtime.device or "auto").type):  # building draws random weights
        trained = load_run(folder, config, opened.plugins, checkpoint)
    return LoadedModel(opened, Run(opened.experiment, name_of(folder), config), trained)


def checkpoint_name(folder: Path, checkpoint: str | int) -> str:
    """The name of a run's checkpoint, from best, last, or the number of a kept step. Raises UserError if it has no such one."""
    text = str(checkpoint)
    if text in ("best", "last"):
        return text
    kept = ladder.kept_steps(folder / "checkpoints")
    number = ladder.KEPT.fullmatch(text)
    step = int(number[1]) if number else int(text) if text.isdecimal() else None
    if step in kept:
        return ladder.kept_name(step)
    raise UserError(
        f"a run has no checkpoint '{text}'" if step is None else f"{name_of(folder)} has not kept step {step:,}",
        place="checkpoint",
        remedy=f"Choose best, last or a kept step: {', '.join(map(str, kept))}."
        if kept
        else "Choose best or last. A run keeps steps on its way with `train.runtime.keep_checkpoints=10`.",
    )


def is_for_run(opened: Opened, override: str) -> bool:
    """Whether an override changes a run that is there.

    A stage's run has a folder of its own below prepare.dataset_dir, and if it goes on with weights, the depth of these.
    """
    key = override.partition("=")[0].strip()
    if is_of_stage(override) or (key == "prepare.dataset_dir" and opened.stages):
        return False
    return not (key == "train.model.depth" and opened.stage is not None and opened.stage.origin)
