"""The operations that change a disk, a small function each: whatever must survive a kill or a power cut goes through here.

core.files puts them in the right order. Tests log them, end the process between any two of them, and let each one fail.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import Buffer

FULL = (errno.ENOSPC, errno.EDQUOT)  # no room, for anyone or for this user
BUFFER = 1 << 20  # bytes


def open_new(path: Path) -> int:
    """A descriptor of an empty file: a new one, or the one that is there without its content."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)


def open_end(path: Path) -> int:
    """A descriptor that adds to the end of a file."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)


def write(descriptor: int, data: bytes | memoryview) -> int:
    """Write some bytes from the start of data. Returns how many: the system may take fewer than there are."""
    return os.write(descriptor, data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of data."""
    rest = memoryview(data)
    while rest:
        rest = rest[write(descriptor, rest) :]


def sync(descriptor: int) -> None:
    """Push a file's content to the disk."""
    os.fsync(descriptor)


def close(descriptor: int) -> None:
    os.close(descriptor)


def sync_path(path: Path) -> None:
    """Push a file's content, or a folder's list of names, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; NTFS journals its names
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(old: Path, new: Path) -> None:
    """Give a file another name, in place of a file that has it; a folder, only where nothing or an empty folder has it."""
    old.replace(new)


def unlink(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    """Make a folder. Raises FileExistsError where the name is taken."""
    path.mkdir()


def remove_folder(path: Path) -> None:
    """Remove an empty folder."""
    path.rmdir()


class Raw(io.RawIOBase):
    """A new file as Python's io wants it, so that io.BufferedWriter may gather small writes."""

    def __init__(self, path: Path) -> None:
        self.descriptor = open_new(path)

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        return write(self.descriptor, memoryview(data))

    def fileno(self) -> int:
        return self.descriptor

    def close(self) -> None:
        if not self.closed:
            super().close()
            close(self.descriptor)


def create(path: Path) -> io.BufferedWriter:
    """A new file to be written in many small pieces."""
    return io.BufferedWriter(Raw(path), BUFFER)


def write_file(path: Path, data: bytes) -> None:
    """Make a file with this content and push it to the disk; its name is durable only once its folder is synced."""
    descriptor = open_new(path)
    try:
        write_all(descriptor, data)
        sync(descriptor)
    finally:
        close(descriptor)


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing, each durable: one that is not would take all in it along."""
    if path.is_dir():
        return
    make_folders(path.parent)
    try:
        make_folder(path)
    except FileExistsError:
        if not path.is_dir():
            raise
    sync_path(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a file or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            remove_tree(entry)
        remove_folder(path)
    elif path.is_symlink() or path.exists():
        unlink(path)


def tree(path: Path) -> Iterator[Path]:
    """Everything in a folder, what is deeper first, then the folder."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from tree(entry)
        else:
            yield entry
    yield path
