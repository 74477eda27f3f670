"""A corpus of speeches whose sessions stay together: where it comes from goes in, the speeches of each side come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.corpora.bundestag import BrokenProtocol, PlenaryProtocol, read_protocol
from core.corpora.invented import invented_speeches
from core.corpora.sources import Names, be, local_files, names_of, number_of, source_files
from core.corpora.speech import Speech
from core.data import split
from core.data.info import SIDES, TEST
from core.data.job import PrepareJob
from core.errors import UserError

SUFFIXES = (".xml",)
NAMED = 20  # files that are left out and named one by one; the others are only counted
Say = Callable[[str], None]


@dataclass(frozen=True)
class Fractions:
    """What is held out, and the seed that decides which sessions that is. size: characters at most of all sides; None: no limit."""

    seed: int
    val: float
    test: float
    size: int | None = None


@dataclass(frozen=True)
class SpeechCorpus:
    """Speeches by session. sides: the side of each session. read: speeches of some sessions, anew each time."""

    sides: Mapping[str, str]
    read: Callable[[frozenset[str]], Iterator[Speech]]
    fractions: Fractions

    def speeches(self, side: str) -> Iterator[Speech]:
        """The speeches of a side, session by session."""
        return self.read(frozenset(session for session, of in self.sides.items() if of == side))

    def texts(self, write: Callable[[Speech], str]) -> list[Iterator[str]]:
        """Documents of train, validation and test, written by `write`. With a size, each side has its part of it."""
        return [self.limited(map(write, self.speeches(side)), side) for side in (*SIDES, TEST)]

    def limited(self, texts: Iterator[str], side: str) -> Iterator[str]:
        """The first texts of a side, up to its share of the size. There is at least one."""
        held_out = {"val": self.fractions.val, TEST: self.fractions.test}
        share = held_out.get(side, 1 - sum(held_out.values()))
        left = None if self.fractions.size is None else self.fractions.size * share
        for text in texts:
            yield text
            if left is not None and (left := left - len(text)) <= 0:
                return


def bundestag_files(source: Names, folder: Path) -> list[str]:
    """The protocols on this machine, for `inputs()` of a prepare.py: the dataset is made again when one changes or another comes."""
    return [str(path) for path in local_files(source, folder, SUFFIXES)]


def speech_corpus(job: PrepareJob, source: Names, *, comments: bool = False, presidency: bool = False) -> SpeechCorpus:
    """The speeches of protocols of the Bundestag, or invented ones where `source` is empty, which is said.

    job: of prepare(job), for the settings, and to say what is left out. source: as for `core.corpora.sources.source_files`.
    comments: with what others do and call. presidency: with what the presidency says. Raises UserError if fewer than two sessions
    are left.
    """
    fractions = fractions_of(job)
    if not names_of(source):
        job.say(
            "prepare.params.source is empty, so the speeches are invented. For real ones, name a folder of protocols."
        )
        return collected(invented_speeches(fractions.seed), fractions)
    files = whole_protocols(source_files(source, job.folder, SUFFIXES, job.fetch), job.say)
    return of_protocols(files, fractions, job.say, comments=comments, presidency=presidency)


def fractions_of(job: PrepareJob) -> Fractions:
    """What [prepare] says of the sides. Without a test_fraction, a tenth of the sessions is for the test, as in a split by hash."""
    settings = job.config.prepare
    test = split.TEST_FRACTION if settings.test_fraction is None else settings.test_fraction
    return Fractions(settings.seed, settings.val_fraction, test, settings.size)


def collected(speeches: Iterable[Speech], fractions: Fractions) -> SpeechCorpus:
    """A corpus of speeches that are in memory."""
    kept = list(speeches)
    sides = split.of_groups((speech.session for speech in kept), fractions.seed, fractions.val, fractions.test)

    def read(sessions: frozenset[str]) -> Iterator[Speech]:
        return (speech for speech in kept if speech.session in sessions)

    return SpeechCorpus(sides, read, fractions)


@dataclass(frozen=True)
class WholeProtocol:
    """A file that was read to its end. speeches: how many, with remarks of the presidency."""

    path: Path
    session: str
    speeches: int


def whole_protocols(paths: Iterable[Path], say: Say) -> list[WholeProtocol]:
    """The files that hold a protocol, each session once. Others are named, counted, and left out.

    All files are read here and again later, so that the sessions are known before they are divided, without keeping them in memory.
    """
    whole: list[WholeProtocol] = []
    known: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    for path in paths:
        try:
            found = read_protocol(path)
            if found.session in known:
                raise BrokenProtocol(f"session {found.session} is in {known[found.session].name} already")
            if not found.speeches:
                raise BrokenProtocol("there is no speech in it")
        except (BrokenProtocol, OSError) as error:
            left_out["files"] += 1
            if left_out["files"] <= NAMED:
                say(f"{path} is left out: {error}")
            continue
        known[found.session] = path
        whole.append(WholeProtocol(path, found.session, len(found.speeches)))
    if left_out:
        say(
            f"{left_out['files']:,} of {number_of(left_out['files'] + len(whole), 'file')} {be(left_out['files'])} left out; "
            f"{number_of(len(whole), 'protocol')} {be(len(whole))} read"
        )
    if len(whole) < 2:
        raise UserError(
            f"{len(whole) or 'no'} protocol{'' if len(whole) == 1 else 's'} of a session could be read, and sides are made of whole sessions",
            place="prepare.params.source",
            remedy="Give two or more: one is held out. Protocols in XML: https://www.bundestag.de/services/opendata",
        )
    return whole


def of_protocols(
    files: list[WholeProtocol], fractions: Fractions, say: Say, *, comments: bool, presidency: bool
) -> SpeechCorpus:
    """A corpus of files, of which one at a time is in memory."""
    sides = split.of_groups((file.session for file in files), fractions.seed, fractions.val, fractions.test)

    def read(sessions: frozenset[str]) -> Iterator[Speech]:
        for file in files:
            if file.session in sessions:
                speeches = again(file, comments=comments).speeches
                yield from (speech for speech in speeches if presidency or not speech.presiding)

    of_side = Counter(sides.values())
    say(
        f"{number_of(len(files), 'session')}, {number_of(sum(file.speeches for file in files), 'speech', 'speeches')} "
        "and remarks of the presidency; "
        + ", ".join(f"{side}: {of_side[side]:,}" for side in (*SIDES, TEST) if of_side[side])
    )
    return SpeechCorpus(sides, read, fractions)


def again(file: WholeProtocol, *, comments: bool) -> PlenaryProtocol:
    """A protocol that could be read a moment ago. Raises UserError if it cannot any more."""
    try:
        return read_protocol(file.path, comments=comments)
    except (BrokenProtocol, OSError) as error:
        raise UserError(
            f"was changed while it was read: {error}",
            place=str(file.path),
            remedy="Prepare again when nothing writes to it.",
        ) from None
