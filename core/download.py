"""Download one file and check it. If that fails, the error says where to put the file by hand."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from core import durable, files
from core.errors import UserError
from core.listener import SILENT, Listener

TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 16  # bytes


def download(url: str, target: Path, sha256: str, what: str, listener: Listener = SILENT) -> None:
    """Download a file and check it. It gets its name once it is complete and on disk.

    sha256: checksum, hexadecimal; empty: not checked. what: names the file in messages, such as "GPT-2's vocabulary".
    listener: is told how many bytes have arrived, and of how many (0: not known).
    Raises UserError where the file is not available or has another checksum, and DiskFull. Then target is unchanged.
    """
    durable.make_folders(target.parent)
    files.tidy(target.parent)
    temporary = files.temporary_name(target)
    digest = hashlib.sha256()
    try:
        with durable.create(temporary) as file:
            for block in blocks(url, target, what, listener):
                file.write(block)
                digest.update(block)
            file.flush()
            durable.sync(file.fileno())
        if sha256 and digest.hexdigest() != sha256:
            raise UserError(
                f"{what} does not match its checksum: its SHA-256 is {digest.hexdigest()}, not {sha256}",
                place=url,
                remedy=f"Try again. If the source has changed on purpose, put the file that you want at {target}.",
            )
        durable.rename(temporary, target)
        durable.sync_path(target.parent)
    except OSError as error:
        if files.is_full(error):
            written = temporary.stat().st_size if temporary.exists() else 0
            raise files.DiskFull(target.parent, written, written) from error
        raise
    finally:
        durable.remove_tree(temporary)


def blocks(url: str, target: Path, what: str, listener: Listener) -> Iterator[bytes]:
    """The bytes at a URL. Raises UserError for anything that goes wrong."""
    received = 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "terrarium"})  # some hosts refuse urllib's default
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            expected = int(response.headers.get("Content-Length") or 0)
            while block := response.read(BLOCK):
                received += len(block)
                listener.progress(f"downloading {what}", received, expected)
                yield block
        if received < expected:  # read() returns no error when a connection breaks off
            raise ConnectionError(f"the connection broke off after {received:,} of {expected:,} bytes")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason: object = error
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is also the response, with its connection
        elif isinstance(error, urllib.error.URLError):
            reason = error.reason
        raise UserError(
            f"{what} could not be downloaded: {reason}",
            place=url,
            remedy=f"Get the file another way and put it at {target}.",
        ) from error
