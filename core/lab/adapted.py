"""What is said before a pretrained model is trained: the layers that get adapters, and the memory of a step and an evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from core.config import Train
from core.data.batches import validation_rows
from core.data.dataset import Dataset
from core.evaluation.loss import batch_losses
from core.files import megabytes
from core.lab.assemble import Fresh
from core.models.build import parameter_count
from core.training import checkpoints, memory
from core.training.step import Array

ADAM_BYTES = 8  # of the optimizer's state for each trained number, at most


def adapted_account(model: torch.nn.Module) -> dict[str, Any] | None:
    """The layers with adapters, as JSON values: equal ones together, and how many numbers are trained, of how many in all;
    and the same in words.

    None for a model without a pretrained base.
    """
    if checkpoints.base_of(model) is None:
        return None
    layers = [dataclasses.asdict(each) for each in model.adapted_layers()]  # type: ignore[operator]
    trained, base = parameter_count(model), int(model.base_numbers)  # type: ignore[arg-type]
    found = {"layers": layers, "trained": trained, "numbers": base + trained if layers else base}
    return found | {"lines": in_words(found)}


def in_words(account: dict[str, Any]) -> list[str]:
    """The account as two lines."""
    layers = [f"{each['count']} x {each['name']} {' x '.join(map(str, each['shape']))}" for each in account["layers"]]
    trained = f"{account['trained']:,} of {account['numbers']:,} numbers are trained ({account['trained'] / account['numbers']:.2%})"
    return [f"adapters on {', '.join(layers)}" if layers else "no adapters: the whole model is trained", trained]


def memory_line(fresh: Fresh, dataset: Dataset, config: Train, first: tuple[Array, ...]) -> str:
    """What a step and a batch of an evaluation need, measured once. Weights, gradient and random numbers are as they were.

    first: the batch of the first step. On a CPU the model's share is that of the whole process, with its
    libraries. "" where the system does not say how much memory is used. Raises NoRoom.
    """
    model, device = fresh.model, fresh.settled.machine.device
    rows = next(iter(validation_rows(dataset.val, config.data, 1)))
    with torch.random.fork_rng([device] if device.type == "cuda" else []), memory.noticing():
        model.train()
        with memory.measuring(device) as step:
            fresh.step.eager().gradient(*first)
        fresh.optimizer.zero_grad(set_to_none=True)
        model.eval()
        with memory.measuring(device) as evaluation:
            batch_losses(model, [rows], fresh.settled.machine)
    if step.rise is None or evaluation.rise is None or step.most is None:
        return ""
    state = ADAM_BYTES * parameter_count(model)
    return (
        f"memory: {megabytes(step.most - step.rise)} with the model, and {megabytes(step.rise + state)} more in a step, "
        f"{megabytes(evaluation.rise)} more in an evaluation"
    )
