"""Write files so that they survive a kill or a power cut, lock them, and check their checksums.

A file or folder appears under its name only when it is complete and on disk: it is written under a temporary name,
fsynced and renamed, and the rename is fsynced through the parent folder. core.durable has the single operations.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from core import durable
from core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no flock, so a run folder is not protected against a second writer
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp-"  # prefix of names of unfinished work, which any holder of the lock may delete
BLOCK = 4096  # bytes that a new name or folder takes on most disks
PATIENCE = 1.0  # seconds in which the holder of a lock must have written its name
HOLDER = 200  # bytes of a lock file that are read: its holder's name has some fifty
NOT_LED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # follow no link, and wait for nobody at a pipe


def cache_folder() -> Path:
    """The folder of files that can be made or downloaded again, shared by all experiments.

    $TERRARIUM_CACHE, else terrarium in $XDG_CACHE_HOME or ~/.cache. It need not exist. Raises RuntimeError if the user has
    no home.
    """
    if own := os.environ.get("TERRARIUM_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "terrarium"


class DiskFull(OSError):
    """No space left on a disk. needed: bytes to write, at least. written: how many of them are written already."""

    def __init__(self, folder: Path, needed: int, written: int | None = None) -> None:
        free = free_bytes(folder) + (written or 0)
        more = "" if written is None else "more than "
        message = f"the disk is full: {more}{megabytes(needed)} are needed, and {megabytes(free)} are free"
        super().__init__(errno.ENOSPC, message, str(folder))


def free_bytes(folder: Path) -> int:
    """Free bytes for this user on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def megabytes(count: int) -> str:
    """A number of bytes in readable form."""
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1e6:,.1f} MB" if count >= 50_000 else f"{count / 1e3:,.1f} kB"


def disk_full(error: OSError, folder: Path) -> DiskFull:
    """The error as a DiskFull, with figures. folder: on the disk in question, as far as is known."""
    return error if isinstance(error, DiskFull) else DiskFull(folder, BLOCK)


def is_full(error: BaseException) -> bool:
    """Whether an error means that the disk is full, and does not yet say how much is needed."""
    return isinstance(error, OSError) and error.errno in durable.FULL and not isinstance(error, DiskFull)


@contextlib.contextmanager
def room_for(folder: Path, needed: int) -> Iterator[None]:
    """Raise DiskFull, with the space needed and free, if writing in this context runs out of space."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFull(folder, needed) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole: readers see the old content or the new, even after a power cut. Raises DiskFull."""
    temporary = temporary_name(path)
    tidy(path.parent)
    with room_for(path.parent, len(data)):
        try:
            durable.write_file(temporary, data)
            durable.rename(temporary, path)
            durable.sync_path(path.parent)
        except BaseException:
            durable.remove_tree(temporary)
            raise


def temporary_name(path: Path) -> Path:
    """Where a file is written until it is complete. The name contains the process, as two may write the same file."""
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")


def tidy(folder: Path) -> None:
    """Remove the unfinished files of processes that were killed while they wrote into a folder."""
    for path in folder.glob(f"{TEMPORARY}*-*"):
        number = path.name[len(TEMPORARY) :].partition("-")[0]
        if number.isdecimal() and not is_alive(int(number)):
            durable.remove_tree(path)


def is_alive(process: int) -> bool:
    """Whether a process with this number runs on this machine."""
    if os.name == "nt":
        return True  # os.kill would end it there
    try:
        os.kill(process, 0)
    except PermissionError:  # it belongs to another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON: null in place of numbers that are not finite, which JSON does not have. Every encoding can write it."""
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)  # of a name that is not UTF-8


def finite(value: Any) -> Any:
    """A JSON value with None in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of readable JSON. Raises ValueError for numbers that are not finite, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_figures(path: Path, value: Any) -> None:
    """`write_json`, of figures that the caller also has: a folder that must not be written becomes a warning."""
    try:
        write_json(path, value)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        warnings.warn(f"{path.name} is not written: {error.strerror}, {path.parent}", stacklevel=2)


def sha256(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def seal(values: dict[str, Any]) -> str:
    """Checksum of JSON values, hexadecimal. Raises ValueError for numbers that are not finite."""
    return hashlib.sha256(json.dumps(values, indent=1, sort_keys=True, allow_nan=False).encode()).hexdigest()


def sealed(values: dict[str, Any]) -> bytes:
    """JSON with its own checksum under the key "seal"."""
    return json.dumps(values | {"seal": seal(values)}, indent=1, sort_keys=True).encode() + b"\n"


def unsealed(data: bytes) -> dict[str, Any]:
    """The values that `sealed` was given. Raises ValueError unless data is exactly what it returned."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    body = {key: value for key, value in values.items() if key != "seal"} if isinstance(values, dict) else {}
    if sealed(body) != data:
        raise ValueError("its checksum is not the one that was saved")
    return body


def changed(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> str:
    """The first file that is not as a manifest says, and why; "" if all are. expected: name -> its "bytes" and "sha256"."""
    for name, each in expected.items():
        try:
            size, checksum = (folder / name).stat().st_size, sha256(folder / name)
        except OSError as error:
            return f"{folder / name}: {error.strerror}"
        if size != each["bytes"]:
            return f"{folder / name}: {size:,} bytes instead of {each['bytes']:,}"
        if checksum != each["sha256"]:
            return f"{folder / name}: its checksum is not the one that was saved"
    return ""


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Fill the folder that this yields. At the end it replaces target as a whole.

    After an exception target is unchanged. Raises DiskFull if the disk was the reason. Between the two renames at the
    end target is missing for a moment; after a crash there, `recover` restores the old one.
    """
    durable.make_folders(target.parent)
    recover(target)
    temporary, previous = target.with_name(f"{TEMPORARY}{target.name}"), previous_name(target)
    durable.remove_tree(temporary)
    try:
        durable.make_folder(temporary)
        yield temporary
        for path in durable.tree(temporary):
            durable.sync_path(path)
        if target.exists():
            durable.rename(target, previous)
        durable.rename(temporary, target)
        durable.sync_path(target.parent)
        durable.remove_tree(previous)
    except BaseException as error:
        written = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        full = DiskFull(target.parent, written, written) if is_full(error) else None  # before the space is freed
        durable.remove_tree(temporary)
        recover(target)
        if full:
            raise full from error
        raise


def previous_name(target: Path) -> Path:
    """The name of the old folder while the new one is put in its place."""
    return target.with_name(f".old-{target.name}")


def recover(target: Path) -> None:
    """Clean up after a crash in `new_folder`: restore the old folder, or remove it if the new one is in place."""
    previous = previous_name(target)
    if not previous.exists():
        return
    if target.exists():
        durable.remove_tree(previous)
    else:
        durable.rename(previous, target)


@contextlib.contextmanager
def lock(
    path: Path, what: str, remedy: str = "Wait until it ends.", waiting: Callable[[str], object] | None = None
) -> Iterator[None]:
    """Hold an exclusive lock on a file. The system releases it when the process ends, in any way.

    what: names the guarded thing in the message, such as "run default". waiting: called once with a message if another
    process holds the lock; then this one waits. Without it, raises UserError. The message says who holds it, and since when.
    Raises UserError, too, where something else has the file's name: the holder's name would be written into it.
    """
    try:
        durable.make_folders(path.parent)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            "is a file, and a folder is needed here", place=str(path.parent), remedy="Move the file away."
        ) from None
    with os.fdopen(open_lock(path, what), "a+", encoding="utf-8", errors="replace") as file:
        holder = take(file)
        if holder is not None and waiting is None:
            raise UserError(f"{what} is in use by {holder}", place=str(path.parent), remedy=remedy)
        if holder is not None and waiting is not None:
            waiting(f"{what} is in use by {holder}; waiting until it ends")
            while take(file) is not None:
                time.sleep(0.1)
        started = datetime.datetime.now().isoformat(" ", timespec="seconds")
        with contextlib.suppress(OSError):  # on a full disk the lock works without a name in it
            write_holder(file, f"process {os.getpid()} since {started}")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                write_holder(file, "")


def open_lock(path: Path, what: str) -> int:
    """The descriptor of a lock file, which is made if it is not there. Raises UserError for a link, and for what is no file."""
    try:
        return open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    except OSError:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise UserError(
                f"{what} cannot be locked: {path.name} is a link or no file",
                place=str(path.parent),
                remedy="Remove it.",
            ) from None
        raise


def open_regular(path: Path, flags: int, folder: int | None = None) -> int:
    """The descriptor of a file. folder: the descriptor of the one that its name is looked up in. Raises OSError, also for a link and
    for what is no file.
    """
    descriptor = os.open(path if folder is None else path.name, flags | NOT_LED, 0o666, dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no file", str(path))


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of this file. Asking keeps nobody from taking or releasing it."""
    return read_holder(path) is not None


def read_holder(path: Path) -> str | None:
    """What a lock file says of the other process that holds its lock; None if none does, or if that cannot be found out."""
    if fcntl is None:
        return None
    try:
        descriptor = open_regular(path, os.O_RDONLY)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            held = error.errno in (errno.EAGAIN, errno.EACCES)
            holder = file.read(HOLDER).decode("utf-8", "replace")
            return holder if held and not holder.startswith(f"process {os.getpid()} ") else None
    return None


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this context for the same folder. For short work on a file that many update.

    The folder itself is locked, so nothing is left behind. Does nothing where folders cannot be locked.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network disks have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def take(file: TextIO) -> str | None:
    """Lock a file, or return its holder. A holder writes its name just after locking, which may take a moment."""
    if fcntl is None:
        return None
    holder, patience = "", time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return None
        file.seek(0)
        holder = file.read(HOLDER).strip()
        named = re.match(r"process (\d+)\b", holder)
        if named and is_alive(int(named[1])):  # otherwise it is still empty, or names a process that was killed
            return holder
        if time.monotonic() > patience:
            return holder or "another process"
        time.sleep(0.005)


def write_holder(file: TextIO, text: str) -> None:
    """Replace the content of a lock file."""
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
