"""Find and read the tokenizer of a pretrained model: from a folder, a tokenizer.json, a GGUF file, or the hub."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from core.errors import UserError
from core.huggingface.gguf_metadata import metadata_hash, read_metadata
from core.huggingface.gguf_tokenizer import tokenizer_of
from core.huggingface.hub import ADDRESS, fetch

KEY = "prepare.tokenizer"
MAIN, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
MODEL = ("generation_config.json", "config.json")  # these name ids, where tokenizer_config.json names no tokens
ON_HUB = re.compile(rf"({ADDRESS.pattern})(?:@([\w./-]+))?")  # OWNER/NAME@REVISION
BEGINS = ("llama-bpe", "llama3", "llama-v3", "llama4")  # patterns of GGUF files whose models begin texts with a token


@dataclass(frozen=True)
class TokenizerFiles:
    """What the files of a tokenizer say. tokenizer: made from tokenizer.json.

    begin, end: ids that begin and end a text; None if none does. bos: the token for the beginning, which many models have and
    do not write. template: of conversations, in jinja; "" without one.
    """

    tokenizer: Tokenizer
    begin: int | None
    end: int | None
    template: str
    bos: int | None = None


def read_tokenizer(name: str) -> TokenizerFiles:
    """Read a tokenizer. name: as `prepare.tokenizer`. Raises UserError if there is none, or it is damaged."""
    path = find(name)
    return from_gguf(path) if path.suffix == ".gguf" else from_json(path)


def tokenizer_hash(name: str) -> str:
    """SHA-256, hexadecimal, of the files that `read_tokenizer` reads. Of a name on the hub it is that of the name."""
    digest = hashlib.sha256()
    if is_on_hub(name):
        digest.update(name.encode())
    elif (path := find(name)).suffix == ".gguf":
        digest.update(metadata_hash(path).encode())
    else:
        for file in (path, *(path.parent / other for other in (SETTINGS, TEMPLATE, *MODEL))):
            digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def pinned_name(name: str) -> str:
    """NAME@COMMIT, of the newest commit, for a name on the hub without one; any other name as it is. Raises UserError."""
    if not is_on_hub(name) or "@" in name:
        return name
    return f"{name}@{find(name).parent.name}"


def is_on_hub(name: str) -> bool:
    """Whether a name is that of a model on the hub, and of nothing here."""
    return not Path(name).expanduser().exists() and "/" in name and ON_HUB.fullmatch(name) is not None


def find(name: str) -> Path:
    """The tokenizer.json or GGUF file that a name means, downloaded if it is on the hub. Raises UserError if there is none."""
    if not name:
        raise UserError(
            "no tokenizer is named",
            place=KEY,
            remedy="Name a folder with tokenizer.json, a file, or OWNER/NAME of the hub.",
        )
    if is_on_hub(name):
        return from_hub(name)
    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(
            f"{name!r} is no file, no folder, and no OWNER/NAME of the hub",
            place=KEY,
            remedy="Name a folder with tokenizer.json, such a file, or a .gguf file. Relative paths start at the experiment's "
            "folder.",
        )
    if path.is_dir():
        path = path / MAIN
        if not path.is_file():
            raise UserError(
                f"there is no {MAIN}",
                place=str(path.parent),
                remedy="Name a model's folder that has one. From a model with another kind of file, transformers writes one: "
                "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
            )
    if path.suffix not in (".json", ".gguf"):
        raise UserError(
            "is neither a .json nor a .gguf file", place=str(path), remedy=f"Name a {MAIN} or a .gguf file."
        )
    return path


def from_hub(name: str) -> Path:
    """The downloaded tokenizer.json of a model on the hub. Raises UserError if it cannot be fetched."""
    found = ON_HUB.fullmatch(name)
    assert found is not None
    return find(str(fetch(found[1], found[3] or "", [MAIN, SETTINGS, TEMPLATE, *MODEL], KEY)))


def from_json(path: Path) -> TokenizerFiles:
    """From a tokenizer.json and the files beside it."""
    tokenizer = built(path.read_text(encoding="utf-8"), str(path))
    beside = {name: read_object(path.parent / name) for name in (SETTINGS, *MODEL)}
    own = beside[SETTINGS]
    bos, end = (id_of(kind, tokenizer, beside) for kind in ("bos", "eos"))
    begins = own.get("add_bos_token") or tokenizer.encode("a").ids[:1] == [bos]
    template = own.get("chat_template") or ""
    if isinstance(template, list):  # several by name
        template = next((each["template"] for each in template if each.get("name") == "default"), "")
    if (file := path.parent / TEMPLATE).is_file():
        template = file.read_text(encoding="utf-8")
    return TokenizerFiles(tokenizer, bos if begins else None, end, str(template), bos)


def from_gguf(path: Path) -> TokenizerFiles:
    """From the metadata of a GGUF file."""
    metadata = read_metadata(path)
    tokenizer = built(json.dumps(tokenizer_of(metadata, str(path))), str(path))
    begins = metadata.get("tokenizer.ggml.add_bos_token", metadata.get("tokenizer.ggml.pre") in BEGINS)
    bos, end = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
    template = str(metadata.get("tokenizer.chat_template", ""))
    return TokenizerFiles(tokenizer, bos if begins else None, end, template, bos)


def built(content: str, place: str) -> Tokenizer:
    """A tokenizer from the content of a tokenizer.json. Raises UserError if that is damaged."""
    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # the library raises no narrower one
        raise UserError(
            f"no tokenizer: {error}", place=place, remedy="Download it again, or name another one."
        ) from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty if there is no file. Raises UserError for anything else."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"no JSON: {error}", place=str(path), remedy="Download it again.") from None
    if not isinstance(found, dict):
        raise UserError("no JSON object", place=str(path), remedy="Download it again.")
    return found


def id_of(kind: str, tokenizer: Tokenizer, beside: dict[str, dict[str, Any]]) -> int | None:
    """The id of the token that the files call "bos" or "eos"; None if they name none."""
    named = beside[SETTINGS].get(f"{kind}_token")
    text = named.get("content") if isinstance(named, dict) else named
    if isinstance(text, str):
        found: int | None = tokenizer.token_to_id(text)
        return found
    for name in MODEL:
        number = beside[name].get(f"{kind}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int):
            return number
    return None
