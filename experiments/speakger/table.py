"""Read tables like SpeakGer's: a table of speeches, and perhaps one of members that is joined by MPID, in; speeches out."""

import ast
import re

from core.corpora.corpus import SpeechCorpus, fractions_of
from core.corpora.sources import be, local_files, names_of, number_of, source_files
from core.corpora.speech import Speech
from core.data import split
from core.data.fetching import table_rows
from core.errors import UserError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# What each column may be called, in lower case. prepare.params.columns names one that is called otherwise.
NAMES = {
    "text": ("speechcontent", "speech", "text"),
    "id": ("mpid",),
    "speaker": ("speaker", "sprecher", "name", "wikilabel"),
    "party": ("party", "partei", "fraktion"),
    "date": ("date", "datum", "jahr", "year"),
    "term": ("period", "wahlperiode", "term"),
    "session": ("session", "sitzung"),
    "topic": ("topic", "thema", "title"),
    "chair": ("chair",),
    "interjection": ("interjection",),
}
OF_MEMBERS = ("id", "speaker", "party")  # columns that may stand in the table of members only
YEAR = re.compile(r"(?<!\d)(?:18|19|20)\d\d(?!\d)")
FULL_DATE = re.compile(r"(?<!\d)(?:18|19|20)\d\d-\d\d-\d\d(?!\d)")
TRUE = ("true", "1", "1.0", "yes")


def table_files(source, folder, place="prepare.params.source"):
    """The tables on this machine that a setting names. place: the setting, for errors."""
    return local_files(source, folder, SUFFIXES, place)


def table_corpus(job, source, metadata, columns, *, chair, interjections):
    """The speeches of tables, by session. metadata: a table of members, or "". columns: names of columns that are called otherwise.

    chair: with what the chair says. interjections: with what others call. Rows are read again for each side, so that memory does not grow
    with the tables. Raises UserError for an unknown column, and where there are fewer than two sessions.
    """
    if unknown := columns.keys() - NAMES.keys():
        raise UserError(
            f"unknown key 'prepare.params.columns.{min(unknown)}'",
            place=f"prepare.params.columns.{min(unknown)}",
            remedy=f"{did_you_mean(min(unknown), NAMES)} The keys are {', '.join(NAMES)}.",
        )
    files = list(source_files(source, job.folder, SUFFIXES, job.fetch))
    members, others = members_of(metadata, job, columns)

    def speeches(left_out):
        for path in files:
            for row in rows(path, columns, others):
                speech = speech_of(row, members, path.stem)
                asked = (chair or not row["chair"]) and (interjections or not row["interjection"])
                if not speech.text or not asked:
                    left_out.append(1)
                else:
                    yield speech

    left_out = []
    sessions = [speech.session for speech in speeches(left_out)]
    different = set(sessions)
    job.say(
        f"{number_of(len(sessions), 'speech', 'speeches')} in {number_of(len(different), 'session')}; "
        f"{number_of(len(left_out), 'row')} {be(len(left_out))} left out (empty, chair or interjection)"
    )
    if len(different) < 2:
        raise UserError(
            f"the tables have {number_of(len(different), 'session')}, and sides are made of whole sessions",
            place="prepare.params.source",
            remedy="A session is a row's Session and Period, or else its Date. Name the columns in prepare.params.columns.",
        )
    fractions = fractions_of(job)
    sides = split.of_groups(sorted(different), fractions.seed, fractions.val, fractions.test)
    return SpeechCorpus(sides, lambda chosen: (each for each in speeches([]) if each.session in chosen), fractions)


def rows(path, columns, others):
    """The rows of a table with the columns of NAMES, as text; "" for one that it does not have. Chair and interjection are yes or no.

    others: columns of the table of members.
    """
    called = None
    for row in table_rows(path):
        if called is None:
            called = settled(list(row), columns, path, others)
        found = {role: text_of(row.get(name)) if name else "" for role, name in called.items()}
        yield found | {role: found[role].lower() in TRUE for role in ("chair", "interjection")}


def settled(names, columns, path, others):
    """The column of each role; "" where there is none. Raises UserError where a table has no speeches or lacks a named column.

    others: columns of the table of members, where some may stand.
    """
    plain = {name.strip().lower(): name for name in reversed(names)}
    for role, name in columns.items():
        if name not in names and not (role in OF_MEMBERS and name in others):
            raise UserError(
                f"no column is called '{name}'",
                place=f"prepare.params.columns.{role}",
                remedy=f"{did_you_mean(name, names)} {path.name} has {', '.join(names)}.",
            )
    called = {role: next((plain[each] for each in known if each in plain), "") for role, known in NAMES.items()}
    called |= {role: name for role, name in columns.items() if name in names}
    if not called["text"]:
        raise UserError(
            f"no column holds speeches: they are {', '.join(names)}",
            place=str(path),
            remedy="Name it: prepare.params.columns={text='NAME'}",
        )
    return called


def members_of(metadata, job, columns):
    """Name and party of each MPID, and the names of the columns that say it. A later row of an MPID does not replace an earlier one.

    Raises UserError without a column MPID.
    """
    found, others = {}, set()
    place = "prepare.params.metadata"
    for path in source_files(metadata, job.folder, SUFFIXES, job.fetch, place) if names_of(metadata) else ():
        for row in table_rows(path):
            others |= row.keys()
            plain = {name.strip().lower(): text_of(value) for name, value in row.items()}
            names = {role: [columns.get(role, "").lower(), *NAMES[role]] for role in OF_MEMBERS}
            key = next((plain[name] for name in names["id"] if name in plain), None)
            if key is None:
                raise UserError(
                    f"has no column MPID: they are {', '.join(row)}",
                    place=str(path),
                    remedy="Name it: prepare.params.columns={id='NAME'}",
                )
            name, party = (
                next((plain[each] for each in names[role] if plain.get(each)), "") for role in ("speaker", "party")
            )
            found.setdefault(number_as_text(key), (name, party))
    return found, others


def speech_of(row, members, parliament):
    """A row as a speech. What it does not say itself, the table of members says. parliament: the table's name, as each has its own numbers."""
    name, party = members.get(number_as_text(row["id"]), ("", ""))
    date = FULL_DATE.search(row["date"])
    year = YEAR.search(row["date"])
    number = "/".join(part for part in (row["term"], row["session"]) if part) or row["date"]
    return Speech(
        session=number and f"{parliament} {number}",
        date=date[0] if date else year[0] if year else "",
        speaker=row["speaker"] or name or row["id"],
        party=party_of(row["party"] or party),
        role="",
        text="\n".join(line.strip() for line in row["text"].splitlines() if line.strip()),
        topic=" ".join(row["topic"].split()),
    )


def text_of(value):
    """A cell as text: nothing for an empty one, a number without needless digits."""
    if value is None or value != value:  # NaN is not itself
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def number_as_text(key):
    """An MPID as it is compared: tables that went through pandas have 11001938.0 for 11001938."""
    return key[:-2] if key.endswith(".0") and key[:-2].isdecimal() else key


def party_of(text):
    """ "SPD" of "['SPD']", "CDU/CSU" of "['CDU', 'CSU']". What is no list stays as it is."""
    try:
        value = ast.literal_eval(text) if text[:1] in "[({" and text else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    values = value if isinstance(value, (list, tuple, set)) else [value]
    return "/".join(str(each).strip() for each in values if str(each).strip())
