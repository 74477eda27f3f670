"""The tutorial, typed from its beginning to its end: each command works, or fails as the page says, and prints what it shows."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
PROGRAM = "python -m core.cli "
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
REFUSED = (
    "xyz",
    "train insert_spaces -s train.optim.learning_rate=0.01",
    "learning_rat=",
)  # in commands that the page calls errors
NUMBER = re.compile(r"\d[\d,.]*")
SMALL = {
    "size = 200_000": "size = 20_000",
    "size = 400_000": "size = 20_000",
    "eval_interval = 50": "eval_interval = 5",
}
SHORT = (
    ("max_iters = 1600", "max_iters = 15"),
    ("max_iters = 2000", "max_iters = 15"),
    ("lr_decay_iters", "# lr_decay_iters"),
)


def alike(text: str) -> str:
    """A line without its figures, which are another machine's, and with single blanks."""
    return " ".join(NUMBER.sub("#", text).split())


@pytest.mark.slow
def test_every_command_of_the_tutorial(lab: Path, terrarium: Callable[..., Any]) -> None:
    folder = lab / "insert_spaces"
    shutil.copytree(ROOT / "experiments" / "insert_spaces", folder, ignore=shutil.ignore_patterns("out", "datasets"))
    for path in folder.glob("config*.toml"):
        text = path.read_text()
        for old, new in (*SMALL.items(), *SHORT):
            text = text.replace(old, new)
        path.write_text(text)
    printed, shown, commands = "", 0, 0
    for kind, block in FENCE.findall(TUTORIAL):
        if kind == "python":
            (lab / "join_letters" / "prepare.py").write_text(block)
        if kind == "sh" and (PROGRAM in block or block == "make loop\n"):
            printed = ""
            for line in block.replace("make loop", f"{PROGRAM}loop insert_spaces").splitlines():
                arguments = shlex.split(line.removeprefix(PROGRAM).replace("=2000", "=25"))
                result = terrarium(*arguments)
                expected = 2 if any(part in line for part in REFUSED) else 0
                assert result.exit_code == expected, (line, result.output)
                printed, commands = printed + result.output, commands + 1
        if kind == "console":
            there = [alike(line) for line in printed.splitlines()]
            for line in map(alike, block.splitlines()):
                assert any(line in found for found in there), (line, printed)
                shown += 1
    assert commands > 15 and shown > 10


def test_the_words_of_the_glossary_are_explained() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^- \*\*(.+?)\*\*", page, re.MULTILINE)
    assert len(words) >= 12 and words == sorted(words, key=str.lower)
    for word in ("nats", "held out", "exact match", "seed"):
        assert any(word in entry.lower() for entry in words), word
    assert pytest.approx(0.6931, abs=1e-4) == float(re.search(r"([\d.]+) nats are one bit", page)[1])  # type: ignore[index]
