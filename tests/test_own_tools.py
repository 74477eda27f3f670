"""prepare.py's own tools run in a process of their own: whatever they do, the answer is a short text, and soon."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.chat import own_tools as parent
from core.chat.own_tools import ToolProcess, own_tools
from core.chat.tools import CUT, MOST_CHARACTERS, Tools

ROOT = Path(__file__).parents[1]
CODE = '''"""Tools of all kinds."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from .words import WORD

print("this is not for anybody")


def documents(rng):
    yield "a"


class Odd(Exception):
    def __str__(self):
        raise ValueError


def fail(kind):
    raise {"odd": Odd(), "value": ValueError("no\\n such city"), "exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "long": ValueError("x" * 10**6)}[kind]


def eat(text):
    found = []
    while True:
        found.append(bytearray(50_000_000))


def start(text):
    started = subprocess.Popen(["sleep", "1000"])
    Path(text).write_text(str(started.pid))
    time.sleep(1000)


def tools():
    return {
        "up": str.upper,
        "word": lambda text: WORD,
        "fail": fail,
        "eat": eat,
        "start": start,
        "hang": lambda text: time.sleep(1000),
        "spin": lambda text: str(re.match(r"(a+)+$", "a" * 40 + "b")),  # in C code, which no thread interrupts
        "deaf": lambda text: signal.signal(signal.SIGTERM, signal.SIG_IGN) or time.sleep(1000),
        "big": lambda text: "x" * 50_000_000,
        "print": lambda text: print("y" * 10_000_000) or sys.stderr.write("z" * 10_000_000) and "printed",
        "write": lambda text: str(os.write(1, b"{}\\n" * 1000)),
        "read": lambda text: repr(sys.stdin.read()),
        "input": lambda text: input(),
        "number": lambda text: 3,
        "half": lambda text: "\\ud800",
        "crash": lambda text: ctypes.string_at(0),
        "leave": lambda text: os._exit(0),
        "deep": lambda text: eval("(" * 50 + "1" + ")" * 50) and (lambda f: f(f))(lambda f: f(f)),
        "pid": lambda text: str(os.getpid()),
    }
'''
NAMES = ["up", "word", "fail", "eat", "start", "hang", "spin", "deaf", "big", "print", "write", "read", "input", "number", "half", "crash", "leave", "deep", "pid"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "own"
    folder.mkdir()
    (folder / "prepare.py").write_text(CODE)
    (folder / "words.py").write_text('WORD = "moss"\n')
    return folder


@pytest.fixture(scope="module")
def tools(folder: Path) -> Iterator[Tools]:
    yield own_tools(folder, NAMES, seconds=2.0, memory=1 << 28)


SHORT = [
    ("up", "äb c", "ÄB C"), ("word", "", "moss"), ("fail", "value", "error: ValueError: no such city"), ("fail", "odd", "error: Odd"),
    ("fail", "exit", "error: SystemExit: 3"), ("fail", "interrupt", "error: KeyboardInterrupt"), ("fail", "?", "error: KeyError: '?'"),
    ("print", "", "printed"), ("write", "", "3000"), ("read", "", "''"), ("input", "", "error: EOFError: EOF when reading a line"),
    ("number", "", "error: number gave int, not text"), ("half", "", "\ud800"), ("deep", "", "error: RecursionError: maximum recursion depth exceeded"),
    ("big", "", "x" * (MOST_CHARACTERS - len(CUT)) + CUT), ("fail", "long", ("error: ValueError: " + "x" * MOST_CHARACTERS)[: MOST_CHARACTERS - len(CUT)] + CUT),
    ("eat", "", "error: MemoryError"),
]  # fmt: skip
ENDED = [
    ("hang", "error: no result after 2 seconds"), ("spin", "error: no result after 2 seconds"), ("deaf", "error: no result after 2 seconds"),
    ("crash", "error: the tool has ended its process"), ("leave", "error: the tool has ended its process"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "argument", "wanted"), SHORT, ids=lambda value: str(value)[:20])
def test_what_a_tool_gives_or_raises_is_text(tools: Tools, name: str, argument: str, wanted: str) -> None:
    process = tools["pid"]("")
    assert tools[name](argument) == wanted
    assert tools["up"]("a") == "A" and tools["pid"]("") == process  # the same one goes on


@pytest.mark.parametrize(("name", "wanted"), ENDED)
def test_a_tool_that_hangs_or_dies_is_replaced(tools: Tools, name: str, wanted: str) -> None:
    process = int(tools["pid"](""))
    began = time.monotonic()
    assert tools[name]("") == wanted
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert tools["up"]("a") == "A"


def is_alive(process: int) -> bool:
    """Whether a process is there, and has not ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def ends(process: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_what_a_tool_has_started_ends_with_it(tools: Tools, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    assert tools["start"](str(file)) == "error: no result after 2 seconds"
    assert ends(int(file.read_text()), 5)


def test_it_starts_at_the_first_call_and_ends_with_its_tools(folder: Path) -> None:
    process = ToolProcess(folder, 2.0, 1 << 28)
    assert process.process is None
    number = int(process.call("pid", ""))
    assert is_alive(number)
    del process
    gc.collect()
    assert ends(number, 5)


def test_many_threads_share_it(tools: Tools) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tools["up"], map(str, range(100)))) == [str(number) for number in range(100)]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1", "AttributeError: module"),
        ("import os; os._exit(1)", "error: the tool has ended its process"),
    ],
)
def test_a_prepare_that_cannot_be_loaded_is_told(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "prepare.py").write_text(code)
    tools = own_tools(tmp_path, ["up"])
    for _ in range(2):
        assert message in tools["up"]("a") and len(tools["up"]("a")) <= MOST_CHARACTERS
    (tmp_path / "prepare.py").write_text("def tools(): return {'up': str.upper}")
    assert tools["up"]("a") == "A"


def test_a_prepare_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "LOADING", 0.5)
    (tmp_path / "prepare.py").write_text("import time; time.sleep(1000)")
    assert own_tools(tmp_path, ["up"])["up"]("a") == "error: no result after 0.5 seconds"


PROGRAM = """
import sys, threading, time
from pathlib import Path
from core.chat.own_tools import own_tools
tools = own_tools(Path(sys.argv[1]), ["pid", "spin"], seconds=2.0)
print(tools["pid"](""), flush=True)
if sys.argv[2] == "busy":
    threading.Thread(target=tools["spin"], args=("",), daemon=True).start()
if sys.argv[2] != "end":
    time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["end", "idle", "busy"])
def test_it_ends_with_the_program(folder: Path, how: str) -> None:
    """At the end of the program; also if that is killed, be it while a tool is in C code."""
    program = subprocess.Popen([sys.executable, "-W", "error", "-c", PROGRAM, str(folder), how], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert program.stdout is not None
    number = int(program.stdout.readline())
    if how != "end":
        assert is_alive(number)
        time.sleep(0.3)
        program.send_signal(signal.SIGKILL)
    program.wait(20)
    program.stdout.close()
    assert ends(number, 10)


def test_nothing_of_the_program_is_inherited(folder: Path, tmp_path: Path) -> None:
    """Ctrl-C is not for it: it has a session of its own."""
    tools = own_tools(folder, ["pid"])
    assert os.getsid(int(tools["pid"](""))) != os.getsid(0)
