"""Read a file in the form of HumanEval (arXiv:2107.03374): .jsonl or .jsonl.gz, a problem on each line. Nothing in it is run.

{"task_id": "HumanEval/0", "prompt": "def f(...", "entry_point": "f", "canonical_solution": "    return ...", "test": "def check(candidate): ..."}
"""

from __future__ import annotations

import gzip
import json
import zlib
from keyword import iskeyword
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.evaluation.suites.code import CODE, CodeItem
from core.evaluation.suites.task import Suite, Task

KEYS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
ENDS = (".jsonl", ".jsonl.gz")
LARGEST = 1 << 28  # bytes, unpacked


def read_humaneval(path: Path) -> Suite | None:
    """The suite of a file, with one task; None if it is no such file.

    Raises UserError, with file and line, for a line that is damaged, for a name that is there twice, and for a file that
    cannot be read or unpacked.
    """
    if not path.is_file() or not path.name.lower().endswith(ENDS):
        return None
    lines = [(number, line) for number, line in enumerate(read_bytes(path).split(b"\n"), 1) if line.strip()]
    if not lines or not begins_so(lines[0][1]):
        return None
    items = dict[str, CodeItem]()
    for number, line in lines:
        item = read_problem(line, f"{path}:{number}")
        if item.name in items:
            raise UserError(f"'{item.name}' is there twice", place=item.place, remedy="Leave one of the lines out.")
        items[item.name] = item
    return Suite([Task(name_of(path), CODE, list(items.values()))])


def name_of(path: Path) -> str:
    """A file's name without its ending."""
    end = next(end for end in reversed(ENDS) if path.name.lower().endswith(end))
    return path.name[: -len(end)] or path.name


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked. Raises UserError if that is not possible."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            found: bytes = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot be read: {reason}", place=str(path), remedy="Get the file again.") from None
    if len(found) > LARGEST:
        raise UserError(
            f"holds more than {LARGEST:,} bytes", place=str(path), remedy="Name a file of problems of HumanEval's form."
        )
    return found


def begins_so(line: bytes) -> bool:
    """Whether the first line of a file is meant as such a problem."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"entry_point", "prompt"} <= found.keys()


def read_problem(line: bytes, place: str) -> CodeItem:
    """The problem of a line. Raises UserError for a line of another form."""
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    wrong = "no problem of HumanEval's form"
    if isinstance(found, dict):
        lacking = [key for key in KEYS if not is_text(found.get(key))]
        if not lacking and found["entry_point"].isidentifier() and not iskeyword(found["entry_point"]):
            return CodeItem(
                ((found["prompt"], found["canonical_solution"]),),
                place=place,
                entry_point=found["entry_point"],
                test=found["test"],
                name=found["task_id"],
            )
        if lacking:
            wrong = f"'{lacking[0]}' is " + ("no text" if lacking[0] in found else "missing")
        else:
            wrong = f"entry_point is '{found['entry_point']}', which is no name of a function"
    raise UserError(wrong, place=place, remedy=f"Each line is a JSON object with the texts {', '.join(KEYS)}.")


def is_text(value: Any) -> bool:
    """Whether a value is text that is not blank and has a form in UTF-8."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
