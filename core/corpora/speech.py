"""One speech, and how it is written as text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speech:
    """What one person says without another one speaking in between, except the presidency.

    session: such as "20/113", the number of the term and of the session. date: year-month-day, or "". party: "" for somebody without a
    parliamentary group, such as a minister. role: an office, or "". presiding: the person chairs the session. topic: what it is about, "" if not known. text: a paragraph in each line.
    """

    session: str
    date: str
    speaker: str
    party: str
    role: str
    text: str
    presiding: bool = False
    topic: str = ""

    @property
    def heading(self) -> str:
        """Who speaks, in brackets for whom, and when: "Andrea Lindner (SPD), 2023-06-23:"."""
        stands_for = self.party or self.role
        who = f"{self.speaker} ({stands_for})" if stands_for else self.speaker
        return f"{who}, {self.date}:" if self.date else f"{who}:"


def with_heading(speech: Speech) -> str:
    """A speech as a document of running text: its heading, its paragraphs, a blank line."""
    return f"{speech.heading}\n{speech.text}\n\n"


def framed(speech: Speech) -> str:
    """A speech between marks that say where it begins and ends, and who speaks.

    The marks are ordinary text, which any tokenizer writes with the tokens that it has. New tokens would need new rows of the model's
    embedding, which LoRA does not train.
    """
    return f"<SPEECH_START><SPEAKER>{speech.speaker}</SPEAKER>\n{speech.text}\n<SPEECH_END>"
