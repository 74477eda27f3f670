"""Ask a model for programs, run them in the sandbox, and count which are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from core.chat.conversation import Conversation, Message
from core.chat.render import PromptText, render_prompt
from core.evaluation.suites import code
from core.evaluation.suites.code import CodeItem, CodeResult, DrawnPrograms
from core.evaluation.suites.rows import numbers_asked, readable
from core.evaluation.suites.task import Task
from core.lab.model import LoadedModel
from core.sampling.asking import said
from core.sampling.generate import prompt_ids
from core.sampling.rollouts import Rollout, roll_out
from core.training.measured import cores

if TYPE_CHECKING:
    from core.sandbox.bubblewrap import Sandbox

NEW_TOKENS = 512  # of a program, at most, or as many as the model sees
LAST = 5  # tokens: the longest character has four bytes, and a line break stands before it
Show = Callable[[int, int], object]


class Draws(NamedTuple):
    """Programs to draw for each problem besides the greedy one."""

    temperature: float
    samples: int


def measure_code_task(model: LoadedModel, task: Task, sandbox: Sandbox, draws: Draws | None, show: Show) -> CodeResult:
    """The result of a task whose answers are programs. show: told how many of how many programs have run.

    A model that was trained on conversations is asked for the function; another one continues the prompt. Raises UserError
    for a problem that cannot be encoded.
    """
    asked, prompts = list[CodeItem](), list[PromptText]()
    for number in numbers_asked(task, model.config.evaluate.suite_prompts):
        item = task.items[number]
        assert isinstance(item, CodeItem)
        with readable(task, number):
            asked.append(item)
            prompts.append(prompt_of(model, item))
    samples = 0 if draws is None else draws.samples
    show(0, len(asked) * (1 + samples))
    programs = programs_for(model, asked, prompts, 0.0)
    if draws is not None:
        repeated = [number for number in range(len(asked)) for _ in range(samples)]
        chosen = ([asked[number] for number in repeated], [prompts[number] for number in repeated])
        programs += programs_for(model, *chosen, draws.temperature)
    found = sandbox.run_all(programs, cores(), show)
    passed = [outcome == "passed" for outcome in found]
    drawn = None
    if draws is not None:
        begins = range(len(asked), len(passed), samples)
        drawn = DrawnPrograms(draws.temperature, samples, [sum(passed[at : at + samples]) for at in begins])
    return CodeResult(
        task,
        asked,
        right=sum(passed[: len(asked)]),
        shots=0,
        cut=sum(len(prompt.ids) > model.block_size for prompt in prompts),
        outcomes=dict(zip([item.name for item in asked], found, strict=False)),
        drawn=drawn,
    )


def prompt_of(model: LoadedModel, item: CodeItem) -> PromptText:
    """What a model is given: a question as a turn of the user, or the beginning of the program."""
    if model.trained.conversations:
        question = Conversation([Message("user", code.question_of(item))])
        return PromptText.of([int(token) for token in render_prompt(question, model.encoder)], model.encoder)
    made = PromptText(item.prompt)
    made.ids = tuple(prompt_ids(model.encoder, model.begun(item.prompt)))
    return made


def programs_for(
    model: LoadedModel, items: Sequence[CodeItem], prompts: Sequence[PromptText], temperature: float
) -> list[list[str]]:
    """The parts of a program for each item. temperature 0: greedy. Program i is drawn with the run's sampling seed + i."""
    most, seed = min(NEW_TOKENS, model.block_size), model.config.sample.runtime.seed or 0
    if model.trained.conversations:
        rollouts = model.asked(prompts, max_new_tokens=most, temperature=temperature, seed=seed)
        return [
            code.answered_in_chat(item, said(rollout, model.encoder))
            for item, rollout in zip(items, rollouts, strict=True)
        ]
    end = model.encoder.end_token
    rollouts = roll_out(
        model.module,
        [prompt.ids for prompt in prompts],
        range(seed, seed + len(prompts)),
        ends=[] if end is None else [end],
        max_new_tokens=most,
        temperature=temperature,
        until=lambda written: code.ends_statement(model.encoder.decode(list(written[-LAST:]))),
    )
    return [code.continued(item, text_of(model, rollout)) for item, rollout in zip(items, rollouts, strict=True)]


def text_of(model: LoadedModel, rollout: Rollout) -> str:
    """What was written behind a prompt, without the end token."""
    encoder, written = model.encoder, list(rollout.written)
    if written and written[-1] == encoder.end_token:
        written.pop()
    before = list(rollout.prompt[-1:])  # decoded together, to include a space between two words
    return encoder.decode([*before, *written])[len(encoder.decode(before)) :]
