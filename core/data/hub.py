"""Read a dataset of Hugging Face's library: a folder, or the address of one on the hub. Needs the extra hf."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from typing import Any

from core.data.compose import Build, Made
from core.data.fingerprint import Known, checksums
from core.data.from_table import make_from_rows
from core.data.source import INPUT, Source
from core.data.tables import ENDINGS, SIDES, Rows
from core.errors import UserError
from core.optional import installing

ADDRESS = "https://huggingface.co/datasets/"
OWNED = re.compile(r"[\w.-]+/[\w.-]+")  # OWNER/NAME


def make_from_hub(build: Build) -> Made:
    """Read all splits of the dataset that `prepare.input` names. They are the sides, if there are several."""
    made = make_from_rows(build, hub_rows(build.source), build.config.prepare.input)
    made.raw = hub_checksums(build.source, {})
    return made


def hub_checksums(source: Source, known: Known) -> Known:
    """Checksums of a folder's files. Of an address it is that of its text: the hub is not asked again."""
    folder = source.input_file
    if source.is_address or not folder.is_dir():
        return {INPUT: {"stamp": [], "sha256": hashlib.sha256(source.config.prepare.input.encode()).hexdigest()}}
    return checksums(
        {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}, known
    )


def hub_rows(source: Source) -> Rows:
    """The rows of all splits, each with its split's name where there are several."""
    library = load_library()
    loaded = load(library, source)
    parts: dict[str, Any] = dict(loaded) if isinstance(loaded, dict) else {"": loaded}
    if len(parts) > 1:
        others = [name for name in parts if name not in SIDES]
        if "train" not in {SIDES.get(name) for name in parts}:
            raise UserError(
                f"none of its splits is called train: they are {', '.join(parts)}",
                place=source.place_of("prepare.input") or "prepare.input",
                remedy=f"Name one of them: {ADDRESS}OWNER/NAME/viewer/SUBSET/{others[0]}.",
            )
        if others:
            source.listener.say(f"{source.config.prepare.input}: splits that are not read: {', '.join(others)}")
        parts = {name: part for name, part in parts.items() if name in SIDES}
    for name, part in parts.items():
        named = {"split": name} if len(parts) > 1 else {}
        for number, row in enumerate(part, 1):
            yield named | row, f"{source.config.prepare.input}, {name} row {number:,}"


def load_library() -> Any:
    """The package datasets. Raises UserError where it is not installed."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            'format = "datasets" needs the package datasets, which is not installed',
            place="prepare.format",
            remedy=f"Install it: {installing('hf')}",
        ) from None
    return datasets


@contextlib.contextmanager
def without_bars(library: Any) -> Iterator[None]:
    """The library draws no progress bars of its own meanwhile."""
    shown = not library.utils.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            library.enable_progress_bars()


def load(library: Any, source: Source) -> Any:
    """What the library loads: splits by name, or one. Raises UserError where it cannot.

    An address may end in /tree/REVISION or in /viewer/SUBSET/SPLIT, as a browser shows it.
    """
    given, folder = source.config.prepare.input, source.input_file
    name, *more = given.removeprefix(ADDRESS).split("/tree/" if "/tree/" in given else "/viewer/")
    choices: dict[str, Any] = {}
    if more and "/tree/" in given:
        choices["revision"] = more[0]
    elif more:
        choices |= dict(zip(("name", "split"), filter(None, more[0].split("/")), strict=False))
    if folder.is_file():
        kind = ENDINGS.get(folder.suffix.lower(), "text")
        raise UserError(
            f'input = "{given}" is a file, and format = "datasets" reads folders and addresses',
            place=source.place_of("prepare.input") or "prepare.input",
            remedy=f'Set prepare.format = "{kind}".',
        )
    try:
        with without_bars(library):
            if not given.startswith(ADDRESS) and not folder.is_dir() and not OWNED.fullmatch(given):
                raise FileNotFoundError("there is no such folder")
            if not given.startswith(ADDRESS) and folder.is_dir():
                saved = any((folder / file).exists() for file in ("state.json", "dataset_dict.json"))
                return library.load_from_disk(str(folder)) if saved else library.load_dataset(str(folder))
            return library.load_dataset(name, **choices)
    except (OSError, ValueError, LookupError, RuntimeError, library.exceptions.DatasetsError) as error:
        raise UserError(
            f"cannot be loaded: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}",
            place=source.place_of("prepare.input") or "prepare.input",
            remedy=f"Give a folder that datasets can read, {ADDRESS}OWNER/NAME, or OWNER/NAME.",
        ) from None
