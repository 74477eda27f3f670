"""meta.pkl: nanoGPT's is read, ours is nanoGPT's, and nothing in a pickle can run or grow."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pickle
import pickletools
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import QUIET, by_hand
from hypothesis import given
from hypothesis import strategies as st

from core.data.meta_pkl import MIB, read_meta, write_meta
from core.errors import UserError

TEXT = "hello there, wörld 😀\n"
CHARACTERS = sorted(set(TEXT))
# What nanoGPT's data/shakespeare_char/prepare.py dumps.
NANOGPT = {
    "vocab_size": len(CHARACTERS),
    "itos": dict(enumerate(CHARACTERS)),
    "stoi": {character: number for number, character in enumerate(CHARACTERS)},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meta.pkl"


def refused(path: Path, data: bytes) -> str:
    """The message with which a file is refused."""
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_meta(path)
    assert error.value.place == str(path)
    assert error.value.remedy
    return error.value.message


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("optimized", [False, True])
def test_nanogpts_file_is_read_in_every_protocol(path: Path, protocol: int, optimized: bool) -> None:
    data = pickle.dumps(NANOGPT, protocol)
    path.write_bytes(pickletools.optimize(data) if optimized else data)
    assert read_meta(path) == NANOGPT


def test_ours_is_what_nanogpt_writes(path: Path) -> None:
    write_meta(path, CHARACTERS)
    assert pickle.loads(path.read_bytes()) == NANOGPT
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(path.read_bytes())) <= 4


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.text(max_size=3), inner, max_size=4)
                | st.tuples(inner, inner)
            ),
            max_leaves=15,
        ),
    ),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_plain_containers_are_read(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any], protocol: int
) -> None:
    path = tmp_path_factory.mktemp("meta") / "meta.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_meta(path) == value


class Bomb:
    """Runs code when it is loaded by pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import builtins; builtins.EXECUTED = True",)


def executed() -> bool:
    import builtins

    return hasattr(builtins, "EXECUTED")


@pytest.mark.parametrize(
    "value",
    [
        Bomb(),
        {"vocab_size": 1, "itos": {0: Bomb()}},
        collections.OrderedDict(vocab_size=1),
        {"itos": np.arange(3)},
        {"vocab_size": np.int64(3)},
        {1, 2},
        print,
        b"bytes",
        {"itos": bytearray(b"x")},
        2**3000,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_anything_but_plain_containers_is_refused(path: Path, value: Any, protocol: int) -> None:
    message = refused(path, pickle.dumps(value, protocol))
    assert message.startswith("not a plain vocabulary: ")
    assert not executed()


def test_the_refusal_names_the_opcode_and_its_place(path: Path) -> None:
    assert "GLOBAL at byte 0: only plain dicts, lists, text and numbers are read" in refused(
        path, b"cos\nsystem\n(S'true'\ntR."
    )
    assert refused(path, pickle.dumps([1])) == "not a plain vocabulary: list instead of dict"
    assert refused(path, b"").startswith("not a plain vocabulary: ")


def test_a_large_file_is_refused_before_it_is_read(path: Path) -> None:
    data = pickle.dumps({"itos": ["x" * 1000] + [f"{number:09}" for number in range(100_000)]})
    assert len(data) > MIB
    assert refused(path, data) == "not a plain vocabulary: larger than 1 MiB"
    assert len(read_meta(path, limit=2 * len(data))["itos"]) == 100_001


def test_short_pickles_cannot_ask_for_much(path: Path) -> None:
    memo = b"\x80\x04}r" + struct.pack("<I", 2**31) + b"."
    assert "memo number 2147483648 out of turn" in refused(path, memo)
    doubling = b"\x80\x04]\x94" + b"".join(b"(h%ch%c]\x94e" % (n, n) for n in range(60)) + b"."
    assert "a container is used twice" in refused(path, doubling)
    assert "more than 1000 tuples" in refused(path, b"\x80\x04})" + b"\x85" * 100_000 + b"Ns.")
    refused(path, b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.")
    refused(path, b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.")


def test_the_worst_files_of_the_allowed_size_stay_small_and_quick(path: Path) -> None:
    """One process reads files made of each opcode that creates something; its memory is looked at from outside."""
    bodies = [b"}", b"(", b"}\x94", b"\x8c\x00", b"}K\x01K\x02s"]
    path.with_name("bodies").write_bytes(pickle.dumps(bodies))
    script = f"""
import pickle, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from hostile import peak
from core.data.meta_pkl import MIB, read_meta
from core.errors import UserError
path = Path({str(path)!r})
for body in pickle.loads(path.with_name("bodies").read_bytes()):
    path.write_bytes(b"\\x80\\x04" + (body * (MIB // len(body)))[:MIB - 8] + b".")
    try:
        read_meta(path)
    except UserError:
        pass
print(peak())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 200  # MiB


def test_the_limit_can_be_raised(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(pickle.dumps({"itos": [f"{number:09}" for number in range(200_000)]}))
    assert path.stat().st_size > 2 * MIB
    with pytest.raises(UserError, match="larger than 1 MiB") as error:
        read_meta(path)
    assert "TERRARIUM_META_MIB=N" in error.value.remedy
    monkeypatch.setenv("TERRARIUM_META_MIB", "2")
    with pytest.raises(UserError, match="larger than 2 MiB"):
        read_meta(path)
    monkeypatch.setenv("TERRARIUM_META_MIB", "4")
    assert len(read_meta(path)["itos"]) == 200_000
    for wrong in ("much", "-1", "0", "5000", "1.5", "9" * 6000):
        monkeypatch.setenv("TERRARIUM_META_MIB", wrong)
        with pytest.raises(UserError, match="is not a number of MiB"):
            read_meta(path)


def test_the_harmful_pickles_would_run_if_they_were_loaded_carelessly(tmp_path: Path) -> None:
    ran = []
    for number, name in enumerate(by_hand(tmp_path)):
        mark = tmp_path / str(number)
        with contextlib.suppress(Exception):
            pickle.loads(by_hand(mark)[name])
        ran += [name] * mark.exists()
        refused_or_plain(tmp_path / "meta.pkl", by_hand(mark)[name])
    assert set(by_hand(tmp_path)) - set(ran) == QUIET


def refused_or_plain(path: Path, data: bytes) -> None:
    """A file is refused, or gives the plain dict that stands before its harmful part."""
    path.write_bytes(data)
    try:
        assert read_meta(path) == {}
    except UserError as error:
        assert error.message.startswith("not a plain vocabulary: ")


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_mutants_never_run_and_never_grow(count: int) -> None:
    """In a process of its own, which may not have more than 256 MiB of addresses, its own code included."""
    command = [sys.executable, str(Path(__file__).parent / "hostile.py"), str(count), "0", "256"]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ran"] == []
    assert found["read"] + found["refused"] == count
    assert found["read"] > count // 100
    assert found["peak"] < 200  # MiB, of the whole process; 18 were seen
