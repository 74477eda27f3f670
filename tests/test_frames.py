"""What stands around documents with a pretrained tokenizer: its begin and end token, in training as in sampling."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import PREPARE, TINY
from preparing import run, write
from tokenizer_folders import model_folder

from core import open_experiment
from core.config import Data
from core.data.batches import NO_TARGET, batch, validation_rows
from core.data.dataset import Dataset

Terrarium = Callable[..., Result]
BEGIN, END = 0, 1  # <|begin_of_text|> and <|eot_id|> of the format llama3
DOCUMENTS = '''"""Running text."""


def documents():
    for number in range(40):
        yield f"Speech {number}: " + "hear, hear! " * (1 + number % 5)
'''
PLAIN = '''"""Conversations as text."""
from core import Conversation, Message


def documents():
    for number in range(40):
        yield Conversation([Message("user", f"{number}?"), Message("assistant", f"{number + 1}.")])
'''


@pytest.fixture(scope="module")
def llama3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("models") / "llama3", "llama3")


def config_of(tokenizer: Path, more: str = "") -> str:
    return f'[prepare]\nencoder = "hf"\ntokenizer = "{tokenizer}"\n{more}'


def assert_framed(dataset: Dataset, side: str, *, documents: int) -> None:
    """Each document stands between one begin and one end, and no begin is a target."""
    split = getattr(dataset, side)
    ids, mask = np.asarray(split.ids), np.asarray(split.mask)
    begins, ends = np.flatnonzero(ids == BEGIN), np.flatnonzero(ids == END)
    assert len(begins) == len(ends) == documents and begins[0] == 0 and ends[-1] == len(ids) - 1
    assert np.array_equal(begins[1:], ends[:-1] + 1)
    assert np.array_equal(mask == 0, ids == BEGIN)
    counts = dataset.info[side]
    assert counts["tokens"] == len(ids) and counts["target_tokens"] == mask.sum()


def test_running_text_has_both_tokens_around_each_document(tmp_path: Path, llama3: Path) -> None:
    dataset = run(write(tmp_path / "one", DOCUMENTS, config_of(llama3)))
    assert dataset.info["kind"] == "text" and dataset.begin == BEGIN and dataset.end_token == END
    assert_framed(dataset, "train", documents=36)
    assert_framed(dataset, "val", documents=4)
    text = dataset.encoder.decode(np.asarray(dataset.train.ids).tolist())
    assert text.startswith("Speech 0: hear, hear! Speech 1: hear") and dataset.info["train"]["bytes"] == len(
        text.encode()
    )
    data = Data(block_size=16, batch_size=4, mask_prompt=True)
    for inputs, targets in [
        *(tuple(side[0] for side in batch(dataset.train, data, 0, step)) for step in range(20)),
        *validation_rows(dataset.val, data),
    ]:
        assert not (targets == BEGIN).any()
        behind_end = inputs == END
        assert (targets[behind_end] == NO_TARGET).all() and (targets[:, :-1][inputs[:, 1:] == END] == END).all()


def test_one_long_text_is_one_document(tmp_path: Path, llama3: Path) -> None:
    """A file is cut into sides: what begins the text stands in train, what ends it in val."""
    folder = write(tmp_path / "file", config=config_of(llama3, 'input = "input.txt"\n'))
    (folder / "input.txt").write_text("Hear, hear! \n" * 2000)
    dataset = run(folder)
    train, val = np.asarray(dataset.train.ids), np.asarray(dataset.val.ids)
    assert train[0] == BEGIN and (train == BEGIN).sum() == 1 and not (train == END).any()
    assert val[-1] == END and (val == END).sum() == 1 and not (val == BEGIN).any()
    assert dataset.encoder.decode([*train.tolist(), *val.tolist()]) == "Hear, hear! \n" * 2000


def test_a_tokenizer_without_a_begin_token_ends_documents(tmp_path: Path) -> None:
    dataset = run(write(tmp_path / "one", DOCUMENTS, config_of(model_folder(tmp_path / "model", "none"))))
    assert dataset.begin is None and dataset.train.mask is None and dataset.end_token == 0
    assert (np.asarray(dataset.train.ids) == 0).sum() == 36 and dataset.train.ids[-1] == 0


@pytest.mark.parametrize("code", [PREPARE, PLAIN])
def test_examples_and_plain_conversations_begin_with_it(tmp_path: Path, llama3: Path, code: str) -> None:
    dataset = run(write(tmp_path / "one", code, config_of(llama3, "size = 3000\n")))
    for number in range(10):
        ids, mask = dataset.train.document(number)
        assert mask is not None and ids[0] == BEGIN and (ids == BEGIN).sum() == 1 and mask[0] == 0
    assert dataset.begin == BEGIN


def test_other_encoders_put_nothing_around(tmp_path: Path) -> None:
    dataset = run(write(tmp_path / "one", DOCUMENTS, '[prepare]\nencoder = "bytes"\n'))
    assert dataset.begin is None and dataset.end_token is None and dataset.train.mask is None
    assert "begin" not in dataset.info and bytes(dataset.train.ids.tolist()).startswith(
        b"Speech 0: hear, hear! Speech 1"
    )


@pytest.mark.parametrize("code", [PREPARE, DOCUMENTS])
def test_the_model_receives_prompts_as_it_was_trained(
    lab: Path, llama3: Path, terrarium: Terrarium, monkeypatch: Any, code: str
) -> None:
    """What sample and complete, exact match and the report give to the model begins as a training row does."""
    from core.models.gpt import GPT

    folder = lab / "framed"
    folder.mkdir()
    (folder / "prepare.py").write_text(code)
    (folder / "config.toml").write_text(
        TINY.replace("[prepare]\n", config_of(llama3), 1).replace('encoder = "char"\n', "")
    )
    result = terrarium("train", "framed", "-q", "-s", "prepare.size=3000")
    assert result.exit_code == 0, result.stderr
    model = open_experiment("framed").run().load()
    row = np.asarray(model.dataset.train.ids[:3]).tolist()
    received: list[list[int]] = []
    forward = GPT.forward

    def noted(self: Any, tokens: torch.Tensor, *more: Any, **choices: Any) -> Any:
        if tokens.shape[1] > 1:  # not a single new token
            received.extend(tokens.tolist())
        return forward(self, tokens, *more, **choices)

    monkeypatch.setattr(GPT, "forward", noted)
    prompt = model.encoder.decode(row)
    model.complete([prompt], max_new_tokens=2)
    assert received[0][: len(row)] == row and row[0] == BEGIN
    received.clear()
    assert (
        terrarium("sample", "framed", "--start", prompt, "--num-samples", "1", "--max-new-tokens", "2").exit_code == 0
    )
    assert received[0][: len(row)] == row
    received.clear()
    if code == PREPARE:
        model.evaluate()
    else:
        assert terrarium("sample", "framed", "--num-samples", "1", "--max-new-tokens", "2").exit_code == 0
    assert all(tokens[0] == BEGIN for tokens in received)


def test_check_shows_it_and_warns_of_two(lab: Path, llama3: Path, terrarium: Terrarium) -> None:
    folder = lab / "framed"
    folder.mkdir()
    (folder / "prepare.py").write_text(DOCUMENTS.replace('f"Speech', 'f"<|begin_of_text|>Speech'))
    (folder / "config.toml").write_text(
        TINY.replace("[prepare]\n", config_of(llama3), 1).replace('encoder = "char"\n', "")
    )
    told = terrarium("check", "framed")
    assert "<|begin_of_text|> before, <|eot_id|> behind" in told.output, told.output
    assert "documents begin with <|begin_of_text|> twice: it is put before each of them" in told.output
    (folder / "prepare.py").write_text(DOCUMENTS)
    found = json.loads(
        terrarium("check", "framed", "--json", "-s", "sample.sample.start=<|begin_of_text|>Speech").stdout
    )
    told_of = [warning["message"] for warning in found["warnings"]]
    assert not any("documents begin" in message for message in told_of)
    assert any(message.startswith("the prompt begins with <|begin_of_text|> twice") for message in told_of)
