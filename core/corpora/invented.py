"""Short German speeches of an invented town council, from a generator: for trying things out where there are no protocols.

People, parties, numbers and sentences are made up here. Nothing is taken from real speeches.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator
from typing import NamedTuple

from core.corpora.speech import Speech

SESSIONS = 40
SPEECHES = (8, 14)  # in a session
PARAGRAPHS = (2, 5)
SENTENCES = (2, 5)  # in a paragraph


class Matter(NamedTuple):
    """What the council talks about. phrase: the same as subject and as object, so no masculine ones. it: its pronoun."""

    phrase: str
    it: str
    plural: bool = False


MATTERS = (
    Matter("die neue Brücke", "sie"), Matter("das Schwimmbad", "es"), Matter("die Bücherei", "sie"),
    Matter("die Schule am See", "sie"), Matter("das alte Rathaus", "es"), Matter("die Buslinie nach Norden", "sie"),
    Matter("die Gärten am Fluss", "sie", True), Matter("das Fest im Herbst", "es"), Matter("die Radwege", "sie", True),
    Matter("das Museum der Uhren", "es"), Matter("die Bäume in der Langen Gasse", "sie", True), Matter("die Feuerwehr", "sie"),
    Matter("das Theater", "es"), Matter("die Straßenlampen", "sie", True), Matter("die Musikschule", "sie"),
    Matter("das Wasserwerk", "es"), Matter("die Spielplätze", "sie", True), Matter("die Mühle am Wehr", "sie"),
)  # fmt: skip
FIRST_NAMES = ("Ada", "Bruno", "Clara", "David", "Elif", "Frieda", "Gregor", "Hanna", "Ivo", "Jule", "Karl", "Lene", "Milan", "Nora")  # fmt: skip
SURNAMES = ("Amselfeld", "Birkholz", "Dornbach", "Eichwald", "Farnhof", "Ginsterberg", "Heckental", "Kranichsee", "Moosgrund", "Talmüller")  # fmt: skip
PARTIES = ("Linde", "Ahorn", "Weide", "Hasel")
OPENINGS = (
    "Frau Vorsitzende! Liebe Kolleginnen und Kollegen!", "Sehr geehrte Frau Vorsitzende! Meine Damen und Herren!",
    "Verehrte Anwesende!", "Liebe Nachbarinnen und Nachbarn!", "Frau Vorsitzende! Hohes Haus!",
)  # fmt: skip
SENTENCES_OF_A_SPEECH = (
    "Wir sprechen heute über {phrase}.", "{Phrase} {be} vielen Menschen in unserer Stadt wichtig.",
    "Im letzten Jahr haben {many} Menschen {phrase} genutzt.", "Wer {phrase} aufgeben will, der soll sagen, was danach kommt.",
    "Ich habe mit {few} Familien gesprochen, und fast alle wollen {phrase} behalten.", "Das kostet {many} Taler im Jahr.",
    "{many} Taler sind viel Geld, aber {it} {be} es wert.", "Die Fraktion {party} hat dazu {few} Fragen gestellt.",
    "Auf diese Fragen haben wir bis heute keine Antwort bekommen.", "Das ist gut für die Stadt, und das ist gut für die Kinder.",
    "Ohne {phrase} wäre unser Viertel ärmer.", "Vor {few} Jahren hat die Fraktion {party} noch das Gegenteil gesagt.",
    "Das müssen wir ändern, und zwar noch in diesem Jahr.", "Wir schlagen vor, {phrase} in {few} Schritten zu erneuern.",
    "Niemand hier hat behauptet, dass {it} zu teuer {be}.", "Was {phrase} angeht, bin ich ganz anderer Meinung als die Fraktion {party}.",
    "Glauben Sie wirklich, dass {many} Taler dafür reichen?", "Der Winter kommt, und dann {need} {phrase} ein Dach.",
    "Es geht nicht um Zahlen, es geht um Vertrauen.", "Fragen Sie doch einmal in der Langen Gasse nach!",
)  # fmt: skip
CLOSINGS = (
    "Vielen Dank.", "Ich danke Ihnen für die Aufmerksamkeit.", "Deshalb stimmt die Fraktion {party} heute zu.",
    "Deshalb lehnt die Fraktion {party} den Antrag ab.", "Herzlichen Dank für Ihre Geduld.",
)  # fmt: skip


def invented_speeches(seed: int) -> Iterator[Speech]:
    """SESSIONS sessions, about 300,000 characters: the same for the same seed."""
    rng = random.Random(f"{seed} invented speeches")
    people = [(f"{first} {rng.choice(SURNAMES)}", rng.choice(PARTIES)) for first in FIRST_NAMES for _ in range(3)]
    for number in range(1, SESSIONS + 1):
        date = datetime.date(2001, 1, 8) + datetime.timedelta(weeks=2 * number)
        matters = rng.sample(MATTERS, 3)
        for _ in range(rng.randint(*SPEECHES)):
            speaker, party = rng.choice(people)
            text = speech_text(rng, rng.choice(matters), party)
            yield Speech(f"0/{number}", date.isoformat(), speaker, party, "", text)


def speech_text(rng: random.Random, matter: Matter, party: str) -> str:
    """A speech about a matter by somebody of this party: an opening, paragraphs, a closing."""
    paragraphs = [rng.choice(OPENINGS)]
    for _ in range(rng.randint(*PARAGRAPHS)):
        chosen = rng.sample(SENTENCES_OF_A_SPEECH, rng.randint(*SENTENCES))
        paragraphs.append(" ".join(filled(rng, sentence, matter) for sentence in chosen))
    closing = rng.choice(CLOSINGS).format(party=party)
    return "\n".join([*paragraphs, closing])


def filled(rng: random.Random, sentence: str, matter: Matter) -> str:
    """A sentence about a matter."""
    return sentence.format(
        phrase=matter.phrase,
        Phrase=matter.phrase[0].upper() + matter.phrase[1:],
        it=matter.it,
        be="sind" if matter.plural else "ist",
        need="brauchen" if matter.plural else "braucht",
        party=rng.choice(PARTIES),
        few=rng.randint(2, 12),
        many=f"{rng.randint(2, 90) * 1000:,}".replace(",", " "),
    )
