"""Where runs of a sweep are trained: what each may take of a machine, and what happens when one is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from conftest import with_gpus

from core import process
from core.cluster import ray_session, slurm, task
from core.cluster.ray_session import refuse_unreachable
from core.encoders.bytes import BytesEncoder
from core.errors import Interrupted, UserError
from core.lab.opened import open_folder
from core.lab.training import Wish
from core.sweeps import launching, processes
from core.sweeps.launching import GONE, divided
from core.sweeps.plan import plan
from core.sweeps.processes import Request, Share
from core.sweeps.space import Space
from core.sweeps.workers import MOST_LOSSES, request_for

Terrarium = Callable[..., Result]
ROOT = Path(__file__).parents[1]
ONE = Share(1)
SETTLED = ("train.runtime.attention=explicit", "train.runtime.threads=1")
TELLING = """

def on_train_start(run):
    import os
    from core import process
    told = [os.environ.get("CUDA_VISIBLE_DEVICES"), process.Owner.runs_on_gpu, os.environ.get("TERRARIUM_TOLD")]
    (run.folder / "told.txt").write_text(repr(told))
"""
# A launcher of the experiment's own, whose workers are lost as often as its file says.
FLAKY = """

def register_launchers(register):
    import contextlib
    from pathlib import Path
    from core.sweeps import processes
    from core.sweeps.launching import GONE
    from core.sweeps.processes import Share

    class Lost:
        exitcode = GONE
        def terminate(self): ...
        def join(self): ...

    class Flaky:
        is_here = False
        shares = [Share(1), Share(1)]
        losses = int((Path(__file__).parent / "losses.txt").read_text())
        def start(self, request):
            self.losses -= 1
            return Lost() if self.losses >= 0 else processes.start(request)

    @contextlib.contextmanager
    def flaky(opened, jobs, address):
        yield Flaky()

    register("flaky", flaky)
"""


@pytest.mark.parametrize(
    ("jobs", "threads", "gpus", "expected"),
    [
        (1, 8, [], [Share()]),
        (1, 8, ["0"], [Share()]),  # a single run sees all
        (2, 8, [], [Share(4)] * 2),
        (4, 2, [], [Share(1)] * 4),  # never less than one thread
        (3, 16, ["0"], [Share(5, "0", 3)] * 3),
        (3, 16, ["4", "6"], [Share(5, "4", 2), Share(5, "6", 1), Share(5, "4", 2)]),
        (2, 2, ["0", "1", "2"], [Share(1, "0", 1), Share(1, "1", 1)]),
    ],
)
def test_runs_divide_threads_and_gpus(jobs: int, threads: int, gpus: list[str], expected: list[Share]) -> None:
    assert divided(jobs, threads, gpus) == expected


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [(None, 2, ["0", "1"]), ("", 0, []), ("3,5", 2, ["3", "5"]), ("GPU-ab, 2", 2, ["GPU-ab", "2"]), ("0", 0, [])],
)
def test_only_visible_gpus_are_divided(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert launching.gpus() == expected


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", Share(1, "1", 4)), ("cuda", Share(1, "1", 4)), ("cpu", Share(1)), ("cuda:1", Share(1))],
)
def test_a_run_that_names_its_device_keeps_it(spaces: Path, tmp_path: Path, device: str, expected: Share) -> None:
    config = spaces / "config.toml"
    config.write_text(config.read_text().replace('device = "cpu"', f'device = "{device}"'))
    sweep = plan(open_folder("spaces"), Space(seeds=(0,)))
    request = request_for(sweep, sweep.points[0], Share(1, "1", 4), tmp_path / "log.txt")
    assert request.share == expected
    assert request.overrides[-1] == "train.runtime.threads=1"


@pytest.mark.parametrize(("runs", "total", "expected"), [(4, 80 << 30, 0.25 - 600 / 81920), (8, 4 << 30, 0.0625), (1, 80 << 30, None)])  # fmt: skip
def test_a_run_takes_its_part_of_the_gpus_memory(
    monkeypatch: pytest.MonkeyPatch, runs: int, total: int, expected: float | None
) -> None:
    given: list[float] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=total))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", given.append)
    process.share_gpu(runs)
    assert given == ([] if expected is None else [pytest.approx(expected)])


def test_computing_on_a_gpu_takes_the_part_that_the_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []
    monkeypatch.setattr(process, "share_gpu", parts.append)
    monkeypatch.setattr(process, "keep_compiled_code", lambda: None)
    monkeypatch.setattr(process.Owner, "runs_on_gpu", 5)
    with process.computing("cuda"):
        assert parts == []  # under the Python API the process is the caller's
    monkeypatch.setattr(process.Owner, "owned", True)
    with process.computing("cuda"):
        assert parts == [5]


def request(spaces: Path, name: str, share: Share = ONE, **more: Any) -> Request:
    return Request("spaces", "", SETTLED, Wish(name, command="by hand"), spaces / f"{name}.txt", share, **more)


def test_a_process_sees_its_gpu_and_knows_how_many_share_it(spaces: Path) -> None:
    (spaces / "prepare.py").write_text((spaces / "prepare.py").read_text() + TELLING)
    started = processes.start(request(spaces, "told", Share(1, "3", 4)))
    started.join()
    assert started.exitcode == 0, (spaces / "told.txt").read_text()
    assert (spaces / "out" / "told" / "told.txt").read_text() == "['3', 4, None]"


@pytest.mark.gpu
def test_runs_share_a_gpu_and_do_not_change_by_it(spaces: Path, tmp_path: Path) -> None:
    config = spaces / "config.toml"
    config.write_text(config.read_text().replace('device = "cpu"', 'device = "cuda"'))
    (spaces / "prepare.py").write_text((spaces / "prepare.py").read_text() + TELLING.replace(
        "told = [", "import torch\n    told = [torch.cuda.get_per_process_memory_fraction(), "
    ))  # fmt: skip
    found = []
    for jobs in ("1", "4"):
        words = [
            "sweep",
            "spaces",
            "--seeds",
            "0..3",
            "--jobs",
            jobs,
            "--name",
            f"jobs{jobs}",
            "-s",
            SETTLED[0],
            "-s",
            SETTLED[1],
        ]
        done = subprocess.run([sys.executable, "-m", "core.cli", *words], env=with_gpus() | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append((spaces / "out/sweeps" / f"jobs{jobs}" / "results.csv").read_text().rpartition(",")[0])
    assert found[0] == found[1]
    told = (spaces / "out" / "sweep-jobs4-seed0" / "told.txt").read_text()
    assert 0.1 < float(told.strip("[").partition(",")[0]) < 0.25


# A lost worker


def with_flaky(spaces: Path, losses: int) -> None:
    (spaces / "losses.txt").write_text(str(losses))
    (spaces / "prepare.py").write_text((spaces / "prepare.py").read_text() + FLAKY)


def test_a_run_whose_worker_is_lost_is_repeated(spaces: Path, terrarium: Terrarium) -> None:
    with_flaky(spaces, 3)
    words = ("sweep", "spaces", "--seeds", "0,1", "-s", SETTLED[0], "-s", SETTLED[1])
    result = terrarium(*words, "--on", "flaky", "--name", "lost")
    assert result.exit_code == 0, result.output
    assert result.output.count("its worker is lost; the run goes on from its last checkpoint") == 3
    assert terrarium(*words, "--name", "here").exit_code == 0
    tables = [
        (spaces / "out/sweeps" / name / "results.csv").read_text().rpartition(",")[0] for name in ("lost", "here")
    ]
    assert tables[0] == tables[1]


def test_a_run_that_kills_its_workers_fails(spaces: Path, terrarium: Terrarium) -> None:
    with_flaky(spaces, 1000)
    result = terrarium("sweep", "spaces", "--seeds", "0", "--on", "flaky")
    assert result.exit_code == 1
    assert f"its worker was lost {MOST_LOSSES + 1} times without progress" in result.output


def test_a_worker_trains_in_a_child_with_the_variables_of_the_sweep(
    spaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spaces / "prepare.py").write_text((spaces / "prepare.py").read_text() + TELLING)
    given = {"TERRARIUM_TOLD": "yes", "HOME": "/elsewhere", "OMP_NUM_THREADS": "1"}
    sent = task.sent(request(spaces, "child", environment=given))
    assert sent.environment == {"TERRARIUM_TOLD": "yes", "OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "OMP_NUM_THREADS" not in task.environment_here({})
    assert task.train(sent, spaces / "stop") == 0
    assert (spaces / "out" / "child" / "told.txt").read_text().endswith("'yes']")


@pytest.mark.slow
def test_a_stopped_run_has_saved_and_a_killed_one_is_gone(spaces: Path) -> None:
    long = request(spaces, "long")
    long = Request(long.experiment, "", (*SETTLED, "train.schedule.max_iters=1000000"), long.wish, long.log, long.share)
    stop, started = spaces / "stop", spaces / "out" / "long" / "checkpoints" / "last"
    codes: list[int] = []
    for end in ("kill", "stop"):
        worker = threading.Thread(target=lambda: codes.append(task.train(long, stop)))
        worker.start()
        before = started.stat().st_mtime_ns if started.exists() else 0
        while not started.exists() or started.stat().st_mtime_ns == before:
            time.sleep(0.05)
        if end == "kill":
            (child,) = processes.multiprocessing.active_children()
            assert child.pid
            os.kill(child.pid, signal.SIGKILL)
        else:
            stop.touch()
        worker.join()
    assert codes == [GONE, 128 + signal.SIGTERM]
    assert task.train(long, stop) == 128 + signal.SIGTERM  # it was told before it has begun


def test_an_encoder_is_rebuilt_in_a_worker(spaces: Path) -> None:
    encoder = BytesEncoder.fit([], vocab_size=300)
    encoding = task.encoding_of(encoder, spaces)
    for _ in range(2):
        result, mistake = task.encode(encoding.key, lambda: encoding, lambda found, text: found.encode(text), "ab")
        assert (list(result), mistake) == (list(encoder.encode("ab")), None)
    own = "\n\nfrom core.encoders.bytes import BytesEncoder\n\nclass Own(BytesEncoder):\n    kind = 'own'\n\ndef register_encoders(register):\n    register('own', Own)\n"
    (spaces / "prepare.py").write_text((spaces / "prepare.py").read_text() + own)
    described = task.Encoding("own", encoding.described | {"kind": "own"}, spaces)
    assert type(task.rebuilt_encoder(described)).__name__ == "Own"


def test_a_mistake_in_the_documents_comes_back_from_a_worker() -> None:
    def work(encoder: Any, item: str) -> None:
        raise UserError(f"unknown {item}", place="here", remedy="Leave it out.")

    task.KNOWN["k"] = BytesEncoder.fit([], vocab_size=300)
    result, mistake = task.encode("k", lambda: pytest.fail(), work, "word")
    assert result is None
    assert str(mistake) == "here: unknown word\n  Leave it out."


# Mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sweep", "spaces", "--seeds", "0", "--on", "rya"), '--on: unknown launcher "rya"\n  Did you mean \'ray\'?'),
        (("sweep", "spaces", "--seeds", "0", "--address", "a:1"), '--address: "local" has no address\n  Leave it out, or train on a cluster of Ray: --on "ray".'),
        (("sweep", "spaces", "--seeds", "0", "--on", "local", "--address", "a:1"), '--address: "local" has no address'),
        (("sweep", "spaces", "--seeds", "0", "--on", "slurm", "--address", "a:1"), '--address: "slurm" has no address'),
        (("prepare", "spaces", "--jobs", "2"), '--jobs: jobs = 2 is for workers\n  Choose some: --on "ray".'),
        (("prepare", "spaces", "--on", "local", "--jobs", "2"), '--jobs: jobs = 2 is for workers\n  Choose some: --on "ray".'),
        (("prepare", "spaces", "--address", "a:1"), '--address: address = a:1 is for workers'),
        (("prepare", "spaces", "--on", "raj"), '--on: unknown launcher "raj"'),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_once(spaces: Path, terrarium: Terrarium, words: tuple[str, ...], said: str) -> None:
    result = terrarium(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (spaces / "out" / "sweeps").exists() or not list((spaces / "out" / "sweeps").glob("*/sweep.json"))
    assert not (spaces / "datasets").exists()


def test_prepare_here_by_name_is_prepare(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("prepare", "spaces", "--on", "local").exit_code == 0
    assert (spaces / "datasets" / "basic" / "train.bin").is_file()


def test_submitits_files_are_removed_after_ctrl_c_too(spaces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By then, all jobs have saved and ended."""
    monkeypatch.setattr(slurm, "CLUSTER", "local")
    monkeypatch.setattr(slurm, "needed", lambda package, extra: None)
    (folder := spaces / "logs" / "slurm").mkdir(parents=True)
    with pytest.raises(Interrupted), slurm.open_slurm(open_folder("spaces"), None, "") as launcher:
        launcher.folder = folder
        raise Interrupted(signal.SIGINT, "")
    assert not folder.exists()


@pytest.mark.parametrize(("on", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, on: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = terrarium("sweep", "spaces", "--seeds", "0", "--on", on)
    assert result.exit_code == 2
    assert f'the extra {on}: "{on}" needs the package {package}, which is not installed' in result.stderr
    assert f"pip install -c constraints.txt -e '.[{on}]'" in result.stderr


@pytest.mark.parametrize("address", ["nonsense", "10.0.0.1", ":6379", "ray://head:10001", "head:port", "head:99999"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(UserError, match='is not HOST:PORT, and not "auto"\n  It is what `ray start` prints'):
        refuse_unreachable(address)


def test_an_address_where_nothing_answers_is_told_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"nothing answers at 127.0.0.1:1: Connection refused\n  Is the cluster running"
    ):
        refuse_unreachable("127.0.0.1:1")
    limits: list[float] = []

    def connect(address: tuple[str, int], timeout: float) -> Any:
        limits.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(ray_session.socket, "create_connection", connect)
    with pytest.raises(UserError, match=r"nothing answers at 10\.255\.255\.1:6379: timed out"):
        refuse_unreachable("10.255.255.1:6379")
    assert limits == [ray_session.ANSWER]


def test_a_machine_too_slow_for_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**more: Any) -> None:
        raise Exception("The current node timed out during startup.\nMore of it.")

    ended: list[str] = []
    fake = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: ended.append("ray"))
    monkeypatch.setattr(ray_session, "needed", lambda *_: fake)
    for name in ("own_settings", "without_remarks"):
        monkeypatch.setattr(ray_session, name, contextlib.nullcontext)
    session = ray_session.Session("", 1)
    with pytest.raises(UserError, match=r"^ray: Ray does not start: The current node timed out during startup\.\n  Free memory .*, or wait"):  # fmt: skip
        session.__enter__()
    assert ended == ["ray"] and not Path(session.folder).exists()


def test_what_is_no_cluster_is_told_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with ray_session.socket.create_server(("127.0.0.1", 0)) as server:  # it accepts, and says nothing
        address = "127.0.0.1:{1}".format(*server.getsockname())
        monkeypatch.setattr(ray_session, "CONNECT", 0.5)
        monkeypatch.setattr(ray_session, "TRIAL", "import time; time.sleep(60)")
        with pytest.raises(UserError, match=r"no cluster of Ray takes us in at .*: it does not take us in within 0 s"):
            refuse_unreachable(address)
        monkeypatch.setattr(ray_session, "CONNECT", 60)
        monkeypatch.setattr(ray_session, "TRIAL", "raise RuntimeError('Version mismatch')")
        with pytest.raises(
            UserError, match="RuntimeError: Version mismatch\n  The command must run on a machine of the cluster"
        ):
            refuse_unreachable(address)
        monkeypatch.setattr(ray_session, "TRIAL", "")
        refuse_unreachable(address)
