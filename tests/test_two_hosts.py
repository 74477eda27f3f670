"""A run on two hosts, which are two network namespaces here: it trains, one host or a process is lost, and what is left goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clusters import below, title
from conftest import PREPARE
from test_team import SHARED, begun_file, losses, out

from core.tracking.metrics import read_rows

ROOT = Path(__file__).parents[1]
HOSTS = {"tera": "10.77.13.1", "terb": "10.77.13.2"}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them."""
    if sys.platform != "linux" or os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need Linux, root and the program ip")
    names = [f"{name}{os.getpid() % 10000}" for name in HOSTS]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        for name, address in zip(names, HOSTS.values(), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            for device in ("lo", name):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture
def started(tmp_path: Path, hosts: list[str]) -> Iterator[Callable[..., list[subprocess.Popen[bytes]]]]:
    """Starts torchrun with one process on each host, to train for a number of steps."""
    folder = tmp_path / "experiments" / "tiny"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(SHARED)
    processes: list[subprocess.Popen[bytes]] = []

    def start(number: int, nodes: str, *settings: str) -> subprocess.Popen[bytes]:
        name, address = hosts[number], list(HOSTS.values())[number]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": name}
        command = [
            *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes),
            *("--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-id", "tiny"),
            *("--rdzv-endpoint", f"{HOSTS['tera']}:29500", "--local-addr", address),
            *("--rdzv-conf", f"is_host={int(not number)},last_call_timeout=10", "-m", "core.cli", "train", "tiny"),
            *(word for each in ("train.schedule.max_iters=200", *settings) for word in ("-s", each)),
        ]
        with (tmp_path / f"output-{number}").open("wb") as output:
            return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True)  # fmt: skip

    def start_both(nodes: str, *settings: str) -> list[subprocess.Popen[bytes]]:
        processes.extend(start(number, nodes, *settings) for number in (0, 1))
        assert begun_file(out(tmp_path) / "metrics.csv", 10, seconds=240), (tmp_path / "output-0").read_text()
        return processes

    try:
        yield start_both
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_one_of_two_hosts_is_lost(
    tmp_path: Path, hosts: list[str], started: Callable[..., list[subprocess.Popen[bytes]]], way: str
) -> None:
    """torchrun's rendezvous starts the other host's process again, which goes on from the newest checkpoint."""
    processes = started("1:2", "train.runtime.team_timeout=5", f"train.runtime.parallel={way}")
    steps = len(read_rows(out(tmp_path) / "metrics.csv"))
    choices = json.loads((out(tmp_path) / "summary.json").read_text())["choices"]
    assert (choices["processes"], choices["restarts"], choices["parallel"]) == (2, 0, way)
    ip("-n", hosts[1], "link", "set", hosts[1], "down")  # and everything on it ends
    os.killpg(processes[1].pid, signal.SIGKILL)
    assert processes[0].wait(300) == 0, (tmp_path / "output-0").read_text()
    printed = (tmp_path / "output-0").read_text()
    assert "of 2 has" in printed or "has given no sign of life" in printed, printed
    summary = json.loads((out(tmp_path) / "summary.json").read_text())
    assert (
        summary["status"] == "completed" and summary["choices"]["processes"] == 1 and len(losses(out(tmp_path))) == 200
    )
    assert summary["choices"]["restarts"] >= 1 and "by torchrun" in printed, printed
    assert steps >= 9


@pytest.mark.slow
def test_one_process_of_two_hosts_is_killed(tmp_path: Path, started: Callable[..., list[subprocess.Popen[bytes]]]) -> None:  # fmt: skip
    """Both hosts start theirs again, once. torchrun counts that on the host of the killed process only."""
    processes = started("2")
    kill = next(each for each in below(processes[1].pid) if "-m core.cli train" in title(each))
    os.kill(kill, signal.SIGKILL)
    assert [process.wait(300) for process in processes] == [0, 0], (tmp_path / "output-0").read_text()
    printed = [(tmp_path / f"output-{number}").read_text() for number in (0, 1)]
    assert "Traceback" not in printed[0] and printed[0].count("training tiny/default") == 2, printed
    assert printed[1].count("exitcode") == 1, printed
    summary = json.loads((out(tmp_path) / "summary.json").read_text())
    assert summary["choices"]["processes"] == 2 and len(losses(out(tmp_path))) == 200
