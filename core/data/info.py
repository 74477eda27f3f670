"""Read and write dataset.json, or describe a folder that has none from its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from core import files
from core.data.foreign import encoder_of
from core.errors import UserError

AGAIN = "Prepare it again with `force=True`."
SIDES = ("train", "val")  # that every dataset has
TEST = "test"  # the side that a dataset may have too
HELD_OUT: Literal["held_out"] = "held_out"  # the Examples of held_out(), where prepare.py has one
STANDARD_FILES = {
    "meta.pkl",
    *(f"{side}{part}.bin" for side in (*SIDES, TEST, HELD_OUT) for part in ("", ".mask", ".idx", ".prompts", ".group")),
}


def read_info(folder: Path) -> dict[str, Any]:
    """dataset.json of a folder. Raises UserError if it is damaged."""
    path = folder / "dataset.json"
    try:
        info = parsed(path)
        seal = info.pop("seal", None)  # datasets of earlier versions have none
        if seal not in (None, files.seal(info)):
            raise ValueError("its checksum is not the one that was saved")
        check_info(info)
    except (ValueError, RecursionError) as error:
        raise UserError(f"damaged: {error}", place=str(path), remedy=AGAIN) from None
    return info


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Write dataset.json, with its own checksum as "seal"."""
    files.write_json(folder / "dataset.json", info | {"seal": files.seal(info)})


def parsed(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object. Raises ValueError or RecursionError for anything else."""
    info = json.loads(path.read_bytes())
    if not isinstance(info, dict):
        raise ValueError("not a JSON object")
    return info


def check_info(info: dict[str, Any]) -> None:
    """Raise ValueError if keys of dataset.json that are needed to open a dataset are missing or have a wrong type."""
    if not {"encoder", "dtype", "kind", "groups", *SIDES} <= info.keys():
        raise ValueError("keys are missing")
    encoder, dtype = info["encoder"], info["dtype"]
    if not isinstance(encoder, dict) or not isinstance(encoder.get("kind"), str):
        raise ValueError("encoder has no kind")
    if dtype not in ("uint16", "uint32"):
        raise ValueError(f"dtype is {dtype!r}, neither 'uint16' nor 'uint32'")
    for side in (*SIDES, *(side for side in (TEST, HELD_OUT) if side in info)):
        if not isinstance(info[side], dict):
            raise ValueError(f"{side} is not an object")
        if not all(is_count(number) for number in info[side].values()):
            raise ValueError(f"{side} holds values that are not counts")
    end = info.get("end_token")
    right = {
        "kind": isinstance(info["kind"], str),
        **{key: is_list_of_names(info.get(key, [])) for key in ("groups", "held_out_groups")},
        "stop": isinstance(info.get("stop", ""), str),
        "end_token": end is None or is_count(end),
        "begin": info.get("begin") is None or is_count(info["begin"]),
        **{key: is_table_of_files(info.get(key, {})) for key in ("raw", "files")},
        "texts": isinstance(info.get("texts", {}), dict)
        and all(isinstance(one, str) for one in info.get("texts", {}).values()),
    }
    if wrong := [key for key, is_right in right.items() if not is_right]:
        raise ValueError(f"{wrong[0]} has a wrong type")


def is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_table_of_files(value: Any) -> bool:
    """Whether a value maps file names to checksums."""
    return isinstance(value, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in value.values()
    )


def describe(folder: Path) -> dict[str, Any]:
    """dataset.json's content for a folder with nanoGPT's files only: train.bin and val.bin of uint16, and perhaps meta.pkl.

    "note" says how the ids are read where meta.pkl does not give each a character: see `encoder_of`.
    Raises UserError where files are missing or damaged.
    """
    for side in SIDES:
        if not (folder / f"{side}.bin").is_file():
            raise UserError(
                f"there is no {side}.bin", place=str(folder), remedy="A dataset needs train.bin and val.bin."
            )
    info: dict[str, Any] = {"kind": "text", "dtype": "uint16", "stop": "", "end_token": None, "groups": []}
    meta = folder / "meta.pkl"
    info |= encoder_of(meta)
    info |= {side: {} for side in (*SIDES, TEST) if (folder / f"{side}.bin").is_file()}
    if all((folder / f"{side}.{part}.bin").exists() for side in SIDES for part in ("mask", "idx")):
        info["kind"] = "examples"
    info["fingerprint"] = sampled_hash([folder / "train.bin", folder / "val.bin", *([meta] if meta.exists() else [])])
    return info


def sampled_hash(paths: list[Path], blocks: int = 64, size: int = 1 << 16) -> str:
    """A hash of sizes and of evenly spaced blocks: of all of a small file, and fast for files of any size."""
    digest = hashlib.sha256()
    for path in paths:
        length = path.stat().st_size
        digest.update(f"{path.name} {length}\n".encode())
        with path.open("rb") as file:
            for block in range(blocks):
                file.seek(max(length - size, 0) * block // (blocks - 1))
                digest.update(file.read(size))
    return digest.hexdigest()
