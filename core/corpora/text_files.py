"""A corpus of raw text files: each file is a document, and is on one side as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.corpora.corpus import NAMED, Fractions, Say, SpeechCorpus, fractions_of
from core.corpora.sources import Names, be, number_of, source_files
from core.corpora.speech import Speech
from core.data import split
from core.data.job import PrepareJob
from core.data.text import read_text
from core.errors import UserError

SUFFIXES = (".txt",)
NOBODY = "Unknown"  # the speaker of a text file
FEWEST = 3  # paragraphs of a single file: one for each side


def text_corpus(job: PrepareJob, source: Names) -> SpeechCorpus:
    """Text files as speeches of nobody. Files that are empty or no UTF-8 are named, counted and left out.

    The name of a file decides its side. A single file is cut at blank lines instead: its end is held out. Raises UserError where no file
    is left, or a single one has too few paragraphs.
    """
    fractions = fractions_of(job)
    files = readable(source_files(source, job.folder, SUFFIXES, job.fetch), job.say)
    if not files:
        raise UserError(
            "no text file could be read",
            place="prepare.params.source",
            remedy="Give files of UTF-8 text that end in .txt.",
        )
    if len(files) == 1:
        return of_one_file(files[0], fractions)
    names = {f"{number} {path.name}": path for number, path in enumerate(files)}
    by_name = split.of_groups((path.name for path in files), fractions.seed, fractions.val, fractions.test)
    sides = {key: by_name[path.name] for key, path in names.items()}

    def read(sessions: frozenset[str]) -> Iterator[Speech]:
        return (speech_of(key, "".join(read_text(path))) for key, path in names.items() if key in sessions)

    return SpeechCorpus(sides, read, fractions)


def readable(paths: Iterator[Path], say: Say) -> list[Path]:
    """The files that hold UTF-8 text."""
    good: list[Path] = []
    left_out = 0
    for path in paths:
        try:
            letters = sum(len(text.strip()) for text in read_text(path))  # to the end: the last byte may be the bad one
            why = "" if letters else "it is empty"
        except UserError as error:
            why = error.message
        if not why:
            good.append(path)
            continue
        left_out += 1
        if left_out <= NAMED:
            say(f"{path} is left out: {why}")
    if left_out:
        say(
            f"{left_out:,} of {number_of(left_out + len(good), 'file')} {be(left_out)} left out; {number_of(len(good), 'text')} {be(len(good))} read"
        )
    return good


def of_one_file(path: Path, fractions: Fractions) -> SpeechCorpus:
    """The paragraphs of a file as documents: first training, then validation, then the test, as `core.data.split.by_tail` cuts."""
    paragraphs = [text for text in "".join(read_text(path)).split("\n\n") if text.strip()]
    if len(paragraphs) < FEWEST:
        raise UserError(
            f"one file with {number_of(len(paragraphs), 'paragraph')} cannot be divided",
            place=str(path),
            remedy="Give several files, or a file with blank lines between its paragraphs.",
        )
    speeches = [speech_of(str(number), text) for number, text in enumerate(paragraphs)]
    lengths = np.array([len(text) for text in paragraphs])
    parts = split.by_tail(lengths, fractions.val, fractions.test)
    sides = {str(number): side for side, numbers in parts.items() for number in numbers.tolist()}
    return SpeechCorpus(sides, lambda chosen: (each for each in speeches if each.session in chosen), fractions)


def speech_of(key: str, text: str) -> Speech:
    return Speech(session=key, date="", speaker=NOBODY, party="", role="", text=text.strip())
