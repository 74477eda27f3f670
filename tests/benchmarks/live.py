"""What the live view costs: many runs, long runs, and fifty viewers while a run trains, each with as many connections as a browser.

python -m tests.benchmarks.live [--runs 1000] [--rows 1000] [--viewers 50] [--seconds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.measure import print_table

KEPT = 5  # connections of a browser besides the one for events
ROOT = Path(__file__).parents[2]
PREPARE = """
from core import Example


def documents(rng):
    while True:
        letters = rng.choices("abcdefgh", k=rng.randint(1, 4))
        yield Example(prompt="".join(letters) + ": ", completion=" ".join(letters) + "\\n")
"""
CONFIG = """[prepare]
size = 20000
[train.runtime]
max_minutes = 60
log_interval = 5
eval_interval = 50
trackers = []
device = "cpu"
"""


def write_runs(experiment: Path, runs: int, rows: int) -> None:
    """Run folders as if they had been trained: a summary, a whole config, and metrics."""
    from core.toml import dump, load_config

    config, _ = load_config(experiment)
    text = dump(config.model_dump())
    columns = (
        "step,tokens,seconds,train_loss,val_loss,bits_per_byte,learning_rate,grad_norm,param_norm,tokens_per_second"
    )
    body = "".join(
        f"{n},{n * 256},{n / 9},{3 / n},{4 / n},{5 / n},0.001,{1 / n},30.5,12345.6\n" for n in range(1, rows + 1)
    )
    environment = {f"package {number}": "1.2.3" for number in range(30)}
    for number in range(runs):
        folder = experiment / "out" / f"run{number:05}"
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text(text)
        (folder / "metrics.csv").write_text(f"{columns}\n{body}")
        summary = {
            "experiment": experiment.name,
            "run": folder.name,
            "status": "completed",
            "seed": number,
            "steps": rows,
        }
        summary |= {"best_val_loss": 1 / (number + 1), "started": f"2026-01-01T00:{number % 60:02}:00"}
        (folder / "summary.json").write_text(json.dumps(summary | {"environment": environment}, indent=2))


@contextmanager
def serving(lab: Path) -> Iterator[tuple[str, int]]:
    """A server in a process of its own. Gives its address and the number of the process."""
    command = [sys.executable, "-m", "core.cli", "serve", "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=lab, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = None
        while found is None:
            found = re.search(r"open (http://[^/]+)", process.stdout.readline())
        try:
            yield found[1], process.pid
        finally:
            process.terminate()


def ask(url: str) -> tuple[float, int]:
    """Seconds and bytes of an answer."""
    begun = time.perf_counter()
    with urllib.request.urlopen(url) as answer:
        size = len(answer.read())
    return time.perf_counter() - begun, size


def megabytes(process: int, key: str = "VmHWM") -> float:
    """The most memory that a process has had."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def processor_seconds(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def view(url: str, id: str, end: float, answers: list[float]) -> None:
    """A viewer: hears what has changed, and then asks for the table and the curve of the run that trains.

    As a browser does, it opens six connections and keeps them: one for the events, five for questions.
    """
    host, port = url.removeprefix("http://").split(":")
    kept = [await asyncio.open_connection(host, int(port)) for _ in range(KEPT)]

    async def get(path: str, connection: int = 0) -> float:
        begun = time.perf_counter()
        reader, writer = kept[connection]
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert head.startswith(b"HTTP/1.1 200") and length is not None, head
        await reader.readexactly(int(length[1]))
        return time.perf_counter() - begun

    for number in range(KEPT):  # a connection without a question is closed after some seconds
        await get("/health", number)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /live/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    while (left := end - time.monotonic()) > 0:
        try:
            line = await asyncio.wait_for(reader.readline(), left)
        except asyncio.TimeoutError:
            break
        if line.startswith(b"data: "):
            answers.append(await get("/live/runs?limit=50&sort=started&descending=1"))
            answers.append(await get(f"/live/curves?id={id}&metric=train_loss&points=500", 1))
    for _, each in (*kept, (reader, writer)):
        each.close()


async def watch(url: str, id: str, viewers: int, seconds: float) -> list[float]:
    """The seconds that answers took, of so many viewers for so long."""
    answers: list[float] = []
    end = time.monotonic() + seconds
    await asyncio.gather(*(view(url, id, end, answers) for _ in range(viewers)))
    return answers


def speed(folder: Path, begun: float) -> float:
    """Tokens per second of a run since a time, the median of its rows."""
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    at = rows[0].index("tokens_per_second")
    return statistics.median(float(row[at]) for row in rows[int(begun) :])


def count_rows(folder: Path) -> int:
    path = folder / "metrics.csv"
    return path.read_text().count("\n") if path.is_file() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("runs", 1000), ("rows", 1000), ("viewers", 50), ("seconds", 20)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        lab = Path(place)
        experiment = lab / "experiments" / "many"
        experiment.mkdir(parents=True)
        (experiment / "prepare.py").write_text(PREPARE)
        (experiment / "config.toml").write_text(CONFIG)
        write_runs(experiment, asked.runs, asked.rows)
        long = experiment / "out" / "run00000" / "metrics.csv"
        many_runs(lab, asked.runs, asked.rows, long)
        viewers(lab, experiment, asked.viewers, asked.seconds)


def many_runs(lab: Path, runs: int, rows: int, long: Path) -> None:
    """Seconds and memory of the first answers."""
    head, _, body = long.read_text().partition("\n")
    numbers = [line.partition(",")[2] for line in body.splitlines()]
    long.write_text(head + "\n" + "".join(f"{n},{numbers[n % len(numbers)]}\n" for n in range(1, 100_001)))
    told = []
    with serving(lab) as (url, process):
        told.append(("start", "", f"{megabytes(process):.0f} MB"))
        ids = "&".join(f"id=experiments/many/run{number:05}" for number in range(1, min(runs, 101)))
        for name, path in (
            (f"table of {runs:,} runs, first", "runs?limit=100"),
            ("again, nothing has changed", "runs?limit=100"),
            ("sorted by another column", "runs?limit=100&sort=val_loss"),
            (f"100 curves of {rows:,} rows", f"curves?metric=train_loss&{ids}"),
            ("curve of 100,000 rows, first", "curves?metric=train_loss&id=experiments/many/run00000"),
            ("another of its curves", "curves?metric=val_loss&id=experiments/many/run00000"),
        ):
            seconds, size = ask(f"{url}/live/{path}")
            told.append((name, f"{seconds:.3f} s, {size / 1000:,.0f} kB", f"{megabytes(process):.0f} MB"))
        for number in range(1, runs, 100):  # every run's metrics, as somebody who scrolls through all
            more = "&".join(f"id=experiments/many/run{each:05}" for each in range(number, min(number + 100, runs)))
            ask(f"{url}/live/curves?metric=val_loss&{more}")
        told.append((f"after the curves of all {runs:,} runs", "", f"{megabytes(process):.0f} MB"))
    print_table("many runs", {name: {"answer": answer, "most memory so far": most} for name, answer, most in told})


def viewers(lab: Path, experiment: Path, number: int, seconds: int) -> None:
    """What viewers cost a run that trains: its speed without and with them, and the server's share of the processor."""
    folder = experiment / "out" / "trains"
    command = [sys.executable, "-m", "core.cli", "train", "many", "--run", "trains", "-q"]
    told = []
    with (
        serving(lab) as (url, process),
        subprocess.Popen(command, cwd=lab, env=os.environ | {"PYTHONPATH": str(ROOT)}) as trains,
    ):
        try:
            while count_rows(folder) < 5:
                time.sleep(0.5)
            for turn in range(2):
                for viewing in (0, number):
                    begun, used, at = count_rows(folder), processor_seconds(process), time.monotonic()
                    answers = asyncio.run(watch(url, "experiments/many/trains", viewing, seconds)) if viewing else []
                    time.sleep(max(0.0, seconds - (time.monotonic() - at)))
                    share = (processor_seconds(process) - used) / (time.monotonic() - at)
                    slow = f"{max(answers) * 1000:.0f} ms" if answers else ""
                    told.append(
                        (f"{turn + 1}", viewing, f"{speed(folder, begun):,.0f}", f"{share:.2%}", len(answers), slow)
                    )
        finally:
            trains.terminate()
    columns = ("tokens/s of the run", "server, of one core", "answers", "slowest answer")
    print_table(
        "viewers",
        {f"turn {row[0]}, {row[1]} viewers": dict(zip(columns, map(str, row[2:]), strict=True)) for row in told},
    )


if __name__ == "__main__":
    main()
