"""What the tests of corpora share: small protocols of the Bundestag, written as the real ones are, with invented people, and copies of experiments."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from core.data.dataset import Dataset

Layout = Literal["lines", "tabs"]  # of names: in one line, as in the 19th term, or in several, as later
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SIDES = ("train", "val", "test")
REAL = Path(__file__).parents[2] / "shared" / "data" / "bundestag"

HEAD = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE dbtplenarprotokoll SYSTEM "dbtplenarprotokoll.dtd">
<dbtplenarprotokoll {attributes}>
  <vorspann><kopfdaten>
    <plenarprotokoll-nummer>Plenarprotokoll <wahlperiode>{term}</wahlperiode>/<sitzungsnr>{number}</sitzungsnr></plenarprotokoll-nummer>
    <sitzungstitel><sitzungsnr>{number}</sitzungsnr>. Sitzung</sitzungstitel>
    <veranstaltungsdaten><ort>Berlin</ort>, <datum date="{date}">irgendwann</datum></veranstaltungsdaten>
  </kopfdaten>
  <inhaltsverzeichnis><ivz-eintrag><ivz-eintrag-inhalt><redner id="1"><name><vorname>Nie</vorname><nachname>Mand</nachname></name></redner>
  Nie Mand</ivz-eintrag-inhalt></ivz-eintrag></inhaltsverzeichnis></vorspann>
  <sitzungsverlauf><sitzungsbeginn><name>Vizepräsidentin Berta Vorsitz:</name><p klasse="J">Ich eröffne die Sitzung.</p></sitzungsbeginn>
  <tagesordnungspunkt top-id="1">
"""
FOOT = "</tagesordnungspunkt></sitzungsverlauf></dbtplenarprotokoll>\n"


def person(key: int, first: str, last: str, party: str = "", role: str = "", layout: Layout = "lines") -> str:
    """The paragraph that names a speaker."""
    gap = "\n\t\t\t" if layout == "tabs" else ""
    group = f"{gap}<fraktion>{party}</fraktion>" if party else ""
    office = (
        f"{gap}<rolle>{gap}<rolle_lang>{role}</rolle_lang>{gap}<rolle_kurz>BM</rolle_kurz>{gap}</rolle>" if role else ""
    )
    name = f"<name>{gap}<vorname>{first}</vorname>{gap}<nachname>{last}</nachname>{group}{office}{gap}</name>"
    stands_for = f" ({party})" if party else f", {role}" if role else ""
    anchor = '<a id="r1"/>' if layout == "tabs" else ""
    return f'<p klasse="redner">{anchor}<redner id="{key}">{gap}{name}{gap}</redner>{first} {last}{stands_for}:</p>'


def said(text: str, klasse: str = "J") -> str:
    return f'<p klasse="{klasse}">{text}</p>'


def comment(text: str) -> str:
    return f'<kommentar>({text})<a id="S1" name="S1" typ="druckseitennummer"/></kommentar>'


def chair(text: str, name: str = "Präsidentin Berta Vorsitz") -> str:
    return f"<name>{name}:</name>{said(text, 'J_1')}"


def speech(*parts: str) -> str:
    return f'<rede id="ID1">{"".join(parts)}</rede>'


def protocol(
    number: int,
    speeches: Iterable[str],
    *,
    term: int = 20,
    date: str = "23.06.2023",
    encoding: str = "UTF-8",
    attributes: bool = True,
) -> bytes:
    """A whole file. attributes: the first element says the number, as it does since the 19th term."""
    given = f'wahlperiode="{term}" sitzung-nr="{number}" sitzung-datum="{date}"' if attributes else 'vertrieb="niemand"'
    head = HEAD.format(encoding=encoding, attributes=given, term=term, number=number, date=date)
    return (head + "\n".join(speeches) + FOOT).encode(encoding)


def some_speech(number: int, layout: Layout = "lines") -> str:
    """A speech with a remark of the presidency, of which no sentence is in another one."""
    return speech(
        person(number, "Ada", f"Amsel{number}", "SPD", layout=layout),
        said(f"Liebe Kolleginnen und Kollegen! Das ist Rede {number}.", "J_1"),
        comment("Beifall bei der SPD"),
        said(f"Satz eins von {number}. Satz zwei von {number}.", "O"),
        chair(f"Danke für Rede {number}."),
    )


def write_sessions(
    folder: Path, count: int, speeches: int = 3, layout: Callable[[int], Layout] = lambda number: "lines"
) -> Path:
    """A folder of protocols of sessions 1, 2 ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        texts = [some_speech(100 * number + each, layout(number)) for each in range(speeches)]
        (folder / f"20{number:03}-data.xml").write_bytes(protocol(number, texts))
    return folder


def copied_experiment(name: str, parent: Path) -> Path:
    """The source files of a shipped experiment, in a folder below parent."""
    folder = parent / "experiments" / name
    folder.mkdir(parents=True)
    for file in (*(EXPERIMENTS / name).glob("*.py"), *(EXPERIMENTS / name).glob("*.toml")):
        shutil.copy(file, folder)
    return folder


def text_of(dataset: Dataset, side: str) -> str:
    """All text of a side."""
    found = getattr(dataset, side)
    return "" if found is None else dataset.encoder.decode(found.ids.tolist())


def all_text(dataset: Dataset) -> str:
    return "".join(text_of(dataset, side) for side in SIDES)
