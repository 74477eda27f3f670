"""Open what lies in a folder of experiments without being led astray: by a link, or into a pipe, from which reading never ends.

All that the live view reads of experiments and runs goes through here. `root` is the folder of a lab that was given by name: no
part of a path below it may be a link. Without it, only a file itself may be none. A path never goes up with `..`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core import durable
from core.files import open_regular

LARGEST = 4 << 20  # bytes of a file that is read as a whole: a run's own have some thousands
FOLDER = os.O_RDONLY | os.O_DIRECTORY


def open_file(path: Path, root: Path | None = None) -> BinaryIO:
    """Open a file to read it. Raises OSError, also for what is no file."""
    return os.fdopen(regular(path, root, os.O_RDONLY), "rb")


def read_file(path: Path, root: Path | None = None) -> bytes:
    """A whole file. Raises OSError, also where it is too large."""
    with open_file(path, root) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, f"it has more than {LARGEST:,} bytes", str(path))
    return data


def append_file(path: Path, root: Path | None = None) -> BinaryIO:
    """Open a file to add to it. It is made if it is not there, and so are its folders. Raises OSError."""
    if root is None:
        durable.make_folders(path.parent)
    else:
        with folder_in(path.parent, root, make=True):
            pass
    return os.fdopen(regular(path, root, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def folders_in(folder: Path, root: Path | None = None) -> list[str]:
    """The names of the folders in a folder, sorted, but for hidden ones; [] if it is not there. root: then links are left out."""
    try:
        with folder_in(folder, root) as at, os.scandir(at) as entries:
            found = [entry.name for entry in entries if is_folder(entry, follow=root is None)]
    except OSError:
        return []
    return sorted(name for name in found if not name.startswith("."))


def is_folder(entry: os.DirEntry[str], *, follow: bool) -> bool:
    """Whether a name is that of a folder; also where that cannot be found out, as it leads in a circle or to a closed place."""
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:
        return True


def is_text(name: str) -> bool:
    """Whether a name of a file can be written as text: on some disks it may be any bytes."""
    return name.isprintable() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def regular(path: Path, root: Path | None, flags: int) -> int:
    """The descriptor of a file. Raises OSError."""
    with folder_in(path.parent, root) as at:
        try:
            return open_regular(path, flags, at)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "it is a link, which is not followed here", str(path)) from None
            raise


@contextlib.contextmanager
def folder_in(folder: Path, root: Path | None, *, make: bool = False) -> Iterator[int]:
    """The descriptor of a folder, while it is needed. make: it is made if it is not there. Raises OSError."""
    parts = folder.relative_to(root).parts if root else ()
    at = os.open(root or folder, FOLDER)
    try:
        for part in parts:
            if part == "..":
                raise OSError(errno.EINVAL, "it leads out of the folder", str(folder))
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=at)
            inner = os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)
