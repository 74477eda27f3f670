"""Read a folder in the form of DCLM's evaluation bundle (arXiv:2406.11794): a sheet of tasks, and a JSON lines file for each.

    eval_meta_data.csv      a row for each task: name, kind, shots, random baseline in percent
    eval_data/**/NAME.jsonl

If the sheet names tasks of CORE, the suite is those, as DCLM defines them. Otherwise it is the user's own: every row.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.evaluation.suites.kinds import known_kind, read_item
from core.evaluation.suites.task import Item, Suite, Task

SHEET, DATA = "eval_meta_data.csv", "eval_data"
NAME, KIND, SHOTS, BASELINE = COLUMNS = ("Eval Task", "Task Type", "#shots", "Random baseline")
LARGEST_SHOTS = 1_000
LARGEST_BASELINE = 99  # percent; centered accuracy divides by the rest
ANSWER = "\nAnswer: "


class TaskSource(NamedTuple):
    """What the sheet does not say. file: the stem of the data file. delimiter: between a context and its continuation."""

    file: str
    delimiter: str = " "


class SheetRow(NamedTuple):
    """A row of the sheet: column -> text, and the file and line for messages."""

    fields: Mapping[str, str]
    place: str


# The tasks of CORE, with names of files and delimiters from the configuration that DCLM evaluates with (eval/heavy.yaml).
CORE = {
    "hellaswag_zeroshot": TaskSource("hellaswag"),
    "jeopardy": TaskSource("jeopardy_all", ANSWER),
    "bigbench_qa_wikidata": TaskSource("bigbench_qa_wikidata"),
    "arc_easy": TaskSource("arc_easy", ANSWER),
    "arc_challenge": TaskSource("arc_challenge", ANSWER),
    "copa": TaskSource("copa"),
    "commonsense_qa": TaskSource("commonsense_qa"),
    "piqa": TaskSource("piqa", ANSWER),
    "openbook_qa": TaskSource("openbook_qa"),
    "lambada_openai": TaskSource("lambada_openai"),
    "hellaswag": TaskSource("hellaswag"),
    "winograd": TaskSource("winograd_wsc"),
    "winogrande": TaskSource("winogrande"),
    "bigbench_dyck_languages": TaskSource("bigbench_dyck_languages"),
    "agi_eval_lsat_ar": TaskSource("agi_eval_lsat_ar"),
    "bigbench_cs_algorithms": TaskSource("bigbench_cs_algorithms"),
    "bigbench_operators": TaskSource("bigbench_operators"),
    "bigbench_repeat_copy_logic": TaskSource("bigbench_repeat_copy_logic"),
    "squad": TaskSource("squad"),
    "coqa": TaskSource("coqa"),
    "boolq": TaskSource("boolq", ANSWER),
    "bigbench_language_identification": TaskSource("bigbench_language_identification"),
}


def read_dclm(folder: Path) -> Suite | None:
    """The suite of a folder; None if it has no sheet. Tasks of CORE without a row or a file are `absent`.

    Raises UserError, with file and line, for a sheet or a line that is damaged, for an unknown kind of task, for a task of
    the user's own without a file, and if no task is left.
    """
    sheet = folder / SHEET
    if not sheet.is_file():
        return None
    rows = read_sheet(sheet)
    files = {path.stem: path for path in sorted((folder / DATA).rglob("*.jsonl"), reverse=True)}
    is_core = any(name in CORE for name in rows)
    tasks, absent = list[Task](), list[str]()
    for name in CORE if is_core else rows:
        source = CORE.get(name, TaskSource(name))
        if name in rows and source.file in files:
            tasks.append(read_task(name, rows[name], source, files[source.file]))
        elif is_core:
            absent.append(name)
        else:
            raise UserError(
                f"'{name}' has no data",
                place=rows[name].place,
                remedy=f"Write {DATA}/{name}.jsonl, or leave the row out.",
            )
    if not tasks:
        raise UserError("holds no task", place=str(sheet), remedy=f"Put JSON lines files into {folder / DATA}.")
    return Suite(tasks, absent)


def read_sheet(sheet: Path) -> dict[str, SheetRow]:
    """Name of a task -> its row. Raises UserError for a sheet that is no table or lacks a column, and for a name that is there
    twice."""
    found: dict[str, SheetRow] = {}
    reader = csv.DictReader(read_lines(sheet), restval="")
    try:
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"the sheet has no column '{missing[0]}'",
                place=f"{sheet}:1",
                remedy=f"Its first line names these: {', '.join(COLUMNS)}.",
            )
        for fields in reader:
            name, place = fields[NAME].strip(), f"{sheet}:{reader.line_num}"
            if name in found:
                raise UserError(f"'{name}' is there twice", place=place, remedy="Leave one of the rows out.")
            if name:
                found[name] = SheetRow({column: fields[column].strip() for column in COLUMNS}, place)
    except csv.Error as error:
        place = f"{sheet}:{reader.line_num + 1}"  # the line that is read is not counted yet
        raise UserError(f"no table: {error}", place=place, remedy="Write it as CSV.") from None
    return found


def read_task(name: str, row: SheetRow, source: TaskSource, path: Path) -> Task:
    """A task from its row and its data file."""
    kind = known_kind(row.fields[KIND], row.place)
    shots, baseline = number(row, SHOTS, LARGEST_SHOTS), number(row, BASELINE, LARGEST_BASELINE)
    return Task(name, kind, read_items(path, kind), int(shots), baseline / 100, source.delimiter)


def number(row: SheetRow, column: str, highest: int) -> float:
    """A field as a number, of shots a whole one. Raises UserError if it is none from 0 to `highest`."""
    try:
        value = float(row.fields[column])
    except ValueError:
        value = -1.0
    if 0 <= value <= highest and (column != SHOTS or value.is_integer()):
        return value
    form = "whole number" if column == SHOTS else "number, in percent,"
    raise UserError(
        f"'{column}' is '{row.fields[column]}'", place=row.place, remedy=f"Write a {form} from 0 to {highest:,}."
    )


def read_items(path: Path, kind: str) -> list[Item]:
    """The items of a data file, a line each. Raises UserError for a damaged line, and if there are none."""
    lines = enumerate(read_lines(path), 1)
    items = [read_item(kind, line, f"{path}:{number}") for number, line in lines if line.strip()]
    if not items:
        raise UserError("holds no items", place=str(path), remedy="Write one JSON object on each line.")
    return items


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, with their ends. Raises UserError, with the line, for one that is no text."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", place=str(path), remedy="Name another folder.") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError("no text in UTF-8", place=f"{path}:{line}", remedy="Get the file again.") from None
    return [f"{line}\n" for line in text.split("\n")]  # splitlines would also split within texts, at U+2028
