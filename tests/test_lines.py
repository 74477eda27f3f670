"""Lines of another program's data as Examples: masked, aligned, answered and stopped early."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY

from core.config import Prepare
from core.data.dataset import Dataset, load_dataset
from core.data.lines import as_examples
from core.errors import UserError

Terrarium = Callable[..., Any]


def write(folder: Path, train: str, val: str) -> Path:
    """nanoGPT's three files."""
    folder.mkdir(parents=True, exist_ok=True)
    itos = dict(enumerate(sorted(set(train + val))))
    stoi = {text: number for number, text in itos.items()}
    for name, text in (("train", train), ("val", val)):
        np.array([stoi[letter] for letter in text], np.uint16).tofile(folder / f"{name}.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(itos), "itos": itos, "stoi": stoi}))
    return folder


def pairs(folder: Path, separator: str = "=") -> Dataset:
    return as_examples(load_dataset(folder), Prepare(format="pairs", separator=separator))


def test_lines_become_examples(tmp_path: Path) -> None:
    # the note of a title, a pair that stands twice, an empty answer; cut where nanoGPT cuts, inside a line
    dataset = pairs(write(tmp_path, "sums\n1+1=2\n1+2=3\n1+1=2\n2+2=\n3+", "3=6\n4+4=8\n1+2=3\n5+5=1"))
    assert [tuple(example)[:2] for example in dataset.examples("train", 0)] == [
        ("1+1=", "2\n"),
        ("1+2=", "3\n"),
        ("2+2=", "\n"),
    ]
    assert [tuple(example)[:2] for example in dataset.examples("val", 0)] == [("4+4=", "8\n"), ("1+2=", "3\n")]
    assert dataset.encoder.decode(dataset.train.ids.tolist()) == "1+1=2\n1+2=3\n1+1=2\n2+2=\n"
    learnt = dataset.encoder.decode(dataset.train.ids[dataset.train.mask != 0].tolist())
    assert learnt == "2\n3\n2\n\n"
    assert dataset.encoder.decode(dataset.val.ids[dataset.val.mask != 0].tolist()) == "8\n3\n"
    assert (dataset.stop, dataset.longest_prompt, dataset.longest_completion) == ("\n", 4, 2)
    assert dataset.target_size("val", masked=True) == (4, 4)
    assert dataset.info["split"]["overlap"] == 1
    assert (
        "its 10 lines are read as prompts that end in '=', and completions. 4 of them have no '='"
        in dataset.info["note"]
    )
    assert dataset.fingerprint != load_dataset(tmp_path).fingerprint


def test_a_separator_of_several_tokens(tmp_path: Path) -> None:
    dataset = pairs(write(tmp_path, "a -> b - c\n> -> d\n", "e -> f\n"), " -> ")
    assert [tuple(example)[:2] for example in dataset.examples("train", 0)] == [("a -> ", "b - c\n"), ("> -> ", "d\n")]


@pytest.mark.parametrize(
    ("val", "separator", "message"),
    [
        ("4+4\n", "=", "val.bin has no whole line with the separator '='"),
        ("4=4\n", "?", "has no '?', so its lines cannot be read as pairs"),
    ],
)
def test_data_without_such_lines(tmp_path: Path, val: str, separator: str, message: str) -> None:
    write(tmp_path, "1=1\n+", val)
    with pytest.raises(UserError) as error:
        pairs(tmp_path, separator)
    assert message in error.value.message
    assert "prepare.separator" in error.value.remedy


def test_a_run_on_them_is_masked_aligned_and_stops_early(lab: Path, terrarium: Terrarium) -> None:
    text = "".join(f"{a}{b}=a\n" for a in "pqrs" for b in "pqrs") * 9
    folder = write(lab / "theirs", text, "".join(f"{a}t=a\nt{a}=a\n" for a in "pqrst"))
    steps = "max_iters = 400\nwarmup_iters = 0"
    (folder / "config.toml").write_text(
        TINY.replace("max_iters = 6", steps).replace("eval_interval = 3", "eval_interval = 20")
    )
    stop = ("-s", "train.runtime.stop_when=val_accuracy >= 0.99")
    done = terrarium("loop", "theirs", "-s", "prepare.separator==", *stop)
    assert done.exit_code == 0, done.output
    assert "lines are read as prompts that end in '='" in done.stdout
    assert "There is no test side (the data names none), so" in done.stdout
    run = folder / "out" / "default"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["accuracy"], summary["prompts"], summary["side"]) == (1.0, 9, "val")
    assert summary["steps"] < 400
    again = terrarium("evaluate", "theirs", "--json")
    assert json.loads(again.stdout)["val_accuracy"] == 1.0
