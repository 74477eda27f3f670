"""Where a corpus comes from: a folder, a pattern of file names, files or addresses go in, paths come out."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from core.data.fetching import numbered
from core.errors import UserError

Fetch = Callable[[str], Path]
Names = str | list[str]  # what a setting may hold


def number_of(count: int, one: str, many: str = "") -> str:
    """A number with the right form of a word: "1 text", "2,000 texts"."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def be(count: int) -> str:
    """The verb behind `number_of`."""
    return "is" if count == 1 else "are"


def is_address(name: str) -> bool:
    return "://" in name


def names_of(source: Names) -> list[str]:
    """The names in a setting: one, or a list; {001..003} in one stands for each number."""
    given = [source] if isinstance(source, str) else source
    return [each for name in given if name for each in numbered(name)]


def local_files(
    source: Names, folder: Path, suffixes: Sequence[str], place: str = "prepare.params.source"
) -> list[Path]:
    """The files that a setting names on this machine, sorted within each name; addresses are left out.

    A folder stands for all files below it with one of the suffixes, a pattern such as data/19*.xml for what matches it. Relative
    names start at `folder`, the experiment's, or else at the current folder. place: the key, for errors. Raises UserError where
    a name stands for nothing.
    """
    return [
        path for name in names_of(source) if not is_address(name) for path in expanded(name, folder, suffixes, place)
    ]


def ending_of(source: Names, folder: Path, suffixes: Sequence[str]) -> str:
    """The ending of the first file or address of a setting, in lower case; "" where nothing is named. Raises UserError as `local_files`."""
    first = names_of(source)[:1]
    if first and not is_address(first[0]):
        return local_files(first, folder, suffixes)[0].suffix.lower()
    return Path(first[0]).suffix.lower() if first else ""


def expanded(name: str, folder: Path, suffixes: Sequence[str], place: str) -> list[Path]:
    """The files of one name. Raises UserError if there are none."""
    for start in (folder, Path.cwd()):
        path = start / Path(name).expanduser()
        if path.is_file():
            return [path.absolute()]
        if path.is_dir():
            found = [each for each in path.rglob("*") if each.suffix.lower() in suffixes and each.is_file()]
        else:
            matching = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path has none for whole paths
            found = [each for each in matching if each.is_file()]
        visible = [each.absolute() for each in found if not each.name.startswith(".")]
        if visible:
            return sorted(visible)
    kind = (
        f"holds no file that ends in {' or '.join(suffixes)}"
        if (folder / name).is_dir() or Path(name).is_dir()
        else "names no file"
    )
    raise UserError(
        f"{place.rpartition('.')[2]} = {name!r} {kind}",
        place=place,
        remedy=f"Give a folder, a file, a pattern such as 'folder/19*', or an https address. Relative names start at {folder}.",
    )


def source_files(
    source: Names, folder: Path, suffixes: Sequence[str], fetch: Fetch, place: str = "prepare.params.source"
) -> Iterator[Path]:
    """All files of a setting, in its order; those of addresses are downloaded when they are wanted. Raises UserError as `local_files`."""
    for name in names_of(source):
        if is_address(name):
            yield fetch(name)
        else:
            yield from expanded(name, folder, suffixes, place)
