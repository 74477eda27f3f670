"""download: a whole, checked file or none, and a message that says where to put it."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import durable
from core.download import download
from core.errors import UserError
from core.listener import Silent

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/file is CONTENT, /short breaks off in the middle, all else is missing."""

    def do_GET(self) -> None:
        if self.path not in ("/file", "/short"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/file" else CONTENT[:1000])

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("checksum", [SHA256, ""])
def test_a_file_is_kept_under_its_name(server: str, tmp_path: Path, checksum: str) -> None:
    target = tmp_path / "new" / "folder" / "file.bin"
    download(f"{server}/file", target, checksum, "the text")
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def refused(url: str, target: Path, checksum: str = SHA256) -> UserError:
    """The error of a download that fails and must leave the folder as it was."""
    target.write_text("old")
    with pytest.raises(UserError) as error:
        download(url, target, checksum, "the text")
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]
    return error.value


def test_another_content_is_not_kept(server: str, tmp_path: Path) -> None:
    target = tmp_path / "input.txt"
    assert str(refused(f"{server}/file", target, "0" * 64)) == (
        f"{server}/file: the text does not match its checksum: its SHA-256 is {SHA256}, not {'0' * 64}"
        f"\n  Try again. If the source has changed on purpose, put the file that you want at {target}."
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/missing", "HTTP Error 404: Not Found"), ("/short", "the connection broke off after 1,000 of 256,000 bytes")],
)
def test_a_file_that_does_not_come_whole_is_named_with_its_place(
    server: str, tmp_path: Path, path: str, reason: str
) -> None:
    target = tmp_path / "input.txt"
    assert str(refused(f"{server}{path}", target, "")) == (
        f"{server}{path}: the text could not be downloaded: {reason}"
        f"\n  Get the file another way and put it at {target}."
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/file", "Connection refused"),
        ("http://no-such-host.invalid/file", ""),
        ("nonsense", "unknown url type"),
    ],
)
def test_without_a_network_the_message_says_which_file_to_put_where(tmp_path: Path, url: str, reason: str) -> None:
    target = tmp_path / "input.txt"
    message = str(refused(url, target))
    assert message.startswith(f"{url}: the text could not be downloaded: ")
    assert reason in message
    assert message.endswith(f"\n  Get the file another way and put it at {target}.")


def test_a_full_disk_is_no_fault_of_the_network(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write", full)
    with pytest.raises(OSError, match=r"the disk is full: more than 0 bytes are needed, and .* are free"):
        download(f"{server}/file", tmp_path / "input.txt", "", "the text")
    assert list(tmp_path.iterdir()) == []


def test_the_listener_is_told_and_nothing_is_printed(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[str, float, float]] = []

    class Told(Silent):
        def progress(self, what: str, done: float, total: float) -> None:
            told.append((what, done, total))

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    download(f"{server}/file", tmp_path / "a", "", "the text")
    download(f"{server}/file", tmp_path / "b", "", "the text", Told())
    assert capsys.readouterr() == ("", "")
    size = (tmp_path / "b").stat().st_size
    assert {(what, total) for what, _, total in told} == {("downloading the text", size)}
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told}) and told[-1][1] == size
