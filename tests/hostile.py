"""Files that would run code if they were loaded carelessly, and mutants of pickles; what the tests of safe loading share.

As a program, `python hostile.py COUNT SEED LIMIT_MIB`: reads so many mutants of meta.pkl under a limit on memory, and
prints as JSON how many were read and refused, what ran, and the peak of memory.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import struct
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

MIB = 1 << 20


class Runs:
    """Code that a pickle runs when it is loaded: it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def by_hand(mark: Path) -> dict[str, bytes]:
    """Pickles that call os.mkdir(mark), each by other opcodes; those of QUIET only ask for what they should not."""
    text = str(mark).encode()
    name = b"X" + struct.pack("<I", len(text)) + text
    call = b"cos\nmkdir\n" + name + b"\x85R"
    return {
        "global and reduce": b"\x80\x02" + call + b".",
        "in protocol 0": b"cos\nmkdir\n(V" + text + b"\ntR.",
        "inst": b"(" + name + b"ios\nmkdir\n.",
        "obj": b"(cos\nmkdir\n" + name + b"o.",
        "newobj": b"\x80\x02cio\nFileIO\n" + name + b"X\x01\x00\x00\x00w\x86\x81.",
        "newobj with keywords": b"\x80\x04cio\nFileIO\n" + name + b"\x85}\x8c\x04mode\x8c\x01ws\x92.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + name + b"\x85R.",
        "in a vocabulary": b"\x80\x02}X\x04\x00\x00\x00itos" + call + b"s.",
        "as a key": b"\x80\x02}" + call + b"K\x01s.",
        "behind the end": b"\x80\x02}." + call + b".",
        "build": b"\x80\x02" + call + b"}b.",
        "persistent": b"P" + text + b"\n.",
        "extension": b"\x80\x02\x82\x01" + name + b"\x85R.",
        "frame that lies": b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00}" + call + b".",
        "buffer": b"\x80\x05\x97" + call + b".",
    }


QUIET = {"newobj", "newobj with keywords", "behind the end", "persistent", "extension", "buffer"}


def archive(pickled: bytes, **more: bytes) -> bytes:
    """A file as torch.save writes it, around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", **more}.items():
            file.writestr(f"ckpt/{name}", content)
    return buffer.getvalue()


def safetensors(header: bytes | dict[str, Any], data: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    """A safetensors file around any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def mutant(generator: random.Random, seeds: list[bytes]) -> bytes:
    """A pickle with some bytes changed, put in, taken out, or put in from another one."""
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.randint(1, 6)):
        place = generator.randrange(len(data) + 1)
        kind = generator.randrange(4)
        if kind == 0:
            data[place : place + 1] = bytes([generator.randrange(256)])
        elif kind == 1:
            data[place:place] = generator.randbytes(generator.randint(1, 5))
        elif kind == 2:
            del data[place : place + generator.randint(1, 8)]
        else:
            other = generator.choice(seeds)
            data[place:place] = other[generator.randrange(len(other)) :][: generator.randint(1, 40)]
    return bytes(data)


def read_mutants(count: int, seed: int, limit: int) -> dict[str, Any]:
    """Read mutants in this process, whose memory is limited to `limit` bytes of addresses from here on."""
    from core.data.meta_pkl import read_meta
    from core.errors import UserError

    ran: list[str] = []
    watched = ("pickle.find_class", "exec", "compile", "import", "os.system", "subprocess.Popen", "os.posix_spawn")
    allowed = ["armed"]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not allowed and event in watched:
            ran.append(event)

    small = {"vocab_size": 2, "itos": {0: "a", 1: "é"}, "stoi": {"a": 0, "é": 1}}
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        mark, path = Path(folder) / "mark", Path(folder) / "meta.pkl"
        seeds = [pickle.dumps(small, protocol) for protocol in range(6)] * 2
        seeds += [pickle.dumps({"itos": {0: Runs(mark)}, "stoi": {"a": 0}}, protocol) for protocol in (0, 2, 4)]
        seeds += by_hand(mark).values()
        path.write_bytes(seeds[0])
        read_meta(path)  # what is imported late is imported now
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.addaudithook(watch)
        read = refused = 0
        for _ in range(count):
            path.unlink()  # a new file: to cut an old one down makes the file system write it out
            path.write_bytes(mutant(generator, seeds))
            allowed.clear()
            try:
                read += isinstance(read_meta(path), dict)
            except UserError:
                refused += 1
            allowed.append("armed")
        ran += ["a file was made"] * mark.exists()
    return {"read": read, "refused": refused, "ran": ran, "peak": peak()}


def peak() -> float:
    """Most memory that this program has had, MiB. (getrusage begins with that of the process that started this one.)"""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    print(json.dumps(read_mutants(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) * MIB)))
