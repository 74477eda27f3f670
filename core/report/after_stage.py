"""Write and read after_stage.json of a stage: what its best weights say and lose on every stage's data, and what its data is.

A stage writes it when it ends, so that the report about all stages needs neither a model nor a dataset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from core import files
from core.errors import UserError

FILE = "after_stage.json"


@dataclass(frozen=True)
class Completed:
    """A greedy completion of a fixed validation prompt. truth: how the data goes on. correct: None if many texts are right."""

    prompt: str
    truth: str
    text: str
    correct: bool | None = None


@dataclass(frozen=True)
class TalkTurn:
    """A turn of a conversation. expected: what stands there in the data, if the model wrote something else."""

    role: str
    text: str
    expected: str = ""


@dataclass(frozen=True)
class OnData:
    """What a stage's best weights do on the data of one stage.

    nats, targets: the loss of K parts of the validation side, each (K,). right: side -> "1" or "0" for each prompt, in their
    order. samples: completions of the same prompts after every stage. talks: held-out conversations in which the model
    answers the user's turns.
    """

    nats: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    right: dict[str, str] = field(default_factory=dict)
    samples: list[Completed] = field(default_factory=list)
    talks: list[list[TalkTurn]] = field(default_factory=list)


@dataclass(frozen=True)
class SideFacts:
    """The size of a side. documents: None for running text. bytes: of its text in UTF-8; None if that is not known."""

    tokens: int
    documents: int | None = None
    bytes: int | None = None
    groups: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFacts:
    """What a stage is trained on. documents: the function of prepare.py. inputs: files that were read. kind: of documents."""

    kind: str
    documents: str
    inputs: list[str]
    encoder: str
    vocab_size: int
    special_tokens: int
    encoder_hash: str
    sides: dict[str, SideFacts]


@dataclass(frozen=True)
class AfterStage:
    """step: of the weights that were measured. on: by the stage whose data it is."""

    step: int
    data: DataFacts
    on: dict[str, OnData]


def write_after_stage(folder: Path, found: AfterStage) -> None:
    """Write after_stage.json into the run folder of a stage."""
    files.write_json(folder / FILE, asdict(found))


def read_after_stage(folder: Path, summary: Mapping[str, object]) -> AfterStage | None:
    """What was found about the weights of summary.json; None if nothing was, or only about other weights.

    Raises UserError if the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found: AfterStage = TypeAdapter(AfterStage).validate_python(json.loads(path.read_bytes()))
    except (ValueError, RecursionError, ValidationError):
        raise UserError(
            "not what was measured after a stage",
            place=str(path),
            remedy="Delete it. The report is then without samples of this stage, and without intervals of its losses.",
        ) from None
    return found if found.step == summary.get("best_step") else None
