"""Protocols of the Bundestag: what is a speech, who says it, and that no file can do harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocols import (
    REAL,
    Layout,
    chair,
    comment,
    person,
    protocol,
    said,
    some_speech,
    speech,
)

from core.corpora.bundestag import BrokenProtocol, PlenaryProtocol, read_protocol
from core.corpora.speech import Speech, framed, with_heading

MINISTER = "Bundesministerin des Innern und für Heimat"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., PlenaryProtocol]:
    """Read a file with this content."""

    def run(content: bytes, *, comments: bool = False) -> PlenaryProtocol:
        path = tmp_path / "20113.xml"
        path.write_bytes(content)
        return read_protocol(path, comments=comments)

    return run


def lines(found: PlenaryProtocol) -> list[tuple[str, str, str, str, bool]]:
    return [(each.speaker, each.party, each.role, each.text, each.presiding) for each in found.speeches]


@pytest.mark.parametrize("layout", ["lines", "tabs"])
def test_a_speech_has_a_speaker_a_party_a_role_and_the_session(
    read: Callable[..., PlenaryProtocol], layout: Layout
) -> None:
    member = speech(
        person(1, "Ada", "Amsel", "BÜNDNIS\u00a090/DIE\nGRÜNEN", layout=layout), said("Eins."), said("Zwei.", "O")
    )
    minister = speech(person(2, "Nora", "Neu", role=MINISTER, layout=layout), said("Drei."))
    found = read(protocol(113, [member, minister]))
    assert (found.session, found.date) == ("20/113", "2023-06-23")
    assert lines(found) == [
        ("Ada Amsel", "BÜNDNIS 90/DIE GRÜNEN", "", "Eins.\nZwei.", False),
        ("Nora Neu", "", MINISTER, "Drei.", False),
    ]
    assert {(each.session, each.date) for each in found.speeches} == {("20/113", "2023-06-23")}


def test_what_the_presidency_says_is_no_part_of_the_speech(read: Callable[..., PlenaryProtocol]) -> None:
    interrupted = speech(
        person(1, "Ada", "Amsel", "SPD"), said("Eins."), chair("Kommen Sie zum Schluss.", "Vizepräsident Dr. Otto Ordnung"),
        person(1, "Ada", "Amsel", "SPD"), said("Zwei."), chair("Danke."),
    )  # fmt: skip
    assert lines(read(protocol(1, [interrupted]))) == [
        ("Ada Amsel", "SPD", "", "Eins.\nZwei.", False),
        ("Dr. Otto Ordnung", "", "Vizepräsident", "Kommen Sie zum Schluss.", True),
        ("Berta Vorsitz", "", "Präsidentin", "Danke.", True),
    ]


@pytest.mark.parametrize("first", ["Alterspräsident Dr. Hermann", "Präsidentin Berta"])
def test_an_office_in_the_first_name_is_the_chair(read: Callable[..., PlenaryProtocol], first: str) -> None:
    (found,) = read(protocol(1, [speech(person(1, first, "Otto"), said("Guten Morgen."))])).speeches
    office, _, rest = first.partition(" ")
    assert (found.speaker, found.role, found.presiding) == (f"{rest} Otto", office, True)


def test_a_head_of_a_state_is_no_chair(read: Callable[..., PlenaryProtocol]) -> None:
    (found,) = read(
        protocol(1, [speech(person(1, "Anke", "Neu", role="Ministerpräsidentin (Saarland)"), said("Guten Tag."))])
    ).speeches
    assert (found.role, found.presiding) == ("Ministerpräsidentin (Saarland)", False)


def test_a_question_in_between_is_a_speech_of_its_own(read: Callable[..., PlenaryProtocol]) -> None:
    ada, bea = person(1, "Ada", "Amsel", "SPD"), person(2, "Bea", "Bach", "FDP")
    found = read(protocol(1, [speech(ada, said("Eins."), bea, said("Und?"), ada, said("Zwei."))]))
    assert [(each.speaker, each.text) for each in found.speeches] == [
        ("Ada Amsel", "Eins."),
        ("Bea Bach", "Und?"),
        ("Ada Amsel", "Zwei."),
    ]


def test_comments_are_an_option(read: Callable[..., PlenaryProtocol]) -> None:
    content = protocol(
        1, [speech(person(1, "Ada", "Amsel"), said("Eins."), comment("Beifall; Zuruf: Oh!"), said("Zwei."))]
    )
    assert read(content).speeches[0].text == "Eins.\nZwei."
    assert read(content, comments=True).speeches[0].text == "Eins.\n(Beifall; Zuruf: Oh!)\nZwei."


def test_only_what_is_said_is_text(read: Callable[..., PlenaryProtocol]) -> None:
    """Footnotes, titles of the agenda and anchors are not; small letters are, and marks for line ends vanish."""
    note = '<fussnote id="1"><p>Anlage 5</p></fussnote>'
    text = f'CO<sub>2</sub>{note} und<a id="S2"/> Kol\u00adlege,\u202f400\u00a0000 Nicht\u2011Mitglieder'
    found = read(protocol(1, [speech(person(1, "Ada", "Amsel"), said("Titel", "T_NaS"), said(text), said(" \n "))]))
    assert found.speeches[0].text == "CO2 und Kollege, 400 000 Nicht-Mitglieder"


def test_the_number_may_stand_in_the_head_only(read: Callable[..., PlenaryProtocol]) -> None:
    found = read(protocol(7, [some_speech(1)], term=19, attributes=False))
    assert (found.session, found.date) == ("19/7", "2023-06-23")


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-8-SIG", "ISO-8859-1", "UTF-16", "windows-1252"])
def test_encodings(read: Callable[..., PlenaryProtocol], encoding: str) -> None:
    content = protocol(1, [speech(person(1, "Ada", "Größe"), said("Überall süße Äpfel."))], encoding="UTF-8").decode()
    declared = encoding.replace("UTF-8-SIG", "UTF-8")
    found = read(content.replace('encoding="UTF-8"', f'encoding="{declared}"').encode(encoding))
    assert (found.speeches[0].speaker, found.speeches[0].text) == ("Ada Größe", "Überall süße Äpfel.")


@pytest.mark.parametrize("doctype", [b'<!DOCTYPE dbtplenarprotokoll SYSTEM "dbtplenarprotokoll.dtd">', b"<!DOCTYPE dbtplenarprotokoll>", b""])  # fmt: skip
def test_entities_of_html_are_known(read: Callable[..., PlenaryProtocol], doctype: bytes) -> None:
    content = protocol(1, [speech(person(1, "Ada", "Amsel"), said("A&nbsp;&amp;&nbsp;B&auml;r"))])
    assert DOCTYPE in content
    assert read(content.replace(DOCTYPE, doctype)).speeches[0].text == "A & Bär"


GOOD = protocol(1, [some_speech(1), some_speech(2)])
LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
OUTSIDE = b'<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/passwd">]>'
DOCTYPE = b'<!DOCTYPE dbtplenarprotokoll SYSTEM "dbtplenarprotokoll.dtd">'
BROKEN = {
    "cut off": (GOOD[: len(GOOD) // 2], "not XML: "),
    "no end": (GOOD.rstrip()[:-1], "not XML: "),
    "empty": (b"", "not XML: no element found"),
    "a page of the web": (b"<!doctype html><html><p>404", "not XML: "),
    "plain text": (b"Plenarprotokoll 20/113", "not XML: syntax error"),
    "an archive": (b"PK\x03\x04\x00\x00\x00", "not XML: "),
    "of another kind": (b"<html/>", "its first element is <html>, not <dbtplenarprotokoll>"),
    "of the 18th term": (b"<DOKUMENT><TEXT>Rede</TEXT></DOKUMENT>", "it has the form that was used up to the 18th term, in which speeches are not marked"),
    "without a number": (GOOD.replace(b'sitzung-nr="1"', b"").replace(b"<sitzungsnr>1</sitzungsnr>", b""), "it does not say the numbers of its term and session"),
    "entities within entities": (GOOD.replace(DOCTYPE, LAUGHS).replace(b"Satz eins", b"&b;"), "it declares an entity, 'a', which no protocol does"),
    "an entity of another file": (GOOD.replace(DOCTYPE, OUTSIDE).replace(b"Satz eins", b"&secret;"), "it declares an entity, 'secret', which no protocol does"),
    "an entity of nobody": (GOOD.replace(b"Satz eins", b"&satz;"), "it uses an entity, 'satz', that it does not declare"),
    "an entity of nobody, without a DOCTYPE": (GOOD.replace(DOCTYPE, b"").replace(b"Satz eins", b"&satz;"), "it uses an entity, 'satz', that it does not declare"),
    "an entity in a file that stands alone": (GOOD.replace(b"?>", b' standalone="yes"?>', 1).replace(b"Satz eins", b"&nbsp;"), "it uses an entity that it does not declare: line "),
    "too deep": (GOOD.replace(b"Satz eins", b"<b>" * 200), "more than 100 elements stand within each other"),
    "in no known encoding": (GOOD.replace(b'"UTF-8"', b'"klingon"'), "its encoding cannot be read"),
    "in bytes of another encoding": (GOOD.replace(b"Satz eins", b"S\xe4tze"), "not XML: not well-formed (invalid token)"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_says_why(read: Callable[..., PlenaryProtocol], what: str) -> None:
    content, why = BROKEN[what]
    with pytest.raises(BrokenProtocol) as error:
        read(content)
    assert str(error.value).startswith(why) or (what == "in no known encoding" and "encoding" in str(error.value))


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.xml"
    with path.open("wb") as file:
        file.truncate(70 << 20)  # takes no room on the disk
    with pytest.raises(BrokenProtocol, match="more than 64 MB"):
        read_protocol(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_of_any_kind_is_named_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    """Some bytes of a protocol are replaced: the file is read, or is a BrokenProtocol. Nothing else happens."""
    begin = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(begin, len(GOOD)))
    path = tmp_path / "damaged.xml"
    path.write_bytes(GOOD[:begin] + data.draw(st.binary(max_size=20)) + GOOD[end:])
    try:
        found = read_protocol(path)
    except BrokenProtocol as error:
        assert str(error)
    else:
        assert all(each.text.strip() and each.session == found.session for each in found.speeches)


def test_how_a_speech_is_written() -> None:
    member = Speech("20/1", "2023-06-23", "Ada Amsel", "SPD", "", "Eins.\nZwei.")
    assert with_heading(member) == "Ada Amsel (SPD), 2023-06-23:\nEins.\nZwei.\n\n"
    assert framed(member) == "<SPEECH_START><SPEAKER>Ada Amsel</SPEAKER>\nEins.\nZwei.\n<SPEECH_END>"
    assert Speech("20/1", "", "Nora Neu", "", MINISTER, "Drei.").heading == f"Nora Neu ({MINISTER}):"
    assert Speech("20/1", "", "Niemand", "", "", "Vier.").heading == "Niemand:"


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the protocols are not beside this repository, in ../shared/data/bundestag"
)
class TestRealProtocols:
    """Seventeen sessions of terms 19 to 21, in both layouts."""

    PARTIES = frozenset(
        ("CDU/CSU", "SPD", "AfD", "BÜNDNIS 90/DIE GRÜNEN", "FDP", "DIE LINKE", "Die Linke", "BSW", "fraktionslos", "")
    )

    def test_every_file_is_read(self) -> None:
        found = [read_protocol(path) for path in sorted(REAL.glob("*.xml"))]
        assert len({each.session for each in found}) == 17 and {each.session.split("/")[0] for each in found} == {
            "19",
            "20",
            "21",
        }
        assert all(
            each.date[:4] in ("2017", "2018", "2019", "2020", "2021", "2022", "2023", "2024", "2025", "2026")
            for each in found
        )
        speeches = [each for session in found for each in session.speeches]
        own = [each for each in speeches if not each.presiding]
        assert len(own) == 2045 and {each.party for each in own} == self.PARTIES
        assert all(each.party or each.role for each in own)  # nobody speaks for nothing
        assert all(
            each.role.endswith(("räsident", "räsidentin")) and not each.party for each in speeches if each.presiding
        )
        assert not any("\n\n" in each.text or "\u00a0" in each.text or "\u00ad" in each.text for each in speeches)

    def test_a_speech_that_was_read_by_eye(self) -> None:
        """The beginning and the end of the first speech of a member in session 19/1, and its comments."""
        path = REAL / "19001-data.xml"
        first = next(each for each in read_protocol(path).speeches if not each.presiding)
        assert first.heading == "Carsten Schneider (SPD), 2017-10-24:"
        assert first.text.startswith(
            "Sehr geehrter Herr Präsident! Sehr geehrte Kolleginnen und Kollegen! Mit der heutigen Konstituierung"
        )
        assert first.text.endswith("\nVielen Dank.") and "Baumann" not in first.text
        commented = next(each for each in read_protocol(path, comments=True).speeches if not each.presiding)
        assert (
            "(Volker Kauder [CDU/CSU]: Warum habt ihr das bei Gerhard Schröder nicht gemacht?)"
            in commented.text.splitlines()
        )
        assert "Warum habt ihr" not in first.text
