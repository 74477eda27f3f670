"""Checkpoints: weights and optimizer as safetensors, the rest as JSON with checksums. No pickle, nothing overwritten.

A checkpoint is a folder with model.safetensors, optimizer.safetensors and state.json. state.json is written last
and holds the checksums of the others and of itself, so a folder whose state.json verifies is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from core import durable, files
from core.errors import RunFailed, UserError

FORMAT = 1
PARTS = ("model.safetensors", "optimizer.safetensors")
MANIFEST = "state.json"
MANIFEST_BYTES = 16_384  # roughly: most of it is the state of the random numbers and the config
Tensors = dict[str, torch.Tensor]
# What content raises whose checksums are right and which this version has not written
FOREIGN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)


class Damaged(Exception):
    """A checkpoint that is not what was written; the text names the file and what is wrong with it."""


@dataclass
class Checkpoint:
    """What a folder held: tensors by name, and everything else."""

    folder: Path
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]


def save(parent: Path, name: str, model: Tensors, optimizer: Tensors, state: dict[str, Any]) -> Path:
    """Write parent/name as a whole; the checkpoint that had the name is parent/name.previous from now on.

    state: JSON values; "step" must be among them. The one before the previous is removed last, when the new one has been
    read back and all is on disk. Raises DiskFull, and Damaged where the disk gives back something else.
    """
    target, previous, old, temporary = names(parent, name)
    checksums = {}
    with files.room_for(parent, size(model) + size(optimizer) + MANIFEST_BYTES):
        durable.make_folders(parent)
        tidy(parent, name)
        durable.make_folder(temporary)
        try:
            for part, tensors in zip(PARTS, (model, optimizer), strict=True):
                refuse_without_memory(parent / name, size(tensors))
                # safetensors saves no two names for one storage, and wants rows in order.
                data = tensors_to_bytes({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
                durable.write_file(temporary / part, data)
                checksums[part] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
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


def refuse_without_memory(place: Path, size: int) -> None:
    """Raise RunFailed where there is no memory for the bytes of a part and a copy of them: safetensors would abort the process."""
    try:
        np.empty(2 * size, np.uint8)  # it is taken and given back, and never touched
    except MemoryError:
        raise RunFailed(
            f"{place}: there is no memory to write it: {files.megabytes(2 * size)} are needed.\n"
            "  The checkpoint before is whole. Train a smaller model, or in smaller parts of a batch."
        ) from None


def size(tensors: Tensors) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for tensor in tensors.values())


def names(parent: Path, name: str) -> tuple[Path, Path, Path, Path]:
    """Folders of a checkpoint: the last one, the one before, the one before that while it waits for its end, a new one."""
    return parent / name, parent / f"{name}.previous", parent / f".old-{name}", parent / f"{files.TEMPORARY}{name}"


def tidy(parent: Path, name: str) -> None:
    """Finish what a kill inside `save` has left: the two newest checkpoints get their names back, the rest goes."""
    target, previous, old, temporary = names(parent, name)
    durable.remove_tree(temporary)
    for younger, older in ((target, previous), (previous, old)):
        if older.exists() and not younger.exists():
            durable.rename(older, younger)
    durable.remove_tree(old)


def set_aside_damaged(parent: Path, name: str, used: Path) -> None:
    """Rename the folders that `load` passed over before it came to `used`, so that the next `save` keeps that one."""
    for folder in candidates(parent, name):
        if folder == used:
            return
        damaged = folder.with_name(f"{folder.name}.damaged")
        durable.remove_tree(damaged)
        durable.rename(folder, damaged)


def candidates(parent: Path, name: str) -> list[Path]:
    """Folders that may hold checkpoint `name`, the newest first."""
    return [folder for folder in names(parent, name)[:3] if folder.is_dir()]


def load(parent: Path, name: str) -> Checkpoint:
    """The newest whole checkpoint of this name; a damaged one is reported by a warning and the one before it is used.

    Raises UserError where none is whole.
    """
    problems = []
    for folder in candidates(parent, name):
        try:
            checkpoint = read(folder)
        except Damaged as error:
            problems.append(str(error))
            continue
        except (*FOREIGN, SafetensorError) as error:
            problems.append(f"{folder}: no checkpoint of this version: {type(error).__name__}: {error}")
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
    model, optimizer = (tensors_from_bytes(read_part(folder / part, state["files"][part])) for part in PARTS)
    return Checkpoint(folder, model, optimizer, state)


def verify(folder: Path) -> None:
    """Check one folder as `read` does, in little memory. Raises Damaged."""
    for part, expected in read_state(folder)["files"].items():
        if files.sha256(folder / part) != expected["sha256"]:
            raise Damaged(f"{folder / part}: its checksum is not the one that was saved")


def read_part(path: Path, expected: dict[str, Any]) -> bytes:
    """A file with the size and checksum that state.json has for it. Raises Damaged."""
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
    """state.json, verified to the byte. Raises Damaged."""
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
    """An optimizer's state as tensors named "<parameter>.<name>" and, for what is no tensor, JSON values.

    Raises TypeError for state that is neither.
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
    """Put what `flatten` gave back into an optimizer of the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["state"]}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})


def weights(model: torch.nn.Module) -> Tensors:
    """Parameters and saved buffers by name; a tied parameter stands once, under its first name."""
    saved = model.state_dict(keep_vars=True)
    own = dict(model.named_parameters()) | {name: value for name, value in model.named_buffers() if name in saved}
    return {name: tensor.detach() for name, tensor in own.items()}


def put_weights(model: torch.nn.Module, tensors: Tensors, place: str) -> None:
    """Copy tensors into a model. Raises UserError, at `place`, where names or shapes differ."""
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
            remedy="They come from a model of another shape or kind: use its config, or train with `fresh=True`.",
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


@contextlib.contextmanager
def understanding(folder: Path) -> Iterator[None]:
    """Raise UserError, which names the folder, where its content is not what this version writes."""
    try:
        yield
    except FOREIGN as error:
        raise UserError(
            f"no checkpoint of this version: {type(error).__name__}: {error}",
            place=str(folder),
            remedy="Use the version that wrote it, or train again with `fresh=True`.",
        ) from None
