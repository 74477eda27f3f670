"""What a run answered at each evaluation: answers.jsonl in its folder, a line for each evaluation, with the same prompts in all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import durable, files

FILE = "answers.jsonl"
MOST, LONGEST = 8, 2000  # prompts of an evaluation, characters of a text
Asked = tuple[str, str, str, bool]  # prompt, truth, answer, and whether it is right


def write_answers(folder: Path, step: int, answers: Sequence[Asked]) -> None:
    """Add the answers of an evaluation, at most MOST of them, from all over the prompts. Raises DiskFull."""
    every = -(-len(answers) // MOST) or 1
    shown = [[text[:LONGEST] if isinstance(text, str) else text for text in answer] for answer in answers[::every]]
    line = json.dumps({"step": step, "answers": shown}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    with files.room_for(folder, len(line)):
        descriptor = durable.open_end(folder / FILE)
        try:
            durable.write_all(descriptor, line)
        finally:
            durable.close(descriptor)


def keep_answers(folder: Path, step: int) -> None:
    """Drop the answers after a step, from which a run goes on."""
    path = folder / FILE
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")[:-1]
    kept = [line for line in lines if (at := step_of(line)) is not None and at <= step]
    if kept != lines:
        files.write_bytes(path, b"".join(line + b"\n" for line in kept))


def step_of(line: bytes) -> int | None:
    """The step of a line; None if it is damaged."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return step if type(step) is int else None


def evaluations_in(lines: bytes) -> list[dict[str, Any]]:
    """The evaluations in some lines, by step: {"step", "answers": [{"prompt", "truth", "answer", "right"}]}.

    A run that was killed repeats some evaluations: the last line of a step counts. Lines that are damaged are left out.
    """
    found = dict[int, list[dict[str, Any]]]()
    for line in lines.split(b"\n"):
        try:
            values = json.loads(line)
            step, answers = values["step"], [dict(zip(NAMES, answer, strict=True)) for answer in values["answers"]]
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
        if type(step) is int and all(map(is_sound, answers)):
            found[step] = answers
    return [{"step": step, "answers": found[step]} for step in sorted(found)]


NAMES = ("prompt", "truth", "answer", "right")


def is_sound(answer: dict[str, Any]) -> bool:
    """Whether an answer has the types that it should have."""
    return all(isinstance(answer[name], str) for name in NAMES[:3]) and isinstance(answer["right"], bool)
