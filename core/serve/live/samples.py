"""Answers with what a run answered at each evaluation. They are read on from where the last ones ended."""

from __future__ import annotations

import os
from typing import Any

from core.errors import UserError
from core.files import finite
from core.report.samples import read_samples
from core.serve.live.catalog import Entry
from core.serve.live.parameters import Parameters
from core.serve.live.view import View
from core.tracking.answers import FILE, evaluations_in

PART = 1 << 19  # bytes of answers.jsonl in one answer
PARTS = 32  # of a file that is new to whoever asks: the last ones
Account = dict[str, Any]


def about_samples(view: View, asked: Parameters) -> Account:
    """Evaluations with their answers, by step; of one step the last that was written counts.

    file, next: as the answer before said, to go on from there. Where they are of another file, or not given, is_new is true,
    and the evaluations are the first ones of the last PARTS. is_cut: whether there are earlier ones, which are not shown. more:
    whether there are others behind them already.
    """
    entry = view.find(asked.text("id"))
    try:
        with entry.lab.open(entry.folder / FILE) as file:
            found = os.fstat(file.fileno())
            name, begin = f"{found.st_ino}.{entry.started[:40]}", asked.number("next", 0, 0, 10**11 - 1)
            is_new = asked.text("file") != name or begin > found.st_size
            begin = max(0, found.st_size - PARTS * PART) if is_new else begin
            file.seek(begin)
            data = file.read(PART)
    except OSError:
        return at_the_end(entry)
    whole = data.rfind(b"\n") + 1 or (len(data) if len(data) == PART else 0)  # a line without end is left out
    told = {"is_new": is_new, "file": name, "next": begin + whole, "more": begin + len(data) < found.st_size}
    told |= {"is_cut": is_new and begin > 0}
    return told | {"evaluations": evaluations_in(data[:whole]), "problem": ""}


def at_the_end(entry: Entry) -> Account:
    """What a run that has not kept its answers wrote at its end."""
    told = {"is_new": True, "file": "", "next": 0, "more": False, "is_cut": False, "evaluations": [], "problem": ""}
    try:
        samples = read_samples(entry.folder, entry.lab.read).samples
    except UserError as error:
        return told | {"problem": f"samples.json: {error.message}"}
    except OSError as error:
        return told | {"problem": f"samples.json: {error.strerror}"}
    answers = [
        {"prompt": sample.start, "truth": sample.truth, "answer": sample.text, "right": sample.correct}
        for sample in samples
    ]
    return told | {
        "evaluations": [{"step": finite(entry.summary.get("best_step")), "answers": answers}] if answers else []
    }
