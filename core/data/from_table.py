"""Make a dataset from a table, with the sides that it names."""

from __future__ import annotations

import numpy as np

from core.data import split
from core.data.compose import Build, Made, compose_documents
from core.data.make import SPOOL, Reading, split_and_compose
from core.data.spool import Spool
from core.data.tables import RowReader, Rows, rows_of
from core.errors import UserError


def make_from_table(build: Build) -> Made:
    """Read the input as rows, then split and encode."""
    reading, settings = Reading(build), build.config.prepare
    made = make_from_rows(build, rows_of(reading.path, settings.format, reading.on_bytes), str(reading.path))
    reading.check()
    made.raw = reading.entry()
    return made


def make_from_rows(build: Build, rows: Rows, what: str) -> Made:
    """Split rows by their column split, or else by `prepare.split`, and encode them. Tells what is left out."""
    settings, source = build.config.prepare, build.source
    separator = settings.separator if "separator" in source.given else ""
    place = source.place_of("prepare.columns" if settings.columns else "prepare.input")
    table = RowReader(settings.columns, place, separator)
    sides: list[str] = []
    most, left = settings.size, 0
    with Spool(build.folder / SPOOL, settings.seed, what, chat=build.source.chat) as spool:
        for row, place in rows:
            if (found := table.read(row, place)) is None:
                continue
            if most is not None and spool.characters >= most:
                left += 1  # they are read all the same: the checksum is of the whole file
                continue
            spool.add(found[0], place)
            sides.append(found[1])
        if left:
            source.listener.say(f"{what}: cut at prepare.size = {most:,} characters: {left:,} rows are left out")
        for sentence in table.told():
            source.listener.say(f"{what}: {sentence}")
        if not len(spool):
            raise UserError("holds no rows", place=what, remedy="Give it at least two rows with text.")
        if not any(sides):
            return split_and_compose(build, spool)
        spool.close()
        if unused := sorted({"split", "test_fraction"} & source.given):
            source.listener.say(
                f"{what}: a column names the sides, so {' and '.join(f'prepare.{key}' for key in unused)} has no effect"
            )
        return compose_documents(build, spool, named_sides(build, spool, sides), {"kind": "column"})


def named_sides(build: Build, spool: Spool, sides: list[str]) -> split.Sides:
    """The rows of each side as their column says. Without a validation side, part of train is held out by its prompts."""
    of = np.array(sides)
    numbers = {name: np.flatnonzero(of == name) for name in ("train", "val", "test")}
    if not len(numbers["train"]):
        raise UserError(
            "no row is of train", place=spool.what, remedy="Write train into the column split of some rows."
        )
    if not len(numbers["val"]):
        train = numbers["train"]
        inner = split.by_hash(spool.keys()[train], build.config.prepare.val_fraction)
        numbers |= {"train": train[inner["train"]], "val": train[inner["val"]]}
        build.source.listener.say(
            f"{spool.what}: no row is of val, so {len(numbers['val']):,} rows of train are held out"
        )
    return numbers if len(numbers["test"]) else {name: numbers[name] for name in ("train", "val")}
