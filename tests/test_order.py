"""Data order: a pure function of seed and step, across resumes, workers and parts of a global batch. Ids are compared in
order, never sorted.

There is one process and one device per run: no rank and no loading worker yet. What they would need is shown here of
the function that they would call: every way to cut a global batch into ordered parts gives the same sequence.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import Data
from core.data.batches import batch
from core.data.dataset import Split

Terrarium = Callable[..., Result]
GLOBAL = 8  # rows of the global batch


def side(layout: str, tokens: int = 4000) -> Split:
    """Token n has the id n, so that an id tells the place that it was taken from."""
    ids = np.arange(tokens, dtype=np.uint16)
    if layout == "stream":
        return Split(Path("train.bin"), ids)
    return Split(Path("train.bin"), ids, np.ones(tokens, np.uint8), np.arange(0, tokens, 7, dtype=np.uint64))


def ids_of(layout: str, rows: int, micro: int, seed: int, step: int) -> list[int]:
    """Ids of a global batch in order, as inputs and then targets."""
    data = Data(batch_size=rows, grad_accum_steps=micro, block_size=5, layout=layout)
    inputs, targets = batch(side(layout), data, seed, step)
    return [*inputs.reshape(-1).tolist(), *targets.reshape(-1).tolist()]


@settings(max_examples=60)
@given(st.sampled_from(["stream", "rows"]), st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_a_global_batch_is_the_same_however_it_is_cut(layout: str, seed: int, step: int) -> None:
    """world ranks, each with its ordered part, in micro-batches of any size: laid together they are one sequence."""
    whole = ids_of(layout, GLOBAL, 1, seed, step)
    for world in (1, 2, 4):
        for micro in (1, 2):
            rows = GLOBAL // (world * micro)
            assert ids_of(layout, rows, world * micro, seed, step) == whole
            data = Data(batch_size=rows, grad_accum_steps=world * micro, block_size=5, layout=layout)
            inputs, targets = batch(side(layout), data, seed, step)
            ranks = [slice(rank * micro, (rank + 1) * micro) for rank in range(world)]
            laid = [*np.concatenate([inputs[part] for part in ranks]).reshape(-1).tolist(),
                    *np.concatenate([targets[part] for part in ranks]).reshape(-1).tolist()]  # fmt: skip
            assert laid == whole


@pytest.mark.parametrize("layout", ["stream", "rows"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_give_the_same_sequence(layout: str, workers: int) -> None:
    """Workers that take steps in turn, each on its own, while the process draws other numbers."""
    split, data = side(layout), Data(batch_size=GLOBAL, block_size=5, layout=layout)
    alone = [batch(split, data, 1337, step)[0].tolist() for step in range(24)]

    def work(worker: int) -> dict[int, Any]:
        np.random.seed(worker)
        torch.manual_seed(worker)
        own = list(range(worker, 24, workers))[:: -1 if worker % 2 else 1]  # some go backwards
        return {step: batch(split, data, 1337, step)[0].tolist() for step in own}

    with ThreadPoolExecutor(workers) as pool:
        found = {step: ids for part in pool.map(work, range(workers)) for step, ids in part.items()}
    assert [found[step] for step in range(24)] == alone
    assert len({str(ids) for ids in alone}) == 24


def test_another_process_draws_the_same(tmp_path: Path) -> None:
    """With another hash seed and another current folder."""
    root = Path(__file__).parents[1]
    script = (
        "from test_order import ids_of; print([ids_of(l, 4, 2, 7, s) for l in ('stream', 'rows') for s in (0, 1, 999)])"
    )
    path = f"{root}:{root / 'tests'}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": path, "PYTHONHASHSEED": "5", "PATH": ""},
    )  # fmt: skip
    here = [ids_of(layout, 4, 2, 7, step) for layout in ("stream", "rows") for step in (0, 1, 999)]
    assert done.stdout.strip() == str(here), done.stderr


class Drawn:
    """Every batch that training takes, in order: the step, and its ids."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from core.lab import assemble

        self.taken: list[tuple[int, list[int]]] = []
        whole = assemble.batch

        def noted(split: Split, data: Data, seed: int, step: int) -> Any:
            inputs, targets = whole(split, data, seed, step)
            self.taken.append((step, [*inputs.reshape(-1).tolist(), *targets.reshape(-1).tolist()]))
            return inputs, targets

        monkeypatch.setattr(assemble, "batch", noted)


@pytest.mark.parametrize("experiment", ["spaces", "text"])
def test_a_run_in_pieces_sees_the_same_ids_in_the_same_order(
    spaces: Path, text: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, experiment: str
) -> None:
    drawn = Drawn(monkeypatch)
    steady = ("-s", "train.schedule.lr_decay_iters=12", "-s", "train.runtime.attention=explicit")
    assert terrarium("train", experiment, "-s", "train.schedule.max_iters=12", *steady).exit_code == 0
    unbroken, drawn.taken = drawn.taken, []
    for steps in (3, 4, 9, 12):
        options = ["-s", f"train.schedule.max_iters={steps}", *steady, *(["--resume"] if steps > 3 else [])]
        result = terrarium("train", experiment, "--run", "pieces", *options)
        assert result.exit_code == 0, result.output
    assert [step for step, _ in unbroken] == list(range(12))
    assert drawn.taken == unbroken


@pytest.mark.parametrize("micro", [2, 4])
def test_micro_batches_of_a_run_are_parts_of_its_global_batch(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, micro: int
) -> None:
    drawn = Drawn(monkeypatch)
    for run, parts in (("one", 1), ("many", micro)):
        options = ["-s", f"train.data.grad_accum_steps={parts}", "-s", f"train.data.batch_size={8 // parts}"]
        assert (
            terrarium("train", "spaces", "--run", run, *options, "-s", "train.runtime.attention=explicit").exit_code
            == 0
        )
    assert drawn.taken[:6] == drawn.taken[6:]
