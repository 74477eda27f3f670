"""How a run has learnt: what it answered, attended to and held in its embeddings at each step whose weights it has kept.

All steps are looked at in the same way, so that what is shown changes and does not jump: attention over the same text, which is the
prompt and what the last kept step answers, and embeddings in one plane, fitted to those of the last kept step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.chat.conversation import Conversation, Message
from core.chat.render import PromptText, WithIds, render_prompt
from core.errors import UserError
from core.lab.looking import explaining, prompt_to_look_at
from core.lab.model import LoadedModel, load_model
from core.lab.opened import Opened
from core.sampling.asking import said
from core.tracking.run import find_run
from core.training.ladder import kept_steps, moment_of_writing

if TYPE_CHECKING:
    from core.look import Embeddings, Plane

MOST_MODELS = 2  # in memory: the last step's, by which all are measured, and the one that is shown
NEW_TOKENS = 64  # of an answer: early in a run, a model does not end its answers


@dataclass(frozen=True)
class Moment:
    """What a run was at a step, as JSON has it. answer: the greedy one to the prompt, of NEW_TOKENS at most.

    tokens, asked, weights: as in `core.look.AttentionMaps`, over the prompt and the answer of the last kept step. labels: of tokens,
    points: where their embeddings (N, 2) are in the plane of the last kept step; shares: of its variance along each direction.
    remarks: what cannot be shown, and why.
    """

    step: int
    prompt: str
    answer: str
    tokens: Sequence[str] = ()
    asked: int = 0
    weights: list[list[list[list[float]]]] = field(default_factory=list)
    labels: Sequence[str] = ()
    points: list[list[float]] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    numbers: bool = False
    remarks: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """JSON values: step, prompt, answer and remarks; attention and embedding, None where there is none."""
        found = asdict(self)
        attention = {name: found.pop(name) for name in ("tokens", "asked", "weights")}
        embedding = {name: found.pop(name) for name in ("labels", "points", "shares", "numbers")}
        shown = {
            "attention": attention if self.weights else None,
            "embedding": embedding if self.points else None,
        }
        return found | shown


@dataclass(frozen=True)
class Yardstick:
    """By what the steps of a run are looked at. text: behind the prompt. plane: of embeddings; None if there are none to show."""

    prompt: str
    text: str
    plane: Plane | None


class Moments:
    """The kept steps of a run. At most MOST_MODELS models are in memory; whoever asks from several threads takes turns."""

    def __init__(self, opened: Opened, run: str | None = None) -> None:
        """Raises UserError if there is no such run."""
        self.opened, self.run = opened, run
        self.folder: Path = find_run(opened.experiment, opened.out, run or opened.default_run) / "checkpoints"
        self.models: OrderedDict[tuple[int, int], LoadedModel] = OrderedDict()
        self.measures: tuple[tuple[int, int], str, Yardstick] | None = None

    @property
    def steps(self) -> list[int]:
        """The steps, ascending. There are more of them while the run is trained."""
        return kept_steps(self.folder)

    def kept(self) -> list[int]:
        """The steps. Raises UserError if there is none."""
        if not (steps := self.steps):
            raise UserError(
                f"{self.folder.parent.name} has kept no steps on its way",
                place=str(self.folder),
                remedy="Train it with `train.runtime.keep_checkpoints=10`.",
            )
        return steps

    def model(self, step: int) -> LoadedModel:
        """The model of a step. Raises UserError if it was not kept."""
        key = self.key(step)
        if key not in self.models:
            found = load_model(self.opened, self.run, step)
            while len(self.models) >= MOST_MODELS:
                self.models.popitem(last=False)
            self.models[key] = found
        self.models.move_to_end(key)
        return self.models[key]

    def key(self, step: int) -> tuple[int, int]:
        """What tells the weights of a step from those that the run kept of it when it was trained before."""
        return step, moment_of_writing(self.folder, step)

    def measure(self, prompt: str) -> Yardstick:
        """By what the steps are looked at, for a prompt."""
        last = self.kept()[-1]
        if self.measures is None or self.measures[:2] != (self.key(last), prompt):
            self.measures = (self.key(last), prompt, measure_of(self.model(last), prompt))
        return self.measures[2]

    def at(self, step: int, prompt: str) -> Moment:
        """What the run was at a step. Raises UserError for a step that was not kept, and for a prompt that cannot be encoded."""
        measure = self.measure(prompt)
        return moment_of(self.model(step), measure)

    def over_time(self, prompt: str | None, tell: Callable[[str], object] = lambda line: None) -> OverTime:
        """What the run was at every step. prompt: by default one of validation. tell: gets a line for each step, as they come.

        Raises UserError if there are no steps, no prompt, and for a prompt that cannot be encoded.
        """
        steps = self.kept()
        asked = prompt_to_look_at(last := self.model(steps[-1]), prompt)
        truth = asked.completion if prompt is None else None
        self.measure(asked.prompt)  # raises before anything is told
        tell(f"{last.run.title} after {str(asked.prompt)!r}{'' if truth is None else f', which wants {truth!r}'}:")
        moments: list[Moment] = []
        for step in steps:
            moments.append(self.at(step, asked.prompt))
            changed = len(moments) > 1 and moments[-2].answer != moments[-1].answer
            tell(f"  step {step:>{len(f'{steps[-1]:,}')},}  {'*' if changed else ' '} {moments[-1].answer!r}")
        for remark in moments[-1].remarks:
            tell(f"  {remark}")
        return OverTime(last.run.name, str(asked.prompt), truth, moments)


@dataclass(frozen=True)
class OverTime:
    """What a run was at every kept step. truth: the right answer; None for a prompt of the user's own."""

    run: str
    prompt: str
    truth: str | None
    moments: list[Moment]

    def as_json(self) -> dict[str, Any]:
        return {"run": self.run, "prompt": self.prompt, "truth": self.truth} | {
            "moments": [moment.as_json() for moment in self.moments]
        }


def measure_of(last: LoadedModel, prompt: str) -> Yardstick:
    """By what the steps are looked at, from the model of the last one."""
    from core.look import fitted_plane

    prompt = prompt_to_look_at(last, prompt).prompt
    with explaining(last):
        begun = begun_prompt(last, prompt)
        text = answer_of(last, begun)
    embeddings = embeddings_of(last)
    return Yardstick(begun, text, None if embeddings is None else fitted_plane(embeddings.rows))


def moment_of(model: LoadedModel, by: Yardstick) -> Moment:
    """What a model is, looked at by a measure."""
    from core.look.attention import attention_maps, missing
    from core.look.record import record

    remarks = [why] if (why := missing(model.module)) else []
    with model.trained.machine.computing():
        maps = None if why else attention_maps(model.module, model.encoder, by.prompt, by.text)
    seen = record(model.step, str(by.prompt), answer_of(model, by.prompt), maps, None, remarks)
    found = Moment(seen.step, seen.prompt, seen.answer, seen.tokens, seen.asked, seen.weights, remarks=seen.remarks)
    embeddings = embeddings_of(model)
    if by.plane is None or embeddings is None:
        return found
    points, shares = by.plane.points(embeddings.rows).round(5).tolist(), by.plane.shares.round(4).tolist()
    return replace(found, labels=embeddings.labels, points=points, shares=shares, numbers=embeddings.numbers)


def embeddings_of(model: LoadedModel) -> Embeddings | None:
    """The embeddings that are shown; None if there are none."""
    from core.look import token_embeddings

    return token_embeddings(model.module, model.encoder)


def begun_prompt(model: LoadedModel, prompt: str) -> str:
    """A prompt as the model was trained to read it: in a conversation, it is what the user says."""
    if not model.trained.conversations or isinstance(prompt, WithIds):
        return model.begun(prompt)
    asked = Conversation((Message("user", prompt),))
    return PromptText.of(render_prompt(asked, model.encoder).tolist(), model.encoder)


def answer_of(model: LoadedModel, prompt: str) -> str:
    """The greedy answer; in a conversation, the last turn."""
    most = min(NEW_TOKENS, model.config.sample.sample.max_new_tokens)
    if model.trained.conversations:
        with model.trained.machine.computing():
            return said(model.asked([prompt], max_new_tokens=most)[0], model.encoder)
    return model.complete([prompt], temperature=0, max_new_tokens=most)[0]
