"""Download one file and check it. A download that breaks off goes on from there; one that fails for good says what to do.

What has arrived is kept beside the target until the file is whole, with its checksum, so that another try or another
process goes on behind it. `fetch` also keeps the checksum of each file, and checks it ever after.
"""

from __future__ import annotations

import contextlib
import email.utils
import glob
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import durable, files
from core.errors import UserError
from core.listener import SILENT, Listener

BLOCK = 1 << 16  # bytes
KEPT = 1 << 26  # bytes after which the beginning of a download is secured, in case the process is killed
PART, RECORD = ".part-", ".part-record-"  # the beginning of a download, and what is known of it
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP errors that may pass
CHECKSUM = ".sha256"  # ending of the file beside a kept one, as sha256sum writes and checks it
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True)
class Patience:
    """tries: attempts in a row that bring nothing new. wait: seconds before the second one; it doubles each time.
    longest: seconds of a wait at most, also where the server asks for more. timeout: seconds without a byte."""

    tries: int = 6
    wait: float = 1.0
    longest: float = 600.0
    timeout: float = 30.0


class BrokenOff(Exception):
    """An attempt has failed. again: another one may help. unreachable: there was no answer. wait: seconds that the server asks for."""

    def __init__(self, reason: object, *, again: bool, unreachable: bool = False, wait: float = 0.0) -> None:
        super().__init__(str(reason))
        self.again, self.unreachable, self.wait = again, unreachable, wait


def fetch(
    url: str, target: Path, sha256: str, what: str, listener: Listener = SILENT, patience: Patience = Patience()
) -> None:
    """Have a file at target: downloaded unless it is there, and checked each time.

    Without a sha256 the first download is trusted: its checksum is written beside it, into a file that ends in .sha256, and
    is what counts from then on, also for another download. Arguments as of `download`. Raises UserError and DiskFull as it does.
    """
    record = target.with_name(f"{target.name}{CHECKSUM}")
    known = record.read_text(encoding="utf-8").partition(" ")[0] if record.is_file() else ""
    wanted = sha256 or known
    if not target.exists():
        download(url, target, wanted, what, listener, patience)
    found = files.sha256(target)
    if wanted and found != wanted:
        why = "" if sha256 else f", as {record.name} says"
        raise UserError(
            f"does not match its checksum: its SHA-256 is {found}, not {wanted}{why}",
            place=str(target),
            remedy="Delete the file to have it downloaded again."
            + ("" if sha256 else f" If it was changed on purpose, delete {record.name}."),
        )
    if found != known:
        files.write_text(record, f"{found}  {target.name}\n")


def download(
    url: str, target: Path, sha256: str, what: str, listener: Listener = SILENT, patience: Patience = Patience()
) -> None:
    """Download a file and check it. It gets its name once it is complete and on disk.

    sha256: checksum, hexadecimal; empty: not checked. what: names the file in messages, such as "GPT-2's vocabulary".
    listener: is told how many bytes have arrived, and of how many (0: not known); and of each wait.
    Raises UserError where the file is not available or has another checksum, and DiskFull. Then target is unchanged.
    """
    durable.make_folders(target.parent)
    files.tidy(target.parent)
    partial = Partial(url, target)
    try:
        receive(partial, target, what, listener, patience)
        found = partial.complete()
        if sha256 and found != sha256:
            partial.discard()
            raise UserError(
                f"{what} does not match its checksum: its SHA-256 is {found}, not {sha256}",
                place=url,
                remedy=f"Try again. If the source has changed on purpose, put the file that you want at {target}.",
            )
        durable.rename(partial.path, target)
        durable.sync_path(target.parent)
        partial.discard()
    except OSError as error:
        if files.is_full(error):
            written = partial.size
            partial.discard()
            raise files.DiskFull(target.parent, written, written) from error
        raise
    finally:
        partial.leave()


class StaysEncrypted(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but from https only to https: what comes without encryption may be anybody's."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request for the new address. Raises ValueError for one that is not https where the old one is."""
        if req.type == "https" and not newurl.startswith("https:"):
            raise ValueError(f"the server redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Partial:
    """The beginning of a download on disk. It is taken up again, in this process or in another one after its end.

    size: bytes that have arrived. validator: by which the server knows whether the file is still the same; "" if it gives
    none, and then there is no going on. Nothing is on disk while size is 0.
    """

    def __init__(self, url: str, target: Path) -> None:
        self.url, self.target = url, target
        self.path, self.record = part_names(target)
        self.descriptor: int | None = None
        self.begin()
        self.claim()
        self.take_up()

    def begin(self) -> None:
        """Know of no bytes."""
        self.size = self.secured = 0
        self.digest, self.validator = hashlib.sha256(), ""

    def claim(self) -> None:
        """Take over what a process has left that is no longer there."""
        for path in self.target.parent.glob(f"{PART}*-{glob.escape(self.target.name)}"):
            number = path.name[len(PART) :].partition("-")[0]
            part, record = part_names(self.target, number)
            if path == part != self.path and number.isdecimal() and not files.is_alive(int(number)):
                with contextlib.suppress(FileNotFoundError):  # another process may do the same, or it has no record yet
                    durable.rename(part, self.path)
                    durable.rename(record, self.record)

    def take_up(self) -> None:
        """Go on behind the bytes on disk that are known to have arrived; bytes behind them may be damaged by a power cut."""
        known = self.known()
        if known.get("url") != self.url or not self.path.is_file() or self.path.stat().st_size < known["size"]:
            self.discard()
            return
        durable.truncate(self.path, known["size"])
        with self.path.open("rb") as file:
            while block := file.read(BLOCK):
                self.digest.update(block)
        self.size = self.secured = known["size"]
        self.validator = known["validator"]
        if self.digest.hexdigest() != known["sha256"]:
            self.discard()

    def known(self) -> dict[str, Any]:
        """The record. Empty if it is not there or damaged."""
        try:
            return files.unsealed(self.record.read_bytes())
        except (OSError, ValueError):
            return {}

    def add(self, block: bytes) -> None:
        """Write what has arrived."""
        if self.descriptor is None:
            self.descriptor = durable.open_end(self.path)
        durable.write_all(self.descriptor, block)
        self.digest.update(block)
        self.size += len(block)
        if self.size - self.secured >= KEPT:
            self.secure()

    def secure(self) -> None:
        """Write down what has arrived, once it is on disk."""
        if self.descriptor is not None:
            durable.sync(self.descriptor)
        kept = {"url": self.url, "validator": self.validator, "size": self.size, "sha256": self.digest.hexdigest()}
        files.write_bytes(self.record, files.sealed(kept))
        self.secured = self.size

    def complete(self) -> str:
        """End writing: the file is on disk. Returns its checksum."""
        if self.descriptor is None:  # of nothing, which is a file too
            self.descriptor = durable.open_end(self.path)
        durable.sync(self.descriptor)
        self.close()
        return self.digest.hexdigest()

    def close(self) -> None:
        if self.descriptor is not None:
            durable.close(self.descriptor)
            self.descriptor = None

    def discard(self) -> None:
        """Remove everything, to begin anew."""
        self.close()
        durable.remove_tree(self.path)
        durable.remove_tree(self.record)
        self.begin()

    def leave(self) -> None:
        """Keep what has arrived if a later try can go on behind it, else nothing."""
        if self.size and self.validator:
            with contextlib.suppress(OSError):  # on a full disk, the next try goes on from an earlier place
                self.secure()
            self.close()
        else:
            self.discard()


def part_names(target: Path, process: int | str = "") -> tuple[Path, Path]:
    """Where the beginning of a download is kept, and what is known of it. process: its number, else this one's."""
    number = process or os.getpid()
    return target.with_name(f"{PART}{number}-{target.name}"), target.with_name(f"{RECORD}{number}-{target.name}")


def receive(partial: Partial, target: Path, what: str, listener: Listener, patience: Patience) -> None:
    """Have all bytes arrive, in as many attempts as it takes while each brings something new. Raises UserError."""
    tries, attempts, most = 0, 0, partial.size
    while True:
        try:
            for block in blocks(partial, what, listener, patience.timeout):
                partial.add(block)
            return
        except BrokenOff as broken:
            tries = 1 if partial.size > most else tries + 1
            attempts, most = attempts + 1, max(most, partial.size)
            # Without a network nobody wants to wait. One that was there a moment ago may come back.
            hopeless = broken.unreachable and attempts == 1
            if not broken.again or hopeless or tries >= patience.tries:
                raise given_up(broken, partial, target, what, attempts) from broken
            seconds = min(max(patience.wait * 2 ** (tries - 1), broken.wait), patience.longest)
            listener.say(f"{what}: {broken}; trying again in {seconds:,.0f} s")
            time.sleep(seconds)


def given_up(broken: BrokenOff, partial: Partial, target: Path, what: str, attempts: int) -> UserError:
    """The error after the last attempt."""
    tried = f" in {attempts} tries" if attempts > 1 else ""
    remedy = f"Get the file another way and put it at {target}."
    if partial.size and partial.validator:
        kept = f"{files.megabytes(partial.size)} of it are kept"
        remedy = f"{kept}: the same command goes on from there. Or get the file another way and put it at {target}."
    return UserError(f"{what} could not be downloaded{tried}: {broken}", place=partial.url, remedy=remedy)


def blocks(partial: Partial, what: str, listener: Listener, timeout: float) -> Iterator[bytes]:
    """The bytes that are missing. Each is expected to be added to `partial` before the next. Raises BrokenOff."""
    headers = {"User-Agent": "terrarium", "Accept-Encoding": "identity"}  # some hosts refuse urllib's default
    if partial.size and not partial.validator:
        partial.discard()
    if partial.size:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.validator}
    try:
        request = urllib.request.Request(partial.url, headers=headers)
        with urllib.request.build_opener(StaysEncrypted).open(request, timeout=timeout) as response:
            begins, expected = extent(response)
            if begins != partial.size:  # the server sends all of it: it knows no ranges, or another file by now
                partial.discard()
            if begins != partial.size:
                raise ConnectionError("the server sent another part of the file than was asked for")
            partial.validator = validator_of(response.headers)
            while block := response.read(BLOCK):
                listener.progress(f"downloading {what}", partial.size + len(block), expected)
                yield block
        if partial.size < expected:  # read() returns no error when a connection breaks off
            raise ConnectionError(f"the connection broke off after {partial.size:,} of {expected:,} bytes")
    except urllib.error.HTTPError as error:
        error.close()  # it is also the response, with its connection
        if error.code == 416:  # what is here is longer than the file by now
            partial.discard()
        raise BrokenOff(error, again=error.code in (416, *PASSING), wait=asked_wait(error.headers)) from error
    except urllib.error.URLError as error:
        timed_out = isinstance(error.reason, TimeoutError)
        is_network = isinstance(error.reason, OSError)
        raise BrokenOff(error.reason, again=is_network, unreachable=is_network and not timed_out) from error
    except http.client.InvalidURL as error:
        raise BrokenOff(error, again=False) from error
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOff(error, again=True) from error
    except ValueError as error:
        raise BrokenOff(error, again=False) from error


def extent(response: Any) -> tuple[int, int]:
    """The place of a response's first byte in the file, and the bytes of the whole file; 0 if not known."""
    if response.status == 206:
        found = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        return (int(found[1]), int(found[2])) if found else (-1, 0)
    return 0, int(response.headers.get("Content-Length") or 0)


def validator_of(headers: Any) -> str:
    """What tells whether the file is still the same: a strong ETag, else the time of its last change; "" without both."""
    tag = headers.get("ETag") or ""
    return tag if tag.startswith('"') else headers.get("Last-Modified") or ""


def asked_wait(headers: Any) -> float:
    """Seconds that the server asks to wait, 0 if it does not: Retry-After is a number, or a time."""
    asked = headers.get("Retry-After") or ""
    if asked.isdecimal():
        return float(asked)
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    return 0.0
