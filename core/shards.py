"""Tensors whose pieces lie in files of several processes: torch's distributed checkpoints, as safetensors. No pickle.

Each process writes its own pieces, and anybody reads whole tensors, whatever number of processes wrote them.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

MODEL, OPTIMIZER = "model.", "optimizer."  # what the names of tensors begin with
FILE_OF_WEIGHTS = "model-00001"  # in the names that torch gives; the optimizer's are in number 2
Tensors = dict[str, torch.Tensor]


def write_pieces(folder: Path, model: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor]) -> None:
    """Write this process's pieces of DTensors into a folder that is there. All processes call it. A tensor that all have is written once.

    Raises OSError for that of any process.
    """
    from torch.distributed.checkpoint import state_dict_saver
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    tensors = {MODEL + name: each for name, each in model.items()}
    tensors |= {OPTIMIZER + name: each for name, each in optimizer.items()}
    files = {name: 1 if name.startswith(MODEL) else 2 for name in tensors}
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    try:
        state_dict_saver.save(tensors, storage_writer=writer)
    except CheckpointException as error:
        for failure in error.failures.values():
            if isinstance(found := failure[0], OSError):
                raise found from None
        raise RuntimeError(str(error)) from error


def is_of_pieces(files: Iterable[str]) -> bool:
    """Whether these files of a checkpoint hold pieces."""
    return any(name.startswith("shard-") for name in files)


def checksum_of_weights(files: Mapping[str, Mapping[str, Any]]) -> str:
    """What tells the weights of a checkpoint from others, from the checksums of its files, pieces or not."""
    whole = files.get("model.safetensors")
    if whole is not None:
        return str(whole["sha256"])
    pieces = "".join(str(files[name]["sha256"]) for name in sorted(files) if f"-{FILE_OF_WEIGHTS}-" in name)
    return hashlib.sha256(pieces.encode()).hexdigest()


def read_whole(folder: Path, *, prefixes: Iterable[str] = (MODEL, OPTIMIZER)) -> tuple[Tensors, ...]:
    """The whole tensors in a folder, for each prefix. Check the files before. Raises ValueError if a piece is missing."""
    from torch.distributed.checkpoint import state_dict_loader
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    reader = HuggingFaceStorageReader(str(folder))
    known = reader.read_metadata().state_dict_metadata
    found: Tensors = {}
    for name, each in known.items():
        assert isinstance(each, TensorStorageMetadata)
        if sum(chunk.sizes.numel() for chunk in each.chunks) != each.size.numel():
            raise ValueError(f"pieces of {name} are missing")
        if name.startswith(tuple(prefixes)):
            found[name] = torch.empty(each.size, dtype=each.properties.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that this process reads alone
        state_dict_loader.load(found, storage_reader=reader, no_dist=True)
    return tuple(
        {name.removeprefix(prefix): each for name, each in found.items() if name.startswith(prefix)}
        for prefix in prefixes
    )
