"""A run that several processes share: the same data, the same losses, and with exact_across the same bits."""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import PREPARE
from copies import CONFIG
from cutting import outcome
from teams import Ranks, Warm

from core.cli import launched
from core.cli.launched import words_of_team
from core.config import Config, replaced
from core.errors import UserError
from core.lab.together import refuse_unshareable
from core.process import Launch, Program, hide_frames, launch
from core.toml import load_config
from core.tracking.metrics import read_rows
from core.training import link as link_module
from core.training import neighbours
from core.training import team as team_module
from core.training.link import Link, Lost
from core.training.machine import Machine
from core.training.messages import packed, unpacked
from core.training.neighbours import Whereabouts
from core.training.objectives import tokens
from core.training.step import accumulate_gradient, add_gradients, targets_in
from core.training.team import ALONE, Team, met
from core.training.team_step import laid_out, row_shares

CPU = Machine(torch.device("cpu"), torch.float32)
STEPS = 12
# Four micro-batches: as many as the most processes. Dropout, so that random numbers count.
SHARED = (
    CONFIG.format(steps=STEPS).replace("batch_size = 2", "batch_size = 3\ngrad_accum_steps = 4")
    + 'attention = "explicit"\nkeep_checkpoints = 4\n'
)
EXACT = ("-s", "train.runtime.exact_across=true")
QUICK = ("-s", "train.runtime.team_timeout=2")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with Warm(tmp_path_factory.mktemp("outputs")) as warm:
        yield warm


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Path:
    return prepared_in(tmp_path_factory.mktemp("prepared"), warm)


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "lab"))


@pytest.fixture(scope="module")
def unbroken(prepared: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process comes to, with exact_across."""
    return outcome(trained_apart(prepared, tmp_path_factory.mktemp("unbroken"), warm, 1, *EXACT))


def prepared_in(root: Path, warm: Warm) -> Path:
    """Make a folder of experiments with one, whose dataset is there."""
    folder = root / "experiments" / "tiny"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(SHARED)
    assert warm.run(root, 1, "prepare", "tiny")[0][0] == 0
    return root


def trained_apart(prepared: Path, folder: Path, warm: Warm, world: int, *more: str) -> Path:
    """Train in a copy of a prepared folder. Returns the run's folder."""
    root = Path(shutil.copytree(prepared, folder / "lab"))
    trained(warm, root, world, *more)
    return out(root)


def out(root: Path, run: str = "default") -> Path:
    return root / "experiments" / "tiny" / "out" / run


def trained(warm: Warm, root: Path, world: int, *more: str, command: str = "train") -> list[tuple[int, str]]:
    ended = warm.run(root, world, command, "tiny", *more)
    assert [code for code, _ in ended] == [0] * world, ended
    assert all(printed == "" for _, printed in ended[1:]), ended  # the main process alone speaks
    return ended


def losses(run: Path) -> np.ndarray:
    return np.array([row["train_loss"] for row in read_rows(run / "metrics.csv")])


def begun(ranks: Ranks, run: Path, rows: int) -> bool:
    """Wait until a run has so many rows of metrics. Returns whether it came that far."""
    return begun_file(run / "metrics.csv", rows, 60)


def begun_file(path: Path, rows: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.is_file() and path.read_text().count("\n") > rows:
            return True
        time.sleep(0.002)
    return False


# Without processes.


def batch(rows: int, parts: int, random_state: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(random_state)
    inputs = draw.integers(0, 7, (parts, rows, 5))
    targets = np.where(draw.random((parts, rows, 5)) < 0.7, draw.integers(0, 7, (parts, rows, 5)), -1)
    targets[0, 0] = -1  # a row without any target, as in a stream of prompts
    return inputs, targets, draw.random((parts, rows)).astype(np.float32)


@pytest.mark.parametrize(("rows", "parts"), [(4, 1), (7, 1), (3, 2), (5, 3), (2, 4), (1, 4)])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_shares_of_a_step_are_its_rows(rows: int, parts: int, world: int) -> None:
    """Each row once, in its order; no micro-batch is larger than one process's; no share is two rows longer than another."""
    whole = batch(rows, parts)
    shares = [row_shares(whole, Team(rank, world)) for rank in range(world)]
    for number, array in enumerate(whole):
        found = np.concatenate([micro[number] for share in shares for micro in share])
        assert (found == array.reshape(rows * parts, *array.shape[2:])).all()
    assert all(len(micro[0]) <= rows for share in shares for micro in share)
    sizes = [sum(len(micro[0]) for micro in share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_gradients_of_the_shares_add_up_to_that_of_the_step(world: int) -> None:
    """The loss is divided by the targets of the whole step, wherever these are."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(7, 6), torch.nn.Linear(6, 7)).double()
    other, whole = copy.deepcopy(model), batch(5, 2)[:2]

    def loss(model: torch.nn.Module) -> Any:
        return lambda inputs, targets: tokens(model, inputs, targets)

    mean = accumulate_gradient(loss(model), whole, CPU)
    parts = [
        add_gradients(
            loss(other),
            [tuple(map(torch.from_numpy, micro)) for micro in row_shares(whole, Team(rank, world))],
            targets_in(whole),
            CPU,
        )
        for rank in range(world)
    ]
    assert float(sum(parts)) == pytest.approx(float(mean), rel=1e-6)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None
        torch.testing.assert_close(one.grad, two.grad)


def test_a_message_comes_back_as_it_was_sent() -> None:
    values = {"do": "step", "seed": 2**62 - 1, "rates": [0.1, 1e-300], "text": "ä" * 5000}
    arrays = batch(3, 2)
    found, others = unpacked(bytes(packed(values, arrays)))
    assert found == values
    for one, other in zip(arrays, others, strict=True):
        assert one.dtype == other.dtype and (one == other).all()


def test_vectors_hold_tensors_apart_and_aligned() -> None:
    tensors = [torch.randn(3, 5), torch.randn(7).bfloat16(), torch.randn(()), torch.randn(2, 2)]
    layout = laid_out(tensors, 64)
    vectors = layout.flat([tensors[0], tensors[1], tensors[2], None], -0.0, torch.device("cpu"))
    assert all(len(vector) % 64 == 0 for vector in vectors.values())
    found = layout.apart(vectors)
    assert all(torch.equal(one, other) for one, other in zip(found[:3], tensors[:3], strict=True))
    assert torch.equal(tensors[0] + found[3].sum(), tensors[0]) and torch.signbit(found[3]).all()
    assert all(place % 16 == 0 for _, place, _ in layout.places)


def test_a_process_alone_is_a_team_that_does_nothing() -> None:
    tensor = torch.ones(3)
    ALONE.sum(tensor)
    ALONE.barrier()
    assert torch.equal(tensor, torch.ones(3)) and ALONE.broadcast({"a": 1}) == ({"a": 1}, ())


def test_who_it_is_stands_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert launch() == Launch(0, 1, 0)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launch() == Launch(0, 1, 0)  # a batch system may set these without starting a team
    monkeypatch.setenv("MASTER_ADDR", "here")
    assert launch() == Launch(5, 8, 1)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert launch() == Launch(5, 8, 1, restarts=2)


WRONG = {
    "train.data.batch_size": (1, 8, "train.data.batch_size: 8 processes cannot share 4 rows\n  Start 4 or fewer"),
    "train.runtime.exact_across": (True, 8, "8 processes cannot share 4 micro-batches: with exact_across, one is never cut\n  Start 4 or fewer, or cut the step into more: of its 12 rows, `train.data.grad_accum_steps=12` `train.data.batch_size=1`"),
    "train.runtime.cuda_graphs": (True, 2, "train.runtime.cuda_graphs = true: a step that processes can share is not recorded\n  Leave it out"),
    "train.runtime.device": ("cpu:0", 2, "this names one GPU, and each of 2 processes needs its own"),
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_what_a_team_cannot_train_is_refused(prepared: Path, key: str) -> None:
    value, world, message = WRONG[key]
    config: Config = load_config(prepared / "experiments" / "tiny", "", ())[0]
    with pytest.raises(UserError, match=re.escape(message)):
        refuse_unshareable(Team(0, world), replaced(config, {key: value}).train)
    refuse_unshareable(ALONE, replaced(config, {key: value}).train)


# With processes.


def test_losses_differ_in_the_last_digits_only(root: Path, warm: Warm) -> None:
    """Without dropout, whose draws depend on the number of processes, and Muon, which enlarges rounding errors."""
    found = []
    for world in (1, 2, 3):
        trained(
            warm, root, world, "--run", f"on{world}", "-s", "train.model.dropout=0.0", "-s", "train.optim.name=adamw"
        )
        found.append(losses(out(root, f"on{world}")))
        assert json.loads((out(root, f"on{world}") / "summary.json").read_text())["choices"]["processes"] == world
    assert len(found[0]) == STEPS
    for one, other in itertools.pairwise(found):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_exact_across_gives_the_bits_of_one_process(
    root: Path, warm: Warm, unbroken: dict[str, Any], world: int
) -> None:
    """Weights, optimizer, random numbers and metrics of all checkpoints."""
    trained(warm, root, world, *EXACT)
    assert outcome(out(root)) == unbroken


def test_exact_across_changes_nothing_for_a_process_alone(root: Path, warm: Warm) -> None:
    """But for the draws of dropout, and for what is chosen by timing."""
    trained(warm, root, 1, "--run", "exact", "-s", "train.model.dropout=0.0", *EXACT)
    trained(warm, root, 1, "--run", "plain", "-s", "train.model.dropout=0.0")
    found = [outcome(out(root, run)) for run in ("exact", "plain")]
    for each in found:
        each.pop("log")
        for name in ("last", "last.previous", "best"):
            del each[f"{name} state"][1]  # the random numbers, which nobody uses
    assert found[0] == found[1]


def test_the_main_process_alone_does_what_is_done_once(root: Path, warm: Warm) -> None:
    """A whole loop, and commands that are not shared."""
    ended = trained(warm, root, 2, command="loop")
    assert ended[0][1].count("trained tiny/default") == 1 and ended[0][1].count("evaluated") == 1
    for command in ("prepare", "evaluate", "sample", "report"):
        trained(warm, root, 2, command=command)
    ended = warm.run(root, 2, "sweep", "tiny", "--seeds", "0..1")
    assert [code for code, _ in ended] == [2, 0]
    assert "torchrun: a sweep starts processes of its own, and torchrun has started 2 for one run" in ended[0][1]


def broken(warm: Warm, root: Path, world: int, rank: int, number: int, rows: int) -> list[tuple[int, str]]:
    """Train, and send a process a signal when there are so many rows."""
    ranks = warm.start(root, world, "train", "tiny", *EXACT, *QUICK)
    assert begun(ranks, out(root), rows)
    ranks.signal(rank, number)
    ended = ranks.wait()
    assert -99 not in [code for code, _ in ended], ended
    return ended


def kill_at_random(warm: Warm, prepared: Path, unbroken: dict[str, Any], folder: Path, kills: int, seed: int) -> None:
    """Kill any process at any moment, then go on with any number of them."""
    chance, killed = random.Random(seed), 0
    while killed < kills:
        root = Path(shutil.copytree(prepared, folder / f"kill-{killed}"))
        world = chance.choice([2, 4]) if killed else 2
        rank = killed % world
        ranks = warm.start(root, world, "train", "tiny", *EXACT)
        begun(ranks, out(root), chance.randrange(STEPS))
        time.sleep(chance.random() * 0.02)
        ranks.signal(rank, signal.SIGKILL)
        ended = ranks.wait()
        codes = [code for code, _ in ended]
        if -9 not in codes:  # it was faster
            assert set(codes) == {0}, ended
            shutil.rmtree(root)
            continue
        assert set(codes) <= {-9, 0, 1}, ended
        if rank and codes[0]:
            assert re.search(rf"failed: tiny/default: process {rank} of {world} has ended, at step \d+\.", ended[0][1])
        killed += 1
        trained(warm, root, chance.choice([1, 2, 4]), *EXACT)
        assert outcome(out(root)) == unbroken
        shutil.rmtree(root)


def test_what_earlier_processes_left_in_the_store_is_not_taken_for_these() -> None:
    """After a restart on another machine, the store still has the keys of a process that has ended, and its addresses."""
    store = dist.HashStore()
    for round_ in ("first", "second"):
        found: dict[int, Link] = {}

        def meet(rank: int, found: dict[int, Link] = found) -> None:
            found[rank] = met(store, rank, 3)

        threads = [threading.Thread(target=meet, args=(rank,)) for rank in (1, 2, 0)]
        for thread in threads:
            if thread is threads[-1]:  # the main process comes last: until then, the others find an earlier one's name
                time.sleep(4 * team_module.MEETING)
                assert not found
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted(found) == [0, 1, 2], round_
        found[0].store.set("address", round_)
        assert [found[rank].store.get("address") for rank in (1, 2)] == [round_.encode()] * 2
        assert (
            store.num_keys() == {"first": 5, "second": 9}[round_]
        )  # the name, once; of each team three signs and an address


def test_processes_that_do_not_come_or_do_not_reach_each_other_are_told(root: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(team_module, "JOINING", 0.1)
    with pytest.raises(
        Lost,
        match=r"^not all of 2 processes were there after 0\.00166667 minutes: start the same command on each machine$",
    ):
        met(dist.HashStore(), 0, 2)
    ended = warm.run(root, 2, "call", "train_unreachable", "train", "tiny")
    assert [code for code, _ in ended] == [1, 1]
    apart = (
        f"2 processes do not reach each other from {socket.gethostname()} (no route to host): "
        "let their machines connect on all ports, or name the network between them in GLOO_SOCKET_IFNAME.\n"
    )
    gone = (
        r"2 processes cannot meet at 127\.0\.0\.1:\d+ \(the other side has closed the connection\): "
        r"see that all of them still run, and that this machine reaches that one\.\n"
    )
    assert ended[0][1] == f"failed: {apart}"
    # The first one has gone with all addresses, perhaps before the other one has found no route.
    assert re.fullmatch(f"process 1 of 2: ({re.escape(apart)}|{gone})", ended[1][1])


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (
            "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?\nframe #0: c10::Error",
            "the other side has closed the connection",
        ),
        ("[/pytorch/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:36582", "the other side has closed the connection"),
        ("[/a/pair.cc:553] Read error [10.0.0.2]:4: Connection reset by peer", "the other side has closed the connection"),
        ("Broken pipe", "the other side has closed the connection"),
        ("The client socket has timed out after 600000ms while trying to connect to (10.0.0.1, 29500).", "nothing answers"),
        ("The client socket has failed to connect to any network address of (first, 29500).\nframe #0", "nothing answers"),
        ("[/a/pair.cc:144] connect [10.0.0.2]:4: Connection refused", "nothing answers"),
        ("wait timeout after 300000ms, keys: /default_pg/0//cpu//0/0", "the other side does not answer in time"),
        ("Gloo connectFullMesh failed with [/a/pair.cc:144] no error", "Gloo connectFullMesh failed with no error"),
        ("no route to host. Exception raised from here", "no route to host"),
    ],
)  # fmt: skip
def test_errors_of_connections_are_a_few_words(said: str, meaning: str) -> None:
    assert link_module.reason(RuntimeError(said)) == meaning


def test_frames_of_torch_are_hidden_in_a_team(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command line, before it imports torch; the user's own choice stays."""
    for rank, given, expected in (("", None, None), ("1", None, "ERROR"), ("1", "INFO", "INFO")):
        monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", given or "")
        if given is None:
            monkeypatch.delenv("TORCH_CPP_LOG_LEVEL")
        for name, value in {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "MASTER_ADDR": "here"}.items():
            monkeypatch.setenv(name, value)
        hide_frames()
        assert os.environ.get("TORCH_CPP_LOG_LEVEL") == expected
    code = "import sys, core.cli.main; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("on_device", [False, True])
def test_operations_of_a_gpu_that_nobody_ends_do_not_keep_a_process(monkeypatch: pytest.MonkeyPatch, on_device: bool) -> None:  # fmt: skip
    """Closing the connections would wait for them, before the message is printed."""
    done: list[Any] = []
    monkeypatch.setattr(link_module, "end_at_once", done.append)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: done.append("destroyed"))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    link = Link(dist.HashStore(), 0, 2)
    team = Team(0, 2, 0, link)
    team.wait(lambda: SimpleNamespace(wait=lambda *_: None, is_completed=lambda: False), on_device=on_device)
    link.store.set(link.key(1), "3")
    link.heard[1] = b"3", link.looked - 60
    link.beating.start()
    for broken in (reset, lambda: SimpleNamespace(wait=reset, is_completed=lambda: True)):
        with pytest.raises(Lost, match="process 1 of 2 has ended"):
            team.wait(broken)
    link.close()
    assert done == [1 if on_device else "destroyed"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_of_this_machine_that_has_ended_is_named_though_no_connection_breaks() -> None:
    """gloo does not always notice that the other side is gone: 8 of 900 kills (docs/LOG.md)."""
    other = subprocess.Popen(["sleep", "60"])
    state = neighbours.started(str(other.pid))
    assert state is not None
    lives = Whereabouts(neighbours.here().machine, str(other.pid), state[1])
    elsewhere, reused = lives._replace(machine="another"), lives._replace(start="1")

    def told(rank: int, place: Whereabouts | str, seconds: float = 10) -> str:
        link = Link(dist.HashStore(), rank, 3)
        link.heard = {each: (b"3", link.looked) for each in range(3) if each != rank}
        link.heard[1 if rank != 1 else 2] = f"3 {place}".encode(), link.looked - seconds
        try:
            link.refuse_lost(30)
        except Lost as lost:
            return str(lost)
        return ""

    assert [told(0, place) for place in (lives, elsewhere, "", reused)] == ["", "", "", "process 1 of 3 has ended"]
    other.kill()
    while (now := neighbours.started(str(other.pid))) and now[0] not in neighbours.ENDED:  # on its way to its end
        time.sleep(0.01)
    assert (
        told(0, lives) == "process 1 of 3 has ended" and told(0, elsewhere) == told(0, lives, 1) == told(1, lives) == ""
    )
    other.wait()
    assert told(0, lives) == "process 1 of 3 has ended"


def reset(*_: Any) -> Any:
    raise RuntimeError("Read error: Connection timed out")


def test_killed_at_random_it_goes_on_with_any_number(
    prepared: Path, warm: Warm, unbroken: dict[str, Any], tmp_path: Path
) -> None:
    kill_at_random(warm, prepared, unbroken, tmp_path, 1, seed=1)


@pytest.mark.slow
def test_killed_50_times_it_goes_on(prepared: Path, warm: Warm, unbroken: dict[str, Any], tmp_path: Path) -> None:
    kill_at_random(warm, prepared, unbroken, tmp_path, 50, seed=2)


@pytest.mark.parametrize(
    ("rank", "number"),
    [
        (1, signal.SIGTERM),
        pytest.param(1, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(0, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_at_any_process_saves_and_ends_all(
    root: Path, warm: Warm, unbroken: dict[str, Any], rank: int, number: int
) -> None:
    ended = broken(warm, root, 2, rank, number, 3)
    assert [code for code, _ in ended] == [128 + number] * 2
    assert "interrupted, and saved" in ended[0][1] and ended[1][1] == ""
    trained(warm, root, 1, *EXACT, *QUICK)
    found = outcome(out(root))
    for each in (found, unbroken := dict(unbroken)):
        each.pop("log")
    assert found == unbroken


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_process_that_is_stopped_is_named_in_time(root: Path, warm: Warm, rank: int) -> None:
    ranks = warm.start(root, 2, "train", "tiny", *QUICK, "-s", "train.schedule.max_iters=1000000")
    assert begun(ranks, out(root), 3)
    ranks.signal(rank, signal.SIGSTOP)
    began = time.monotonic()
    other = Ranks([ranks.processes[1 - rank]], [ranks.outputs[1 - rank]], warm)
    [(code, printed)] = other.wait()
    assert time.monotonic() - began < 30
    ranks.signal(rank, signal.SIGKILL)
    Ranks([ranks.processes[rank]], [ranks.outputs[rank]], warm).wait()
    assert code == 1
    if rank:
        assert f"process {rank} of 2 has given no sign of life for 2 s: it is stopped, or its machine is out of reach" in printed  # fmt: skip
    else:  # which also kept the addresses, as there is no torchrun here
        assert re.search("process 1 of 2: (process 0 of 2 has given no sign|what has started)", printed)


TRAIN = ["train", "tiny", "--run", "x y"]
SHORT = ("torchrun", "--standalone", "--nproc-per-node", "2")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/env/bin/python", "/env/bin/torchrun", *SHORT[1:], "-m", "--", "core.cli", *TRAIN], (*SHORT, "-m", "--", "core.cli")),
        (["python3", "-u", "torchrun", *SHORT[1:], "-m", "core.cli", *TRAIN], (*SHORT, "-m", "--", "core.cli")),
        (["/env/bin/python", "-m", "torch.distributed.run", "--nnodes", "1:2", "-m", "core.cli", *TRAIN], ("python", "-m", "torch.distributed.run", "--nnodes", "1:2", "-m", "--", "core.cli")),
        (["python", "torchrun", "--nproc-per-node=2", "/env/bin/terrarium", *TRAIN], ("torchrun", "--nproc-per-node=2", "--", "/env/bin/terrarium")),
        # What the system does not say, or what starts a script that starts us: from the environment.
        ([], (*SHORT, "-m", "--", "core.cli")),
        (["python", "torchrun", *SHORT[1:], "train.sh"], (*SHORT, "-m", "--", "core.cli")),
    ],
)  # fmt: skip
def test_the_command_of_a_team_is_the_one_that_was_typed(monkeypatch: pytest.MonkeyPatch, words: list[str], expected: tuple[str, ...]) -> None:  # fmt: skip
    monkeypatch.setattr(launched, "words_of", lambda process: words)
    monkeypatch.setattr(sys, "argv", ["core.cli", *TRAIN])
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert words_of_team() == Program.words
    environment = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "here"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert words_of_team() == Program.words  # started by something else
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert words_of_team() == expected


def test_the_command_of_a_team_on_several_machines_is_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert launched.rebuilt() == ("torchrun", "--nnodes", "2", "--nproc-per-node", "4", "-m", "--", "core.cli")
    monkeypatch.setattr(Program, "words", ("terrarium",))
    assert launched.rebuilt()[-3:] == ("--no-python", "--", "terrarium")


@pytest.mark.slow
def test_ctrl_c_of_torchrun_saves_and_says_how_to_go_on(root: Path) -> None:
    """The advice is the command that was typed, and it works."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "core.cli", "train", "tiny", "--run", "x"]  # fmt: skip
    long = ["-s", "train.schedule.max_iters=3000", "-s", "train.schedule.lr_decay_iters=3000"]
    with (root / "output").open("wb") as output:
        started = subprocess.Popen([sys.executable, *words, *long], cwd=root, env=environment, stdout=output, stderr=output, start_new_session=True)  # fmt: skip
    assert begun_file(out(root, "x") / "metrics.csv", 3, 120), (root / "output").read_text()
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    started.wait(60)
    printed = (root / "output").read_text()
    assert "frame #" not in printed
    advice = next(line for line in printed.splitlines() if "Go on with: " in line).partition("Go on with: ")[2]
    assert advice == " ".join(["python", *words, *long])
    assert json.loads((out(root, "x") / "summary.json").read_text())["command"] == advice
    steps = len(losses(out(root, "x")))
    again = [sys.executable, *shlex.split(advice)[1:], "--resume", "-s", f"train.schedule.max_iters={steps + 5}"]
    assert subprocess.run(again, cwd=root, env=environment, check=False).returncode == 0
    assert len(losses(out(root, "x"))) == steps + 5


@pytest.mark.slow
def test_torchrun_heals_a_killed_process(root: Path) -> None:
    """The restarted processes go on from the newest checkpoint."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1", "--standalone"]  # fmt: skip
    arguments = ["-m", "core.cli", "train", "tiny", "-s", "train.schedule.max_iters=30"]
    # The second process ends itself in its 20th step of the first try.
    (root / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('RANK') == '1' and os.environ.get('TORCHELASTIC_RESTART_COUNT') == '0':\n"
        "    import core.training.team_step as steps\n    count, whole = [0], steps.TeamStep.help\n"
        "    def help(*arguments):\n        count[0] += 1\n        if count[0] == 20:\n            os.kill(os.getpid(), 9)\n"
        "        return whole(*arguments)\n    steps.TeamStep.help = help\n"
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(root), environment["PYTHONPATH"]])
    done = subprocess.run([*command, *arguments], cwd=root, env=environment, capture_output=True, text=True, timeout=180)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "process 1 of 2 has ended, at step 19" in done.stderr
    assert "frame #" not in done.stderr  # torch's own call stacks
    assert (
        re.search(r"resumed at step 1\d, restart 1 by torchrun on cpu", done.stdout)
        and "trained tiny/default" in done.stdout
    )
    assert len(losses(out(root))) == 30
    assert json.loads((out(root) / "summary.json").read_text())["choices"]["restarts"] == 1
