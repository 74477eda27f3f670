"""Loading never runs code: files from a stranger, in every place that a command reads, run nothing and end in one message."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import PREPARE, TINY
from hostile import Runs, archive, by_hand, safetensors
from preparing import TEXT, nanogpt_folder

from core.training import checkpoints

Terrarium = Callable[..., Result]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two experiments: `spaces`, which has a trained run, and `old`, with nanoGPT's files."""
    from core.cli.main import cli

    home = tmp_path_factory.mktemp("hostile")
    spaces = home / "experiments" / "spaces"
    spaces.mkdir(parents=True)
    (spaces / "prepare.py").write_text(PREPARE)
    (spaces / "config.toml").write_text(TINY)
    nanogpt_folder(home / "experiments" / "old" / "datasets" / "basic", TEXT)
    (home / "experiments" / "old" / "config.toml").write_text(TINY.replace("size = 2000", ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for arguments in (["train", "spaces"], ["train", "old"]):
            with pytest.raises(SystemExit) as end:
                cli(arguments)
            assert end.value.code == 0
    yield home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and the current folder."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What hostile code would make."""
    return tmp_path / "mark"


def harmless(result: Result, mark: Path, *, codes: tuple[int, ...] = (2,)) -> None:
    """Nothing ran, and a refusal is a message and not a traceback."""
    assert not mark.exists()
    assert result.exit_code in codes, (result.output, result.exception)
    if result.exit_code:
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.stderr.startswith("error: ")
        assert result.stderr.rpartition("\n  ")[2].strip()
    assert "Traceback" not in result.output


def checkpoint_files(mark: Path, folder: Path) -> dict[str, bytes]:
    """Files that call themselves ckpt.pt."""
    hook = Runs(mark)
    folder.mkdir()
    for name, value in {
        "config": {"model": {}, "model_args": {}, "config": hook},
        "weights": {"model": {"a": hook}, "model_args": {}},
        "itself": hook,
    }.items():
        torch.save(value, folder / f"zip {name}")
        torch.save(value, folder / f"old {name}", _use_new_zipfile_serialization=False)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files |= {f"pickle, {name}": data for name, data in by_hand(mark).items()}
    files |= {f"archive, {name}": archive(data) for name, data in list(by_hand(mark).items())[:4]}
    files["code in an archive"] = archive(b"\x80\x02}.", **{"code/__torch__.py": b"import os\nos.mkdir('mark')\n"})
    files["constants of a script"] = archive(b"\x80\x02}.", **{"constants.pkl": by_hand(mark)["global and reduce"]})
    return files


def test_no_checkpoint_of_nanogpt_runs_code(home: Path, terrarium: Terrarium, mark: Path) -> None:
    files = checkpoint_files(mark, home / "made")
    assert len(files) >= 25
    for name, data in files.items():
        (home / "ckpt.pt").write_bytes(data)
        result = terrarium("import", "--from", "nanogpt", "old", "ckpt.pt", "--run", "new")
        harmless(result, mark)
        assert "ckpt.pt: no nanoGPT checkpoint" in result.stderr, name
    assert not (home / "experiments" / "old" / "out" / "new").exists()


def test_no_meta_pkl_runs_code(home: Path, terrarium: Terrarium, mark: Path) -> None:
    meta = home / "experiments" / "old" / "datasets" / "basic" / "meta.pkl"
    whole = pickle.loads(meta.read_bytes())
    files = by_hand(mark) | {
        f"{kind} {protocol}": pickle.dumps(value, protocol)
        for protocol in (0, 2, 4, 5)
        for kind, value in {"itself": Runs(mark), "in it": {**whole, "stoi": Runs(mark)}}.items()
    }
    for data in files.values():
        meta.write_bytes(data)
        for command in ("prepare", "train", "evaluate"):
            harmless(terrarium(command, "old"), mark)


def sealed(state: dict[str, Any]) -> bytes:
    """state.json as it is written, with its checksum: the stranger knows how that is made."""
    body = json.dumps(state, indent=1, sort_keys=True)
    whole = state | {"seal": hashlib.sha256(body.encode()).hexdigest()}
    return json.dumps(whole, indent=1, sort_keys=True).encode() + b"\n"


def folders(home: Path) -> list[Path]:
    return sorted((home / "experiments" / "spaces" / "out" / "default" / "checkpoints").glob("*"))


def replace_part(home: Path, name: str, data: bytes) -> None:
    """Put another file, and its right checksum, into every checkpoint of the run."""
    for folder in folders(home):
        state = checkpoints.read_state(folder)
        (folder / name).write_bytes(data)
        state["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        (folder / "state.json").write_bytes(sealed(state))


def hostile_tensors(mark: Path) -> dict[str, bytes]:
    """Files that call themselves safetensors."""
    entry: dict[str, Any] = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    return {
        "pickle": pickle.dumps(Runs(mark)),
        "archive": archive(by_hand(mark)["global and reduce"]),
        "empty": b"",
        "short": b"\x05",
        "endless header": safetensors(b"{}", length=2**63),
        "header beyond the end": safetensors(b"{}", length=10**6),
        "no JSON": safetensors(b"import os"),
        "deep": safetensors(b"[" * 100_000 + b"]" * 100_000),
        "list": safetensors(b"[]"),
        "dtype": safetensors({"a": {**entry, "dtype": "O"}}),
        "code as dtype": safetensors({"a": {**entry, "dtype": "__import__('os').mkdir('mark')"}}),
        "shape": safetensors({"a": {**entry, "shape": [2**62, 2**62]}}),
        "negative shape": safetensors({"a": {**entry, "shape": [-4]}}),
        "offsets": safetensors({"a": {**entry, "data_offsets": [0, 2**40]}}),
        "negative offsets": safetensors({"a": {**entry, "data_offsets": [-16, 0]}}),
        "overlap": safetensors({"a": entry, "b": entry}),
        "hole": safetensors({"a": {**entry, "data_offsets": [4, 20]}}, b"\0" * 20),
        "metadata": safetensors({"__metadata__": {"__reduce__": "os.mkdir"}, "a": entry}),
        "path as name": safetensors({"../../../mark": entry}),
        "name of a method": safetensors({"__class__": entry, "__setstate__": entry}),
    }


@pytest.mark.slow
def test_no_safetensors_file_runs_code(home: Path, terrarium: Terrarium, mark: Path) -> None:
    for name in checkpoints.PARTS:
        whole = (folders(home)[0] / name).read_bytes()
        for data in hostile_tensors(mark).values():
            replace_part(home, name, data)
            results = [terrarium("sample", "spaces"), terrarium("train", "spaces", "--resume", *MORE)]
            if name == "optimizer.safetensors":  # sampling has no use for it, unless it cannot be read at all
                results[0].exit_code or results.pop(0)
            for result in results:
                harmless(result, mark)
        replace_part(home, name, whole)
    harmless(terrarium("sample", "spaces"), mark, codes=(0,))


MORE = ("-s", "train.schedule.max_iters=8", "-s", "train.schedule.lr_decay_iters=6")
VALUES: list[Any] = [None, True, 0, -1, 2**70, 1.5, "", "__import__('os').mkdir('mark')", [], [[]], {}, {"a": 1},
                     {"py/object": "os.mkdir", "py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": ["mark"]}]},
                     {"__reduce__": ["os.mkdir", ["mark"]]}]  # fmt: skip


def paths_in(value: Any, depth: int = 3) -> Iterator[tuple[Any, ...]]:
    """Ways to every part of nested dicts; of a list the first element stands for all."""
    yield ()
    items = value.items() if isinstance(value, dict) else [(0, value[0])] if isinstance(value, list) and value else []
    for key, inner in items if depth else []:
        yield from ((key, *rest) for rest in paths_in(inner, depth - 1))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at one place."""
    if not path:
        return new
    result = copy.deepcopy(value)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return result


@pytest.mark.slow
def test_no_state_of_a_checkpoint_runs_code(home: Path, terrarium: Terrarium, mark: Path) -> None:
    """Every field of a state.json, one after the other, becomes something else; its checksum is right."""
    state = checkpoints.read_state(folders(home)[0])
    del state["config"]  # kept for people; nothing reads more of it than its parts
    places, number = [path for path in paths_in(state) if path], 0
    assert len(places) > 30
    before = {path: path.read_bytes() for path in (home / "experiments/spaces/out/default").glob("*") if path.is_file()}
    for number, path in enumerate(places):
        for folder in folders(home):
            value = VALUES[number % len(VALUES)]
            (folder / "state.json").write_bytes(sealed(changed(state | {"config": {}}, path, value)))
        result = terrarium("train", "spaces", "--resume", *MORE)
        if path[:2] == (
            "optimizer",
            "state",
        ):  # what these numbers mean is for the optimizer to say, which may be a plugin's
            assert not mark.exists()
            result.exit_code = 0
        harmless(result, mark, codes=(0, 2))
        if result.exit_code == 2:
            harmless(terrarium("sample", "spaces"), mark, codes=(0, 2))
            now = {path: path.read_bytes() for path in before}
            assert now == before, (path, result.stderr)  # a refusal changes nothing
        else:  # the field is one that a resume can do without: back to the beginning
            shutil.rmtree(home / "experiments")
            shutil.copytree(home.parent / "again", home / "experiments")


@pytest.fixture(autouse=True)
def again(home: Path) -> None:
    shutil.copytree(home / "experiments", home.parent / "again")


def test_broken_states_are_told(home: Path, terrarium: Terrarium, mark: Path) -> None:
    texts = [
        b"", b"null", b"[]", b"{}", b'{"seal": 1}', b"[" * 200_000, b'{"a":' * 100_000, b"1" * 10_000, b"\xff\xfe", b"NaN",
        b'{"step": NaN}', b'{"step": 1e999}', by_hand(mark)["global and reduce"], archive(by_hand(mark)["inst"]),
        sealed({}), sealed({"format": 1}), sealed({"format": 1, "files": {}}), sealed({"format": "os.mkdir", "files": []}),
    ]  # fmt: skip
    for text in texts:
        for folder in folders(home):
            (folder / "state.json").write_bytes(text)
        for command in ("sample", "evaluate"):
            harmless(terrarium(command, "spaces"), mark)
        harmless(terrarium("train", "spaces", "--resume", *MORE), mark)


def test_no_dataset_json_runs_code(home: Path, terrarium: Terrarium, mark: Path) -> None:
    """Every field becomes something else. A dataset that prepare can make again it makes again."""
    basic = home / "experiments" / "spaces" / "datasets" / "basic"
    info = json.loads((basic / "dataset.json").read_text())
    info.pop("seal", None)
    alone = home / "experiments" / "alone"  # has nothing to make it from
    shutil.copytree(basic, alone / "datasets" / "basic")
    (alone / "config.toml").write_text(TINY.replace("size = 2000", 'dataset_dir = "datasets/basic"'))
    for number, path in enumerate(path for path in paths_in(info) if path):
        text = json.dumps(changed(info, path, VALUES[number % len(VALUES)]))
        (alone / "datasets/basic/dataset.json").write_text(text)
        harmless(terrarium("prepare", "alone"), mark, codes=(0, 2))
        if number % 8 == 0:
            (basic / "dataset.json").write_text(text)
            harmless(terrarium("prepare", "spaces"), mark, codes=(0, 2))
            harmless(terrarium("prepare", "spaces", "--force"), mark, codes=(0,))
    for raw in (b"", b"[" * 200_000, b"1" * 10_000, b"\xff", by_hand(mark)["global and reduce"]):
        (alone / "datasets/basic/dataset.json").write_bytes(raw)
        harmless(terrarium("prepare", "alone"), mark)


@pytest.mark.slow
def test_no_run_folder_runs_code(home: Path, terrarium: Terrarium, mark: Path) -> None:
    run = home / "experiments" / "spaces" / "out" / "default"
    for name in ("model.pt", "optimizer.pt", "pytorch_model.bin", "state.pkl", "model.pkl", "rng.pth", "conftest.py"):
        for folder in (run, *folders(home)):  # files that others load are not looked at
            (folder / name).write_bytes(by_hand(mark)["global and reduce"])
    for command in ("sample", "evaluate"):
        harmless(terrarium(command, "spaces"), mark, codes=(0,))
    config = (run / "config.toml").read_text()
    texts = [
        b"\x80\x02}.", b"x = " + b"[" * 5000, b"x = " + b"1" * 5000, b"\xff", b"train = 3\n", config.encode()[:-9] + b"\n[x",
        b"a = '__import__(\"os\")'\n", config.replace('kind = "gpt"', 'kind = "os.mkdir"').encode(),
        config.replace('name = "muon"', "name = \"__import__('os').mkdir('mark')\"").encode(),
    ]  # fmt: skip
    for text in texts:
        (run / "config.toml").write_bytes(text)
        harmless(terrarium("sample", "spaces"), mark, codes=(0, 2))
        harmless(terrarium("train", "spaces", "--resume"), mark)
    (run / "config.toml").write_text(config)
    summary = json.loads((run / "summary.json").read_text())
    broken = [b"[]", b"[" * 200_000, b"1" * 10_000, b"\xff", b"{}", b'{"experiment": "spaces"}']
    broken += [
        json.dumps(changed(summary, path, VALUES[number % len(VALUES)])).encode()
        for number, path in enumerate(path for path in paths_in(summary, 1) if path)
    ]
    for data in broken:
        (run / "summary.json").write_bytes(data)
        for command in (("list",), ("runs", "spaces"), ("train", "spaces")):
            harmless(terrarium(*command), mark, codes=(0, 2))


def test_text_of_a_stranger_is_no_script_in_the_report(home: Path, terrarium: Terrarium) -> None:
    script = "<script>alert(1)</script>"
    result = terrarium("loop", "spaces", "--fresh", "--description", script, "-s", "sample.sample.num_samples=1")
    assert result.exit_code == 0, result.output
    page = (home / "experiments" / "spaces" / "out" / "default" / "report.html").read_text()
    assert script not in page
    assert "&lt;script&gt;alert(1)" in page


def test_arrays_are_read_as_numbers(home: Path, terrarium: Terrarium, mark: Path) -> None:
    basic = home / "experiments" / "old" / "datasets" / "basic"
    whole = (basic / "train.bin").read_bytes()
    np.save(home / "objects.npy", np.array([Runs(mark)], dtype=object), allow_pickle=True)
    for data in (pickle.dumps(Runs(mark)), (home / "objects.npy").read_bytes(), archive(by_hand(mark)["inst"])):
        (basic / "train.bin").write_bytes(data + b"\0" * (len(data) % 2))
        harmless(terrarium("prepare", "old"), mark, codes=(2,))
    (basic / "train.bin").write_bytes(whole)
    harmless(terrarium("prepare", "old"), mark, codes=(0,))


def test_an_archive_that_unpacks_to_gigabytes_is_refused(home: Path, terrarium: Terrarium, mark: Path) -> None:
    with zipfile.ZipFile(home / "ckpt.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("ckpt/data.pkl", b"\x80\x02}." + b"\0" * (64 << 20))
        file.writestr("ckpt/version", b"3\n")
    assert (home / "ckpt.pt").stat().st_size < 1 << 20
    harmless(terrarium("import", "--from", "nanogpt", "old", "ckpt.pt", "--run", "new"), mark)


def test_no_pickle_is_loaded_anywhere_else() -> None:
    """In core, only these files name a loader that could run code."""
    core = Path(checkpoints.__file__).parents[1]
    words = (
        "pickle.load",
        "pickle.Unpickler",
        "torch.load",
        "np.load(",
        "joblib",
        "marshal.",
        "shelve.",
        "yaml.",
        "eval(",
        "exec(",
    )
    found = {
        path.relative_to(core).as_posix(): sorted(word for word in words if word in text)
        for path in core.rglob("*.py")
        if any(
            word
            in (text := path.read_text().replace(".eval(", "").replace("humaneval(", "").replace("exec_module(", ""))
            for word in words
        )
    }
    own = {
        "data/spool.py": ["marshal."],  # what the same process has written, in the folder that it prepares
        "sandbox/inside.py": ["exec("],  # what runs there runs inside bubblewrap
    }
    assert found == {"data/meta_pkl.py": ["pickle.Unpickler"], "models/nanogpt.py": ["torch.load"], **own}
    assert "weights_only=True" in (core / "models" / "nanogpt.py").read_text()
