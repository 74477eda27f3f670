"""A power cut at any point of a save: what was on disk for certain is found again, and nothing half is taken for whole.

The operations of a real run are logged. A model of a disk replays every prefix of the log and then loses what no fsync has
secured: content of files (gone, zeros, the first half, all but a byte, zeros in the first half, or all of it there) and names in folders (the first few of those
not synced, all in the order in which they were made, or those of one folder only).
"""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cutting import wrapped

from core.data.dataset import load_dataset, verify
from core.errors import UserError
from core.tracking.metrics import read_rows
from core.training import checkpoints

Terrarium = Callable[..., Result]
Entry = tuple[str, tuple[Any, ...]]  # an operation, with paths instead of descriptors
CONTENTS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "gone": lambda synced, now: synced,
    "zeros": lambda synced, now: synced + bytes(len(now) - len(synced)),
    "half": lambda synced, now: now[: (len(now) + len(synced)) // 2],
    "short": lambda synced, now: now[: max(len(synced), len(now) - 1)],
    "hole": lambda synced, now: synced + bytes((len(now) - len(synced)) // 2) + now[(len(now) + len(synced)) // 2 :],
    "there": lambda synced, now: now,
}


@dataclass
class File:
    """What a file holds, and what of it is on disk."""

    now: bytes = b""
    synced: bytes = b""


@dataclass
class Folder:
    """Names in a folder, as they are on disk, and the changes to them that may or may not be."""

    durable: dict[str, Any] = field(default_factory=dict)
    pending: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # time, and all names after the change

    @property
    def now(self) -> dict[str, Any]:
        return self.pending[-1][1] if self.pending else self.durable


class Disk:
    """Replays a log below a root."""

    def __init__(self, root: Path) -> None:
        self.root, self.top, self.time = root, Folder(), 0
        self.load(root, self.top)

    def load(self, path: Path, folder: Folder) -> None:
        """What was there before the log began is on disk."""
        for entry in path.iterdir():
            if entry.is_dir():
                folder.durable[entry.name] = Folder()
                self.load(entry, folder.durable[entry.name])
            else:
                folder.durable[entry.name] = File(entry.read_bytes(), entry.read_bytes())

    def node(self, path: Path) -> Any:
        node: Any = self.top
        for name in path.relative_to(self.root).parts:
            node = node.now[name]
        return node

    def names(self, path: Path, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the names of a folder, not yet on disk."""
        folder = self.node(path)
        after = dict(folder.now)
        change(after)
        folder.pending.append((self.time, after))

    def apply(self, entry: Entry) -> None:
        """Replay one operation."""
        name, (path, *rest) = entry
        self.time += 1
        if name in ("open_new", "open_end"):
            if name == "open_new" or path.name not in self.node(path.parent).now:
                self.names(path.parent, lambda names: names.update({path.name: File()}))
        elif name == "write":
            self.node(path).now += rest[0]
        elif name in ("sync", "sync_path"):
            node = self.node(path)
            if isinstance(node, File):
                node.synced = node.now
            else:
                node.durable, node.pending = node.now, []
        elif name == "rename":
            assert rest[0].parent == path.parent  # one change of one folder
            self.names(path.parent, lambda names: names.update({rest[0].name: names.pop(path.name)}))
        elif name == "make_folder":
            self.names(path.parent, lambda names: names.update({path.name: Folder()}))
        elif name in ("unlink", "remove_folder"):
            self.names(path.parent, lambda names: names.pop(path.name))

    def folders(self) -> list[Folder]:
        """All folders that any state can reach."""
        found: dict[int, Folder] = {}

        def visit(folder: Folder) -> None:
            if id(folder) not in found:
                found[id(folder)] = folder
                for names in (folder.durable, *(names for _, names in folder.pending)):
                    for node in names.values():
                        if isinstance(node, Folder):
                            visit(node)

        visit(self.top)
        return list(found.values())

    def losses(self) -> Iterator[Callable[[Folder], dict[str, Any]]]:
        """Ways in which names may be lost: each a function from a folder to the names that the next boot finds."""
        changed = [folder for folder in self.folders() if folder.pending]
        times = sorted({time for folder in changed for time, _ in folder.pending})
        for last in (0, *times):
            yield lambda folder, last=last: next(  # type: ignore[misc]
                (names for time, names in reversed(folder.pending) if time <= last), folder.durable
            )
        for one in changed:
            yield lambda folder, one=one: folder.now if folder is one else folder.durable  # type: ignore[misc]
            yield lambda folder, one=one: folder.durable if folder is one else folder.now  # type: ignore[misc]

    def states(self) -> Iterator[dict[str, bytes | None]]:
        """Every state that the next boot may find: path -> content, None for a folder."""

        def collect(folder: Folder, names_of: Any, content: Any, prefix: str, found: dict[str, bytes | None]) -> None:
            for name, node in names_of(folder).items():
                if isinstance(node, Folder):
                    found[f"{prefix}{name}"] = None
                    collect(node, names_of, content, f"{prefix}{name}/", found)
                else:
                    found[f"{prefix}{name}"] = content(node.synced, node.now)

        for names_of, content in itertools.product(self.losses(), CONTENTS.values()):
            state: dict[str, bytes | None] = {}
            collect(self.top, names_of, content, "", state)
            yield state


class Recorder:
    """Keeps the log of what goes through core.durable below a root; `marks` may be put into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[Entry] = []
        self.paths: dict[int, Path] = {}

    def __call__(self, name: str, operation: Callable[..., Any], *arguments: Any) -> Any:
        result = operation(*arguments)
        if name in ("open_new", "open_end"):
            self.paths[result] = arguments[0]
        elif name == "write":
            arguments = (self.paths[arguments[0]], bytes(arguments[1])[:result])
        elif name in ("sync", "close"):
            arguments = (self.paths[arguments[0]],)
        if name != "close" and arguments[0].is_relative_to(self.root):
            self.log.append((name, arguments))
        return result


def put(state: dict[str, bytes | None], folder: Path) -> None:
    """Make files of a state."""
    folder.mkdir(parents=True)
    for name, content in sorted(state.items()):
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def every_state(disk: Disk, log: list[Entry], folder: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Each different state after every prefix of the log, made in a folder, with the marks that lie before the cut."""
    marks: dict[str, Any] = {}
    seen: set[int] = set()
    number = 0
    for entry in [("start", (disk.root,)), *log]:
        if entry[0] == "mark":
            marks = {**marks, entry[1][0]: entry[1][1]}
        elif entry[0] != "start":
            disk.apply(entry)
        for state in disk.states():
            key = hash((tuple(sorted(state.items(), key=lambda item: item[0])), tuple(sorted(marks.items()))))
            if key not in seen:
                seen.add(key)
                number += 1
                put(state, folder / f"{number}")
                yield marks, folder / f"{number}"


@pytest.mark.slow
def test_every_power_cut_leaves_the_newest_checkpoint_and_its_rows(
    spaces: Path, terrarium: Terrarium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert terrarium("prepare", "spaces").exit_code == 0
    disk, recorder = Disk(spaces), Recorder(spaces)
    saved: dict[tuple[str, int], checkpoints.Checkpoint] = {}
    save = checkpoints.save

    def marking(parent: Path, name: str, model: Any, optimizer: Any, state: dict[str, Any], write: Any) -> Path:
        recorder.log.append(("mark", ("saving", (name, state["step"]))))
        path = save(parent, name, model, optimizer, state, write)
        saved[name, state["step"]] = checkpoints.read(path)
        recorder.log.append(("mark", (name, state["step"])))
        return path

    monkeypatch.setattr(checkpoints, "save", marking)
    keys = ("schedule.max_iters=15", "runtime.checkpoint_interval=1", "runtime.log_interval=1", "model.n_embd=4")
    options = [part for key in keys for part in ("-s", f"train.{key}")]
    with wrapped(recorder):
        result = terrarium("train", "spaces", *options)
    assert result.exit_code == 0, result.output
    run = spaces / "out" / "default"
    rows = read_rows(run / "metrics.csv")
    assert len(rows) == 15 and len(saved) > 15

    found: Counter[str] = Counter()
    for marks, state in every_state(disk, recorder.log, tmp_path / "cut"):
        parent = state / "out" / "default" / "checkpoints"
        for name in ("last", "best"):
            promised = marks.get(name)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a cut damages nothing that has its name
                try:
                    checkpoint = checkpoints.load(parent, name)
                except UserError:
                    assert promised is None
                    continue
            step = checkpoint.state["step"]
            assert step == promised or (name, step) == marks["saving"]
            written = saved[name, step]
            assert checkpoint.state == written.state
            for tensors, expected in ((checkpoint.model, written.model), (checkpoint.optimizer, written.optimizer)):
                assert tensors.keys() == expected.keys()
                assert all(tensors[key].equal(expected[key]) for key in tensors)
            if name == "last":
                found["older, though newer was begun" if (name, step) != marks["saving"] else "newest"] += 1
                kept = [row for row in read_rows(state / "out" / "default" / "metrics.csv") if row["step"] <= step]
                assert kept == rows[:step]
        found["states"] += 1
    print(dict(found))
    assert found["states"] >= 1000


def test_every_power_cut_leaves_the_old_dataset_or_the_new(spaces: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("prepare", "spaces").exit_code == 0
    fingerprints = [load_dataset(spaces / "datasets" / "basic").fingerprint]
    disk, recorder = Disk(spaces), Recorder(spaces)
    with wrapped(recorder):
        assert terrarium("prepare", "spaces", "-s", "prepare.seed=2").exit_code == 0
    fingerprints.append(load_dataset(spaces / "datasets" / "basic").fingerprint)
    assert len(set(fingerprints)) == 2
    states = 0
    for _, state in every_state(disk, recorder.log, tmp_path / "cut"):
        made = state / "datasets" / "basic"
        folder = made if made.exists() else made.with_name(".old-basic")  # which the next prepare gives its name back
        verify(folder)
        assert load_dataset(folder).fingerprint in fingerprints
        states += 1
    print(f"{states} states")
    assert states > 100
