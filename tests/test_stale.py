"""Stale and foreign files: after each of these changes a command makes the data again, or refuses and says what to do."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import PREPARE, TINY
from preparing import nanogpt_folder

Terrarium = Callable[..., Result]
Change = Callable[[Path], object]
READS = PREPARE.replace("def documents(rng, *", "def documents(rng, raw_dir, *").replace(
    "    while True", "    alphabet = (raw_dir / 'letters.txt').read_text().strip()\n    while True"
)


def commands(*lines: str) -> Iterator[list[str]]:
    return (line.split() for line in lines)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiments with finished runs: spaces, raw (reads a file), text, old (nanoGPT's files), twin (like spaces, other letters)."""
    from core.cli.main import cli

    home = tmp_path_factory.mktemp("stale")
    plain = TINY.replace("size = 2000", "")
    codes = {"spaces": PREPARE, "raw": READS, "twin": PREPARE.replace('"abc"', '"xyz"')}
    for name in ("spaces", "raw", "text", "old", "twin"):
        folder = home / "experiments" / name
        (folder / "datasets" / "raw").mkdir(parents=True)
        (folder / "datasets" / "raw" / "letters.txt").write_text("abc")
        (folder / "config.toml").write_text(TINY if name in codes else plain)
        if name in codes:
            (folder / "prepare.py").write_text(codes[name])
    text = home / "experiments" / "text"
    (text / "input.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    (text / "config.toml").write_text(TINY.replace("size = 2000", 'input = "input.txt"'))
    nanogpt_folder(home / "experiments" / "old" / "datasets" / "basic", "abcdefgh ijkl\n" * 200)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name in ("spaces", "raw", "text", "old", "twin"):
            with pytest.raises(SystemExit) as end:
                cli(["train", name])
            assert end.value.code == 0
        for line in (
            "train spaces --run half -s train.schedule.max_iters=4",
            "train spaces --run wide -s train.model.n_ff=80",
        ):
            with pytest.raises(SystemExit) as end:
                cli(line.split())
            assert end.value.code == 0
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder; gives the folder of its experiments."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home" / "experiments"


def replace(path: str, old: str, new: str) -> Change:
    def change(home: Path) -> None:
        content = (home / path).read_text()
        assert old in content
        (home / path).write_text(content.replace(old, new))

    return change


def flip(path: str, place: int = -3) -> Change:
    def change(home: Path) -> None:
        data = bytearray((home / path).read_bytes())
        data[place] ^= 1
        (home / path).write_bytes(bytes(data))

    return change


def cut(path: str) -> Change:
    return lambda home: (home / path).write_bytes((home / path).read_bytes()[:-2])


def swap(path: str, other: str) -> Change:
    """Put another experiment's or run's file or folder in the place of this one."""

    def change(home: Path) -> None:
        if (home / other).is_dir():
            shutil.rmtree(home / path)
            shutil.copytree(home / other, home / path)
        else:
            shutil.copyfile(home / other, home / path)

    return change


def permute_meta(home: Path) -> None:
    """The same letters, under other ids."""
    path = home / "old/datasets/basic/meta.pkl"
    meta = pickle.loads(path.read_bytes())
    texts = [*meta["stoi"]][::-1]
    meta |= {"itos": dict(enumerate(texts)), "stoi": {text: number for number, text in enumerate(texts)}}
    path.write_bytes(pickle.dumps(meta))


def permute_info(home: Path) -> None:
    path = home / "spaces/datasets/basic/dataset.json"
    info = json.loads(path.read_text())
    info["encoder"]["itos"].reverse()
    info.pop("seal", None)
    path.write_text(json.dumps(info))


DATA = "spaces/datasets/basic"
REMADE: list[tuple[str, str, Change]] = [
    ("prepare.py is edited", "spaces", replace("spaces/prepare.py", '" ".join', '"-".join')),
    ("size", "spaces", replace("spaces/config.toml", "size = 2000", "size = 2100")),
    ("val_fraction", "spaces", replace("spaces/config.toml", "0.3", "0.4")),
    ("encoder", "spaces", replace("spaces/config.toml", "[prepare]", "[prepare]\nencoder = 'bytes'")),
    ("split", "spaces", replace("spaces/config.toml", "[prepare]", "[prepare]\nsplit = 'shuffle'")),
    ("a parameter", "spaces", replace("spaces/config.toml", "[train.model]", "[prepare.params]\nmax_letters = 3\n[train.model]")),
    ("train.bin has another byte", "spaces", flip(f"{DATA}/train.bin")),
    ("val.bin is cut off", "spaces", cut(f"{DATA}/val.bin")),
    ("the mask has another byte", "spaces", flip(f"{DATA}/train.mask.bin")),
    ("the index is gone", "spaces", lambda home: (home / DATA / "val.idx.bin").unlink()),
    ("meta.pkl is another's", "spaces", swap(f"{DATA}/meta.pkl", "twin/datasets/basic/meta.pkl")),
    ("train.bin is another's", "spaces", swap(f"{DATA}/train.bin", "twin/datasets/basic/train.bin")),
    ("the dataset is another's", "spaces", swap(DATA, "twin/datasets/basic")),
    ("dataset.json is cut off", "spaces", cut(f"{DATA}/dataset.json")),
    ("the input is edited", "text", replace("text/input.txt", "quick", "quack")),
    ("a raw file is edited", "raw", lambda home: (home / "raw/datasets/raw/letters.txt").write_text("abd")),
]  # fmt: skip


@pytest.mark.parametrize(("what", "name", "change"), REMADE, ids=[row[0] for row in REMADE])
def test_a_stale_dataset_is_made_again(home: Path, terrarium: Terrarium, what: str, name: str, change: Change) -> None:
    """And what was trained on the old one is neither gone on with, nor scored on the new one."""
    before = (home / name / "datasets/basic/dataset.json").read_text()
    summary = (home / name / "out/default/summary.json").read_text()
    change(home)
    result = terrarium("prepare", name)
    assert result.exit_code == 0, result.output
    assert f"{name}: preparing " in result.stdout
    again = terrarium("prepare", name)
    assert f"{name}: the dataset is up to date" in again.stdout
    same = json.loads(before)["fingerprint"] == json.loads((home / name / "datasets/basic/dataset.json").read_text())["fingerprint"]  # fmt: skip
    for command in ("train", "evaluate"):
        result = terrarium(command, name)
        assert result.exit_code == (0 if same else 2), result.output  # damage was mended; other data is refused
        if not same:
            assert "--fresh" in result.stderr or "--run" in result.stderr
            assert (home / name / "out/default/summary.json").read_text() == summary


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (
            "spaces",
            lambda home: append(home / "spaces/prepare.py", "# a comment\n"),
            "its code or settings have changed",
        ),
        ("spaces", lambda home: (home / "spaces/words.py").write_text("A = 1\n"), "its code or settings have changed"),
        ("raw", lambda home: (home / "raw/datasets/raw/more.txt").write_text("x"), "its input raw/more.txt is new"),
    ],
)
def test_runs_go_on_where_the_same_data_is_made_again(
    home: Path, terrarium: Terrarium, name: str, change: Change, reason: str
) -> None:
    change(home)
    result = terrarium("prepare", name)
    assert f"preparing {home / name / 'datasets/basic'} ({reason})" in result.stdout
    assert f"{name}: the data is the same as before, so its runs go on" in result.stdout
    for command in ("train", "evaluate", "sample"):
        result = terrarium(command, name)
        assert result.exit_code == 0, result.output


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


READS_A_TABLE = """import csv, pathlib
from core import Example

def documents(rng):
    here = pathlib.Path(__file__).parent
    for number, row in enumerate(csv.reader((here / "tables" / "one.csv").read_text().splitlines())):
        yield Example(f"{number} {row[0]}=", row[1] + "\\n")
"""


def test_files_that_documents_opens_are_watched(lab: Path, terrarium: Terrarium) -> None:
    folder = lab / "reads"
    (folder / "tables").mkdir(parents=True)
    (folder / "prepare.py").write_text(READS_A_TABLE)
    table = folder / "tables" / "one.csv"
    table.write_text("".join(f"{number},{number + 1}\n" for number in range(30)))
    assert terrarium("prepare", "reads").exit_code == 0
    assert "the dataset is up to date" in terrarium("prepare", "reads").stdout
    table.write_text("".join(f"{number},{number + 1}\n" for number in range(15)))
    assert "(its input tables/one.csv has changed)" in terrarium("prepare", "reads").stdout
    assert "the dataset is up to date" in terrarium("prepare", "reads").stdout
    table.rename(folder / "tables" / "two.csv")
    (folder / "prepare.py").write_text(READS_A_TABLE.replace("one.csv", "two.csv"))
    assert "its input tables/one.csv is missing" in terrarium("prepare", "reads").stdout
    assert "the dataset is up to date" in terrarium("prepare", "reads").stdout


def test_files_that_inputs_declares_are_watched(lab: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    folder = lab / "declares"
    folder.mkdir()
    (tmp_path / "words.txt").write_text("one two three")
    code = f"""
def inputs():
    return [{str(tmp_path / "words.txt")!r}]

def documents(rng):
    yield from ["some words. " * 40, "more words. " * 40]
"""
    (folder / "prepare.py").write_text(code)
    assert terrarium("prepare", "declares").exit_code == 0
    (tmp_path / "words.txt").write_text("one two")
    assert f"(its input {tmp_path / 'words.txt'} has changed)" in terrarium("prepare", "declares").stdout
    (tmp_path / "words.txt").unlink()
    result = terrarium("prepare", "declares")
    assert (
        result.exit_code == 2
        and f"inputs() names '{tmp_path / 'words.txt'}', and there is no such file" in result.stderr
    )


RUN = "spaces/out/half"
RESUME = "train spaces --run half --resume -s train.schedule.max_iters=6 -s train.schedule.lr_decay_iters=4"
REFUSED: list[tuple[str, Change, str, str]] = [
    ("other ids in dataset.json, then sampling", permute_info, "evaluate spaces", "another encoder than the checkpoint"),
    ("other ids in meta.pkl, then scoring", permute_meta, "evaluate old", "another encoder than the checkpoint"),
    ("other ids in meta.pkl, then training on", permute_meta, "train old --resume -s train.schedule.max_iters=8", "the dataset: "),
    ("other data of nanoGPT's", flip("old/datasets/basic/train.bin", 0), "evaluate old", "is not the one that old/default was trained on"),
    ("a checkpoint of another vocabulary", swap(f"{RUN}/checkpoints", "twin/out/default/checkpoints"), RESUME, "another data hash"),
    ("that checkpoint, then scoring", swap(f"{RUN}/checkpoints", "twin/out/default/checkpoints"), "evaluate spaces --run half", "another encoder"),
    ("a checkpoint of another shape", swap(f"{RUN}/checkpoints", "spaces/out/wide/checkpoints"), RESUME, "train.model.n_ff: 80 -> 64"),
    ("that checkpoint, then sampling", swap(f"{RUN}/checkpoints", "spaces/out/wide/checkpoints"), "sample spaces --run half", "train.model.n_ff: 80 -> 64"),
    ("as many heads as fit the weights", replace(f"{RUN}/config.toml", "n_head = 2", "n_head = 4"), "sample spaces --run half", "train.model.n_head: 2 -> 4"),
    ("another activation in the run's config", replace(f"{RUN}/config.toml", '"relu2"', '"gelu"'), "evaluate spaces --run half", "train.model.activation: relu2 -> gelu"),
    ("heads by -s", lambda home: None, "sample spaces -s train.model.n_head=4", "train.model.n_head: 2 -> 4"),
    ("another batch in the run's config", replace(f"{RUN}/config.toml", "batch_size = 4", "batch_size = 5"), RESUME, "train.data.batch_size: 5 -> 4"),
    ("another fingerprint in the summary", replace(f"{RUN}/summary.json", '"data_hash": "', '"data_hash": "0'), RESUME, "the dataset: "),
    ("a run of another experiment", swap("spaces/out/half", "twin/out/default"), "evaluate spaces --run half", "is a copied run of 'twin'"),
    ("another vocabulary to start from", lambda home: None, "train twin --run tuned -s train.model.init_from=spaces/default", "another vocabulary than this dataset has"),
    ("another shape to start from", lambda home: None, "train spaces --run tuned -s train.model.init_from=wide", "the weights do not fit the model"),
    ("other settings", replace("spaces/config.toml", "n_layer = 1", "n_layer = 2"), "train spaces", "train.model.n_layer: 1 -> 2"),
    ("a letter that the run has not seen", lambda home: None, "sample spaces --start q", "'q'"),
    ("an encoder of another dataset", lambda home: None, "train spaces --run tuned -s prepare.encoder_from=../twin/datasets/basic", "is not in the vocabulary"),
    ("a file of strangers in the dataset", lambda home: (home / DATA / "thesis.txt").write_text("mine"), "prepare spaces --force", "thesis.txt, which prepare did not make"),
    ("ids beyond the vocabulary", lambda home: (home / "old/datasets/basic/val.bin").write_bytes(np.full(900, 99, "<u2").tobytes()), "prepare old", "holds the id 99, but the char vocabulary ends at"),
    ("--force on the user's own files", lambda home: None, "prepare old --force", "was not made by prepare"),
]  # fmt: skip


def state_of(home: Path) -> dict[Path, object]:
    """Every file but locks and bytecode; of dataset.json all but the times of files, which a copy has anew."""
    paths = [path for path in home.rglob("*") if path.is_file() and "lock" not in path.name and path.suffix != ".pyc"]
    state: dict[Path, object] = {path: path.read_bytes() for path in paths}
    for path in paths:
        if path.name == "dataset.json":
            info = json.loads(path.read_text())
            tables = {key: {name: entry["sha256"] for name, entry in info[key].items()} for key in ("raw", "files")}
            state[path] = {key: value for key, value in info.items() if key != "seal"} | tables
    return state


@pytest.mark.parametrize(("what", "change", "command", "part"), REFUSED, ids=[row[0] for row in REFUSED])
def test_foreign_files_are_refused_and_nothing_changes(
    home: Path, terrarium: Terrarium, what: str, change: Change, command: str, part: str
) -> None:
    change(home)
    before = state_of(home)
    result = terrarium(*command.split())
    assert result.exit_code == 2, (result.output, result.exception)
    assert part in result.stderr
    assert len(result.stderr.rpartition("\n  ")[2].strip()) > 20  # what to do
    now = state_of(home)
    assert {path: now.get(path) for path in before} == before


def test_a_damaged_checkpoint_of_another_run_is_passed_over(home: Path, terrarium: Terrarium) -> None:
    """Its model.safetensors is a whole file, but not the one that state.json knows: the one before is used."""
    swap(f"{RUN}/checkpoints/last/model.safetensors", "spaces/out/wide/checkpoints/last/model.safetensors")(home)
    with pytest.warns(UserWarning, match=r"model\.safetensors: .* Using .*last\.previous \(step 2\) instead"):
        result = terrarium(*RESUME.split())
    assert result.exit_code == 0, result.output
    assert "resumed at step 2" in result.output


def test_a_checkpoint_of_nanogpt_with_another_vocabulary_is_refused(home: Path, terrarium: Terrarium) -> None:
    from test_nanogpt import checkpoint

    torch.save(checkpoint(), home.parent / "ckpt.pt")
    result = terrarium("import", "--from", "nanogpt", "old", "ckpt.pt")
    assert result.exit_code == 2
    assert "the checkpoint has 7 ids, but the dataset of old has 14" in result.stderr
