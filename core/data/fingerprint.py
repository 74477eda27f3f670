"""The fingerprint of a dataset: one hash of the code, the settings and the raw files that it is made from.

Only content counts. Paths and file times are left out, so a copied experiment has the same fingerprint.
Times only decide whether a file that was hashed before must be read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.config import Prepare
from core.data.source import ENDLESS, INPUT, Source, default_size
from core.encoders.base import Frame, frame_of, identity
from core.files import sha256
from core.roles import role_of

FORMAT = 1  # of the dataset folder: raised when prepare would write other bytes from the same input
Known = dict[str, dict[str, Any]]  # name -> {"stamp": [...], "sha256": "..."}


def stamp(path: Path) -> list[int]:
    """Size and times of a file. They differ after any write, unless the clock was set back."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def checksums(files: Mapping[str, Path], known: Known) -> Known:
    """sha256 of files by name. A file whose stamp equals that in `known` is not read."""
    result: Known = {}
    for name, path in files.items():
        now, before = stamp(path), known.get(name, {})
        content = before["sha256"] if before.get("stamp") == now else sha256(path)
        result[name] = {"stamp": now, "sha256": content}
    return result


def code_and_settings(source: Source) -> dict[str, Any]:
    """The part of a fingerprint that is known before the dataset is made.

    Keys of [prepare] that name a place are left out: the content found there counts, wherever it is.
    """
    places = {key for key in Prepare.model_fields if role_of(f"prepare.{key}") == "place"}
    settings = source.config.prepare.model_dump(exclude=places)
    # A dataset of an earlier version stays current: one without a test side, and one of the former default size.
    if settings["test_fraction"] is None:
        del settings["test_fraction"]
    if settings["size"] is None and (source.kind != "documents" or default_size(source) == ENDLESS):
        settings["size"] = ENDLESS
    if settings["documents"] == "documents":
        del settings["documents"]
    if settings["split_pattern"] == "gpt2":
        del settings["split_pattern"]
    if settings["special_tokens"] == "none":
        del settings["special_tokens"]
    if not settings["max_tokens"]:
        del settings["max_tokens"]
    if not settings["tokenizer"]:
        del settings["tokenizer"]
    if not settings["columns"]:
        del settings["columns"]
    if "separator" not in source.given and settings["format"] not in ("text", "pairs"):
        del settings["separator"]  # a table has one only if it is given
    code = {path.name: sha256(path) for path in sorted(source.experiment.folder.glob("*.py"))}
    if source.config.prepare.encoder_from:
        encoder = source.borrowed_encoder()
        settings["encoder"] = identity(encoder)
        if (frame := frame_of(encoder)) != Frame():
            settings["frame"] = frame
    else:
        kind, _ = source.plugins.registered("encoders").get(source.config.prepare.encoder, (None, ""))
        if of_files := getattr(kind, "fingerprint", None):  # it reads a file, whose content counts
            settings["tokenizer"] = of_files(source.tokenizer)
    return {"format": FORMAT, "kind": source.kind, "settings": settings, "code": code}


def raw_files(source: Source, opened: Iterable[str] = ()) -> dict[str, Path]:
    """The files that the documents come from, named relative to raw_dir or the experiment's folder.

    That is `input`. For a function, it is what `inputs()` declares and what it `opened` when it ran, names below the
    experiment's folder. If it asks for them, it is also every file in raw_dir, and the files beside prepare.py that are
    not code, settings or notes. Hidden and temporary files are left out.
    """
    if source.kind == "input":
        return {INPUT: source.input_file}
    below = {name: source.experiment.folder / name for name in opened}
    found = source.declared() | {name: path for name, path in below.items() if path.is_file()}
    if source.may_read("raw_dir"):
        for path in visible(source.raw_dir.rglob("*")):
            found[f"raw/{path.relative_to(source.raw_dir).as_posix()}"] = path
    if source.may_read("folder"):
        beside = visible(source.experiment.folder.glob("*"))
        found |= {path.name: path for path in beside if path.suffix not in (".py", ".toml", ".md", ".bin")}
    return dict(sorted(found.items()))


def opened_below(source: Source, paths: Iterable[str]) -> list[str]:
    """Names of the opened files that are inputs: below the experiment's folder, and not code, datasets or runs."""
    folder = source.experiment.folder.resolve()
    made = (source.dataset_dir.parent, source.experiment.path(source.config.train.runtime.out_dir))
    names = []
    for path in (Path(name).resolve() for name in paths):
        ours = any(path.is_relative_to(place.resolve()) for place in made) and not path.is_relative_to(
            source.raw_dir.resolve()
        )
        code = path.suffix in (".py", ".pyc")
        if path.is_file() and path.is_relative_to(folder) and not ours and not code and not path.name.startswith("."):
            names.append(path.relative_to(folder).as_posix())
    return sorted(names)


def visible(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file() and not path.name.startswith(".")]


def fingerprint(made_by: Mapping[str, Any], raw: Known) -> str:
    """One hash of code, settings and the content of raw files."""
    everything = {**made_by, "raw": {name: entry["sha256"] for name, entry in raw.items()}}
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()
