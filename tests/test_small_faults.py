"""Small things that cost trust: impossible figures, settings that are not named, warnings that mean nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from core.report.run_report import position
from core.report.runs import RunData
from core.training import speed
from core.training.machine import Machine
from core.training.speed import Speed

Terrarium = Callable[..., Result]


def test_a_share_of_the_peak_is_never_more_than_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[bool] = []

    def peak(device: torch.device, dtype: torch.dtype, *, again: bool = False) -> float:
        measured.append(again)
        return 200.0 if again else 100.0

    monkeypatch.setattr(speed, "peak_or_none", peak)
    found = Speed(Machine(torch.device("cpu"), torch.float32), tokens_per_step=1, flops_per_token=1)
    assert found.mfu(50.0) == 0.5
    assert found.mfu(150.0) == 0.75 and measured == [False, True]
    assert found.mfu(250.0) is None and measured == [False, True]
    assert "mfu" not in found.figures(250.0)


def test_a_mistyped_dataset_dir_is_named(lab: Path, terrarium: Terrarium) -> None:
    folder = lab / "bins"
    (folder / "datasets" / "words").mkdir(parents=True)
    for side in ("train", "val"):
        (folder / "datasets" / "words" / f"{side}.bin").write_bytes(bytes(2000))
    (folder / "config.toml").write_text('[prepare]\ndataset_dir = "datasets/wrods"\n')
    result = terrarium("train", "bins")
    assert result.exit_code == 2
    assert 'config.toml:2: dataset_dir = "datasets/wrods" has no train.bin, and there is nothing to' in result.stderr
    assert "Did you mean 'datasets/words'?" in result.stderr


def test_a_new_dataset_dir_that_looks_mistyped_is_told(spaces: Path, terrarium: Terrarium) -> None:
    def prepared(folder: str) -> str:
        result = terrarium("prepare", "spaces", f"prepare.dataset_dir=datasets/{folder}")
        assert result.exit_code == 0, result.output
        return result.stdout

    for folder in ("words", "words-2", "numbers"):
        assert "is a new folder" not in prepared(folder)
    told = "dataset_dir = \"datasets/wrods\" is a new folder. Did you mean 'words'?"
    assert told in prepared("wrods")
    assert told not in prepared("wrods")  # it is no longer new


def test_line_ends_and_a_byte_order_mark_of_windows(lab: Path, terrarium: Terrarium) -> None:
    folder = lab / "pairs"
    folder.mkdir()
    settings = '[prepare]\ninput = "pairs.txt"\nformat = "pairs"\nseparator = ": "\n'
    lines = "".join(f"{number}: x{number}\n" for number in range(40))
    hashes = []
    for end, encoding in (("\n", "utf-8"), ("\r\n", "utf-8-sig")):
        (folder / "config.toml").write_bytes(settings.replace("\n", end).encode(encoding))
        (folder / "pairs.txt").write_bytes(lines.replace("\n", end).encode(encoding))
        result = terrarium("prepare", "pairs", "--json")
        assert result.exit_code == 0, result.output
        hashes.append(json.loads(result.stdout)["data_hash"])
    assert hashes[0] == hashes[1]
    (folder / "config.toml").write_bytes(b"\xef\xbb\xbf" + settings.replace("\n", "\r\n").encode() + b"sepa = 1\r\n")
    assert "config.toml:5: unknown key 'prepare.sepa'" in terrarium("prepare", "pairs").stderr


@pytest.mark.parametrize(
    ("steps", "rows", "saved", "told"),
    [
        (0, [180], False, "it ended at about step 180, before its first checkpoint, so it starts again from step 0"),
        (0, [180], True, "it is at step 180"),
        (7, [5], True, "it is at step 7"),
        (0, [], False, "it is at step 0"),
    ],
)
def test_a_killed_run_says_where_it_was(tmp_path: Path, steps: int, rows: list[int], saved: bool, told: str) -> None:
    if saved:
        (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    (tmp_path / "metrics.csv").write_text("step\n" + "".join(f"{step}\n" for step in rows))
    assert position(RunData(tmp_path, {"steps": steps}, {})) == told


def test_tensorboard_reads_a_resumed_run_without_a_warning(
    spaces: Path, terrarium: Terrarium, caplog: pytest.LogCaptureFixture
) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from core.lab.opened import open_folder
    from core.tracking.run import Run
    from core.tracking.tensorboard import TensorBoard

    run = Run(open_folder("spaces").experiment, "one", open_folder("spaces").config)
    for steps in ((1, 2, 3, 4), (3, 4, 5)):  # the first try was killed behind a checkpoint at step 2
        tracker = TensorBoard(run)
        for step in steps:
            tracker.log(step, {"step": step, "train_loss": 1.0 / step})
        tracker.close()
    with caplog.at_level(logging.WARNING):
        events = event_accumulator.EventAccumulator(str(run.folder / "logs" / "tb"))
        events.Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2, 3, 4, 5]
    assert "-1" not in caplog.text and "Purging" not in caplog.text
