"""The base model: find its files in a folder, a .gguf file or a hub; tell it from others; load it."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core import files
from core.errors import UserError
from core.huggingface.extra import needed, quietly

NAME, REVISION = "train.model.params.name", "train.model.params.revision"
CONFIG, WEIGHTS, GGUF = "config.json", "*.safetensors", ".gguf"
# What is fetched from a hub: weights as safetensors, never as pickles, and no code.
FETCHED = ["*.json", WEIGHTS, "*.txt", "*.model", "*.jinja"]
ADDRESS = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # NAME, or OWNER/NAME
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Base:
    """A base model on this machine. name: as in the config. revision: the hub's commit, else "". path: a folder or .gguf file."""

    name: str
    revision: str
    path: Path

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == GGUF

    @property
    def files(self) -> list[Path]:
        """The files that decide what the model computes."""
        return [self.path] if self.is_gguf else [self.path / CONFIG, *sorted(self.path.glob(WEIGHTS))]

    @property
    def identity(self) -> dict[str, str]:
        """name, revision, and sha256, which is equal where the files are."""
        sums = {
            "" if self.is_gguf else path.name: checksum(path, path.stat().st_size, path.stat().st_mtime_ns)
            for path in self.files
        }
        whole = hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
        return {"name": self.name, "revision": self.revision, "sha256": whole}


@functools.cache
def checksum(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file, read once per process while its size and time stay."""
    return files.sha256(path)


def find_base(name: str, revision: str = "auto", folder: Path | None = None) -> Base:
    """The base model of this name: a folder, a .gguf file, or a name on the hub, which is fetched if it is not here.

    folder: where relative paths start. revision: a commit of the hub; "auto": the newest. Raises UserError if there is no
    such model, and for a revision that is no commit or that a folder does not have.
    """
    path = (folder or Path()) / Path(name).expanduser()
    if name.endswith(GGUF) or path.is_dir():
        if revision not in ("auto", ""):
            raise UserError(
                f'revision = "{revision}", but {name} is on this machine and has no revisions',
                place=REVISION,
                remedy="Leave it out. The checkpoints keep a checksum of the model's files.",
            )
        return Base(name, "", checked(path, name))
    if not ADDRESS.fullmatch(name):
        raise UserError(
            f"no model is at '{name}'",
            place=NAME,
            remedy=f"Give a folder with {CONFIG} and weights, a {GGUF} file, or a name on the hub such as OWNER/NAME. "
            "Relative paths start at the experiment's folder.",
        )
    if revision not in ("auto", "") and not COMMIT.fullmatch(revision):
        raise UserError(
            f'revision = "{revision}" is not a commit, and a name can stand for other weights tomorrow',
            place=REVISION,
            remedy="Give the commit, 40 hexadecimal digits; or leave it out: the newest is then taken and recorded.",
        )
    fetched = fetch(name, "" if revision == "auto" else revision)
    return Base(name, fetched.name, checked(fetched, name))


def checked(path: Path, name: str) -> Path:
    """The path of a model, if its files are there. Raises UserError."""
    if path.suffix == GGUF:
        if path.is_file():
            return path
        raise UserError(
            f"there is no file {name}", place=NAME, remedy="Relative paths start at the experiment's folder."
        )
    if not (path / CONFIG).is_file():
        raise UserError(
            f"{name} has no {CONFIG}, so it is not a model of transformers", place=NAME, remedy="Give another folder."
        )
    if not any(path.glob(WEIGHTS)):
        raise UserError(
            f"{name} has no weights in the form {WEIGHTS}",
            place=NAME,
            remedy="Save it again as safetensors: other forms can run code when they are read, so they are not read.",
        )
    return path


def fetch(name: str, revision: str) -> Path:
    """The folder of a hub's model, named after its commit. Nothing is asked of the hub if a commit is given and here."""
    hub = needed("huggingface_hub", "A model of the hub")
    if revision:
        try:
            return Path(hub.snapshot_download(name, revision=revision, allow_patterns=FETCHED, local_files_only=True))
        except (OSError, ValueError):
            pass  # not all of it is here
    try:
        return Path(hub.snapshot_download(name, revision=revision or None, allow_patterns=FETCHED))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the hub's model '{name}' cannot be fetched: {reason}",
            place=NAME,
            remedy="Check the name and the connection, or give the path of a folder.",
        ) from None


def load_base(base: Base, dtype: torch.dtype, *, weightless: bool = False) -> Any:
    """The causal language model, a PreTrainedModel in evaluation mode with weights of `dtype`, on the CPU.

    weightless: on torch's device meta, for its shapes alone. Raises UserError if transformers cannot load it, and for
    weights that are missing, which would be random numbers.
    """
    transformers = needed("transformers", 'train.model.kind = "hf"')
    source: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if base.is_gguf:
        needed("gguf", f"A {GGUF} file")
        source["gguf_file"] = base.path.name
    folder = base.path.parent if base.is_gguf else base.path
    with quietly():
        try:
            if weightless:
                config = transformers.AutoConfig.from_pretrained(folder, **source)
                return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
            form = {} if base.is_gguf else {"use_safetensors": True}
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, **form, **source
            )
        except (OSError, ValueError, LookupError, RuntimeError, ImportError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"transformers cannot load {base.name}: {reason}",
                place=NAME,
                remedy="Give a causal language model whose architecture transformers has. Code that comes with a model is not run.",
            ) from None
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{base.name} lacks {len(missing)} of the weights of a {type(model).__name__}: {', '.join(missing[:3])}"
            f"{' ...' if len(missing) > 3 else ''}",
            place=NAME,
            remedy="Give a complete model: what is missing would be random.",
        )
    return model.eval()


def context_of(model: Any) -> int | None:
    """Tokens that a model of transformers can see at once; None if its config does not say."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
