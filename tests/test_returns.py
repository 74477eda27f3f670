"""Models that return (logits, loss), as nanoGPT's does, are trained and sampled from; other results are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.models.returns import return_logits

NANOGPT = '''
import torch.nn.functional as F
from torch import nn


class Theirs(nn.Module):
    """As nanoGPT's GPT: without targets, it computes the last place only."""

    def __init__(self, config, vocab_size):
        super().__init__()
        self.wte, self.lm_head = nn.Embedding(vocab_size, config.n_embd), nn.Linear(config.n_embd, vocab_size)

    def forward(self, idx, targets=None):
        x = self.wte(idx)
        if targets is None:
            return self.lm_head(x[:, [-1], :]), None
        logits = self.lm_head(x)
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)


def build_model(config, vocab_size):
    return Theirs(config, vocab_size)
'''
LOSS = """

def loss(model, batch):
    logits, mean = model(batch.inputs, batch.targets)
    return mean
"""


@pytest.mark.parametrize("own_loss", [False, True])
def test_a_model_of_nanogpt_is_trained(spaces: Path, terrarium: Callable[..., Any], own_loss: bool) -> None:
    code = (spaces / "prepare.py").read_text() + NANOGPT + (LOSS if own_loss else "")
    (spaces / "prepare.py").write_text(code)
    trained = terrarium("train", "spaces")
    assert trained.exit_code == 0, trained.output
    assert terrarium("sample", "spaces").exit_code == 0


class Model(nn.Module):
    def __init__(self, result: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.result = result

    def forward(self, ids: Tensor) -> Any:
        return self.result(ids)


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


def test_logits_are_taken_from_what_is_returned() -> None:
    ids = torch.tensor([[0, 1, 2]])
    logits = F.one_hot(ids, 3).float()
    for result in (lambda _: logits, lambda _: (logits, None), lambda _: Output(logits)):
        assert return_logits(Model(result), "here")(ids) is logits


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (lambda ids: None, "NoneType"),
        (lambda ids: (torch.zeros(1, 1, 3), None), "a tensor of shape (1, 1, 3)"),
        (lambda ids: torch.zeros(3, 4), "a tensor of shape (3, 4)"),
    ],
)
def test_what_is_no_logits_is_named(result: Callable[[Tensor], Any], found: str) -> None:
    with pytest.raises(UserError) as error:
        return_logits(Model(result), "prepare.py")(torch.zeros(1, 3, dtype=torch.long))
    assert error.value.message == f"the model returned {found} for ids of shape (1, 3), not logits (B, T, V)"
    assert error.value.place == "prepare.py"
    assert error.value.remedy == "Return the logits of all places, or (logits, loss) as nanoGPT does."
