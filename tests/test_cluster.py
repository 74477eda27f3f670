"""Ray and SLURM: workers, machines and commands are killed, and tables and datasets are those of one process on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import below, listening, raylets, title, workers
from conftest import PREPARE, TINY

ROOT = Path(__file__).parents[1]
MEGABYTES = float(
    os.environ.get("TERRARIUM_TESTS_MEGABYTES", "30")
)  # of text that is tokenized while workers are killed
LONGEST = 1800.0  # seconds of a command
SWEEP = ("-s", "train.runtime.attention=explicit", "-s", "train.runtime.threads=1")
TRAINS = "ray::train"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
with_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="the extra slurm is not installed"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with an experiment whose runs take some seconds."""
    folder = tmp_path / "experiments" / "spaces"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    config = TINY.replace("max_iters = 6", "max_iters = 200").replace("eval_interval = 3", "eval_interval = 100")
    config = config.replace("log_interval = 2", "log_interval = 20").replace(
        "checkpoint_interval = 2", "checkpoint_interval = 20"
    )
    (folder / "config.toml").write_text(config)
    return tmp_path


class Started:
    """A command that runs, and its output. Whatever it leaves running is ended by `end`."""

    def __init__(self, home: Path, *words: str, first: str = "", **variables: str) -> None:
        code = f"import os; os.chdir({str(home)!r})\n{first}\nfrom core.cli.main import main; main()"
        given = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
        self.output = home / f"output-{len(list(home.glob('output-*')))}.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *words], env=os.environ | given, stdout=output, stderr=subprocess.STDOUT
            )
        self.pid = self.process.pid

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """Wait until there is something, and return it; None if the command has ended before."""
        end = time.monotonic() + LONGEST
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text()
            if found := what():
                return found
            time.sleep(0.1)
        return None

    def wait(self) -> int:
        try:
            return self.process.wait(LONGEST)
        finally:
            self.process.kill()
            self.process.wait()

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


def table(home: Path, sweep: str) -> str:
    """The results of a sweep without the seconds, which are last."""
    lines = (home / "experiments/spaces/out/sweeps" / sweep / "results.csv").read_text().splitlines()
    return "\n".join(line.rpartition(",")[0] for line in lines)


def local_table(home: Path, seeds: str) -> str:
    here = Started(home, "sweep", "spaces", "--seeds", seeds, "--jobs", "2", "--name", "here", *SWEEP)
    assert here.wait() == 0, here.text()
    return table(home, "here")


def finished(home: Path) -> dict[Path, int]:
    """The runs on Ray that are finished, with the time of their summary."""
    found = (home / "experiments/spaces/out").glob("sweep-there-*/summary.json")
    return {path: path.stat().st_mtime_ns for path in found if '"completed"' in path.read_text()}


def own_folders() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("terrarium-ray-*")}


def kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


@with_ray
def test_a_sweep_survives_its_workers_and_its_raylet(home: Path) -> None:
    before, chance = own_folders(), random.Random(0)
    command = Started(
        home, "sweep", "spaces", "--seeds", "0..11", "--jobs", "2", "--on", "ray", "--name", "there", *SWEEP
    )
    kept: dict[Path, int] = {}
    addresses: set[str] = set()
    for number in range(10):
        # Kills are spread over the sweep: before each one, another run has finished.
        there = lambda least=number: len(finished(home)) >= least and workers(command.pid, TRAINS)  # noqa: E731
        assert command.wait_for(there), command.text()
        time.sleep(chance.uniform(0, 6))
        addresses |= {found for process in below(command.pid) for found in listening(process)}
        kept |= finished(home)
        victims = workers(command.pid, TRAINS)
        # Some kills are of the run itself, the child of a worker: on Ray that is a lost run, too.
        children = [child for worker in victims for child in below(worker)]
        if victims:
            kill(chance.choice(children if children and number % 3 == 2 else victims))
        if number == 4:
            for raylet in raylets(command.pid):
                kill(raylet)
    assert command.wait() == 0, command.text()
    assert "its worker is lost; the run goes on from its last checkpoint" in command.text()
    assert "raylet" not in command.text()  # Ray's own remarks
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing that was finished is repeated
    assert addresses == {"127.0.0.1"}
    assert own_folders() == before
    assert table(home, "there") == local_table(home, "0..11")


@with_ray
def test_ctrl_c_saves_and_the_same_command_goes_on(home: Path) -> None:
    before = own_folders()
    words = ("sweep", "spaces", "--seeds", "0,1", "--jobs", "2", "--on", "ray", "--name", "there", *SWEEP)
    command = Started(home, *words)
    assert command.wait_for(lambda: list(home.glob("experiments/spaces/out/sweep-there-*/checkpoints/last")))
    started = below(command.pid)
    command.process.send_signal(signal.SIGINT)
    assert command.wait() == 130, command.text()
    assert "interrupted, and saved. Go on with: " in command.text()
    assert own_folders() == before
    end = time.monotonic() + 30
    while any(map(title, started)):  # Ray's idle workers notice within seconds that it has ended
        assert time.monotonic() < end, [title(process) for process in started]
        time.sleep(0.1)
    again = Started(home, *words)
    assert again.wait() == 0, again.text()
    assert table(home, "there") == local_table(home, "0,1")


CLUSTER = """
import os, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
VARIABLES = {
    "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[tuple[int, str]]:
    """A cluster of two machines with one CPU each. The process that has started it, and its address."""
    environment = os.environ | VARIABLES | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )  # fmt: skip
    assert process.stdout
    yield process.pid, next(line.strip() for line in process.stdout if line.startswith("127.0.0.1:"))
    process.communicate("")


@with_ray
def test_a_machine_of_a_cluster_is_lost(home: Path, cluster: tuple[int, str]) -> None:
    owner, address = cluster
    words = ("sweep", "spaces", "--seeds", "0..3", "--on", "ray", "--name", "there", *SWEEP)
    stranger = Started(home, *words, "--address", address, first="from core.cluster import ray_session\nray_session.CONNECT = 30", **VARIABLES | {"RAY_AUTH_TOKEN": "f" * 64})  # fmt: skip
    assert stranger.wait() == 2, stranger.text()
    assert f"no cluster of Ray takes us in at {address}: " in stranger.text()
    command = Started(home, *words, **VARIABLES, RAY_ADDRESS=address)
    assert command.wait_for(lambda: len(workers(owner, TRAINS)) == 2), command.text()
    lost = max(raylets(owner))  # the machine that came second: its raylet, its workers, and the runs below them
    for process in [lost, *below(lost)]:
        kill(process)
    assert command.wait() == 0, command.text()
    assert len(raylets(owner)) == 1
    assert "4 runs, 0 of them done, 2 at a time" in command.text()
    assert command.text().count("its worker is lost") >= 1
    assert table(home, "there") == local_table(home, "0..3")


HOG = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)
def hold():
    time.sleep(600)
held = [ray.remote(num_cpus=1)(hold).remote() for _ in range(2)]
hold()
"""


@with_ray
def test_ctrl_c_does_not_wait_for_the_work_of_others(home: Path, cluster: tuple[int, str]) -> None:
    """Runs that are still in line on a busy cluster are taken back."""
    owner, address = cluster
    environment = os.environ | VARIABLES | {"PYTHONPATH": str(ROOT)}
    hog = subprocess.Popen([sys.executable, "-W", "ignore", "-c", HOG, address], env=environment, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        while len(workers(owner, "ray::hold")) < 2:
            assert hog.poll() is None
            time.sleep(0.1)
        command = Started(home, "sweep", "spaces", "--seeds", "0,1", "--on", "ray", "--name", "there", *SWEEP, **VARIABLES, RAY_ADDRESS=address)  # fmt: skip
        assert command.wait_for(lambda: (home / "experiments/spaces/out/sweeps/there/logs").exists()), command.text()
        time.sleep(3)
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(120) == 130, command.text()
    finally:
        hog.kill()
        hog.wait()
    assert "interrupted, and saved. Go on with: " in command.text()


@with_ray
def test_folders_that_a_machine_does_not_see_are_named(home: Path, cluster: tuple[int, str]) -> None:
    hidden = (
        "import core.cluster.ray_launcher as at; at.Path = type('P', (), {'cwd': staticmethod(lambda: '/not/there')})"
    )
    command = Started(home, "sweep", "spaces", "--seeds", "0", "--on", "ray", "--address", cluster[1], first=hidden, **VARIABLES)  # fmt: skip
    assert command.wait() == 2, command.text()
    assert "the machine 127.0.0.1 of the cluster: it does not see /not/there" in command.text()
    assert "Put the experiment into a folder that all machines share" in command.text()


# Datasets


def write_text(folder: Path, megabytes: float) -> None:
    """An experiment with running text of invented words."""
    chance = random.Random(0)
    words = ["".join(chance.choices("etaoinshrdlucmfwypvbgkjqxz", k=chance.randint(2, 9))) for _ in range(20_000)]
    folder.mkdir(parents=True)
    lines = [
        " ".join(chance.choices(words, [1 / (rank + 1) for rank in range(len(words))], k=2000)) + "\n"
        for _ in range(200)
    ]
    with (folder / "input.txt").open("w") as file:
        while file.tell() < megabytes * 1e6:
            file.write(chance.choice(lines))
    (folder / "config.toml").write_text('[prepare]\ninput = "input.txt"\nencoder = "bpe"\nvocab_size = 2048\n')


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.bin"))}


@with_ray
def test_tokens_are_those_of_one_process(home: Path) -> None:
    write_text(home / "experiments" / "text", 8)
    for experiment, more in (("text", ()), ("spaces", ("-s", "prepare.size=400000", "-s", "prepare.encoder=words"))):
        folder = home / "experiments" / experiment / "datasets"
        here = Started(home, "prepare", experiment, "-s", "prepare.dataset_dir=datasets/here", *more)
        assert here.wait() == 0, here.text()
        expected = hashes(folder / "here")
        assert len(expected) > 1
        for jobs in ("1", "2", "4"):
            there = Started(home, "prepare", experiment, "--on", "ray", "--jobs", jobs, "-s", f"prepare.dataset_dir=datasets/{jobs}", *more)  # fmt: skip
            assert there.wait() == 0, there.text()
            assert hashes(folder / jobs) == expected


def resident(process: int) -> int:
    """Bytes of a process's own memory."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)


@with_ray
def test_tokens_are_the_same_after_kills_and_memory_is_flat(home: Path) -> None:
    write_text(home / "experiments" / "text", MEGABYTES)
    folder, chance = home / "experiments" / "text" / "datasets", random.Random(1)
    began = time.monotonic()
    here = Started(home, "prepare", "text", "-s", "prepare.dataset_dir=datasets/here")
    assert here.wait() == 0, here.text()
    middle = time.monotonic()
    there = Started(home, "prepare", "text", "--on", "ray", "--jobs", "4", "-s", "prepare.dataset_dir=datasets/there")
    kills, most, addresses = 0, 0, set[str]()
    pause = min(3.0, MEGABYTES / 300)
    while there.process.poll() is None:
        busy = there.wait_for(lambda: workers(there.pid, "ray::encode"))
        if busy and kills < 20:
            kill(chance.choice(busy))
            kills += 1
            if kills == 10:
                addresses = {found for process in below(there.pid) for found in listening(process)}
        most = max(most, resident(there.pid))
        time.sleep(chance.uniform(0, pause))
    assert there.wait() == 0, there.text()
    print(
        f"{MEGABYTES:.0f} MB: {middle - began:.1f} s here, {time.monotonic() - middle:.1f} s on Ray, {kills} kills, {most / 1e6:.0f} MB"
    )
    assert kills == 20
    assert hashes(folder / "there") == hashes(folder / "here")
    assert addresses == {"127.0.0.1"}
    assert most < 500e6  # whatever the text's size


# SLURM, by the executor of submitit that needs none

LOCAL = "import core.cluster.slurm as slurm; slurm.CLUSTER = 'local'"


@with_submitit
def test_a_sweep_of_jobs_is_that_of_this_machine(home: Path) -> None:
    words = ("sweep", "spaces", "--seeds", "0..3", "--on", "slurm", "--jobs", "2", "--name", "there", *SWEEP)
    command = Started(home, *words, first=LOCAL)
    runs = home / "experiments/spaces/out"
    assert command.wait_for(lambda: list(runs.glob("sweep-there-*/checkpoints/last"))), command.text()
    for process in below(command.pid):
        if "submitit.core._submit" in title(process):
            kill(process)
    assert command.wait() == 0, command.text()
    assert "its worker is lost; the run goes on from its last checkpoint" in command.text()
    assert not (runs / "sweeps/there/logs/slurm").exists()
    assert table(home, "there") == local_table(home, "0..3")


@with_submitit
def test_ctrl_c_saves_jobs_too(home: Path) -> None:
    words = ("sweep", "spaces", "--seeds", "0,1", "--on", "slurm", "--name", "there", *SWEEP)
    command = Started(home, *words, first=LOCAL)
    assert command.wait_for(lambda: len(list(home.glob("experiments/spaces/out/sweep-there-*/checkpoints/last"))) == 2)
    command.process.send_signal(signal.SIGINT)
    assert command.wait() == 130, command.text()
    assert not list(home.glob("experiments/spaces/out/sweeps/there/logs/slurm"))
    again = Started(home, *words, first=LOCAL)
    assert again.wait() == 0, again.text()
    assert table(home, "there") == local_table(home, "0,1")


@with_submitit
def test_a_machine_without_slurm_and_jobs_that_encode_are_told(home: Path) -> None:
    path = str(Path(sys.executable).parent)
    assert not shutil.which("sbatch", path=path)
    command = Started(home, "sweep", "spaces", "--seeds", "0", "--on", "slurm", PATH=path)
    assert command.wait() == 2
    assert "--on: there is no sbatch on this machine" in command.text()
    encoding = Started(home, "prepare", "spaces", "--on", "slurm", first=LOCAL)
    assert encoding.wait() == 2
    assert '--on: "slurm" trains runs, and encodes no documents\n  Use --on "ray".' in encoding.text()
