"""The screen while a run trains: in a real terminal of several widths, with and without colour."""

from __future__ import annotations

import io
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.cli.console import Console
from core.cli.status import StatusLine
from core.listener import STEPS, Begun

ROOT = Path(__file__).parents[1]
LONG = "count_by_twos_with_a_very_long_name"
# Slow enough to be seen between two evaluations.
SLOW = "\n\ndef on_metrics(run, step, metrics):\n    import time, warnings\n\n    time.sleep(0.3)\n    warnings.warn('a warning at step %d' % step)\n"
STATUS = re.compile(r"(\[[#.]+\] )?step \d/6  (loss \d\.\d{4}  (?!val)|[\d,]+ tokens/s)")
LEGEND, BRAILLE = re.compile(r" train \d\.\d{4}$"), re.compile(r"[\u2801-\u28ff]")
HEAD = re.compile(r" *run +status +step +val loss +seconds *$")
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


@pytest.fixture
def slow(spaces: Path) -> Path:
    """An experiment with a long name, whose steps take a while and warn."""
    folder = spaces.rename(spaces.parent / LONG)
    (folder / "prepare.py").write_text((folder / "prepare.py").read_text() + SLOW)
    (folder / "config.toml").write_text(
        (folder / "config.toml").read_text().replace("log_interval = 2", "log_interval = 1")
    )
    return folder


class Terminal:
    """A tmux session of its own."""

    def __init__(
        self, folder: Path, columns: int, environment: dict[str, str], arguments: str = f"train {LONG}"
    ) -> None:
        self.base = ["tmux", "-u", "-S", str(folder / "tmux.socket"), "-f", "/dev/null"]
        given = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        # readline, which pytest imports, sets COLUMNS and LINES for all that this process starts.
        command = f"env -u COLUMNS -u LINES {given} {shlex.quote(sys.executable)} -m core.cli {arguments}; echo 'ended with' $?; sleep 60"
        self.tmux("new-session", "-d", "-x", str(columns), "-y", "40", "-c", str(folder), command)

    def tmux(self, *arguments: str) -> str:
        return subprocess.run([*self.base, *arguments], capture_output=True, encoding="utf-8", check=True).stdout

    def screen(self, *, colours: bool = False) -> str:
        return self.tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def screens(self) -> Iterator[str]:
        """What stands on the screen, again and again until the command has ended."""
        for _ in range(1200):
            yield (screen := self.screen())
            if "ended with" in screen:
                return
            time.sleep(0.05)
        raise AssertionError(f"did not end: {screen}")


@needs_tmux
@pytest.mark.parametrize(
    ("columns", "environment"),
    [
        (60, {}),
        pytest.param(80, {}, marks=pytest.mark.slow),
        pytest.param(120, {}, marks=pytest.mark.slow),
        (80, {"NO_COLOR": "1"}),
    ],
)
def test_the_screen_of_a_run(slow: Path, tmp_path: Path, columns: int, environment: dict[str, str]) -> None:
    terminal = Terminal(tmp_path, columns, environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    try:
        seen = [screen.rstrip("\n").splitlines() for screen in terminal.screens()]
        joined = terminal.tmux("capture-pane", "-p", "-J").splitlines()
    finally:
        terminal.tmux("kill-server")
    status = [line for lines in seen for line in lines if STATUS.match(line)]
    assert status, seen[-1]
    for lines in seen:
        assert sum(bool(STATUS.match(line)) for line in lines) <= 1, lines
    assert all(len(line) < columns for line in status)
    if columns == 120:
        assert any("left" in line for line in status)
    # Above it is the picture: curves with their last values, the steps, and answers.
    pictures = [lines[at:] for lines in seen for at, line in enumerate(lines) if LEGEND.search(line)]
    assert pictures
    for lines in pictures:
        assert BRAILLE.search("".join(lines[:4])) and re.fullmatch(r" +step \d +\d", lines[4]), lines
        assert STATUS.match(lines[-1]) and len(lines) in (6, 9), lines  # before an evaluation, and after it
        assert all(re.match("  (✓ [abc]+: +-> |✗ [abc]+: +-> .*  truth: )", line) for line in lines[5:-1]), lines
        assert all(len(line) < columns for line in lines)
    lines = [line.rstrip() for line in joined]
    assert lines[-1] == "" or "ended with 0" in "\n".join(lines)
    # Everything that was said stands there once, whole, and the status line is gone.
    assert sum(line.startswith(f"training {LONG}/default: ") for line in lines) == 1
    for step in (3, 6):
        assert (
            sum(bool(re.match(rf"step {step}/6  loss \d\.\d{{4}}  val \d\.\d{{4}}  exact ", line)) for line in lines)
            == 1
        )
    assert [line for line in lines if line.startswith("warning: ")] == [
        f"warning: a warning at step {n}" for n in range(1, 7)
    ]
    assert not any(re.search(r"\[[#.]+\]|left", line) or BRAILLE.search(line) for line in lines)


@needs_tmux
@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80])
def test_the_live_table_of_a_sweep(slow: Path, tmp_path: Path, columns: int) -> None:
    grid = "train.schedule.warmup_iters=0,1"
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    terminal = Terminal(tmp_path, columns, environment, f"sweep {LONG} --seeds 0 --grid {grid} --jobs 2")
    try:
        seen = [screen.rstrip("\n").splitlines() for screen in terminal.screens()]
        joined = terminal.tmux("capture-pane", "-p", "-J").splitlines()
    finally:
        terminal.tmux("kill-server")
    drawn = [lines for lines in seen if any(HEAD.match(line) for line in lines)]
    assert drawn, seen[-1]
    for lines in drawn:
        assert sum(bool(HEAD.match(line)) for line in lines) == 1, lines
    # Each run has one line, whole: nothing is wrapped or cut off.
    live = [line for lines in drawn for line in lines if re.match(r" *warmup\S* +(waiting|running|completed) ", line)]
    names = {line.split()[0] for line in live}
    assert names == {"warmup_iters0-seed0", "warmup_iters1-seed0"} and not any(
        "…" in line for lines in drawn for line in lines
    ), live
    assert any(re.search(r" running +\d/6 ", line) for line in live)
    assert all(len(line) < columns for line in live)
    # What was said stands there, and the table is gone.
    ended = [line for line in joined if re.match(r"\[\d/2\] \S+: completed, val loss \d\.\d{4}, [\d.]+ s", line)]
    assert len(ended) == 2, joined
    assert not any(HEAD.match(line) for line in joined)
    assert "ended with 0" in "\n".join(joined)


@needs_tmux
@pytest.mark.parametrize(
    ("environment", "red"),
    [({}, True), ({"NO_COLOR": "1"}, False), pytest.param({"TERM": "dumb"}, False, marks=pytest.mark.slow)],
)
def test_an_error_is_red_unless_colour_is_off(
    lab: Path, tmp_path: Path, environment: dict[str, str], red: bool
) -> None:
    terminal = Terminal(tmp_path, 80, environment | {"PYTHONPATH": str(ROOT)})
    try:
        *_, _ = terminal.screens()
        screen = terminal.screen(colours=True)
    finally:
        terminal.tmux("kill-server")
    assert f"no experiment is called '{LONG}'" in screen.replace("\n", "")
    assert ("\x1b[31m" in screen) is red


def test_a_pty_gets_whole_lines(slow: Path) -> None:
    """Without tmux: what is written between two clearings of the line is a line or the status. It has no room for a picture."""
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 14, 60, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "core.cli", "train", LONG], stdout=other, stderr=other, stdin=other,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"},
    )  # fmt: skip
    said, end = b"", time.monotonic() + 300
    while time.monotonic() < end:  # `other` stays open meanwhile: what was written last could be lost otherwise
        ended = process.poll() is not None
        if select.select([own], [], [], 0.2)[0]:
            said += os.read(own, 65536)
        elif ended:
            break
    os.close(other)
    os.close(own)
    assert process.wait() == 0
    texts = [part for part in re.split(r"\r\n|\r|\x1b\[K", said.decode()) if part]
    assert "\x1b" not in "".join(texts)
    # Short figures, as those of a busy machine, leave room for a bar before them.
    status = [text for text in texts if re.match(r"(\[[#.]+\] )?step \d/6  loss \d\.\d{4}(  (?!val)|$)", text)]
    assert status and max(map(len, status)) < 60
    assert sum(text.startswith("warning: a warning at step ") for text in texts) == 6


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (79, "[###############...............] step 50/100  loss 0.123"),
        (50, "[############............] step 50/100  loss 0.123"),
        (30, "step 50/100  loss 0.123"),
        (12, "step 50/100"),
    ],
)
def test_the_bar_gives_way_to_the_text(width: int, shown: str) -> None:
    line = StatusLine(io.StringIO())
    line.update("training", "step 50/100  loss 0.123", 50, 100)
    assert line.line(width).rstrip() == shown
    assert len(line.line(width)) <= width


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (70, "step 10/40  loss 0.123  9,932 tokens/s  36.5 ms/step  0:30 left"),
        (53, "step 10/40  loss 0.123  9,932 tokens/s  0:30 left"),
        (38, "step 10/40  loss 0.123  0:30 left"),
        (22, "step 10/40  0:30 left"),
    ],
)
def test_whole_fields_give_way_to_the_time_that_is_left(
    width: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = StatusLine(io.StringIO())
    text = "step 10/40  loss 0.123  9,932 tokens/s  36.5 ms/step"
    line.update("training", text, 0, 40)
    line.done = 10
    monkeypatch.setattr("core.cli.status.time.monotonic", lambda began=line.start[0]: began + 10)
    assert line.line(width) == shown


@pytest.mark.parametrize(
    ("width", "fields"), [(120, 8), (103, 8), (102, 7), (92, 7), (91, 6), (78, 6), (77, 5), (40, 5)]
)
def test_a_line_of_an_evaluation_leaves_out_the_last_figures_of_speed(
    width: int, fields: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "step": 100, "train_loss": 0.7323, "val_loss": 0.6888, "val_accuracy": 0.69, "seconds": 10.0,
        "tokens_per_second": 21034.0, "ms_per_step": 36.5, "mfu": 0.169,
    }  # fmt: skip
    monkeypatch.setattr(Console, "interactive", True)
    monkeypatch.setattr("core.cli.console.size_of", lambda stream: (width, 24))
    console = Console()
    console.progress(STEPS, 100, 1600)
    console.row(row)
    console.close()
    whole = [
        "step  100/1600", "loss 0.7323", "val 0.6888", "exact  69.0%", "10.0 s", "21,034 tokens/s", "36.5 ms/step", "MFU 16.9%",
    ]  # fmt: skip
    assert capsys.readouterr().out.splitlines()[0] == "  ".join(whole[:fields])


def test_the_status_line_of_unknown_length() -> None:
    line = StatusLine(io.StringIO())
    line.update("download", "download", 5, 0)
    assert line.line(40) == "download"


@pytest.mark.parametrize(
    ("gone", "shown"), [(1.0, "0:03 left"), (39.9, "2:00 left"), (40.0, "2:00 left"), (100.0, "5:00 left")]
)
def test_minutes_have_at_most_59_seconds(gone: float, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = StatusLine(io.StringIO())
    line.update("training", "step 0/4", 0, 4)
    began, _ = line.start
    line.done = 1
    monkeypatch.setattr("core.cli.status.time.monotonic", lambda: began + gone)
    assert line.left() == shown
    line.at_most = True
    assert line.left() == f"at most {shown}"


def test_a_run_that_may_end_early_has_that_time_left_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "interactive", True)
    for early in (True, False):
        console = Console()
        console.hear(Begun("wide", early))
        console.progress(STEPS, 1, 1600)
        console.row({"step": 1, "train_loss": 0.7, "seconds": 10.0, "tokens_per_second": 2.0})
        assert console.status is not None and console.status.at_most == early
        console.progress("evaluating", 1, 20)
        assert not console.status.at_most
        console.close()
