"""Durable file work: everything that must survive a kill or a power cut is written through here.

A file or folder appears under its name only when it is whole and on disk: written under a temporary
name, fsynced, renamed, and the rename itself fsynced through the parent folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no flock: there a run folder is not guarded against a second writer
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp-"  # prefix of names that hold unfinished work and may be deleted by anyone who holds the lock


def cache_folder() -> Path:
    """Where what can be had again is kept for all experiments: $TERRARIUM_CACHE, else terrarium in $XDG_CACHE_HOME or ~/.cache.

    It need not exist. Raises RuntimeError where the user has no home.
    """
    if own := os.environ.get("TERRARIUM_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "terrarium"


def sync(path: Path) -> None:
    """Push a file's content, or a folder's list of names, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; NTFS journals its names
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole: readers see the old content or the new, also after a power cut."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of readable JSON; numbers that are not finite are refused (ValueError), as JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Fill the folder that this yields; at the end it takes target's place as a whole.

    After an exception target is what it was. Between the two renames at the end target is absent for a
    moment; `recover` puts the old one back after a crash just there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    recover(target)
    temporary, previous = target.with_name(f"{TEMPORARY}{target.name}"), previous_name(target)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            sync(path)
        sync(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if target.exists():
        target.rename(previous)
    temporary.rename(target)
    sync(target.parent)
    shutil.rmtree(previous, ignore_errors=True)


def previous_name(target: Path) -> Path:
    """Where the old folder waits while the new one takes its name."""
    return target.with_name(f".old-{target.name}")


def recover(target: Path) -> None:
    """Finish what a crash inside `new_folder` left: restore the old folder, or remove it if the new one stands."""
    previous = previous_name(target)
    if not previous.exists():
        return
    if target.exists():
        shutil.rmtree(previous)
    else:
        previous.rename(target)


@contextlib.contextmanager
def lock(path: Path, what: str, remedy: str = "Wait until it ends.") -> Iterator[None]:
    """Hold an exclusive lock on a file; the system frees it when the process ends, however it ends.

    what: names the guarded thing in the message, such as "run default". Raises UserError if another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            "is a file, and a folder is needed here", place=str(path.parent), remedy="Move the file away."
        ) from None
    with path.open("a+") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise UserError(
                    f"{what} is in use by {holder}",
                    place=str(path.parent),
                    remedy=remedy,
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield
