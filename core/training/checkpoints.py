"""Save and load checkpoints: weights and optimizer as safetensors, the rest as JSON. No pickle, nothing overwritten.

A checkpoint is a folder with model.safetensors, optimizer.safetensors and state.json. state.json is written last.
It has the checksums of the other files and of itself. If it verifies, the checkpoint is whole. Where the weights are divided
among processes, each writes files of its own instead of the first two (core.shards), and they are read as whole tensors.
What a run keeps of its way (train.runtime.keep_checkpoints) are weights alone, in folders step-000000 and on.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from core import durable, files, shards
from core.errors import RunFailed, UserError
from core.training.ladder import MANIFEST, kept_name, kept_steps

FORMAT = 1
PARTS = ("model.safetensors", "optimizer.safetensors")
MANIFEST_BYTES = 16_384  # roughly: mostly the state of the random generators and the config
Tensors = dict[str, torch.Tensor]
Write = Callable[[Path, Tensors, Tensors], None]  # writes tensors of model and optimizer into a folder
# Raised by content that another version wrote: its checksums are right.
FOREIGN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)


class Damaged(Exception):
    """A checkpoint is not what was written. The message names the file and says what is wrong."""


@dataclass
class Checkpoint:
    """A checkpoint that was read: tensors by name, and everything else."""

    folder: Path
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]


def save(
    parent: Path,
    name: str,
    model: Tensors,
    optimizer: Tensors | None,
    state: dict[str, Any],
    write: Write | None = None,
) -> Path:
    """Write checkpoint parent/name in one piece. The checkpoint that had this name becomes parent/name.previous.

    optimizer: None for weights alone. state: JSON values, "step" among them. write: how tensors are written, if not by this process alone.
    An older previous checkpoint is removed last, after the new one was read back and is on disk. Raises DiskFull, and Damaged if
    the disk returns something else than was written.
    """
    target, previous, old, temporary = names(parent, name)
    tensors_of = dict(zip(PARTS, (model,) if optimizer is None else (model, optimizer), strict=False))
    total = sum(map(size, tensors_of.values()))
    with files.room_for(parent, total + MANIFEST_BYTES):
        durable.make_folders(parent)
        tidy(parent, name)
        durable.make_folder(temporary)
        try:
            if write is None:
                checksums = {
                    part: write_part(temporary / part, tensors, target) for part, tensors in tensors_of.items()
                }
            else:
                write(temporary, model, optimizer or {})
                checksums = synced(temporary, total)
            durable.write_file(temporary / MANIFEST, files.sealed({"format": FORMAT, "files": checksums, **state}))
            durable.sync_path(temporary)
            verify(temporary)
            if target.exists():
                if previous.exists():
                    durable.rename(previous, old)
                durable.rename(target, previous)
            durable.rename(temporary, target)
            durable.sync_path(parent)
            durable.remove_tree(old)
        except BaseException:
            tidy(parent, name)
            raise
    return target


def write_part(file: Path, tensors: Tensors, place: Path) -> dict[str, Any]:
    """Write tensors to a file. Returns its entry in the manifest. place: names the checkpoint in errors."""
    refuse_without_memory(place, size(tensors))
    # safetensors does not save two names for one storage, and needs contiguous tensors.
    data = tensors_to_bytes({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    durable.write_file(file, data)
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def synced(folder: Path, least: int) -> dict[str, dict[str, Any]]:
    """Checksums of the files that other processes have written, when they are on disk. least: bytes that they have together.

    Raises Damaged if they have fewer.
    """
    found = dict[str, dict[str, Any]]()
    for path in sorted(folder.iterdir()):
        durable.sync_path(path)
        found[path.name] = {"sha256": files.sha256(path), "bytes": path.stat().st_size}
    if (total := sum(each["bytes"] for each in found.values())) < least:
        raise Damaged(f"{folder}: {total:,} bytes of {least:,}: the files of other processes are missing")
    return found


def refuse_without_memory(place: Path, size: int) -> None:
    """Raise RunFailed if there is no memory for a part and a copy of it. safetensors would abort the process."""
    try:
        np.empty(2 * size, np.uint8)  # allocated and freed, never touched
    except MemoryError:
        raise RunFailed(
            f"{place}: not enough memory to write it: {files.megabytes(2 * size)} are needed.\n"
            "  The checkpoint before is whole. Train a smaller model, or with smaller micro-batches."
        ) from None


def size(tensors: Tensors) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for tensor in tensors.values())


def names(parent: Path, name: str) -> tuple[Path, Path, Path, Path]:
    """Folders of a checkpoint: the current one, the previous, the one before that (to be removed), a new one."""
    return parent / name, parent / f"{name}.previous", parent / f".old-{name}", parent / f"{files.TEMPORARY}{name}"


def tidy(parent: Path, name: str) -> None:
    """Clean up after a kill inside `save`: give the two newest checkpoints their names back, remove the rest."""
    target, previous, old, temporary = names(parent, name)
    durable.remove_tree(temporary)
    for younger, older in ((target, previous), (previous, old)):
        if older.exists() and not younger.exists():
            durable.rename(older, younger)
    durable.remove_tree(old)


def set_aside_damaged(parent: Path, name: str, used: Path) -> None:
    """Rename the damaged folders that `load` skipped before `used`, so that the next `save` keeps `used`."""
    for folder in candidates(parent, name):
        if folder == used:
            return
        damaged = folder.with_name(f"{folder.name}.damaged")
        durable.remove_tree(damaged)
        durable.rename(folder, damaged)


def forget(parent: Path, after: int) -> bool:
    """Remove the steps that were kept after a step: the run goes on from there, and keeps them again. Returns whether there were any."""
    later = [step for step in kept_steps(parent) if step > after]
    for step in later:
        target, *_, temporary = names(parent, kept_name(step))
        durable.remove_tree(temporary)
        durable.rename(target, temporary)  # at once, for those who look for kept steps now
    for rest in parent.glob(f"{files.TEMPORARY}step-*"):
        durable.remove_tree(rest)
    return bool(later)


def candidates(parent: Path, name: str) -> list[Path]:
    """Folders that may hold checkpoint `name`, newest first."""
    return [folder for folder in names(parent, name)[:3] if folder.is_dir()]


def load(parent: Path, name: str) -> Checkpoint:
    """Load the newest whole checkpoint of this name. Warns if a newer one is damaged. Raises UserError if none is whole."""
    problems = []
    for folder in candidates(parent, name):
        try:
            checkpoint = read(folder)
        except Damaged as error:
            problems.append(str(error))
            continue
        except (*FOREIGN, SafetensorError) as error:
            problems.append(f"{folder}: not a checkpoint of this version: {type(error).__name__}: {error}")
            continue
        if problems:
            warnings.warn(
                f"{'; '.join(problems)}. Using {folder} (step {checkpoint.state['step']}) instead.", stacklevel=2
            )
        return checkpoint
    raise UserError(
        "; ".join(problems) or f"there is no checkpoint '{name}'",
        place=str(parent),
        remedy="Train the run again with `fresh=True`."
        if problems
        else "The run ended before its first checkpoint; train it again.",
    )


def read(folder: Path) -> Checkpoint:
    """Read and verify one folder. Raises Damaged."""
    state = read_state(folder)
    if shards.is_of_pieces(state["files"]):
        verify(folder)  # before anything in them is read
        model, optimizer = shards.read_whole(folder)
    else:
        parts = PARTS if PARTS[1] in state["files"] else PARTS[:1]  # a kept step has weights alone
        found = [tensors_from_bytes(read_part(folder / part, state["files"][part])) for part in parts]
        model, optimizer = found[0], found[1] if len(found) > 1 else {}
    return Checkpoint(folder, model, optimizer, state)


def verify(folder: Path) -> None:
    """Check one folder as `read` does, without loading it. Raises Damaged."""
    expected = read_state(folder)["files"]
    if unknown := {path.name for path in folder.iterdir()} - {*expected, MANIFEST}:
        raise Damaged(f"{folder / min(unknown)}: this file does not belong to the checkpoint")
    if wrong := files.changed(folder, expected):
        raise Damaged(wrong)


def read_part(path: Path, expected: dict[str, Any]) -> bytes:
    """Read a file and check its size and checksum against state.json. Raises Damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path}: {error.strerror}") from None
    if len(data) != expected["bytes"]:
        raise Damaged(f"{path}: {len(data):,} bytes instead of {expected['bytes']:,}")
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise Damaged(f"{path}: its checksum is not the one that was saved")
    return data


def read_state(folder: Path) -> dict[str, Any]:
    """Read and verify state.json. Raises Damaged."""
    path = folder / MANIFEST
    try:
        state = files.unsealed(path.read_bytes())
    except OSError as error:
        raise Damaged(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise Damaged(f"{path}: {error}") from None
    if state["format"] != FORMAT:
        raise UserError(
            f"checkpoint format {state['format']}, but this version reads {FORMAT}",
            place=str(path),
            remedy="Use the version that wrote it.",
        )
    return state


def flatten(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """Split an optimizer's state into tensors, named "<parameter>.<name>", and JSON values.

    Raises TypeError for anything else.
    """
    raw = optimizer.state_dict()
    tensors: Tensors = {}
    plain: dict[str, Any] = {}
    for index, entries in raw["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value
            elif value is None or isinstance(value, (bool, int, float, str)):
                plain[f"{index}.{name}"] = value
            else:
                raise TypeError(
                    f"optimizer state '{name}' is a {type(value).__name__}, neither a tensor nor a plain value"
                )
    return tensors, {"state": plain, "groups": raw["param_groups"]}


def unflatten(optimizer: torch.optim.Optimizer, tensors: Tensors, plain: dict[str, Any]) -> None:
    """Undo `flatten`: load the state into an optimizer of the same parameters. Whether its step is fused stays its own choice."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["state"]}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    own = optimizer.state_dict()["param_groups"]
    groups = [
        saved | {name: here[name] for name in ("fused",) if name in here}
        for saved, here in zip(plain["groups"], own, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def weights(model: torch.nn.Module) -> Tensors:
    """Parameters and saved buffers by name. A tied parameter is listed once, under its first name.

    Of a model on a base that is kept elsewhere, only what is trained.
    """
    if base_of(model) is not None:
        return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}
    saved = model.state_dict(keep_vars=True)
    own = dict(model.named_parameters()) | {name: value for name, value in model.named_buffers() if name in saved}
    return {name: tensor.detach() for name, tensor in own.items()}


def base_of(model: torch.nn.Module) -> dict[str, str] | None:
    """What tells the files of a pretrained base from others: name, revision, sha256. None for a model without one."""
    found: dict[str, str] | None = getattr(model, "pretrained_base", None)
    return found


def refuse_other_base(model: torch.nn.Module, state: Mapping[str, Any], place: str) -> None:
    """Raise UserError at `place` if a checkpoint's weights were trained on another base than the model has."""
    trained, now = state.get("base") or {}, base_of(model) or {}
    if trained.get("sha256") != now.get("sha256"):
        raise UserError(
            f"the weights were trained on {base_text(trained)}, and this model has {base_text(now)}",
            place=place,
            remedy="Put the files of the base model back, or give its path: train.model.params.name.",
        )


def base_text(base: Mapping[str, str]) -> str:
    """A base in words."""
    revision = f" at {base['revision'][:12]}" if base.get("revision") else ""
    return f"{base['name']}{revision} (sha256 {base['sha256'][:12]})" if base else "no pretrained base"


def put_weights(model: torch.nn.Module, tensors: Tensors, place: str) -> None:
    """Copy tensors into a model. Raises UserError at `place` if names or shapes differ."""
    own = weights(model)
    wrong = [
        name
        for name in own.keys() | tensors.keys()
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape
    ]
    if wrong:
        raise UserError(
            f"the weights do not fit the model: {', '.join(sorted(wrong)[:3])}{' ...' if len(wrong) > 3 else ''}",
            place=place,
            remedy="They are from a model of another shape or kind: use its config, or train with `fresh=True`.",
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


@contextlib.contextmanager
def understanding(folder: Path) -> Iterator[None]:
    """Turn errors about the content of a checkpoint of another version into a UserError that names the folder."""
    try:
        yield
    except FOREIGN as error:
        raise UserError(
            f"not a checkpoint of this version: {type(error).__name__}: {error}",
            place=str(folder),
            remedy="Use the version that wrote it, or train again with `fresh=True`.",
        ) from None
