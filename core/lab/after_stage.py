"""When a stage has ended: measure its best weights on the data of every stage, and let them answer the same prompts.

What is found stands in other_stages.json (figures) and after_stage.json (the rest) in the stage's run folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from core import files
from core.chat.conversation import Message
from core.chat.render import PromptText, begun_text, turns_of
from core.config import Config
from core.data.dataset import Dataset, Side, Split, load_dataset
from core.data.documents import Example
from core.data.lines import as_examples
from core.encoders.base import identity
from core.encoders.special import has_special, special_ids
from core.evaluation.evaluate import Closing
from core.evaluation.exact_match import answered, most_tokens
from core.lab.chatting import begin_talk, reply
from core.lab.model import LoadedModel
from core.lab.opened import Opened
from core.lab.own import evaluation, own_function
from core.lab.stages import at_stage
from core.report.after_stage import AfterStage, Completed, DataFacts, OnData, SideFacts, TalkTurn, write_after_stage
from core.report.stage_figures import OTHERS
from core.sampling.asking import said as last_turn
from core.sampling.generate import complete

QUESTIONS, TEXTS, TALKS = 8, 4, 3  # questions, beginnings of texts, and conversations of each stage's data
MOST_TURNS = 4  # of the user in a conversation
POOL = 64  # documents of a side, evenly spaced, that they are chosen from
NEW_TOKENS, TURN = 48, 64  # of a text, and of a turn; short, because every stage's model writes them
PROMPT = 60  # characters of a text, about, that are given
STRETCH = 400  # tokens of running text, without lines, that a beginning is taken from
PARTS = 200  # of a validation side, at most, whose losses are kept
SIDES: tuple[Side, ...] = ("val", "test", "held_out")


def measure_after_stage(opened: Opened, at: Opened, model: LoadedModel) -> None:
    """Measure a stage's best weights on the data of every stage, before it is trained on and after.

    A stage whose data is not there, or has another encoder, is left out. Writes after_stage.json, then OTHERS.
    """
    assert at.stage is not None
    at.listener.say(f"measuring {model.run.title} on the data of every stage")
    others: dict[str, dict[str, float]] = {}
    on: dict[str, OnData] = {}
    for name, dataset, config in datasets_for(opened, at, model):
        if name == at.stage.name:
            closing = model.closing
        else:
            with model.trained.machine.computing():
                closing = evaluation(at, config, dataset, model.trained.machine).closing(model.module)
            others[name] = dict(closing.metrics)
        on[name] = found_on(dataset, closing, model)
    found = AfterStage(model.step, facts_of(model.dataset, model.config), on)
    write_after_stage(model.run.folder, found)
    files.write_json(model.run.folder / OTHERS, others)  # last: its absence means that a stage was not measured yet


def datasets_for(opened: Opened, at: Opened, model: LoadedModel) -> Iterator[tuple[str, Dataset, Config]]:
    """Each stage whose data the model can read, with that data and the settings that read it."""
    for stage in at.stages:
        if stage is at.stage:
            yield stage.name, model.dataset, model.config
            continue
        other = at_stage(opened, stage)
        folder = other.experiment.path(other.config.prepare.dataset_dir)
        if not (folder / "train.bin").is_file():
            continue
        dataset = as_examples(load_dataset(folder, other.plugins), other.config.prepare)
        if identity(dataset.encoder) == identity(model.encoder):
            yield stage.name, dataset, other.config


def found_on(dataset: Dataset, closing: Closing, model: LoadedModel) -> OnData:
    """What after_stage.json has of one stage's data."""
    nats, targets = grouped(closing.losses.nats), grouped(closing.losses.targets)
    right: dict[str, str] = {
        side: "".join(str(int(answer.correct)) for answer in closing.answers[side])
        for side in SIDES
        if closing.answers.get(side)
    }
    return OnData(nats, [int(count) for count in targets], right, samples_of(dataset, model), talks_of(dataset, model))


def grouped(values: Sequence[float]) -> list[float]:
    """Sums of neighbours, at most PARTS of them."""
    return [float(sum(part)) for part in np.array_split(np.array(values), min(PARTS, len(values)))]


def samples_of(dataset: Dataset, model: LoadedModel) -> list[Completed]:
    """Greedy completions of fixed prompts of the validation side: of questions, or of how texts begin.

    Conversations that are not graded have none: see `talks_of`.
    """
    if dataset.train.whole and not dataset.has_examples:
        return []
    graded = dataset.has_examples
    asked = questions_of(dataset) if graded else beginnings_of(dataset)
    needed = most_tokens(dataset, asked, "val") if graded else NEW_TOKENS
    most = min(needed, 2 * NEW_TOKENS)
    prompts = [prompt_of(example.prompt, dataset) for example in asked]
    with model.trained.machine.computing():
        if dataset.train.whole:
            texts = [last_turn(rollout, model.encoder) for rollout in model.asked(prompts, max_new_tokens=most)]
        else:
            texts = complete(
                model.module, model.encoder, prompts,
                max_new_tokens=most, temperature=0.0, stop=dataset.stop, device=model.trained.machine.device,
            )  # fmt: skip
    answers = answered(model.encoder, asked, texts, own_function(model.opened.code, "answer"))
    return [
        Completed(
            readable(answer.example.prompt, dataset),
            answer.example.completion,
            answer.text,
            answer.correct if graded and most == needed else None,  # an answer that is cut short is not wrong for that
        )
        for answer in answers
    ]


def questions_of(dataset: Dataset) -> list[Example]:
    """Prompts with one right answer, of as many groups as there are."""
    found = dataset.examples("val", POOL if dataset.groups else QUESTIONS)
    by_group: dict[str | None, list[Example]] = {}
    for example in found:
        by_group.setdefault(example.group, []).append(example)
    rounds = zip_longest(*by_group.values())  # the first of each group, then the second of each
    return [example for each in rounds for example in each if example is not None][:QUESTIONS]


def beginnings_of(dataset: Dataset) -> list[Example]:
    """Beginnings of texts, with how they go on. Most have one number of tokens, so that a model completes them at once."""
    texts = [text for text in texts_of(dataset) if text.strip()]
    coded = [dataset.encoder.encode(text).tolist() for text in texts]
    size = max(1, round(PROMPT * sum(map(len, coded)) / max(1, sum(map(len, texts)))))
    found = [(ids, min(size, len(ids) // 2)) for ids in coded if len(ids) > 1]
    decode = dataset.encoder.decode
    return [Example(decode(ids[:at]), decode(ids[at : at + NEW_TOKENS])) for ids, at in found]


def texts_of(dataset: Dataset) -> list[str]:
    """Texts of the validation side, evenly spaced: documents, or stretches of running text from the start of a line on."""
    if dataset.val.starts is not None:
        documents = dataset.questions("val", TEXTS, graded=False)
        return [example.prompt + example.completion for example in documents]
    begins = np.linspace(0, max(dataset.val.tokens - STRETCH, 0), TEXTS).astype(int)
    stretches = [dataset.encoder.decode(dataset.val.ids[begin : begin + STRETCH].tolist()) for begin in begins]
    return [text if "\n" not in text[:PROMPT] else text.partition("\n")[2] for text in stretches]


def prompt_of(prompt: str, dataset: Dataset) -> str:
    """A prompt as documents begin in a dataset: with the token that begins them, if there is one."""
    return begun_text(prompt, dataset.begin, dataset.encoder)


def readable(prompt: str, dataset: Dataset) -> str:
    """A prompt for people. Of a conversation the turns, with their roles where there are several."""
    if not isinstance(prompt, PromptText) or not dataset.train.whole:
        return str(prompt)
    turns = turns_of(prompt.ids, dataset.encoder)
    return turns[0].content if len(turns) == 1 else "\n".join(f"{turn.role}: {said(turn)}" for turn in turns)


def said(turn: Message) -> str:
    """The text of a turn, with its call."""
    return " ".join(filter(None, (turn.content, f"[{turn.call}]" if turn.call else "")))


def talks_of(dataset: Dataset, model: LoadedModel) -> list[list[TalkTurn]]:
    """Held-out conversations whose user's turns the model answers, one after the other; [] if it was not taught to."""
    if not (dataset.train.whole and model.trained.conversations):
        return []
    return [talk_of(turns, model) for turns in chosen_talks(dataset.val, dataset)]


def chosen_talks(split: Split, dataset: Dataset) -> list[tuple[Message, ...]]:
    """A few conversations of a side, those of several turns first."""
    assert split.starts is not None
    numbers = np.unique(np.linspace(0, len(split.starts) - 1, POOL).round().astype(int))
    talks = [turns_of(split.document(number)[0].tolist(), dataset.encoder) for number in numbers]
    several = [turns for turns in talks if sum(turn.role == "user" for turn in turns) > 1]
    if len(several) < TALKS:
        return (several + [turns for turns in talks if turns not in several])[:TALKS]
    return [several[number] for number in np.linspace(0, len(several) - 1, TALKS).round().astype(int)]


def talk_of(turns: Sequence[Message], model: LoadedModel) -> list[TalkTurn]:
    """A conversation in which the model answers the first turns of the user, greedily, each after its own answers."""
    system = "".join(turn.content for turn in turns if turn.role == "system")
    talk = begin_talk(model, system=system, temperature=0.0, max_new_tokens=TURN)
    found = [TalkTurn("system", system)] if system else []
    asked = [number for number, turn in enumerate(turns) if turn.role == "user"]
    for number, until in list(zip(asked, [*asked[1:], len(turns)], strict=True))[:MOST_TURNS]:
        before = len(talk.messages)
        question = turns[number].content
        answer = reply(talk, question)
        added = [TalkTurn(turn.role, said(turn)) for turn in answer.talk.messages[before + 1 :]] or [
            TalkTurn("assistant", answer.text)
        ]
        truth = " ".join(said(turn) for turn in turns[number + 1 : until] if turn.role == "assistant")
        written = " ".join(turn.text for turn in added if turn.role == "assistant")
        found += [
            TalkTurn("user", question),
            *added[:-1],
            replace(added[-1], expected="" if written == truth else truth),
        ]
        if not answer.talk.messages[before:]:
            break  # it said nothing, so the user cannot go on
        talk = answer.talk
    return found


def facts_of(dataset: Dataset, config: Config) -> DataFacts:
    """What a stage is trained on."""
    sides: tuple[Side, ...] = ("train", "val", *(("test",) if dataset.test else ()))
    return DataFacts(
        kind=str(dataset.info["kind"]),
        documents=config.prepare.documents,
        inputs=sorted(dataset.info.get("raw", {})),
        encoder=dataset.encoder.kind,
        vocab_size=dataset.encoder.vocab_size,
        special_tokens=len(special_ids(dataset.encoder)) if has_special(dataset.encoder) else 0,
        encoder_hash=identity(dataset.encoder)[:16],
        sides={side: side_facts(dataset, side) for side in sides},
    )


def side_facts(dataset: Dataset, side: Side) -> SideFacts:
    """The size of a side, and of its groups."""
    split = dataset.side(side)
    groups: dict[str, int] = {}
    if split.group is not None:
        counts = np.bincount(split.group, minlength=len(dataset.groups) + 1)
        groups = {name: int(counts[number]) for number, name in enumerate(dataset.groups, 1) if counts[number]}
    documents = None if split.starts is None else len(split.starts)
    return SideFacts(split.tokens, documents, dataset.target_size(side, masked=False)[1], groups)
