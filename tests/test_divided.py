"""Weights that are divided among the processes of a team: the same losses, and checkpoints that any layout reads bit for bit."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cutting import without_seconds
from teams import Ranks, Warm
from test_not_finite import poisoned
from test_team import QUICK, STEPS, begun, losses, out, prepared_in, trained, trained_apart

from core import shards
from core.config import Config, replaced
from core.errors import UserError
from core.lab import assemble
from core.lab.no_room import shared_step_does_not_fit
from core.lab.settle import Settled
from core.lab.together import refuse_unshareable
from core.plugins.discovery import Experiment
from core.plugins.manager import plugins
from core.toml import load_config
from core.tracking.run import Run
from core.training import checkpoints, ladder, room
from core.training import machine as machine_module
from core.training.divided import refuse_indivisible
from core.training.divided_step import equal_shares
from core.training.machine import Machine
from core.training.muon import Muon
from core.training.room import divides, state_bytes
from core.training.team import Team
from core.training.team_step import row_shares

FSDP = ("-s", "train.runtime.parallel=fsdp")
# What each process would import for itself.
IMPORTS = ("core.training.divided_step", "torch._dynamo", "torch.distributed.checkpoint.hf_storage", "torch.distributed.checkpoint.state_dict_saver")  # fmt: skip
ADAMW = ("-s", "train.optim.name=adamw", "-s", "train.model.dropout=0.0")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with Warm(tmp_path_factory.mktemp("outputs"), IMPORTS) as warm:
        yield warm


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Path:
    return prepared_in(tmp_path_factory.mktemp("prepared"), warm)


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "lab"))


@pytest.fixture(scope="module")
def unbroken(prepared: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes with divided weights come to."""
    return ended(trained_apart(prepared, tmp_path_factory.mktemp("unbroken"), warm, 2, *FSDP))


def ended(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions: losses, and the whole tensors of all checkpoints as bytes."""
    found: dict[str, Any] = {"losses": losses(run).tolist()}
    for name in ("last", "best", *map(ladder.kept_name, ladder.kept_steps(run / "checkpoints"))):
        checkpoint = checkpoints.read(run / "checkpoints" / name)
        tensors = {**{f"m.{key}": each for key, each in checkpoint.model.items()}, **checkpoint.optimizer}
        found[name] = {key: each.numpy().tobytes() for key, each in tensors.items()}
        if ladder.KEPT.fullmatch(name):
            continue  # weights alone
        state = checkpoint.state
        found[f"{name} state"] = [state["step"], state["rng"], state["optimizer"], without_seconds(state["progress"])]
    return found


# Without processes.


def test_the_arithmetic_of_room() -> None:
    """Weights, gradients of what is trained, and what the optimizer keeps of it; a frozen layer has no gradient."""
    model = torch.nn.Sequential(torch.nn.Linear(10, 20, bias=False), torch.nn.Linear(20, 5, bias=False))
    model[1].requires_grad_(False)
    weights, gradient = 4 * (200 + 100), 4 * 200
    trained = [model[0].weight]
    assert state_bytes(model, torch.optim.AdamW(trained)) == weights + 3 * gradient
    assert state_bytes(model, torch.optim.SGD(trained, momentum=0.9)) == weights + 2 * gradient
    assert state_bytes(model, torch.optim.SGD(trained)) == weights + gradient
    assert state_bytes(model, Muon([{"params": trained, "muon": True}])) == weights + 2 * gradient
    assert state_bytes(model, Muon([{"params": trained, "muon": False}])) == weights + 3 * gradient


def test_auto_divides_only_what_does_not_fit(prepared: Path) -> None:
    config: Config = load_config(prepared / "experiments" / "tiny", "", ())[0]

    def chosen(way: str, processes: int, memory: int | None, exact: bool = False) -> bool:
        changes = {"train.runtime.parallel": way, "train.runtime.exact_across": exact}
        return divides(replaced(config, changes).train.runtime, processes, 1000, memory)

    assert chosen("auto", 2, 999) and not chosen("auto", 2, 1000) and not chosen("auto", 2, None)
    assert not chosen("auto", 1, 10) and not chosen("auto", 2, 10, exact=True)
    assert chosen("fsdp", 2, 2000) and not chosen("fsdp", 1, 10) and not chosen("ddp", 2, 10)


@pytest.mark.parametrize("way", ["auto", "fsdp"])
def test_a_model_that_begins_in_main_memory_computes_as_one_on_its_gpu(prepared: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:  # fmt: skip
    """Compiled, in chunks of logits that the GPU has room for. Where weights are not divided, they go to the GPU at once."""
    config = replaced(load_config(prepared / "experiments" / "tiny", "", ())[0], {"train.runtime.parallel": way})
    moved: list[Any] = []
    monkeypatch.setattr(machine_module, "gpu_logits", lambda device: 1024)
    monkeypatch.setattr(assemble, "memory_of", lambda device: 10**9)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, place: moved.append(place) or self)
    machine = Machine(torch.device("cuda"), torch.float32, processes=2)
    fresh = assemble.fresh_model(Settled(config, machine), 100, plugins())
    assert fresh.model.loss_chunk == 8
    assert fresh.divided == (way == "fsdp")
    assert moved == [torch.device("cpu"), "cpu" if fresh.divided else machine.device]


def test_processes_of_one_machine_share_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\nMemFree:  1 kB\n")
    monkeypatch.setattr(room, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert room.memory_of(torch.device("cpu")) == 2000 * 1024
    monkeypatch.setattr(room, "MEMORY", tmp_path / "none")
    assert room.memory_of(torch.device("cpu")) is None


@pytest.mark.parametrize(("rows", "parts"), [(4, 1), (1, 3), (1, 5), (3, 2), (2, 5)])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_all_processes_take_equally_many_micro_batches(rows: int, parts: int, world: int) -> None:
    """Where one lacks a micro-batch, it takes one without targets, whose loss and gradient are 0."""
    draw = np.random.default_rng(0)
    whole = tuple(draw.integers(0, 7, (parts, rows, 5)) for _ in range(2))
    shares = [equal_shares(whole, Team(rank, world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    for rank, share in enumerate(shares):
        real = row_shares(whole, Team(rank, world))
        assert len(real) <= len(share) <= len(real) + 1
        for micro, own in zip(share, real, strict=False):
            assert all((one == other).all() for one, other in zip(micro, own, strict=True))
        assert all((micro[1] == -1).all() for micro in share[len(real) :])


def test_what_cannot_be_divided_is_refused(prepared: Path) -> None:
    single = torch.nn.Linear(2, 2)
    single.scale = torch.nn.Parameter(torch.ones(()))
    several = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).bfloat16())
    quantised = torch.nn.Linear(2, 2)
    quantised.is_quantised = True  # type: ignore[assignment]
    for model, reason in {
        single: "scale is a single number; give it the shape (1,)",
        several: "its weights are trained in several precisions: bfloat16, float32",
        quantised: "its base is quantised",
    }.items():
        with pytest.raises(UserError, match=re.escape(f"this model cannot be divided among processes: {reason}")):
            refuse_indivisible(model)
    config: Config = load_config(prepared / "experiments" / "tiny", "", ())[0]
    both = replaced(config, {"train.runtime.parallel": "fsdp", "train.runtime.exact_across": True})
    with pytest.raises(UserError, match="exact_across needs the whole model in every process"):
        refuse_unshareable(Team(0, 2), both.train)
    refuse_unshareable(Team(), both.train)  # one process alone has the whole model
    error = shared_step_does_not_fit(Run(Experiment(prepared / "experiments" / "tiny"), "default", config))
    assert (
        error.remedy
        == "Start more processes, or halve train.data.batch_size and double train.data.grad_accum_steps (now 4)."
    )


# With processes.


@pytest.mark.parametrize(
    ("optimizer", "world"),
    [
        ("adamw", 2),
        ("muon", 3),
        *(
            pytest.param(name, world, marks=pytest.mark.slow)
            for name, world in [("adamw", 4), ("adamw", 3), ("muon", 2)]
        ),
    ],
)
def test_dividing_and_collecting_changes_no_bit(tmp_path: Path, warm: Warm, optimizer: str, world: int) -> None:
    """Weights and optimizer: one process -> divided -> checkpoint -> one process. And a step is that of one process."""
    ended = warm.run(tmp_path, world, "call", "divide_and_return", optimizer, str(tmp_path))
    assert [code for code, _ in ended] == [0] * world, ended
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["model"] and found["optimizer"] and found["collected"] and found["plain"] and found["left"] == 0
    assert found["rows"] < 1 / world + 0.15  # the rows of small tensors cannot be divided equally
    np.testing.assert_allclose(*found["figures"], rtol=1e-6)
    np.testing.assert_allclose(*found["norms"], rtol=1e-6)
    assert found["apart"] < 1e-6


@pytest.mark.slow
def test_losses_are_those_of_one_process(root: Path, warm: Warm) -> None:
    found = []
    for world in (1, 2, 3):
        trained(warm, root, world, "--run", f"on{world}", *FSDP, *ADAMW)
        run = out(root, f"on{world}")
        found.append(losses(run))
        choices = json.loads((run / "summary.json").read_text())["choices"]
        assert (choices["parallel"], choices["processes"], choices["restarts"]) == (
            ("ddp", "fsdp")[world > 1],
            world,
            0,
        )
        pieces = {path.name for path in (run / "checkpoints" / "last").glob("*.safetensors")}
        if world > 1:
            assert pieces == {f"shard-0000{rank + 1}-model-0000{part}-of-00002.safetensors" for rank in range(world) for part in (1, 2)}  # fmt: skip
        else:
            assert pieces == set(checkpoints.PARTS)
    assert len(found[0]) == STEPS
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(["train.model.kind=lstm", "train.optim.name=adamw"], marks=pytest.mark.slow),
        pytest.param(["train.model.preset=gpt2", "train.model.tie_weights=true", "train.data.batch_size=1", "train.data.grad_accum_steps=5"], marks=pytest.mark.slow),
        pytest.param(["train.model.ngram=3", "train.model.smear=true", "train.optim.name=adamw"], marks=pytest.mark.slow),
        pytest.param(["train.optim.name=sgd", "train.model.n_layer=3"], marks=pytest.mark.slow),
        pytest.param(["train.optim.name=adam"], marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_other_models_and_optimizers(root: Path, warm: Warm, model: list[str]) -> None:
    settings = [
        word for each in (*model, "train.model.dropout=0.0", "train.schedule.max_iters=5") for word in ("-s", each)
    ]
    found = []
    for world in (1, 2):
        trained(warm, root, world, "--run", f"on{world}", *FSDP, *settings)
        found.append(losses(out(root, f"on{world}")))
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_auto_divides_where_memory_is_little(root: Path, warm: Warm) -> None:
    ended = warm.run(root, 2, "call", "train_in_little_memory", "train", "tiny", "-s", "train.schedule.max_iters=2")
    assert [code for code, _ in ended] == [0, 0], ended
    assert json.loads((out(root) / "summary.json").read_text())["choices"]["parallel"] == "fsdp"


def test_layouts_follow_each_other(root: Path, warm: Warm, unbroken: dict[str, Any]) -> None:
    """A run goes from one layout to the next at every second step; other commands read what each has left."""
    layouts = [(2, "fsdp"), (1, "auto"), (3, "fsdp"), (2, "ddp"), (2, "fsdp")]
    for number, (world, way) in enumerate(layouts):
        length = ("-s", f"train.schedule.max_iters={2 * number + 2}", "-s", f"train.runtime.parallel={way}")
        ended_by = trained(warm, root, world, *ADAMW, *length, *(["--resume"] if number else []))
        if number == len(layouts) - 1:
            assert "This resume is not bit-exact: parallel: ddp -> fsdp." in ended_by[0][1]
        names = set(checkpoints.read_state(out(root) / "checkpoints" / "last")["files"])
        assert shards.is_of_pieces(names) == (way == "fsdp")
        assert checkpoints.read(out(root) / "checkpoints" / "last.previous").state["step"] == 2 * number + 1
    assert len(losses(out(root))) == 10
    for command in (["evaluate", "tiny"], ["sample", "tiny"], ["export", "tiny", "--to", "nanogpt", "exported"]):
        [(code, printed)] = warm.run(root, 1, *command)
        assert code == 0 or "nanogpt" in command, printed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_killed_at_random_it_goes_on(prepared: Path, warm: Warm, unbroken: dict[str, Any], tmp_path: Path, seed: int) -> None:  # fmt: skip
    """With as many processes, to the same bits; with another number, to the end."""
    chance = random.Random(seed)
    root = Path(shutil.copytree(prepared, tmp_path / "lab"))
    ranks, rank = warm.start(root, 2, "train", "tiny", *FSDP, *QUICK), seed % 2
    begun(ranks, out(root), chance.randrange(STEPS - 2))
    time.sleep(chance.random() * 0.02)
    ranks.signal(rank, signal.SIGKILL)
    ended_by = ranks.wait()
    assert {code for code, _ in ended_by} <= {-9, 0, 1}, ended_by
    if rank and ended_by[0][0] == 1:
        assert re.search(r"process 1 of 2 has ended|no sign of life", ended_by[0][1]), ended_by
    other = Path(shutil.copytree(root, tmp_path / "other"))
    trained(warm, root, 2, *FSDP, *QUICK)
    assert ended(out(root)) == unbroken
    world, way = chance.choice([1, 3]), chance.choice(["fsdp", "ddp"])
    trained(warm, other, world, "--resume", "-s", f"train.runtime.parallel={way}", *QUICK)
    assert len(losses(out(other))) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_process_that_is_stopped_is_named_in_time(root: Path, warm: Warm, rank: int) -> None:
    ranks = warm.start(root, 2, "train", "tiny", *FSDP, *QUICK, "-s", "train.schedule.max_iters=1000000")
    assert begun(ranks, out(root), 3)
    ranks.signal(rank, signal.SIGSTOP)
    began = time.monotonic()
    [(code, printed)] = Ranks([ranks.processes[1 - rank]], [ranks.outputs[1 - rank]], warm).wait()
    assert time.monotonic() - began < 60
    ranks.signal(rank, signal.SIGKILL)
    Ranks([ranks.processes[rank]], [ranks.outputs[rank]], warm).wait()
    assert code == 1 and re.search(f"process {rank} of 2 has given no sign|what has started", printed), printed


@pytest.mark.slow
def test_a_signal_saves_and_ends_all(root: Path, warm: Warm, unbroken: dict[str, Any]) -> None:
    ranks = warm.start(root, 2, "train", "tiny", *FSDP, *QUICK)
    assert begun(ranks, out(root), 3)
    ranks.signal(1, signal.SIGTERM)
    assert [code for code, _ in ranks.wait()] == [143, 143]
    trained(warm, root, 2, *FSDP, *QUICK)
    assert ended(out(root)) == unbroken


@pytest.mark.slow
def test_it_goes_back_from_a_loss_that_is_not_finite(root: Path, warm: Warm) -> None:
    """All processes get the pieces of the checkpoint that the main one goes back to."""
    poisoned(root / "experiments" / "tiny", "loss", "(9,)")  # each process has two micro-batches in a step
    found = []
    for way in ("ddp", "fsdp"):
        settings = ["-s", f"train.runtime.parallel={way}", "-s", "train.runtime.on_nan=rollback", *ADAMW]
        trained(warm, root, 2, "--run", way, *settings)
        assert json.loads((out(root, way) / "summary.json").read_text())["skipped_batches"] == [4]
        found.append(losses(out(root, way)))
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_full_disk_of_any_process_ends_the_run(root: Path, warm: Warm) -> None:
    ended = warm.run(root, 2, "call", "train_without_disk", "train", "tiny", *FSDP, *QUICK)
    assert [code for code, _ in ended] == [1, 1], ended
    assert re.search(
        r"failed: tiny/default: .* in .*checkpoints, at step 3\.\n  What was saved before is whole", ended[0][1]
    )
    assert checkpoints.load(out(root) / "checkpoints", "last").state["step"] == 2
    assert not list((out(root) / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_a_folder_that_not_all_see_is_told(root: Path, warm: Warm) -> None:
    ended = warm.run(root, 2, "call", "train_unseen", "train", "tiny", *FSDP, *QUICK)
    assert [code for code, _ in ended] == [1, 1], ended
    assert "checkpoints: 1 of 2 processes do not see this folder." in ended[0][1]
    assert "put train.runtime.out_dir on a disk that all machines share" in ended[0][1]


@pytest.fixture
def pieces(root: Path, warm: Warm) -> Path:
    """The checkpoints of a run with divided weights."""
    trained(warm, root, 2, *FSDP, "-s", "train.schedule.max_iters=2")
    return out(root) / "checkpoints"


def test_damaged_pieces_are_found_before_they_are_read(pieces: Path) -> None:
    for number, path in enumerate(sorted((pieces / "last").glob("shard*"))):
        data = path.read_bytes()
        changes = [data[:-1], data[:9] + bytes([data[9] ^ 1]) + data[10:], data + b"x", None]
        change = changes[number]
        path.write_bytes(change) if change is not None else path.unlink()
        with pytest.raises(checkpoints.Damaged, match=re.escape(str(path))):
            checkpoints.read(pieces / "last")
        with pytest.warns(UserWarning, match=re.escape(str(path))):
            assert checkpoints.load(pieces, "last").folder == pieces / "last.previous"
        path.write_bytes(data)
    checkpoints.read(pieces / "last")
    (pieces / "last" / "shard-00003-model-00001-of-00002.safetensors").write_bytes(data)
    with pytest.raises(checkpoints.Damaged, match="this file does not belong to the checkpoint"):
        checkpoints.read(pieces / "last")


def test_a_piece_that_is_missing_everywhere_is_told(pieces: Path, tmp_path: Path) -> None:
    (few := tmp_path / "few").mkdir()
    for name in ("shard-00001-model-00001-of-00002.safetensors", "shard-00002-model-00002-of-00002.safetensors"):
        shutil.copy(pieces / "last" / name, few / name)
    with pytest.raises(ValueError, match=r"pieces of .* are missing"):
        shards.read_whole(few)
    with pytest.raises(checkpoints.Damaged, match="the files of other processes are missing"):
        checkpoints.synced(few, 10**9)


def test_nothing_of_a_checkpoint_is_a_pickle(pieces: Path) -> None:
    from safetensors import safe_open

    for path in (pieces / "last").iterdir():
        if path.name != "state.json":
            with safe_open(path, "pt") as file:
                assert list(file.keys())
    state = checkpoints.read_state(pieces / "last")
    assert shards.checksum_of_weights(state["files"]) != shards.checksum_of_weights(checkpoints.read_state(pieces / "last.previous")["files"])  # fmt: skip


def test_the_python_api_in_a_team(root: Path, warm: Warm) -> None:
    """The script of each process gets the run. exact_across: with the bits of one process."""
    for world in (2, 1):
        name = f"lab{world}"
        place = Path(shutil.copytree(root, root / name))
        ended = warm.run(place, world, "call", "train_by_the_api")
        assert ended == [(0, f"{rank} mine {STEPS} {world}\n") for rank in range(world)]
    weights = [
        (out(root / name, "mine") / "checkpoints/last/model.safetensors").read_bytes() for name in ("lab1", "lab2")
    ]
    assert weights[0] == weights[1]
