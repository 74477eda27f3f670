"""Checkpoints: weights and optimizer as safetensors, the rest as JSON with checksums; no pickle, nothing overwritten.

A checkpoint is a folder with model.safetensors, optimizer.safetensors and state.json. state.json is written last
and holds the checksums of the others and of itself, so a folder whose state.json verifies is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from core import files
from core.errors import UserError

FORMAT = 1
PARTS = ("model.safetensors", "optimizer.safetensors")
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

    state: JSON values; "step" must be among them.
    """
    parent.mkdir(parents=True, exist_ok=True)
    target, previous, temporary = parent / name, parent / f"{name}.previous", parent / f"{files.TEMPORARY}{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    checksums = {}
    for part, tensors in zip(PARTS, (model, optimizer), strict=True):
        # safetensors saves no two names for one storage, and wants rows in order.
        data = tensors_to_bytes({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
        files.write_bytes(temporary / part, data)
        checksums[part] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    files.write_bytes(temporary / "state.json", sealed({"format": FORMAT, "files": checksums, **state}))
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        target.rename(previous)
    temporary.rename(target)
    files.sync(parent)
    return target


def sealed(state: dict[str, Any]) -> bytes:
    """JSON that ends with its own checksum."""
    body = json.dumps(state, indent=1, sort_keys=True, allow_nan=False)
    return (
        json.dumps(state | {"seal": hashlib.sha256(body.encode()).hexdigest()}, indent=1, sort_keys=True).encode()
        + b"\n"
    )


def candidates(parent: Path, name: str) -> list[Path]:
    """Folders that may hold checkpoint `name`, the one just written first."""
    folders = [parent / name, parent / f"{name}.previous"]
    return [folder for folder in folders if folder.is_dir()]


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
        remedy="Train the run again with --fresh."
        if problems
        else "The run ended before its first checkpoint; train it again.",
    )


def read(folder: Path) -> Checkpoint:
    """Read and verify one folder. Raises Damaged."""
    state = read_state(folder)
    parts = []
    for part in PARTS:
        path, expected = folder / part, state["files"][part]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Damaged(f"{path}: {error.strerror}") from None
        if len(data) != expected["bytes"]:
            raise Damaged(f"{path}: {len(data):,} bytes instead of {expected['bytes']:,}")
        if hashlib.sha256(data).hexdigest() != expected["sha256"]:
            raise Damaged(f"{path}: its checksum is not the one that was saved")
        parts.append(tensors_from_bytes(data))
    return Checkpoint(folder, parts[0], parts[1], state)


def read_state(folder: Path) -> dict[str, Any]:
    """state.json, verified to the byte. Raises Damaged."""
    path = folder / "state.json"
    try:
        data = path.read_bytes()
        state = json.loads(data)
    except OSError as error:
        raise Damaged(f"{path}: {error.strerror}") from None
    except ValueError:
        raise Damaged(f"{path}: not JSON") from None
    body = {key: value for key, value in state.items() if key != "seal"} if isinstance(state, dict) else {}
    if sealed(body) != data:
        raise Damaged(f"{path}: its checksum is not the one that was saved")
    if body["format"] != FORMAT:
        raise UserError(
            f"checkpoint format {body['format']}, but this version reads {FORMAT}",
            place=str(path),
            remedy="Use the version that wrote it.",
        )
    return body


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
            remedy="They come from a model of another shape or kind: use its config, or train with --fresh.",
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
            remedy="Use the version that wrote it, or train again with --fresh.",
        ) from None
