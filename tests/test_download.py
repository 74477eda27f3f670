"""download: a whole, checked file or none, going on where it broke off, and a message that says where to put the file."""

from __future__ import annotations

import datetime
import email.utils
import hashlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from downloads import CONTENT, Server, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import Told

from core import download as module
from core import durable
from core.download import CHECKSUM, Patience, StaysEncrypted, asked_wait, download, fetch
from core.errors import UserError
from core.listener import Silent

ROOT = Path(__file__).parents[1]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(tries=3, wait=0.01, timeout=0.3)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def ranges(asked: list[dict[str, str]]) -> list[str]:
    """The part that each request asked for, "" for all."""
    return [headers.get("Range", "") for headers in asked]


@pytest.mark.parametrize("checksum", [SHA256, ""])
def test_a_file_is_kept_under_its_name(server: Server, tmp_path: Path, checksum: str) -> None:
    target = tmp_path / "new" / "folder" / "file.bin"
    url, _ = server.has("/file")
    download(url, target, checksum, "the text")
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_an_empty_file_is_a_file(server: Server, tmp_path: Path) -> None:
    url, _ = server.has("/file", content=b"")
    download(url, tmp_path / "file", "", "the text")
    assert (tmp_path / "file").read_bytes() == b"" and len(list(tmp_path.iterdir())) == 1


def refused(url: str, target: Path, checksum: str = SHA256, patience: Patience = QUICK) -> UserError:
    """The error of a download that fails and must leave the file as it was."""
    target.write_text("old")
    with pytest.raises(UserError) as error:
        download(url, target, checksum, "the text", patience=patience)
    assert target.read_text() == "old"
    return error.value


def test_another_content_is_not_kept(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "input.txt"
    url, _ = server.has("/file")
    assert str(refused(url, target, "0" * 64)) == (
        f"{url}: the text does not match its checksum: its SHA-256 is {SHA256}, not {'0' * 64}"
        f"\n  Try again. If the source has changed on purpose, put the file that you want at {target}."
    )
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_what_will_not_pass_is_told_at_once(server: Server, tmp_path: Path, code: int) -> None:
    target = tmp_path / "input.txt"
    url, file = server.has("/file", answers=[code])
    message = str(refused(url, target))
    assert message.startswith(f"{url}: the text could not be downloaded: HTTP Error {code}: ")
    assert message.endswith(f"\n  Get the file another way and put it at {target}.")
    assert len(file.asked) == 1 and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_after_a_wait(server: Server, tmp_path: Path, code: int) -> None:
    url, file = server.has("/file", answers=[code, code, None])
    told = Told()
    download(url, tmp_path / "file", SHA256, "the text", told, QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT and len(file.asked) == 3
    assert [line.partition(": HTTP")[0] for line in told.said] == ["the text"] * 2
    assert told.said[0].startswith(f"the text: HTTP Error {code}: ") and told.said[0].endswith("; trying again in 0 s")


def test_the_waits_double_and_the_server_may_ask_for_more(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    url, file = server.has("/file", answers=[503])
    patience = Patience(tries=6, wait=1, longest=9)
    assert f"{url}: the text could not be downloaded in 6 tries: HTTP Error 503" in str(
        refused(url, tmp_path / "a", "", patience)
    )
    assert waits == [1, 2, 4, 8, 9]
    waits.clear()
    file.headers["Retry-After"] = "5"
    refused(url, tmp_path / "a", "", patience)
    assert waits == [5, 5, 5, 8, 9]


def test_a_time_to_wait_for() -> None:
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=100)
    assert asked_wait({"Retry-After": email.utils.format_datetime(later, usegmt=True)}) == pytest.approx(100, abs=3)
    assert asked_wait({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert asked_wait({"Retry-After": "soon"}) == asked_wait({}) == 0


def test_a_server_that_says_nothing_is_given_up(server: Server, tmp_path: Path) -> None:
    url, file = server.has("/file", answers=[{"hang": 2}])
    assert "could not be downloaded in 2 tries: timed out" in str(
        refused(url, tmp_path / "a", "", Patience(tries=2, wait=0.01, timeout=0.1))
    )
    assert len(file.asked) == 2


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/file", "Connection refused"),
        ("http://no-such-host.invalid/file", ""),
        ("nonsense", "unknown url type"),
        ("http://127.0.0.1/a b", "control characters"),
    ],
)
def test_without_a_network_the_message_says_at_once_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    """At once: no wait of ours, whatever time the system takes to look up a name."""
    waits: list[float] = []
    monkeypatch.setattr("core.download.time.sleep", waits.append)
    target = tmp_path / "input.txt"
    message = str(refused(url, target, patience=Patience()))
    assert waits == []
    assert message.startswith(f"{url}: the text could not be downloaded: ")
    assert reason in message
    assert message.endswith(f"\n  Get the file another way and put it at {target}.")


def test_a_broken_connection_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    """As long as each attempt brings something, there may be more of them than tries."""
    url, file = server.has("/file", answers=[{"after": 60_000}] * 4 + [None])
    told: list[float] = []

    class Counting(Silent):
        def progress(self, what: str, done: float, total: float) -> None:
            assert total == len(CONTENT)
            told.append(done)

    download(url, tmp_path / "file", SHA256, "the text", Counting(), QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert ranges(file.asked) == ["", *(f"bytes={60_000 * number}-" for number in range(1, 5))]
    assert {headers.get("If-Range") for headers in file.asked[1:]} == {'"one"'}
    assert told == sorted(set(told)) and told[-1] == len(CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@settings(max_examples=15)
@given(st.lists(st.one_of(st.sampled_from([503, 429]), st.integers(1, 200_000)), max_size=6), st.booleans())
def test_in_whatever_way_it_fails_the_file_is_whole(answers: list[int], with_ranges: bool) -> None:
    """Errors and breaks in any order, from a server that sends parts or always begins anew."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, serving() as server:
        ways = [answer if answer in (503, 429) else {"after": answer} for answer in answers]
        url, _ = server.has("/file", answers=[*ways, None], ranges=with_ranges)
        target = Path(folder) / "file"
        download(url, target, "", "the text", patience=Patience(tries=8, wait=0))
        assert target.read_bytes() == CONTENT and list(target.parent.iterdir()) == [target]


def test_an_attempt_that_brings_nothing_new_counts(server: Server, tmp_path: Path) -> None:
    url, file = server.has("/file", answers=[{"after": 1000}], tag="")  # no tag: each attempt begins anew
    target = tmp_path / "input.txt"
    assert str(refused(url, target)) == (
        f"{url}: the text could not be downloaded in 3 tries: the connection broke off after 1,000 of 256,000 bytes"
        f"\n  Get the file another way and put it at {target}."
    )
    assert ranges(file.asked) == [""] * 3 and list(tmp_path.iterdir()) == [target]


def test_what_has_come_is_kept_for_the_next_command(server: Server, tmp_path: Path) -> None:
    url, file = server.has("/file", answers=[{"after": 100_000}, 503, 503, None])
    target = tmp_path / "input.txt"
    assert str(refused(url, target)).endswith(
        f"0.1 MB of it are kept: the same command goes on from there. Or get the file another way and put it at {target}."
    )
    download(url, target, SHA256, "the text")
    assert target.read_bytes() == CONTENT and ranges(file.asked)[-1] == "bytes=100000-"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_has_left_is_taken_up(server: Server, tmp_path: Path) -> None:
    """With what was secured. What follows may be anything after a power cut, and is not taken."""
    url, file = server.has("/file", answers=[{"after": 150_000}, {"hang": 60}, None])
    target = tmp_path / "input.txt"
    code = (
        "import sys; from pathlib import Path; from core import download as module; module.KEPT = 65536\n"
        "module.download(sys.argv[1], Path(sys.argv[2]), '', 'the text', patience=module.Patience(wait=0))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url, str(target)], cwd=ROOT)
    while len(file.asked) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    part = tmp_path / f".part-{process.pid}-input.txt"
    assert part.stat().st_size == 150_000
    with part.open("r+b") as left:
        left.seek(140_000)
        left.write(bytes(5000))
    (tmp_path / f".part-{process.pid}-other-input.txt").write_bytes(b"of another file")
    download(url, target, SHA256, "the text")
    assert target.read_bytes() == CONTENT and ranges(file.asked)[-1] == "bytes=131072-"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".part-{process.pid}-other-input.txt", "input.txt"]


def left_behind(server: Server, target: Path) -> tuple[str, Any]:
    """A download of which 100,000 bytes have come."""
    url, file = server.has("/file", answers=[{"after": 100_000}, 404, None])
    with pytest.raises(UserError, match="of it are kept"):
        download(url, target, "", "the text", patience=QUICK)
    return url, file


@pytest.mark.parametrize("damage", ["beginning", "record", "shorter", "gone"])
def test_a_damaged_beginning_is_not_taken_up(server: Server, tmp_path: Path, damage: str) -> None:
    target = tmp_path / "file"
    url, file = left_behind(server, target)
    part, record = (tmp_path / f"{name}{os.getpid()}-file" for name in (module.PART, module.RECORD))
    if damage == "beginning":
        part.write_bytes(bytes(100_000))
    elif damage == "record":
        record.write_bytes(record.read_bytes().replace(b"100000", b"100001"))
    elif damage == "shorter":
        part.write_bytes(CONTENT[:50_000])
    else:
        part.unlink()
    download(url, target, "", "the text")
    assert target.read_bytes() == CONTENT and ranges(file.asked)[-1] == ""


def test_a_file_that_has_changed_meanwhile_is_loaded_anew(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file"
    url, file = left_behind(server, target)
    file.content, file.tag = CONTENT[::-1], '"two"'
    download(url, target, "", "the text")
    assert target.read_bytes() == CONTENT[::-1] and ranges(file.asked)[-1] == "bytes=100000-"


def test_a_file_that_is_shorter_now_is_loaded_anew(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file"
    url, file = left_behind(server, target)
    file.content = CONTENT[:999]
    download(url, target, "", "the text", patience=QUICK)
    assert target.read_bytes() == CONTENT[:999] and ranges(file.asked)[-2:] == ["bytes=100000-", ""]


def test_another_part_than_was_asked_for_is_not_taken(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file"
    url, file = left_behind(server, target)
    file.answers = [None, None, {"wrong": 7}, None]
    told = Told()
    download(url, target, SHA256, "the text", told, QUICK)
    assert target.read_bytes() == CONTENT
    assert told.said == ["the text: the server sent another part of the file than was asked for; trying again in 0 s"]


def test_another_address_begins_anew(server: Server, tmp_path: Path) -> None:
    left_behind(server, tmp_path / "file")
    url, file = server.has("/other")
    download(url, tmp_path / "file", SHA256, "the text")
    assert ranges(file.asked) == [""] and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_elsewhere_goes_on_too(server: Server, tmp_path: Path) -> None:
    """As on the hub, which sends to another host each time."""
    url, _ = server.has("/here", moved="/there")
    _, file = server.has("/there", answers=[{"after": 100_000}, None])
    download(url, tmp_path / "file", SHA256, "the text", patience=QUICK)
    assert ranges(file.asked) == ["", "bytes=100000-"]


def test_what_has_come_when_the_user_stops_it_is_kept(server: Server, tmp_path: Path) -> None:
    class Stopping(Silent):
        def progress(self, what: str, done: float, total: float) -> None:
            if done > 150_000:
                raise KeyboardInterrupt

    url, file = server.has("/file")
    with pytest.raises(KeyboardInterrupt):
        download(url, tmp_path / "file", "", "the text", Stopping())
    download(url, tmp_path / "file", SHA256, "the text")
    begin = int(ranges(file.asked)[1].removeprefix("bytes=").rstrip("-"))
    assert 0 < begin <= 150_000 and (tmp_path / "file").read_bytes() == CONTENT


def test_without_a_length_the_end_is_the_end(server: Server, tmp_path: Path) -> None:
    url, _ = server.has("/file", answers=[{"chunked": True}])
    download(url, tmp_path / "file", SHA256, "the text")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_full_disk_is_no_fault_of_the_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    url, _ = server.has("/file")
    monkeypatch.setattr(durable, "write", full)
    with pytest.raises(OSError, match=r"the disk is full: more than 0 bytes are needed, and .* are free"):
        download(url, tmp_path / "input.txt", "", "the text")
    assert list(tmp_path.iterdir()) == []


def test_the_listener_is_told_and_nothing_is_printed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[str, float, float]] = []

    class Heard(Silent):
        def progress(self, what: str, done: float, total: float) -> None:
            told.append((what, done, total))

    url, _ = server.has("/file")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    download(url, tmp_path / "a", "", "the text")
    download(url, tmp_path / "b", "", "the text", Heard())
    assert capsys.readouterr() == ("", "")
    size = (tmp_path / "b").stat().st_size
    assert {(what, total) for what, _, total in told} == {("downloading the text", size)}
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told}) and told[-1][1] == size


def test_the_first_download_is_trusted_and_checked_ever_after(server: Server, tmp_path: Path) -> None:
    target, record = tmp_path / "file", tmp_path / f"file{CHECKSUM}"
    url, file = server.has("/file")
    fetch(url, target, "", "the text")
    assert record.read_text() == f"{SHA256}  file\n"
    done = subprocess.run(["sha256sum", "-c", record.name], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "file: OK\n"
    fetch(url, target, "", "the text")
    assert len(file.asked) == 1

    target.write_bytes(b"other")
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(UserError) as error:
        fetch(url, target, "", "the text")
    assert str(error.value) == (
        f"{target}: does not match its checksum: its SHA-256 is {other}, not {SHA256}, as file.sha256 says"
        "\n  Delete the file to have it downloaded again. If it was changed on purpose, delete file.sha256."
    )
    target.unlink()
    file.content = b"the source has changed"
    with pytest.raises(UserError, match=r"the text does not match its checksum: its SHA-256 is \w+, not " + SHA256):
        fetch(url, target, "", "the text")
    assert not target.exists()
    file.content = CONTENT
    fetch(url, target, "", "the text")
    assert target.read_bytes() == CONTENT


def test_a_given_checksum_counts_more_than_the_first_download(server: Server, tmp_path: Path) -> None:
    target, record = tmp_path / "file", tmp_path / f"file{CHECKSUM}"
    url, _ = server.has("/file")
    target.write_bytes(b"put here by hand")
    with pytest.raises(UserError, match=r"not [0-9a-f]{64}\n  Delete the file to have it downloaded again\.$"):
        fetch(url, target, SHA256, "the text")
    target.unlink()
    record.write_text(f"{'0' * 64}  file\n")
    fetch(url, target, SHA256, "the text")
    assert target.read_bytes() == CONTENT and record.read_text().startswith(SHA256)


def test_a_file_put_there_by_hand_is_trusted_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"by hand")
    fetch("https://no-such-host.invalid/file", tmp_path / "file", "", "the text")
    assert (tmp_path / f"file{CHECKSUM}").is_file()


def test_a_redirect_never_leaves_https() -> None:
    handler = StaysEncrypted()

    def moved(old: str, new: str) -> Any:
        return handler.redirect_request(urllib.request.Request(old), None, 302, "Found", {}, new)

    with pytest.raises(ValueError, match="redirects to http://host/b, which is not https"):
        moved("https://host/a", "http://host/b")
    with pytest.raises(ValueError, match="redirects to ftp://host/b"):
        moved("https://host/a", "ftp://host/b")
    assert moved("https://host/a", "https://other/b").full_url == "https://other/b"
    assert moved("http://127.0.0.1/a", "http://127.0.0.1/b").full_url == "http://127.0.0.1/b"
