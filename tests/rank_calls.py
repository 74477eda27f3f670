"""What the processes of a team do in tests, each the same function: `warm.run(folder, world, "call", NAME, ...)`."""

from __future__ import annotations

import copy
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Tied(nn.Module):
    """Two blocks whose rows no two processes can share equally, and an embedding that is the head, too."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(7, 5)
        self.h = nn.ModuleList(nn.Sequential(nn.Linear(5, 9), nn.GELU(), nn.Linear(9, 5)) for _ in range(2))
        self.lm_head = nn.Linear(5, 7, bias=False)
        self.lm_head.weight = self.wte.weight
        self.frozen = nn.Linear(5, 5)
        self.frozen.requires_grad_(False)
        self.register_buffer("kept", torch.arange(3.0))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens)
        for block in self.h:
            x = x + block(x)
        found: Tensor = self.lm_head(x + self.frozen(x))
        return found


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    trained = [each for each in model.parameters() if each.requires_grad]
    return torch.optim.AdamW([{"params": trained, "lr": 0.01, "peak_lr": 0.01}], fused=True)


def muon(model: nn.Module) -> torch.optim.Optimizer:
    from core.training.muon import Muon

    blocks = [each for name, each in model.named_parameters() if name.startswith("h.") and each.dim() == 2]
    others = [each for each in model.parameters() if each.requires_grad and all(each is not block for block in blocks)]
    shared = {"lr": 0.01, "peak_lr": 0.01}
    return Muon([
        {"params": blocks, "muon": True, "momentum": 0.9, "weight_decay": 0.1, "pieces": [3, [2, 3], 1, 1], **shared},
        {"params": others, "muon": False, "betas": [0.9, 0.95], "eps": 1e-10, **shared},
    ])  # fmt: skip


def divide_and_return(name: str, folder: str) -> None:
    """Divide a model and its optimizer, save and read them, take a step, and note what differs from one process."""
    from core.process import StopRequest
    from core.training import checkpoints
    from core.training.divided_step import divided_step
    from core.training.machine import Machine
    from core.training.objectives import tokens
    from core.training.step import Step
    from core.training.team import joined
    from core.training.team_step import help_with_steps

    build = {"adamw": adamw, "muon": muon}[name]
    with joined() as team:
        torch.manual_seed(3)
        model = Tied()
        step = Step(model, build(model), Machine(torch.device("cpu"), torch.float32, processes=team.world), 0.5, tokens)
        draw = np.random.default_rng(2)
        batches = [(draw.integers(0, 7, (2, 4, 6)), draw.integers(0, 7, (2, 4, 6))) for _ in range(2)]
        if not team.rank:
            step(*batches[0])
        alone = Step(*copy.deepcopy((model, step.optimizer)), step.machine, step.grad_clip, tokens)
        shared = divided_step(step, team, build, StopRequest())
        if team.rank:
            help_with_steps(shared, "here")
            return
        shared.share_state()
        expected = {
            "model": dict(checkpoints.weights(alone.model)),
            "optimizer": checkpoints.flatten(alone.optimizer)[0],
        }
        expected = {name: {key: each.clone() for key, each in found.items()} for name, found in expected.items()}
        moments, plain = checkpoints.flatten(shared.optimizer)
        place = checkpoints.save(
            Path(folder), "last", checkpoints.weights(shared.model), moments, {"step": 1}, shared.write
        )
        read = checkpoints.read(place)
        with shared.whole():
            collected = {key: each.clone() for key, each in checkpoints.weights(model).items()}
        same = {
            "model": equal(read.model, expected["model"]), "optimizer": equal(read.optimizer, expected["optimizer"]),
            "collected": equal(collected, expected["model"]), "left": len(step.optimizer.state),
            "plain": plain == checkpoints.flatten(alone.optimizer)[1],
            "rows": sum(each.to_local().numel() for each in shared.model.parameters()) / sum(p.numel() for p in model.parameters()),
        }  # fmt: skip
        figures = [each.gradient(*batches[1]).tolist() for each in (shared, alone)]
        for each in (shared, alone):
            assert each.update(batches[1][1])
        norms = [shared.norm(), alone.norm()]
        with shared.whole():
            own, other = checkpoints.weights(model), checkpoints.weights(alone.model)
            apart = max(float((own[key] - other[key]).abs().max()) for key in own)
        shared.share_state()
        team.broadcast({"do": "end"})
        found = {**same, "figures": figures, "norms": norms, "apart": apart}
        (Path(folder) / "found.json").write_text(json.dumps(found))


def is_second() -> bool:
    return os.environ.get("RANK") == "1"


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def train_without_disk(*arguments: str) -> None:
    """The second process finds the disk full in its third save."""
    from torch.distributed.checkpoint import filesystem

    count, whole = [0], filesystem.FileSystem.create_stream

    def create_stream(self: Any, path: Any, mode: str) -> Any:
        count[0] += 1
        if is_second() and count[0] > 4:  # two files in each
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return whole(self, path, mode)

    filesystem.FileSystem.create_stream = create_stream  # type: ignore[method-assign,assignment]
    run(*arguments)


def train_unseen(*arguments: str) -> None:
    """The second process is on a machine that does not have the run's folder."""
    whole = Path.is_dir

    def is_dir(self: Path, **more: bool) -> bool:
        return whole(self, **more) and not (is_second() and "checkpoints" in self.parts)

    Path.is_dir = is_dir  # type: ignore[method-assign,assignment]
    run(*arguments)


def train_unreachable(*arguments: str) -> None:
    """A firewall is between the processes, and all live."""
    import torch.distributed as dist

    from core.training.link import Link

    def refuse(*_: Any, **more: Any) -> None:
        raise RuntimeError("no route to host\nat some place in gloo")

    dist.init_process_group = refuse  # type: ignore[assignment]
    Link.loss = lambda self: None  # type: ignore[method-assign]  # which takes its time
    run(*arguments)


def train_in_little_memory(*arguments: str) -> None:
    """The state of the tiny model does not fit into the memory of a process."""
    from core.lab import assemble

    assemble.memory_of = lambda device: 1000  # type: ignore[assignment]
    run(*arguments)


def train_by_the_api() -> None:
    """The same script in each process."""
    from core import open_experiment

    trained = open_experiment("tiny", {"train.runtime.exact_across": True}).train("mine")
    print(
        os.environ.get("RANK", "0"),
        trained.name,
        trained.summary["steps"],
        trained.summary["choices"]["processes"],
        flush=True,
    )


def run(*arguments: str) -> None:
    from core.cli.main import cli

    cli.main(arguments)
