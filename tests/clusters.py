"""Processes below a command: which they are, and where they listen. Linux only."""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

LISTENING = "0A"  # the state of a socket in /proc/net/tcp


def parents() -> dict[int, int]:
    """Process -> its parent, of all that are there."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found


def below(root: int) -> list[int]:
    """The processes that descend from one."""
    of, found = parents(), []
    for process in of:
        above = process
        while above in of and above != root:
            above = of[above]
        if above == root and process != root:
            found.append(process)
    return found


def title(process: int) -> str:
    """A process's command line, or how it calls itself; "" if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def workers(root: int, task: str) -> list[int]:
    """Ray's workers below a process that have a task of this title."""
    return [process for process in below(root) if title(process).startswith(task)]


def raylets(root: int) -> list[int]:
    return [process for process in below(root) if "/raylet/raylet " in title(process)]


def listening(process: int) -> set[str]:
    """The addresses at which a process listens."""
    sockets, found = set(), set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                name = str(link.readlink())
                if name.startswith("socket:["):
                    sockets.add(name[8:-1])
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and fields[9] in sockets:
                    found.add(address(fields[1].partition(":")[0]))
    return found


def address(text: str) -> str:
    """An address of /proc/net/tcp, which has words of 4 bytes in the machine's order, in the usual form."""
    data = b"".join(bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    found = ipaddress.ip_address(data)
    return str(getattr(found, "ipv4_mapped", None) or found)
