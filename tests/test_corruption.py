"""Damage on disk is found: never is something else loaded than what was saved, and the message names file and remedy."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import Result

from core import durable
from core.data.info import read_info
from core.errors import UserError
from core.huggingface.adapters import adapter_of_checkpoint
from core.training import checkpoints

Terrarium = Callable[..., Result]
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@pytest.fixture
def run(spaces: Path, terrarium: Terrarium) -> Path:
    """The folder of a run with the checkpoints last (step 6), last.previous (4) and best."""
    assert terrarium("train", "spaces").exit_code == 0
    return spaces / "out" / "default"


def flip(data: bytes, place: int, bits: int) -> bytes:
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


@contextlib.contextmanager
def flipped(path: Path, whole: bytes, place: int, bits: int) -> Iterator[None]:
    """A file with some bits of one byte the other way round."""
    with path.open("r+b", buffering=0) as file:
        file.seek(place)
        file.write(bytes([whole[place] ^ bits]))
        yield
        file.seek(place)
        file.write(whole[place : place + 1])


def refused(folder: Path, place: int, bits: int) -> None:
    """Assert that one flip in state.json is found and told."""
    path = folder / "state.json"
    with flipped(path, path.read_bytes(), place, bits), pytest.raises(checkpoints.Damaged) as caught:
        checkpoints.read_state(folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_no_adapter_is_made_of_a_damaged_checkpoint(tmp_path: Path, name: str) -> None:
    """The file is not even read: its checksum is looked at first."""
    state = {"step": 3, "base": {"name": "base", "sha256": "ab"}}
    path = checkpoints.save(tmp_path, "best", {"a": torch.ones(3)}, {}, state) / name
    path.write_bytes(flip(path.read_bytes(), 20, 1))
    with pytest.warns(
        UserWarning, match=rf"{re.escape(str(path))}: (its checksum|not JSON).*: no adapter is made of it"
    ):
        adapter_of_checkpoint(SimpleNamespace(folder=tmp_path), path.parent, "best")
    assert not (tmp_path / "adapters").exists()


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3)}
    folder = checkpoints.save(tmp_path, "last", tensors, tensors, {"step": 3, "rng": {"cpu": "AAAA"}, "loss": 0.5})
    size = (folder / "state.json").stat().st_size
    for place in range(size):
        for bit in range(8):
            refused(folder, place, 1 << bit)
    print(f"{size * 8} bits flipped")
    assert checkpoints.read_state(folder)["step"] == 3


def test_bytes_of_a_run_s_manifest_count(run: Path) -> None:
    path = run / "checkpoints" / "last" / "state.json"
    whole, chance = path.read_bytes(), random.Random(0)
    for place in range(0, len(whole), 10):
        refused(path.parent, place, chance.randrange(1, 256))
    for place in chance.sample(range(len(whole)), 50):
        with (
            flipped(path, whole, place, 1),
            pytest.warns(UserWarning, match=r"last/state\.json: .*Using .*last\.previous \(step 4\) instead"),
        ):
            assert checkpoints.load(run / "checkpoints", "last").state["step"] == 4


@pytest.mark.slow
def test_every_byte_of_a_run_s_manifest_counts(run: Path) -> None:
    path, chance = run / "checkpoints" / "last" / "state.json", random.Random(0)
    for place in range(path.stat().st_size):
        refused(path.parent, place, chance.randrange(1, 256))


def test_every_byte_of_dataset_json_counts(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("prepare", "spaces").exit_code == 0
    folder = spaces / "datasets" / "basic"
    path = folder / "dataset.json"
    whole, chance, told = path.read_bytes(), random.Random(1), 0
    info = read_info(folder)
    assert "seal" in json.loads(whole) and "seal" not in info
    for place in range(len(whole)):
        with flipped(path, whole, place, chance.randrange(1, 256)):
            try:
                found = read_info(folder)
            except UserError as error:
                told += 1
                assert f"{path}: damaged: " in str(error) and "Prepare it again with `force=True`." in str(error)
            else:  # white space, or the name of the checksum itself: that is then taken for another key
                assert {key: value for key, value in found.items() if key in info} == info
    print(f"{len(whole)} bytes flipped, {told} of them told")
    assert told > 0.5 * len(whole)
    path.write_bytes(whole)
    path.write_text(json.dumps(info))  # as it was written before there was a checksum
    assert read_info(folder) == info


def test_a_damaged_dataset_json_is_made_again(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("prepare", "spaces").exit_code == 0
    path = spaces / "datasets" / "basic" / "dataset.json"
    path.write_text(path.read_text().replace('"kind": "hash"', '"kind": "tail"'))
    result = terrarium("prepare", "spaces")
    assert "dataset.json is damaged: its checksum is not the one that was saved" in result.stdout
    assert read_info(path.parent)["split"]["kind"] == "hash"


def harm(path: Path, chance: random.Random) -> str:
    """Damage a file in one of five ways. Returns which."""
    data = path.read_bytes()
    place = chance.randrange(len(data))
    way = chance.choice(["flip", "truncate", "delete", "zeros", "longer"])
    if way == "flip":
        path.write_bytes(flip(data, place, 1 << chance.randrange(8)))
    elif way == "truncate":
        path.write_bytes(data[:place])
    elif way == "delete":
        path.unlink()
    elif way == "zeros":
        end = min(len(data), place + chance.randint(1, 512))
        path.write_bytes(data[:place] + bytes(end - place) + data[end:])
        return way if path.read_bytes() != data else ""
    else:
        path.write_bytes(data + bytes([chance.randrange(256)]))
    return way


def test_no_damage_to_a_checkpoint_is_silent(run: Path, tmp_path: Path) -> None:
    parent = run / "checkpoints"
    whole = {name: checkpoints.read(parent / name) for name in ("last", "last.previous")}
    contents = {path: path.read_bytes() for name in whole for path in sorted((parent / name).iterdir())}
    assert len(contents) == 6
    chance, ways = random.Random(2), Counter[str]()
    while ways.total() < 2000:
        harmed = {
            path for path in chance.sample(sorted(contents), chance.choice([1, 1, 1, 2])) if note(path, chance, ways)
        }
        damaged = {name: sorted(path for path in harmed if path.parent.name == name) for name in whole}
        expected = next((name for name in whole if not damaged[name]), None)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                found = checkpoints.load(parent, "last")
            except UserError as error:
                assert expected is None
                assert all(any(str(path) in str(error) for path in damaged[name]) for name in whole)
                assert "Train the run again with `fresh=True`." in str(error)
            else:
                assert expected is not None
                assert found.state == whole[expected].state
                for tensors, true in (
                    (found.model, whole[expected].model),
                    (found.optimizer, whole[expected].optimizer),
                ):
                    assert tensors.keys() == true.keys() and all(tensors[key].equal(true[key]) for key in tensors)
                message = str(said[0].message) if said else ""
                assert bool(message) == bool(damaged["last"])
                if message:
                    assert any(str(path) in message for path in damaged["last"])
                    assert f"Using {parent / 'last.previous'} (step 4) instead" in message
        for path in harmed:
            path.write_bytes(contents[path])
    print(dict(ways))


def note(path: Path, chance: random.Random, ways: Counter[str]) -> bool:
    """Harm a file and count it. Returns whether its content is another one now."""
    way = harm(path, chance)
    ways.update([way] if way else [])
    return bool(way)


def test_a_run_goes_on_from_the_checkpoint_before_and_keeps_it(spaces: Path, terrarium: Terrarium) -> None:
    options = ("-s", "train.runtime.checkpoint_interval=2", "--resume")
    assert terrarium("train", "spaces").exit_code == 0
    whole = (spaces / "out" / "default" / "metrics.csv").read_text().splitlines()
    parent = spaces / "out" / "default" / "checkpoints"
    path = parent / "last" / "model.safetensors"
    path.write_bytes(flip(path.read_bytes(), -3 % path.stat().st_size, 1))
    with pytest.warns(UserWarning, match=r"last/model\.safetensors: .*Using .*last\.previous \(step 4\) instead"):
        result = terrarium("train", "spaces", *options, "-s", "train.schedule.max_iters=7")
    assert result.exit_code == 0, result.output
    assert "resumed at step 4" in result.stdout
    assert sorted(folder.name for folder in parent.glob("last*")) == ["last", "last.damaged", "last.previous"]
    assert [checkpoints.read(parent / name).state["step"] for name in ("last", "last.previous")] == [7, 6]
    assert len((spaces / "out" / "default" / "metrics.csv").read_text().splitlines()) >= len(whole)


def test_a_checkpoint_is_read_back_before_an_old_one_goes(
    run: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*.*") if path.is_file()}
    whole = durable.write_file

    def rotten(path: Path, data: bytes) -> None:
        whole(path, flip(data, len(data) // 2, 1) if path.name == "model.safetensors" else data)

    monkeypatch.setattr(durable, "write_file", rotten)
    result = terrarium("train", "spaces", "--resume", "-s", "train.schedule.max_iters=9")
    assert result.exit_code == 1
    assert "the disk does not return a checkpoint as it was written: " in result.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not list(run.rglob(".tmp-*"))


def test_nothing_whole_is_told(run: Path, spaces: Path, terrarium: Terrarium) -> None:
    for folder in (run / "checkpoints").glob("last*"):
        (folder / "state.json").write_text("{}")
    shutil.copytree(run, spaces / "kept")
    result = terrarium("train", "spaces", "--resume", "-s", "train.schedule.max_iters=9")
    assert result.exit_code == 2
    assert "last/state.json: its checksum is not the one that was saved" in result.stderr
    assert "Train the run again with --fresh." in result.stderr
    for path in (spaces / "kept" / "checkpoints").rglob("*.*"):
        if path.is_file():
            assert (
                run / "checkpoints" / path.relative_to(spaces / "kept" / "checkpoints")
            ).read_bytes() == path.read_bytes()
