"""A recorded step: what is replayed gives the weights of the step as it is, whatever happens between two steps.

There are no CUDA graphs on a CPU. A stand-in for the recorder keeps the function and calls it at each replay, into the tensors of its
first result; what a real replay could not do, it cannot either: other tensors, other numbers, a number read from a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.config import Config, Optim, replaced
from core.defaults import resolve
from core.errors import UserError
from core.models.build import build_model
from core.models.recorded import REHEARSALS, fill
from core.training import graphed, muon
from core.training.graphed import GraphedStep, is_worth_recording, step_of
from core.training.machine import Machine
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.training.step import Step

VOCAB, STEPS = 17, 8
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def precise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon's products in float32: bfloat16 would make the last digits large."""
    monkeypatch.setattr(muon, "product_dtype", lambda device: torch.float32)


class Reads(TorchDispatchMode):
    """Counts numbers that Python reads from tensors: on a GPU, each waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), names: Any = None) -> Any:
        self.count += operation in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return operation(*arguments, **(names or {}))


class Recordings:
    """Stands in for `record`. What changes in Python after recording is not seen: the learning rates are put back for a replay."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.replays = optimizer, 0

    def __call__(self, function: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        is_gradient, result = function.__name__ == "gradient", torch.zeros(2)

        def replay() -> None:
            self.replays += 1
            now = [group["lr"] for group in self.optimizer.param_groups]
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            for parameter in parameters if is_gradient else ():
                parameter.grad = None
            with Reads() as reads:
                found = function()
            assert not reads.count
            if is_gradient:
                result.copy_(found)
            for group, rate in zip(self.optimizer.param_groups, now, strict=True):
                group["lr"] = rate

        return replay, result


def model_and_optimizer(preset: str = "modern", **more: Any) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    keys = {
        "train.model.preset": preset,
        "train.model.n_layer": 2,
        "train.model.n_head": 2,
        "train.model.n_embd": 16,
        **more,
    }
    config = resolve(replaced(Config(), keys)).train
    torch.manual_seed(0)
    model = build_model(config.model, VOCAB)
    return model, build_optimizer(model, config.optim)


def batch(number: int, count: int = 2, rows: int = 3, *, targets: bool = True) -> tuple[Any, Any]:
    ids = np.random.default_rng(number).integers(VOCAB, size=(count, rows, 9))
    wanted = ids[:, :, 1:].copy()
    wanted[:, 0, : number % 5] = -1  # another number of targets in each step
    return ids[:, :, :-1].copy(), wanted if targets else np.full_like(wanted, -1)


def take(step: Step, number: int, *more: Any, **kind: Any) -> list[float]:
    """One step at a rate of its own. Returns the loss and the gradient's norm."""
    for group in step.optimizer.param_groups:
        group["lr"] = group["peak_lr"] * (1 - number / 20)
    inputs, targets = batch(number, *more, **kind)
    figures: list[float] = step.gradient(inputs, targets).tolist()
    step.update(targets)
    return figures


def pair(preset: str = "modern", clip: float | None = 1.0, **more: Any) -> tuple[Step, GraphedStep, Recordings]:
    """The step as it is, and a recorded one of an equal model."""
    machine = Machine(CPU, torch.float32, threads=1)
    plain = Step(*model_and_optimizer(preset, **more), machine, clip, tokens)
    model, optimizer = model_and_optimizer(preset, **more)
    recordings = Recordings(optimizer)
    return plain, GraphedStep(model, optimizer, machine, clip, tokens, recorder=recordings), recordings


def assert_equal(one: Step, other: Step, atol: float = 2e-6) -> None:
    """Within rounding: a number on the device is float32. A step changes weights by about 5e-3."""
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=atol)


@pytest.mark.parametrize(
    ("preset", "more"),
    [
        ("modern", {}),
        ("modern", {"train.optim.weight_decay": 0.1, "train.optim.state_dtype": "bfloat16"}),
        ("gpt2", {}),
        ("gpt2", {"train.optim.state_dtype": "bfloat16"}),
        ("llama", {"train.optim.name": "adam", "train.optim.weight_decay": 0.01}),
        ("portable", {"train.optim.name": "sgd"}),
    ],
)
def test_replays_train_as_the_step_does(preset: str, more: dict[str, Any]) -> None:
    plain, recorded, recordings = pair(preset, **more)
    for number in range(STEPS):
        assert take(recorded, number) == pytest.approx(take(plain, number), rel=1e-3)
        assert_equal(
            plain, recorded, 2e-3 if "train.optim.state_dtype" in more else 2e-6
        )  # which rounds to other values
    assert recordings.replays == 2 * (STEPS - REHEARSALS)
    states = [step.optimizer.state_dict() for step in (plain, recorded)]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert states[0]["state"].keys() == states[1]["state"].keys()


def test_the_figures_of_a_step_are_its_own() -> None:
    """The loop reads them steps later."""
    plain, recorded, _ = pair()
    unread = [[step.gradient(*batch(number)) for number in range(1)] for step in (plain, recorded)]
    for step, figures in zip((plain, recorded), unread, strict=True):
        step.update(batch(0)[1])
        for number in range(1, STEPS):
            figures.append(step.gradient(*batch(number)))
            step.update(batch(number)[1])
    torch.testing.assert_close(torch.stack(unread[0]), torch.stack(unread[1]), rtol=1e-4, atol=1e-6)


def test_steps_without_a_target_change_nothing() -> None:
    plain, recorded, _ = pair()
    for number in range(STEPS):
        kind = {"targets": number not in (1, 5)}
        take(recorded, number, **kind)
        take(plain, number, **kind)
    assert_equal(plain, recorded)


def test_what_replaces_the_state_is_told_and_it_is_recorded_anew() -> None:
    plain, recorded, recordings = pair("gpt2")
    for step in (plain, recorded):
        for number in range(5):
            take(step, number)
        step.optimizer.load_state_dict(step.optimizer.state_dict())
        step.share_state()
        for number in range(5, 10):
            take(step, number)
    assert_equal(plain, recorded)
    assert recordings.replays == 2 * (2 + 2)


@pytest.mark.parametrize("preset", ["modern", "gpt2"])
def test_a_resume_has_the_bits_of_an_unbroken_run(preset: str) -> None:
    """Its first steps are not replays."""
    _, whole, _ = pair(preset)
    _, broken, recordings = pair(preset)
    for number in range(STEPS):
        if number == 5:
            broken.optimizer.load_state_dict(broken.optimizer.state_dict())
            broken.share_state()
        assert take(whole, number) == take(broken, number)
    for one, other in zip(whole.model.parameters(), broken.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert recordings.replays == 2 * 2


def test_what_cannot_be_recorded_is_computed_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    for fails in ("gradient", "update"):
        plain, recorded, recordings = pair()

        def recorder(function: Callable[[], Any], fails: str = fails, recordings: Recordings = recordings) -> Any:
            if (function.__name__ == "gradient") == (fails == "gradient"):
                raise RuntimeError("operation not permitted when stream is capturing\nmore")
            return recordings(function)

        recorded = replace(recorded, recorder=recorder)
        with pytest.warns(UserWarning) as caught:
            for number in range(STEPS):
                take(recorded, number)
                take(plain, number)
        assert [str(each.message) for each in caught] == [
            "train.runtime.cuda_graphs: the step cannot be recorded (operation not permitted when stream is capturing), so its "
            "operations are started one by one"
        ]
        assert_equal(plain, recorded)


def test_other_shapes_end_the_replays() -> None:
    plain, recorded, _ = pair()
    for number in range(5):
        take(plain, number), take(recorded, number)
    with pytest.warns(UserWarning, match=r"cannot be recorded \(the shape of its batches changes\)"):
        take(recorded, 5, 2, 2)
    take(plain, 5, 2, 2)
    for number in range(6, 8):
        take(plain, number), take(recorded, number)
    assert_equal(plain, recorded)


def test_memory_that_runs_out_is_told_as_ever() -> None:
    _, recorded, _ = pair()

    def recorder(function: Callable[[], Any]) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    recorded = replace(recorded, recorder=recorder)
    for number in range(REHEARSALS):
        take(recorded, number)
    with pytest.raises(torch.OutOfMemoryError):
        take(recorded, REHEARSALS)


def test_an_unknown_optimizer_takes_its_own_steps() -> None:
    plain, recorded, recordings = pair("gpt2")
    steps = []
    for each in (plain, recorded):
        optimizer = torch.optim.RMSprop(each.model.parameters(), lr=1e-3)
        optimizer.param_groups[0]["peak_lr"] = 1e-3
        steps.append(replace(each, optimizer=optimizer))
    recordings.optimizer = steps[1].optimizer
    for number in range(STEPS):
        for step in steps:
            take(step, number)
    assert_equal(*steps)
    assert recordings.replays == STEPS - REHEARSALS


@pytest.mark.parametrize("preset", ["modern", "gpt2", "llama", "portable"])
def test_a_step_never_waits_for_the_device(preset: str) -> None:
    step, _, _ = pair(preset, clip=1.0)
    with Reads() as reads:
        for number in range(3):
            inputs, targets = batch(number)
            step.gradient(inputs, targets)
            step.update(targets)
    assert reads.count == 0
    with Reads() as reads:
        step.gradient(inputs, targets).tolist()
        float(step.gradient(inputs, targets)[0])
    assert reads.count == 1, "the test can fail"


def test_the_step_of_a_machine() -> None:
    parts = model_and_optimizer()
    machine = Machine(CPU, torch.float32, compile=True, cuda_graphs=True)
    step = step_of(*parts, machine, None, tokens)
    assert type(step) is GraphedStep
    eager = step.eager()
    assert type(eager) is Step and not eager.machine.compile and not eager.machine.cuda_graphs
    assert type(step_of(*parts, replace(machine, cuda_graphs=False), None, tokens)) is Step


# The rule


def shaped(**keys: Any) -> Any:
    small = {"model.n_layer": 6, "model.n_embd": 384, "model.n_head": 6, "data.batch_size": 64, "data.block_size": 256}
    return resolve(replaced(Config(), {f"train.{name}": value for name, value in (small | keys).items()})).train


def test_nothing_is_recorded_by_rule_yet() -> None:
    assert not is_worth_recording(shaped(), GPU, own_code=False)


def test_small_steps_of_long_runs_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.training.graphed.BY_RULE", True)

    def worth(device: torch.device = GPU, own_code: bool = False, **keys: Any) -> bool:
        return is_worth_recording(shaped(**keys), device, own_code=own_code)

    assert worth() and worth(**{"runtime.max_minutes": 1.0})
    assert not worth(CPU) and not worth(torch.device("mps")) and not worth(own_code=True)
    assert not worth(**{"schedule.max_iters": 99}) and worth(**{"schedule.max_iters": 100})
    assert not worth(**{"model.kind": "lstm"}) and not worth(**{"objective.kind": "reward"})
    assert not worth(**{"runtime.exact_across": True, "data.grad_accum_steps": 2})
    gpt2 = {
        "model.n_layer": 12,
        "model.n_head": 12,
        "model.n_embd": 768,
        "data.batch_size": 32,
        "data.block_size": 1024,
    }
    assert not worth(**gpt2)


def test_a_team_does_not_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.training.graphed.BY_RULE", True)
    for name, value in (("MASTER_ADDR", "localhost"), ("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    assert not is_worth_recording(shaped(), GPU, own_code=False)


def test_what_a_cpu_cannot_do_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        graphed.refuse_without_graphs(CPU)
    assert str(caught.value) == (
        'train.runtime.cuda_graphs = true: there are no CUDA graphs on device "cpu"\n'
        '  Train on an NVIDIA or AMD GPU, or set train.runtime.cuda_graphs = "auto".'
    )
    graphed.refuse_without_graphs(GPU)


def test_a_state_in_bfloat16_is_half_as_large() -> None:
    for preset in ("modern", "gpt2"):
        sizes = {}
        for dtype in ("float32", "bfloat16"):
            model, optimizer = model_and_optimizer(preset, **{"train.optim.state_dtype": dtype})
            step = Step(model, optimizer, Machine(CPU, torch.float32), 1.0, tokens)
            take(step, 0)
            kept = [
                value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)
            ]
            sizes[dtype] = {each.dtype for each in kept if each.dim()}
        assert sizes == {"float32": {torch.float32}, "bfloat16": {torch.float32, torch.bfloat16}}, preset


def test_fill() -> None:
    place = torch.zeros(3)
    fill(place, torch.tensor([1, 2, 3]))
    assert place.tolist() == [1, 2, 3]


def optim(**keys: Any) -> Optim:
    return resolve(replaced(Config(), {f"train.optim.{key}": value for key, value in keys.items()})).train.optim


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_other_optimizers_keep_float32(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"{name} keeps its state in float32. Use muon or adamw, or leave state_dtype out."
    ):
        optim(name=name, state_dtype="bfloat16")
