"""Programs in the sandbox: whatever they do, it stays inside, ends soon, and does not count as passed."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import UserError
from core.sandbox import bubblewrap
from core.sandbox.bubblewrap import ERROR, LEFT, MEMORY, PASSED, TIME, WRONG, Sandbox, SandboxLimits, open_sandbox
from core.sandbox.calls import ALLOW, PROCESSORS, RETURN, struct

ROOT = Path(__file__).parents[1]
SMALL = SandboxLimits(cpu=1, wall=1.5, memory=128 << 20, disk=1 << 20)
INSTALL = "Install bubblewrap 0.8 or later, such as with `apt install bubblewrap` or `dnf install bubblewrap`."


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return open_sandbox(SMALL)
    except UserError as error:
        pytest.skip(f"no sandbox here: {error.message}")


def started_by(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    parents = dict[int, int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            parents[int(path.parent.name)] = int(parent)
    found, new = list[int](), [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = set(started_by(os.getpid()))
    yield
    assert set(started_by(os.getpid())) <= before


def everywhere(text: str) -> str:
    """A program that writes a text to whatever it can write to, and leaves."""
    return f"import os\nfor n in range(64):\n    try: os.write(n, {text})\n    except OSError: pass\nos._exit(0)"


PROGRAMS = {
    "right": ("x = 1\nassert x == 1", PASSED),
    "wrong": ("assert 1 == 2", WRONG),
    "raises": ("1 / 0", ERROR),
    "is no code": ("def (", ERROR),
    "leaves": ("import sys; sys.exit(0)", ERROR),
    "leaves at once": ("import os; os._exit(0)", LEFT),
    "crashes": ("import ctypes; ctypes.string_at(0)", LEFT),
    "says that it passed": (everywhere("b'passed'"), LEFT),
    "guesses the secret": (everywhere("b'0' * 32"), LEFT),
    "loops": ("while True: pass", TIME),
    "loops and ignores signals": (
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass",
        TIME,
    ),
    "catches everything": ("while True:\n    try:\n        while True: pass\n    except BaseException: pass", TIME),
    "waits": ("import time; time.sleep(1000)", TIME),
    "eats memory": ("found = []\nwhile True: found.append(bytearray(10_000_000))", MEMORY),
    "eats memory in one": ("bytes(10 ** 12)", MEMORY),
    "prints gigabytes": ("import sys\nwhile True: print('x' * 10 ** 6); sys.stderr.write('x' * 10 ** 6)", TIME),
    "writes gigabytes everywhere": (f"while True:\n    try: {everywhere('bytes(10 ** 6)').splitlines()[0]}\n    except: pass\n    for n in range(64):\n        try: os.write(n, bytes(10 ** 6))\n        except OSError: pass", LEFT),
    "fills the disk": ("for n in range(100):\n    with open(str(n), 'wb') as file: file.write(bytes(10 ** 5))", ERROR),
    "writes a large file": ("with open('a', 'wb') as file:\n    while True: file.write(bytes(10 ** 5))", ERROR),
    "forks": ("import os; os.fork()", ERROR),
    "a fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", TIME),
    "starts a program": ("import subprocess, sys; subprocess.run([sys.executable, '-c', ''])", ERROR),
    "starts threads": ("import threading\nwhile True: threading.Thread(target=input).start()", ERROR),
    "kills its group": ("import os; os.killpg(0, 9)", LEFT),
    "kills everybody": ("import os; os.kill(-1, 9)", ERROR),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", LEFT),
    "kills its parent": ("import os; os.kill(os.getppid(), 9); os.kill(1, 9)", PASSED),  # nobody dies of it
    "reads passwords": ("open('/etc/passwd')", ERROR),
    "writes to the system": ("import os; open(os.__file__, 'a')", ERROR),
    "writes beside it": ("open('/new', 'w')", ERROR),
    "a socket": ("import socket; socket.socket()", ERROR),
    "a socket for its own": ("import socket; socket.socketpair()", ERROR),
    "lifts its limits": ("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", ERROR),
    "its folder is empty": ("import os; assert os.getcwd() == '/tmp' and os.listdir() == []; open('a', 'w').write('b')", PASSED),
    "its home is empty": ("import os; assert os.listdir(os.path.expanduser('~')) == []", PASSED),
    "is nobody": ("import os; assert os.getuid() == os.getgid() == 65534 and os.getpid() == 2", PASSED),
    "sees no processes": ("import os; assert not os.path.exists('/proc/1') and not os.path.exists('/sys')", PASSED),
    "dataclasses": ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nassert A(1) == A(1)", PASSED),
    "sets have one order": ("assert hash('a') == hash('a') and list({'a', 'b', 'c'}) == list({'c', 'b', 'a'})", PASSED),
}  # fmt: skip
SLOW = ("prints gigabytes", "catches everything", "waits", "loops and ignores signals")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PROGRAMS]
)
def test_whatever_a_program_does_it_stays_inside(sandbox: Sandbox, name: str) -> None:
    program, wanted = PROGRAMS[name]
    began = time.monotonic()
    assert sandbox.run([program]) == wanted
    assert time.monotonic() - began < 10


def test_the_limits_are_reached_by_the_clock_or_by_computing(sandbox: Sandbox) -> None:
    patient = Sandbox(sandbox.command[0], sandbox.refused, SandboxLimits(cpu=1, wall=30.0))
    began = time.monotonic()
    assert patient.run(["while True: pass"]) == TIME
    assert time.monotonic() - began < 20


def test_a_part_cannot_swallow_the_next_one(sandbox: Sandbox) -> None:
    assert sandbox.run(["x = '''", "assert False", "'''"]) == ERROR
    assert sandbox.run(["def check(f): pass", "def check(f): assert f() == 1", "check(lambda: 2)"]) == WRONG
    assert sandbox.run(["import os\nos.read = lambda *_: b'x'", "pass"]) == LEFT


def test_the_secret_is_not_in_the_memory_of_a_program(sandbox: Sandbox) -> None:
    """Neither in a frame nor in any object that Python knows of."""
    program = """
import gc, re, sys
secret = re.compile("^[0-9a-f]{32}$")
frame, known = sys._getframe(), [sys.argv, sys.modules["__main__"].__dict__]
while frame:
    known.append(dict(frame.f_locals))
    frame = frame.f_back
for each in [*known, *gc.get_objects()]:
    for value in list(each.values()) if isinstance(each, dict) else each if isinstance(each, (list, tuple, set)) else [each]:
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        assert not (isinstance(text, str) and secret.match(text))
"""
    assert sandbox.run([program]) == PASSED


def test_nothing_of_here_is_there(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither files nor variables, in whatever folder."""
    monkeypatch.setenv("MY_TOKEN", "1234")
    (tmp_path / "mine").write_text("a")
    here = [
        str(tmp_path / "mine"),
        str(ROOT),
        str(Path.home() / ".ssh"),
        "/home",
        "/var",
        "/run",
        "/mnt",
        "/boot",
        "/usr/bin/env",
    ]
    program = (
        f"import os\nassert [path for path in {here!r} if os.path.exists(path)] == [] and 'MY_TOKEN' not in os.environ"
    )
    assert sandbox.run([program]) == PASSED
    outside = tmp_path / "outside"
    assert sandbox.run([f"open({str(outside)!r}, 'w')"]) == ERROR
    assert not outside.exists()


def test_there_is_no_network_even_with_sockets(sandbox: Sandbox) -> None:
    """Without the filter of calls, a program still reaches no server of this machine."""
    everything = struct.pack("=HBBI", RETURN, 0, 0, ALLOW)
    open_calls = Sandbox(sandbox.command[0], everything, SMALL)
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        assert open_calls.run([connect]) == ERROR
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
    assert open_calls.run(["import socket\nsocket.socket()"]) == PASSED


def test_what_a_program_starts_ends_with_it(sandbox: Sandbox) -> None:
    """Without the filter of calls: the kernel ends all processes of its namespace."""
    everything = struct.pack("=HBBI", RETURN, 0, 0, ALLOW)
    open_calls = Sandbox(sandbox.command[0], everything, SMALL)
    program = "import os, time\nfor _ in range(5): os.fork()\nos.setsid() if os.getpid() > 2 else 0\ntime.sleep(1000)"
    assert open_calls.run([program]) == TIME  # `nothing_is_left` looks for the rest


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the table of x86_64")
def test_numbers_are_those_of_the_kernel() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.is_file():
        pytest.skip("the kernel's header is not here")
    known = dict(line.split()[1:3] for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    calls = PROCESSORS["x86_64"].calls
    assert {name: int(known[f"__NR_{name}"]) for name in calls if f"__NR_{name}" in known} == calls


def test_many_at_once(sandbox: Sandbox) -> None:
    told = list[tuple[int, int]]()
    programs = [[f"assert {number} % 3"] for number in range(12)]
    found = sandbox.run_all(programs, 2, lambda done, total: told.append((done, total)))
    assert found == [PASSED if number % 3 else WRONG for number in range(12)]
    assert told == [(number, 12) for number in range(1, 13)]


def test_an_interruption_ends_all(sandbox: Sandbox) -> None:
    patient = Sandbox(sandbox.command[0], sandbox.refused, SandboxLimits(wall=60.0))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        patient.run_all([["pass"], *[["import time; time.sleep(50)"]] * 5], 2, stop)
    assert time.monotonic() - began < 10 and not patient.running


def test_it_dies_with_its_parent(sandbox: Sandbox) -> None:
    script = "from core.sandbox.bubblewrap import *\nopen_sandbox().run(['import time; time.sleep(1000)'])"
    parent = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)})
    end = time.monotonic() + 20
    while len(inside := started_by(parent.pid)) < 3:  # bubblewrap, the first process of its namespace, the program
        assert time.monotonic() < end and parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(is_alive(pid) for pid in inside):
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Where there is none


def refused(monkeypatch: pytest.MonkeyPatch, path: Path) -> UserError:
    """The error of opening a sandbox where only one folder has programs."""
    monkeypatch.setenv("PATH", str(path))
    with pytest.raises(UserError) as raised:
        open_sandbox()
    return raised.value


linux = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in PROCESSORS, reason="needs Linux"
)


@linux
def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error = refused(monkeypatch, tmp_path)
    message = "`run_code=True`: the program bwrap is not installed, and nothing is run without it"
    assert str(error) == f"{message}\n  {INSTALL}"


@linux
@pytest.mark.parametrize("ending", ["exit 1", "read line", "kill -9 $$"])
def test_bubblewrap_that_does_not_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str) -> None:
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\necho 'bwrap: No permissions to create new namespace'\n{ending}\n")
    (tmp_path / "bwrap").chmod(0o755)
    error = refused(monkeypatch, tmp_path)
    assert error.message.endswith("nothing is run without it: bwrap: No permissions to create new namespace")
    assert error.remedy.startswith("It needs version 0.8 and user namespaces")


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "riscv64")])
def test_other_systems(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(bubblewrap.sys, "platform", system)
    monkeypatch.setattr(bubblewrap.platform, "machine", lambda: machine)
    with pytest.raises(
        UserError, match="programs can be run on Linux with x86_64 or aarch64 only; this is .* with " + machine
    ):
        open_sandbox()


def test_threads_of_the_clock_end(sandbox: Sandbox) -> None:
    before = threading.active_count()
    sandbox.run(["pass"])
    assert threading.active_count() == before
