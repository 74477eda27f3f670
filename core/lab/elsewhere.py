"""Evaluate a trained model on other data than its own: another dataset of its encoder, or a file of prompts.

Also beside its greedy answers: how often answers drawn at a temperature are right.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.data.dataset import Dataset, load_dataset
from core.data.documents import Example
from core.data.lines import as_examples
from core.data.prompts import read_prompts
from core.encoders.base import identity
from core.errors import UserError
from core.evaluation.answers import DETAILS, details
from core.evaluation.exact_match import Answer, accuracies, answered, counts
from core.evaluation.passes import passes
from core.lab.model import LoadedModel
from core.lab.opened import open_folder, prepared
from core.lab.own import own_function
from core.sampling.asking import answer_size, said
from core.sampling.generate import complete


def other_dataset(model: LoadedModel, name: str) -> Dataset:
    """A dataset folder, or the dataset of a variant, which is made if necessary. Raises UserError if its encoder differs."""
    experiment = model.run.experiment
    folders = [folder for folder in (Path(name).expanduser(), experiment.path(name)) if (folder / "train.bin").exists()]
    if folders:
        dataset = as_examples(load_dataset(folders[0].absolute(), model.opened.plugins), model.config.prepare)
    elif (experiment.folder / f"config.{name}.toml").is_file() or name == "basic":
        address = experiment.address or str(experiment.folder)
        _, dataset = prepared(open_folder(address, name, (), model.opened.listener))
    else:
        raise UserError(
            f"'{name}' is no dataset folder and no variant of {experiment.name}",
            place=f"`data={name}`",
            remedy="Name a folder with train.bin and val.bin, or NAME of a config.NAME.toml.",
        )
    if identity(dataset.encoder) != identity(model.encoder):
        raise UserError(
            f"the dataset was made with another encoder than {model.run.title}",
            place=str(dataset.folder),
            remedy=f"Make it with that one: `prepare.encoder_from={model.config.prepare.dataset_dir}`, in a folder of its "
            "own: `prepare.dataset_dir=NAME`.",
        )
    return dataset


def evaluate_dataset(model: LoadedModel, dataset: Dataset) -> dict[str, Any]:
    """The closing metrics on a dataset."""
    with model.trained.machine.computing():
        return dict(model.evaluation(dataset).closing(model.module).metrics)


def evaluate_prompts(model: LoadedModel, examples: Sequence[Example]) -> tuple[dict[str, Any], list[Answer]]:
    """Exact match of the greedy answers to all examples, as `accuracy`, with their `details`; and the answers."""
    begin = time.perf_counter()
    answers = drawn(model, examples, 0.0, 1)
    rate = len(answers) / (time.perf_counter() - begin)
    found = accuracies(answers, "given") | {"given_prompts": len(answers)} | counts(answers, "given")
    more = {"prompts_per_second": round(rate, 1), DETAILS: details(answers, model.encoder, model.trained.stop)}
    return {name.removeprefix("given_"): value for name, value in found.items()} | more, answers


def evaluate_drawn(model: LoadedModel, examples: Sequence[Example], temperature: float, samples: int) -> dict[str, Any]:
    """How often answers drawn at a temperature are right: of all, and at least one of each prompt's `samples`, and of k."""
    answers = drawn(model, examples, temperature, samples)
    if not answers:
        return {}
    right = [answer.correct for answer in answers]
    by_prompt = [sum(right[at : at + samples]) for at in range(0, len(right), samples)]
    return {
        "drawn_accuracy": sum(right) / len(right),
        "drawn_any_accuracy": sum(map(bool, by_prompt)) / len(by_prompt),
        **passes(by_prompt, samples),
        "temperature": temperature,
        "samples": samples,
    }


def drawn(model: LoadedModel, examples: Sequence[Example], temperature: float, samples: int) -> list[Answer]:
    """`samples` answers to each prompt, one after the other. Raises UserError for a prompt that the encoder cannot encode."""
    part = own_function(model.opened.code, "answer")
    repeated = [example for example in examples for _ in range(samples)]
    longest = max((answer_size(example.completion, model.encoder) for example in examples), default=0)
    begun = [model.begun(example.prompt) for example in repeated]
    model.say_what_is_cut(begun)
    # What stands before the part that counts may be longer than in the truth.
    most = max(longest + 1, model.config.sample.sample.max_new_tokens if part else 0)
    seed = model.config.sample.runtime.seed or 0
    with model.trained.machine.computing():
        if model.trained.conversations:
            rollouts = model.asked(begun, max_new_tokens=most, temperature=temperature, seed=seed)
            texts = [said(rollout, model.encoder) for rollout in rollouts]
        else:
            texts = complete(
                model.module,
                model.encoder,
                begun,
                max_new_tokens=most,
                temperature=temperature,
                stop=model.trained.stop,
                seed=seed,
            )
    return answered(model.encoder, repeated, texts, part)


def prompts_of(model: LoadedModel, file: Path) -> list[Example]:
    """The examples of a file; see `read_prompts`."""
    return read_prompts(file, model.trained.stop)
