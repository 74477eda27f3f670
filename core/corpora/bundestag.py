"""Read a protocol of the German Bundestag, as it is published in XML since the 19th term: one file in, its speeches out.

The files are of two layouts. Up to the middle of the 20th term a name stands in one line, later on in several; an office may stand
within the first name ("Alterspräsident Dr. Hermann"). Both have these elements, in this order, in a speech (<rede>):

    <p klasse="redner"><redner>...</redner>NAME:</p>   from here on, this person speaks
    <p klasse="J">...</p>                              a paragraph
    <kommentar>(Beifall)</kommentar>                   what others do or call, as the stenographers noted it
    <name>Präsidentin NAME:</name>                     from here on, the presidency speaks

Nothing outside the file is read, and entities of its own are refused: a protocol has none, and they can be made to fill memory.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from core.corpora.speech import Speech

ROOT = "dbtplenarprotokoll"
FORMER_ROOT = "DOKUMENT"  # of protocols up to the 18th term: one text without marks
BLOCK = 1 << 16  # bytes
MOST_BYTES = 1 << 26  # the longest protocols have 3 MB
UNDEFINED = expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY]
DEEPEST = 100  # elements within each other; a protocol has about 10
PRESIDING = re.compile(r"^(Alters|Vize)?[Pp]räsident(in)?\b")
SHY = str.maketrans({"\u00ad": None, "\u2011": "-", "\ufeff": None})  # marks for line ends, which no speaker says
SILENT = {"a", "fussnote", "redner"}  # elements whose text is not spoken


class BrokenProtocol(Exception):
    """A file that is no protocol, or not a whole one. Its text says why."""


@dataclass(frozen=True)
class PlenaryProtocol:
    """A session: its number, its date, what was said. Comments are paragraphs in brackets, if they were asked for."""

    session: str
    date: str
    speeches: tuple[Speech, ...]


def read_protocol(path: Path, *, comments: bool = False) -> PlenaryProtocol:
    """Read one file. It takes memory for this file only.

    comments: keep what others do and call in between. Raises BrokenProtocol for a file that is no protocol, damaged or cut off, and OSError.
    """
    if path.stat().st_size > MOST_BYTES:
        raise BrokenProtocol(f"it has more than {MOST_BYTES >> 20} MB, so it is no protocol of one session")
    reader = ProtocolReader(comments)
    parser = parser_of(reader)
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                parser.Parse(block, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        if error.code == UNDEFINED:  # in a file that calls itself standalone
            raise BrokenProtocol(f"it uses an entity that it does not declare: line {error.lineno}") from None
        raise BrokenProtocol(f"not XML: {error}") from None
    except (
        LookupError,
        UnicodeError,
        ValueError,
    ) as error:  # an encoding that Python does not know, or bytes outside it
        raise BrokenProtocol(f"its encoding cannot be read: {error}") from None
    return reader.protocol()


def parser_of(reader: ProtocolReader) -> expat.XMLParserType:
    """An expat parser that tells the reader what it finds."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.UseForeignDTD(True)  # as if every file named one, so that &nbsp; is told to `skipped_entity`; none is read
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    parser.EntityDeclHandler = refuse_entity
    parser.SkippedEntityHandler = reader.skipped_entity
    return parser


def refuse_entity(name: str, *declared: object) -> None:
    """Raise BrokenProtocol for any entity that a file declares, whatever it stands for."""
    raise BrokenProtocol(f"it declares an entity, '{name}', which no protocol does")


@dataclass
class SpeakersTurn:
    """What one person says in a row. key: which person."""

    key: str
    speaker: str
    party: str
    role: str
    paragraphs: list[str] = field(default_factory=list)

    @property
    def presiding(self) -> bool:
        return bool(PRESIDING.match(self.role))


class ProtocolReader:
    """Follows the elements of one file. Only text that is of use is kept.

    open: names of the elements around the present place. texts: the pieces of text that are being collected; None where text is not
    of use. turns: of the present speech.
    """

    def __init__(self, comments: bool) -> None:
        self.comments = comments
        self.open: list[str] = []
        self.term = self.number = self.date = ""
        self.texts: list[str] | None = None
        self.collected = 0  # how deep the element is whose text is collected
        self.muted = 0  # how deep the element is whose text is left out; 0: none
        self.in_speech = 0  # how deep <rede> is; 0: outside
        self.person: dict[str, str] | None = None  # the parts of <redner>
        self.turns: list[SpeakersTurn] = []
        self.speeches: list[Speech] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.open.append(name)
        depth = len(self.open)
        if depth > DEEPEST:
            raise BrokenProtocol(f"more than {DEEPEST} elements stand within each other")
        if depth == 1:
            self.begin(name, attributes)
        elif self.in_speech:
            self.start_in_speech(name, attributes, depth)
        elif name == "rede":
            self.in_speech, self.turns = depth, []
        elif name in ("wahlperiode", "sitzungsnr") or (name == "datum" and "veranstaltungsdaten" in self.open):
            self.collect(depth)
            self.date = self.date or attributes.get("date", "")

    def begin(self, root: str, attributes: dict[str, str]) -> None:
        """The first element. Raises BrokenProtocol unless it is that of a protocol."""
        if root == FORMER_ROOT:
            raise BrokenProtocol("it has the form that was used up to the 18th term, in which speeches are not marked")
        if root != ROOT:
            raise BrokenProtocol(f"its first element is <{root[:40]}>, not <{ROOT}>")
        self.term, self.number = attributes.get("wahlperiode", ""), attributes.get("sitzung-nr", "")
        self.date = attributes.get("sitzung-datum", "")

    def start_in_speech(self, name: str, attributes: dict[str, str], depth: int) -> None:
        if self.person is not None:  # a part of a name
            self.collect(depth)
        elif name == "redner":
            self.person = {"id": attributes.get("id", "")}
            self.muted = self.muted or depth
        elif name in SILENT:
            self.muted = self.muted or depth
        elif depth == self.in_speech + 1:
            klasse = attributes.get("klasse") or ""
            if name == "p" and klasse == "redner":
                self.muted = self.muted or depth  # behind <redner> stands the name once more
            elif (name == "p" and not klasse.startswith("T")) or name in (
                "kommentar",
                "name",
            ):  # T: titles of the agenda
                self.collect(depth)

    def collect(self, depth: int) -> None:
        """Keep the text from here on, up to the end of this element."""
        self.texts, self.collected = [], depth

    def characters(self, text: str) -> None:
        if self.texts is not None and (not self.muted or self.person is not None):
            self.texts.append(text)

    def skipped_entity(self, name: str, is_parameter: bool) -> None:
        """An entity that is not declared here, such as &nbsp;. Those of HTML are known; others are refused."""
        known = html.unescape(f"&{name};")
        if is_parameter:
            return
        if len(known) > 2:
            raise BrokenProtocol(f"it uses an entity, '{name}', that it does not declare")
        self.characters(known)

    def end(self, name: str) -> None:
        depth = len(self.open)
        self.open.pop()
        text = ""
        if self.texts is not None and depth == self.collected:
            text, self.texts, self.collected = clean("".join(self.texts)), None, 0
        if not self.in_speech:
            self.end_of_head(name, text)
        elif name == "redner" and self.person is not None:
            self.turns.append(turn_of(self.person))
            self.person = None
        elif self.person is not None:
            if text:
                self.person[name] = text
        elif depth == self.in_speech:
            self.speeches += self.merged()
            self.in_speech = 0
        elif text:
            self.end_of_paragraph(name, text)
        if depth == self.muted:
            self.muted = 0

    def end_of_head(self, name: str, text: str) -> None:
        """The number of the session, where the first element does not have it."""
        if name == "wahlperiode":
            self.term = self.term or text
        elif name == "sitzungsnr":
            self.number = self.number or text

    def end_of_paragraph(self, name: str, text: str) -> None:
        if name == "name":
            speaker = text.rstrip(": ")
            self.turns.append(SpeakersTurn(speaker, bare(speaker), "", office_of(speaker)))
        elif self.turns and (name == "p" or self.comments):
            self.turns[-1].paragraphs.append(text)

    def merged(self) -> Iterator[Speech]:
        """The speeches of a <rede>. Who goes on after the presidency has spoken goes on with the same speech."""
        kept: list[SpeakersTurn] = []
        last: SpeakersTurn | None = None
        for turn in self.turns:
            if turn.presiding:
                kept.append(turn)
            elif last is not None and last.key == turn.key:
                last.paragraphs += turn.paragraphs
            else:
                last = turn
                kept.append(turn)
        session, date = f"{self.term}/{self.number}", iso(self.date)
        for turn in kept:
            if turn.paragraphs:
                text = "\n".join(turn.paragraphs)
                yield Speech(session, date, turn.speaker, turn.party, turn.role, text, turn.presiding)

    def protocol(self) -> PlenaryProtocol:
        """What was read. Raises BrokenProtocol where the number of the session is missing."""
        if not (self.term.isdecimal() and self.number.isdecimal()):
            raise BrokenProtocol("it does not say the numbers of its term and session")
        return PlenaryProtocol(f"{self.term}/{self.number}", iso(self.date), tuple(self.speeches))


def turn_of(person: dict[str, str]) -> SpeakersTurn:
    """An empty turn of the person with these parts of a name."""
    name = " ".join(person[part] for part in ("titel", "vorname", "namenszusatz", "nachname") if part in person)
    role = person.get("rolle_lang") or person.get("rolle_kurz") or office_of(name)
    return SpeakersTurn(person["id"] or name, bare(name), party_of(person.get("fraktion", "")), role)


def office_of(name: str) -> str:
    """ "Vizepräsidentin" of "Vizepräsidentin Petra Pau"; "" of a name without the office of the chair."""
    found = PRESIDING.match(name)
    return found[0] if found else ""


def bare(name: str) -> str:
    """A name without the office of the chair."""
    return PRESIDING.sub("", name).strip() or name


def party_of(group: str) -> str:
    """The name of a parliamentary group. "Fraktionslos" is written in two ways."""
    return group.lower() if group.lower() == "fraktionslos" else group


def clean(text: str) -> str:
    """Text in one line: any white space is one space, and marks for line ends are gone."""
    return " ".join(text.translate(SHY).split())


def iso(date: str) -> str:
    """ "2023-06-23" of "23.06.2023"; "" of anything else."""
    day, month, year = [*date.split("."), "", ""][:3]
    if not (day + month + year).isdecimal() or len(year) != 4:
        return ""
    return f"{year}-{month:0>2}-{day:0>2}"
