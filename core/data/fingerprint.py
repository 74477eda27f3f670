"""What a dataset was made from, as one hash: the code, the settings and the raw files in, a fingerprint out.

Content alone counts: no path, no time of a file enters, so a copied experiment has the fingerprint of the
first. Times only tell whether a file that was hashed before must be read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.data.source import Source
from core.encoders.base import identity
from core.files import sha256

FORMAT = 1  # of the dataset folder: raised when prepare would write other bytes from the same input
# Keys of [prepare] that name places. What is found there counts, wherever it is.
PLACES = {"variant", "dataset_dir", "raw_dir", "input", "sha256", "encoder_from"}
Known = dict[str, dict[str, Any]]  # name -> {"stamp": [...], "sha256": "..."}


def stamp(path: Path) -> list[int]:
    """Size and times of a file: unequal after any write, short of a clock set back on purpose."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def checksums(files: Mapping[str, Path], known: Known) -> Known:
    """sha256 of files by name; one whose stamp is that in `known` is not read."""
    result: Known = {}
    for name, path in files.items():
        now, before = stamp(path), known.get(name, {})
        content = before["sha256"] if before.get("stamp") == now else sha256(path)
        result[name] = {"stamp": now, "sha256": content}
    return result


def code_and_settings(source: Source) -> dict[str, Any]:
    """The part of a fingerprint that is known before anything is made."""
    settings = source.config.prepare.model_dump(exclude=PLACES)
    folder = source.experiment.folder
    code = {path.name: sha256(path) for path in sorted(folder.glob("*.py"))}
    if source.config.prepare.encoder_from:
        settings["encoder"] = identity(source.borrowed_encoder())
    return {"format": FORMAT, "kind": source.kind, "settings": settings, "code": code}


def raw_files(source: Source) -> dict[str, Path]:
    """The files that the documents come from, by a name without the experiment's folder.

    That is `input`; or, for a function that asks for them, every file in raw_dir, and those beside
    prepare.py that are no code, settings or notes. Hidden and temporary files do not count.
    """
    if source.kind == "input":
        return {"input": source.input_file}
    found: dict[str, Path] = {}
    if source.reads_raw_dir:
        found |= {
            f"raw/{path.relative_to(source.raw_dir).as_posix()}": path for path in visible(source.raw_dir.rglob("*"))
        }
    if source.reads_folder:
        beside = visible(source.experiment.folder.glob("*"))
        found |= {path.name: path for path in beside if path.suffix not in (".py", ".toml", ".md", ".bin")}
    return dict(sorted(found.items()))


def visible(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file() and not path.name.startswith(".")]


def fingerprint(made_by: Mapping[str, Any], raw: Known) -> str:
    """One hash of code, settings and the content of raw files."""
    everything = {**made_by, "raw": {name: entry["sha256"] for name, entry in raw.items()}}
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()
