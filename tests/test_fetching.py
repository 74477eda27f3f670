"""fetch in prepare.py: files by address, kept and checked, also in shards; and tables that are read row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import Server, serving
from hypothesis import given
from hypothesis import strategies as st
from preparing import error_of, prepared, run, write

from core.data.fetching import numbered, place_of, table_rows
from core.errors import UserError

SHARDS = '''"""Words from shards."""

from core.data.fetching import numbered, table_rows


def documents(fetch, *, words: str):
    for address in numbered(words):
        for row in table_rows(fetch(address)):
            yield row["text"]
'''


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def shards(server: Server, count: int) -> str:
    """Offer JSON lines in shards. Returns their pattern."""
    for number in range(count):
        lines = [json.dumps({"text": f"shard {number}, line {line}\n"}) for line in range(40)]
        server.has(f"/words/shard_{number:05}.jsonl", content="\n".join(lines).encode())
    return f"{server.url}/words/shard_{{00000..{count - 1:05}}}.jsonl"


def test_shards_are_downloaded_once_and_kept(server: Server, tmp_path: Path) -> None:
    folder = write(tmp_path / "words", SHARDS)
    pattern = shards(server, 3)
    server.files["/words/shard_00001.jsonl"].answers = [{"after": 500}, 503, None]
    setting = f"prepare.params.words={pattern}"
    assert prepared(folder, setting)
    kept = folder / "datasets" / "raw" / f"127.0.0.1_{server.server_port}" / "words"
    names = [f"shard_{number:05}.jsonl" for number in range(3)]
    assert sorted(path.name for path in kept.iterdir()) == sorted([*names, *(f"{name}.sha256" for name in names)])
    asked = [len(file.asked) for file in server.files.values()]
    assert asked == [1, 3, 1]
    assert not prepared(folder, setting)
    run(folder, [setting], force=True)
    assert [len(file.asked) for file in server.files.values()] == asked

    first = kept / "shard_00000.jsonl"
    first.write_text('{"text": "by hand"}\n')
    assert "does not match its checksum" in str(error_of(folder, setting))
    (kept / "shard_00000.jsonl.sha256").unlink()
    assert prepared(folder, setting)


def test_only_the_shards_that_are_needed_are_downloaded(server: Server, tmp_path: Path) -> None:
    folder = write(tmp_path / "words", SHARDS, "[prepare]\nsize = 1200\n")
    run(folder, [f"prepare.params.words={shards(server, 9)}"])
    assert [bool(file.asked) for file in server.files.values()] == [True, True, *[False] * 7]


def test_a_shard_that_fails_for_good_is_named_and_the_others_are_kept(server: Server, tmp_path: Path) -> None:
    folder = write(tmp_path / "words", SHARDS)
    pattern = shards(server, 3)
    lost = server.files.pop("/words/shard_00001.jsonl")
    error = error_of(folder, f"prepare.params.words={pattern}")
    assert error.place.endswith("/words/shard_00001.jsonl")
    assert error.message == "shard_00001.jsonl could not be downloaded: HTTP Error 404: Not Found"
    server.files["/words/shard_00001.jsonl"] = lost
    run(folder, [f"prepare.params.words={pattern}"])
    assert len(server.files["/words/shard_00000.jsonl"].asked) == 1


def test_a_checksum_may_be_given(server: Server, tmp_path: Path) -> None:
    folder = write(tmp_path / "words", SHARDS)
    setting = f"prepare.params.words={shards(server, 1)}"
    error = error_of(folder, f"{setting}#sha256={'0' * 64}")
    assert "shard_00000.jsonl does not match its checksum" in error.message
    right = hashlib.sha256(server.files["/words/shard_00000.jsonl"].content).hexdigest()
    run(folder, [f"{setting}#sha256={right}"])
    error = error_of(folder, f"{setting}#sha256=1234")
    assert error.message == "#sha256=1234 is no checksum"
    assert error.remedy == "Write #sha256= and 64 hexadecimal digits, or leave it out."


def test_a_file_instead_of_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "words", SHARDS)
    lines = "".join(json.dumps({"text": f"line {number}\n"}) + "\n" for number in range(99))
    (folder / "words.jsonl").write_text(lines)
    assert prepared(folder, "prepare.params.words=words.jsonl")
    (folder / "words.jsonl").write_text(lines.replace("line", "row"))
    assert prepared(folder, "prepare.params.words=words.jsonl")  # it is an input, and has changed
    (tmp_path / "here.jsonl").write_text(lines)
    monkeypatch.chdir(tmp_path)
    assert prepared(folder, "prepare.params.words=here.jsonl")
    error = error_of(folder, "prepare.params.words=nowhere.jsonl")
    assert str(error) == f"{folder}/nowhere.jsonl: there is no such file\n  Give https://... or a file."


def test_only_a_machine_s_own_files_come_without_encryption(tmp_path: Path) -> None:
    folder = write(tmp_path / "words", SHARDS)
    error = error_of(folder, "prepare.params.words=http://example.org/words.jsonl")
    assert str(error) == "http://example.org/words.jsonl: is not an https address\n  Give https://... or a file."


def test_prepare_and_held_out_may_fetch_too(server: Server, tmp_path: Path) -> None:
    url, _ = server.has("/words.txt", content=b"one two three four")
    code = (
        "from core import Example\n\ndef prepare(job):\n"
        f"    words = job.fetch({url!r}).read_text().split()\n"
        "    job.write([Example(f'{word}: ', word) for word in words], [Example('val: ', 'val')])\n"
    )
    assert len(run(write(tmp_path / "job", code)).examples("train", 9)) == 4
    code = (
        "from core import Example\n\ndef documents():\n"
        "    yield from (Example(f'{number}: ', 'one\\n') for number in range(40))\n\n"
        f"def held_out(fetch):\n    yield Example(fetch({url!r}).read_text(), 'two\\n')\n"
    )
    held_out = run(write(tmp_path / "held", code)).examples("held_out", 9)
    assert [each.prompt for each in held_out] == ["one two three four"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("s{08..11}.parquet", ["s08.parquet", "s09.parquet", "s10.parquet", "s11.parquet"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{0..1}-{0..1}", ["0-0", "0-1", "1-0", "1-1"]),
        ("{3..3}", ["3"]),
        ("{name}", ["{name}"]),
    ],
)
def test_numbers_in_a_pattern(pattern: str, names: list[str]) -> None:
    assert numbered(pattern) == names


@given(st.integers(0, 300), st.integers(0, 40), st.integers(1, 6))
def test_numbers_are_all_there_and_as_wide_as_the_first(first: int, more: int, digits: int) -> None:
    names = numbered(f"x{{{first:0{digits}}..{first + more:0{digits}}}}y")
    assert [int(name[1:-1]) for name in names] == list(range(first, first + more + 1))
    assert all(len(name) >= digits + 2 for name in names) and len({*names}) == more + 1


def test_numbers_that_go_down_are_a_mistake() -> None:
    with pytest.raises(UserError) as error:
        numbered("a{3..1}")
    assert str(error.value) == "a{3..1}: {3..1} holds no numbers\n  Write the smaller number first."


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("https://host/a/b.txt", "host/a/b.txt"),
        ("https://host:80/a/../../b", "host_80/a/_/_/b-H"),
        ("https://host/", "host/_-H"),
        ("https://host/.hidden.csv?x=1&y=%2F", "host/_hidden-H.csv"),
        ("https://host/a%2F..%2Fb", "host/a/_/b-H"),
    ],
)
def test_a_download_stays_below_its_folder(address: str, place: str) -> None:
    assert place_of(address) == Path(place.replace("H", hashlib.sha256(address.encode()).hexdigest()[:12]))


def test_no_two_addresses_share_a_file(tmp_path: Path, server: Server) -> None:
    assert place_of("https://h/get?id=1&x=2") != place_of("https://h/get?id=1_x=2")
    assert place_of("https://h/a b") != place_of("https://h/a_b")
    folder = write(tmp_path / "words", SHARDS)
    url, _ = server.has("/words", content=b"x")
    place = folder / "datasets" / "raw" / place_of(url)
    place.parent.mkdir(parents=True)
    place.write_text("x")
    error = error_of(folder, f"prepare.params.words={url}/more.jsonl")
    assert f"{place} is a file" in str(error) and "set prepare.raw_dir" in str(error)


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_a_machine_s_own_files_come_by_http_only(tmp_path: Path, scheme: str) -> None:
    folder = write(tmp_path / "words", SHARDS)
    error = error_of(folder, f"prepare.params.words={scheme}://localhost/words.jsonl")
    assert "is not an https address" in str(error)


@given(st.text(min_size=1))
def test_no_address_leaves_the_folder(path: str) -> None:
    place = place_of(f"https://host/{path}")
    assert not place.is_absolute() and ".." not in place.parts and place.parts[0] == "host"
    assert not any(part.startswith(".") for part in place.parts)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        next(table_rows(tmp_path / "a.txt"))
    assert str(error.value) == (f"{tmp_path}/a.txt: is no table\n  Its name must end in .csv, .tsv, .jsonl, .parquet.")


def test_parquet_is_read_as_a_stream(tmp_path: Path) -> None:
    """Memory does not grow with the file: of 64 MB, only a few are held at once."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "texts.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())]), compression="none", use_dictionary=False) as writer:
        for group in range(32):
            texts = [f"{group} {number} {'x' * 1000}" for number in range(2000)]
            writer.write_table(pa.table({"text": texts}))
    assert path.stat().st_size > 60e6
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for number, _ in enumerate(table_rows(path)) if number % 500 == 0]
    assert len(held) == 128 and max(held) < 12e6
