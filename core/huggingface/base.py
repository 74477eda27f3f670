"""The base model: find its files in a folder, a .gguf file or a hub; tell it from others; load it."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from core import files
from core.errors import UserError
from core.huggingface.extra import needed, quietly, reason_of
from core.huggingface.hub import ADDRESS, COMMIT, fetch

NAME_KEY, REVISION_KEY = "train.model.params.name", "train.model.params.revision"
CONFIG_FILE, WEIGHT_FILES, GGUF = "config.json", "*.safetensors", ".gguf"
ADAPTER_FILE = "adapter_config.json"  # of a folder that is an adapter
# What is fetched from a hub: weights as safetensors, never as pickles, and no code.
FETCHED = ("*.json", WEIGHT_FILES, "*.txt", "*.model", "*.jinja")
WHICH = (
    f"Give a folder with {CONFIG_FILE} and weights, a {GGUF} file, or a name on the hub such as OWNER/NAME. "
    "Relative paths start at the experiment's folder."
)


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
        return [self.path] if self.is_gguf else [self.path / CONFIG_FILE, *sorted(self.path.glob(WEIGHT_FILES))]

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
    if not name.strip():
        raise UserError("no base model is named", place=NAME_KEY, remedy=WHICH)
    path = (folder or Path()) / Path(name).expanduser()
    if name.endswith(GGUF) or path.is_dir():
        if revision not in ("auto", ""):
            raise UserError(
                f'revision = "{revision}", but {name} is on this machine and has no revisions',
                place=REVISION_KEY,
                remedy="Leave it out. The checkpoints keep a checksum of the model's files.",
            )
        return Base(name, "", checked(path, name))
    if not ADDRESS.fullmatch(name):
        raise UserError(f"no model is at '{name}'", place=NAME_KEY, remedy=WHICH)
    if revision not in ("auto", "") and not COMMIT.fullmatch(revision):
        raise UserError(
            f'revision = "{revision}" is not a commit, and a name can stand for other weights tomorrow',
            place=REVISION_KEY,
            remedy="Give the commit, 40 hexadecimal digits; or leave it out: the newest is then taken and recorded.",
        )
    fetched = fetch(name, "" if revision == "auto" else revision, FETCHED, NAME_KEY)
    return Base(name, fetched.name, checked(fetched, name))


def checked(path: Path, name: str) -> Path:
    """The path of a model, if its files are there, and they are a whole model in full precision. Raises UserError."""
    if path.suffix == GGUF:
        if path.is_file():
            return path
        raise UserError(
            f"there is no file {name}", place=NAME_KEY, remedy="Relative paths start at the experiment's folder."
        )
    if (path / ADAPTER_FILE).is_file():
        raise UserError(
            f"{name} has an {ADAPTER_FILE}, so it is an adapter or has one beside its weights, which would be loaded unseen",
            place=NAME_KEY,
            remedy="Name the model that the adapter was trained on; or merge the two, and name the folder of the result.",
        )
    if not (path / CONFIG_FILE).is_file():
        raise UserError(
            f"{name} has no {CONFIG_FILE}, so it is not a model of transformers",
            place=NAME_KEY,
            remedy="Give another folder.",
        )
    if not any(path.glob(WEIGHT_FILES)):
        raise UserError(
            f"{name} has no weights in the form {WEIGHT_FILES}",
            place=NAME_KEY,
            remedy="Save it again as safetensors: other forms can run code when they are read, so they are not read.",
        )
    refuse_quantised_base(path / CONFIG_FILE, name)
    return path


def refuse_quantised_base(file: Path, name: str) -> None:
    """Raise UserError for a model whose weights were saved in few bits, and for a config.json that is not a JSON object."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(name, CONFIG_FILE, reason_of(error)) from None
    if not isinstance(config, dict):
        raise damaged(name, CONFIG_FILE, "it is no JSON object")
    found = config.get("quantization_config")
    if not found:
        return
    method = found.get("quant_method", "") if isinstance(found, Mapping) else ""
    raise UserError(
        f"{name} is quantised already{f' ({method})' if method else ''}: its weights have few bits, and an adapter on them "
        "could not be merged",
        place=NAME_KEY,
        remedy='Give the model in full precision. To train adapters on four bits, set quantize = "nf4" with it.',
    )


def load_base(base: Base, dtype: torch.dtype, *, weightless: bool = False) -> Any:
    """The causal language model, a PreTrainedModel in evaluation mode with weights of `dtype`, on the CPU.

    weightless: on torch's device meta, for its shapes alone. Raises UserError if transformers cannot load it, and for
    weights that are missing, which would be random numbers. Warns of weights that the model has no place for.
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
            # Other shapes are allowed here and refused below: transformers' own error advises to ignore them.
            form = {} if base.is_gguf else {"use_safetensors": True, "ignore_mismatched_sizes": True}
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, **form, **source
            )
        except torch.OutOfMemoryError:
            raise
        except unreadable_by() as error:
            raise unreadable(base, error) from None
    refuse_other_shapes(base, report.get("mismatched_keys") or ())
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{base.name} lacks {len(missing)} of the weights of a {type(model).__name__}: {shown(missing)}",
            place=NAME_KEY,
            remedy="Give a complete model: what is missing would be random.",
        )
    if unused := sorted(report["unexpected_keys"]):
        warnings.warn(
            f"{NAME_KEY}: a {type(model).__name__} has no place for {len(unused)} of the weights of {base.name}, which are "
            f"left out: {shown(unused)}. If they matter, config.json is that of another model.",
            stacklevel=2,
        )
    if base.is_gguf:
        as_full_precision(model)
    return model.eval()


@functools.cache
def unreadable_by() -> tuple[type[Exception], ...]:
    """What transformers and the packages below it raise for files that are damaged, or of a model that it does not have."""
    strict = needed("huggingface_hub.errors", 'train.model.kind = "hf"').StrictDataclassError
    of_python = (OSError, ValueError, LookupError, RuntimeError, ImportError, TypeError, AttributeError, AssertionError)
    return (*of_python, ArithmeticError, struct.error, SafetensorError, strict)


def as_full_precision(model: Any) -> None:
    """Have a model that was read from a GGUF file forget it: its weights are in full precision, and it can be saved."""
    model.hf_quantizer = None
    for config in (model.config, model.config.get_text_config()):
        if hasattr(config, "quantization_config"):
            del config.quantization_config


def unreadable(base: Base, error: BaseException) -> UserError:
    """The error for files that transformers cannot load, after their kind of fault."""
    if base.is_gguf:
        if fault := fault_of_gguf(base.path):
            return damaged(base.name, "", fault)
    else:
        for file in sorted(base.path.glob(WEIGHT_FILES)):
            if fault := fault_of_weights(file):
                return damaged(base.name, file.name, fault)
    if type(error).__name__.startswith("StrictDataclass"):
        return damaged(base.name, CONFIG_FILE, reason_of(error))
    return UserError(
        f"transformers cannot load {base.name}: {reason_of(error)}",
        place=NAME_KEY,
        remedy="Give a causal language model whose architecture transformers has. Code that comes with a model is not run.",
    )


def damaged(name: str, file: str, fault: str) -> UserError:
    """The error for a damaged file of a model."""
    return UserError(
        f"{name} is damaged: {f'{file}: ' if file else ''}{fault}",
        place=NAME_KEY,
        remedy="Copy or download it again, whole; or give another model.",
    )


def fault_of_weights(file: Path) -> str:
    """What is wrong with a file of safetensors; "" if it can be read."""
    try:
        with safe_open(file, "pt"):
            return ""
    except (OSError, SafetensorError) as error:
        return reason_of(error)


def fault_of_gguf(file: Path) -> str:
    """What is wrong with a GGUF file; "" if it can be read."""
    try:
        needed("gguf", f"A {GGUF} file").GGUFReader(file)
    except unreadable_by() as error:
        return f"no whole GGUF file: {reason_of(error)}"
    return ""


def refuse_other_shapes(base: Base, mismatched: Iterable[Any]) -> None:
    """Raise UserError for weights that have other shapes than config.json says. mismatched: (name, found, said) of each."""
    found = sorted(mismatched, key=str)
    if not found:
        return
    if not isinstance(found[0], tuple):
        shapes = str(found[0])
    else:
        name, have, said = found[0]
        shapes = f"{name} is {times(have)}, where it says {times(said)}"
    raise UserError(
        f"weights of {base.name} do not have the shapes that {CONFIG_FILE} says, {len(found)} in all: {shapes}",
        place=NAME_KEY,
        remedy=f"Put the {CONFIG_FILE} back that belongs to these weights, or give another model.",
    )


def times(shape: Iterable[int]) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape))


def shown(names: list[str]) -> str:
    """The first three of some names."""
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"


def context_of(model: Any) -> int | None:
    """Tokens that a model of transformers can see at once; None if its config does not say."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
