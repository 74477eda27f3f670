"""The operations that change a disk, one small function each. Everything that must survive a kill or a power cut uses them.

core.files puts them in the right order. Tests log them, end the process between any two, and make each one fail.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import Buffer

FULL = (errno.ENOSPC, errno.EDQUOT)  # no space left, on the disk or for this user
BUFFER = 1 << 20  # bytes


def open_new(path: Path) -> int:
    """A descriptor of an empty file: a new one, or an existing one without its content."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)


def open_end(path: Path) -> int:
    """A descriptor that appends to a file."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)


def write(descriptor: int, data: bytes | memoryview) -> int:
    """Write some bytes from the start of data. Returns how many: the system may write fewer than there are."""
    return os.write(descriptor, data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of data."""
    rest = memoryview(data)
    while rest:
        rest = rest[write(descriptor, rest) :]


def truncate(path: Path, size: int) -> None:
    """Cut a file off behind its first bytes."""
    os.truncate(path, size)


def sync(descriptor: int) -> None:
    """Flush a file's content to the disk."""
    os.fsync(descriptor)


def close(descriptor: int) -> None:
    os.close(descriptor)


def sync_path(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and NTFS journals its names
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(old: Path, new: Path) -> None:
    """Rename a file, replacing one that has the name; or a folder, if nothing or an empty folder has the name."""
    old.replace(new)


def unlink(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    """Make a folder. Raises FileExistsError if the name is taken."""
    path.mkdir()


def remove_folder(path: Path) -> None:
    """Remove an empty folder."""
    path.rmdir()


class Raw(io.RawIOBase):
    """A new file in the form that io.BufferedWriter needs to collect small writes."""

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
    """A new file for many small writes."""
    return io.BufferedWriter(Raw(path), BUFFER)


def write_file(path: Path, data: bytes) -> None:
    """Make a file with this content and flush it to the disk. Its name is durable only after its folder is synced."""
    descriptor = open_new(path)
    try:
        write_all(descriptor, data)
        sync(descriptor)
    finally:
        close(descriptor)


def make_folders(path: Path) -> None:
    """Make a folder and its missing parents, each durable: one that is lost would take everything in it along."""
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
    """Remove a file, or a folder with everything in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            remove_tree(entry)
        remove_folder(path)
    elif path.is_symlink() or path.exists():
        unlink(path)


def tree(path: Path) -> Iterator[Path]:
    """Everything in a folder, the deepest first, then the folder."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from tree(entry)
        else:
            yield entry
    yield path
