"""Read a file of prompts with their answers: JSON lines, or a prompt, a tab and the answer on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from core.data.documents import Example
from core.errors import UserError

FORM = 'Each line is {"prompt": "3+4=", "completion": "7"}, "group" if you like, or a prompt, a tab and the answer.'


def read_prompts(path: Path, stop: str) -> list[Example]:
    """The examples of a file, all of them. stop: text that ends every completion; an answer without it gets it.

    Raises UserError for a file that cannot be read or is empty, and for the first line of another form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", place=str(path), remedy="Name a text file in UTF-8.") from None
    examples = list(lines(path, text, stop))
    if not examples:
        raise UserError("holds no prompts", place=str(path), remedy=FORM)
    return examples


def lines(path: Path, text: str, stop: str) -> Iterator[Example]:
    """The example of each line that is not blank."""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        example = from_json(line) if line.lstrip().startswith("{") else from_tab(line)
        if example is None:
            raise UserError("not a prompt with its answer", place=f"{path}:{number}", remedy=FORM)
        ended = example.completion if example.completion.endswith(stop) else example.completion + stop
        yield Example(example.prompt, ended, example.group)


def from_tab(line: str) -> Example | None:
    """PROMPT<TAB>ANSWER."""
    prompt, tab, completion = line.partition("\t")
    return Example(prompt, completion) if tab else None


def from_json(line: str) -> Example | None:
    """An object with "prompt" and "completion" (or "answer"), and perhaps "group"."""
    try:
        found = json.loads(line)
        prompt, completion, group = found["prompt"], found.get("completion", found.get("answer")), found.get("group")
    except (ValueError, KeyError, RecursionError):
        return None
    texts = isinstance(prompt, str) and isinstance(completion, str) and (group is None or isinstance(group, str))
    return Example(prompt, completion, group) if texts else None
