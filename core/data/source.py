"""Find where an experiment's documents come from: its prepare.py, a file, or an https address."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from core.chat.conversation import Conversation
from core.config import Config
from core.data.dataset import load_dataset
from core.data.documents import Example
from core.data.info import read_info
from core.data.params import PlaceOf, bind, keyword_only, source_of, title, wants
from core.data.spool import Spool
from core.data.tables import ENDINGS
from core.data.text import read_text
from core.download import download
from core.encoders.base import Encoder
from core.encoders.special import has_special
from core.errors import UserError, did_you_mean
from core.listener import SILENT, Advice, Listener
from core.plugins.discovery import Experiment
from core.plugins.manager import Plugins

INPUT = "input"  # what prepare.input names, in dataset.json
TOKENIZER = "tokenizer"  # NAME@COMMIT of the hub, in dataset.json
ENDLESS, FINITE = 1_000_000, 1_000_000_000  # characters that are drawn if prepare.size is not given
MAKERS = ("documents", "prepare")  # functions of a prepare.py that make data
FUNCTIONS = (*MAKERS, "inputs", "evaluate", "build_model")  # all functions that it may have besides hooks


@dataclass(frozen=True)
class Source:
    """An experiment with its settings, and the way of making data that they choose.

    given: the keys of [prepare] that the user has set. kind: "prepare" and "documents" are functions of prepare.py, "input" is a file, "" means that there is nothing.
    """

    experiment: Experiment
    config: Config
    plugins: Plugins
    place_of: PlaceOf
    listener: Listener = SILENT
    given: frozenset[str] = frozenset()

    @property
    def code(self) -> ModuleType | None:
        """The module prepare.py."""
        return self.plugins.code

    def __post_init__(self) -> None:
        """Raises UserError for functions of prepare.py that are none, are missing or have almost the right name."""
        if self.code is not None:
            check_functions(self.code)
            check_named(self.code, self.config.prepare.documents, self.place_of)

    @property
    def kind(self) -> Literal["prepare", "input", "documents", ""]:
        if hasattr(self.code, "prepare"):
            return "prepare"
        if self.config.prepare.input:
            return "input"
        return "documents" if hasattr(self.code, self.config.prepare.documents) else ""

    @property
    def function(self) -> Callable[..., Any] | None:
        """The function of prepare.py that makes the data, or None."""
        if self.kind in ("input", ""):
            return None
        name = self.config.prepare.documents if self.kind == "documents" else self.kind
        found: Callable[..., Any] = getattr(self.code, name)
        return found

    def may_read(self, name: str) -> bool:
        """Whether the function of prepare.py may read files of "raw_dir", or of its own "folder"."""
        return self.kind == "prepare" or (self.function is not None and wants(self.function, name))

    @property
    def dataset_dir(self) -> Path:
        return self.experiment.path(self.config.prepare.dataset_dir)

    def declared(self) -> dict[str, Path]:
        """The files that `inputs()` of prepare.py names, by these names. Raises UserError if one does not exist.

        It may ask for the experiment's `folder`, and for keys of [prepare.params] by keyword-only parameters.
        """
        function = getattr(self.code, "inputs", None)
        if function is None:
            return {}
        known = keyword_only(function)
        params = {name: value for name, value in self.config.prepare.params.items() if name in known}
        arguments = bind(function, {"folder": self.experiment.folder}, params, self.place_of)
        names = function(*arguments.args, **arguments.kwargs)
        found = {str(name): self.experiment.path(str(name)) for name in names}
        for name, path in found.items():
            if not path.is_file():
                raise UserError(
                    f"inputs() names '{name}', and there is no such file",
                    place=str(self.experiment.folder / "prepare.py"),
                    remedy=f"Relative paths start at the experiment's folder: {path}",
                )
        return found

    def borrowed_encoder(self) -> Encoder:
        """The encoder of the dataset that `prepare.encoder_from` names."""
        return load_dataset(self.experiment.path(self.config.prepare.encoder_from), self.plugins).encoder

    @property
    def encoder_kind(self) -> type[Encoder]:
        """The class that `prepare.encoder` names. Raises UserError if there is none."""
        place = self.place_of("prepare.encoder") or "prepare.encoder"
        found: type[Encoder] = self.plugins.get("encoders", self.config.prepare.encoder, place)
        return found

    @functools.cached_property
    def tokenizer(self) -> str:
        """What `prepare.tokenizer` names, else the pretrained model: a path where there is a file or a folder; or "".

        A name on the hub has a commit, NAME@COMMIT: that of the config, else of the dataset that is there, else the newest.
        """
        params = self.config.train.model.params
        name = self.config.prepare.tokenizer or str(params.get("name", ""))
        # A path that exists only relative to the current folder means that one: it was typed in a shell.
        places = (self.experiment.path(name), Path(name).absolute())
        if found := next((str(place) for place in places if name and place.exists()), ""):
            return found
        revision = "" if self.config.prepare.tokenizer else str(params.get("revision", ""))
        if revision not in ("", "auto"):
            return f"{name}@{revision}"
        known = ""
        with contextlib.suppress(UserError, OSError):  # there is none yet, or it is made again
            known = str(read_info(self.dataset_dir).get(TOKENIZER, ""))
        if known.partition("@")[0] == name:
            return known
        pinned: Callable[[str], str] | None = getattr(self.encoder_kind, "pinned", None)
        return pinned(name) if pinned and name else name

    @functools.cached_property
    def chat(self) -> bool:
        """Whether the encoder has special tokens, so that conversations are written with them."""
        settings = self.config.prepare
        return has_special(self.borrowed_encoder()) if settings.encoder_from else settings.special_tokens == "chat"

    @property
    def raw_dir(self) -> Path:
        return self.experiment.path(self.config.prepare.raw_dir)

    @property
    def is_address(self) -> bool:
        return "://" in self.config.prepare.input

    @property
    def input_file(self) -> Path:
        """The file that `input` names. For an address, where its download is kept."""
        name = self.config.prepare.input
        if self.is_address:
            return self.raw_dir / (PurePosixPath(unquote(urlsplit(name).path)).name or "input")
        file = self.experiment.path(name)
        # A path that exists only relative to the current folder means that file: it was typed in a shell.
        return Path(name).absolute() if not file.exists() and Path(name).is_file() else file


def check_functions(code: ModuleType) -> None:
    """Raise UserError if `documents`, `prepare` and the like are not functions, or a function's name is almost one of them.

    A similar name is fine beside the right one: documents() may call a document().
    """
    for name in FUNCTIONS:
        value = getattr(code, name, None)
        right = inspect.isfunction(inspect.unwrap(value)) if name in MAKERS and callable(value) else callable(value)
        if hasattr(code, name) and not right:
            raise UserError(
                f"{name} is {type(value).__name__}, not a function",
                place=str(code.__file__),
                remedy=f"Write `def {name}(...)`, or give this another name.",
            )
    made = any(hasattr(code, name) for name in MAKERS)
    absent = [name for name in FUNCTIONS if not hasattr(code, name) and not (made and name in MAKERS)]
    for function in own_functions(code):
        if near := difflib.get_close_matches(function.__name__, absent, n=1, cutoff=0.85):
            raise UserError(
                f"prepare.py has no {near[0]}(), but {title(function)}",
                place=source_of(function),
                remedy=f"Did you mean '{near[0]}'? If not, give it a name that is less similar, such as _{function.__name__}.",
            )


def check_named(code: ModuleType, name: str, place_of: PlaceOf) -> None:
    """Raise UserError if `prepare.documents` names no function of prepare.py."""
    if name != "documents" and not inspect.isfunction(inspect.unwrap(getattr(code, name, None) or str)):
        known = [function.__name__ for function in own_functions(code)]
        raise UserError(
            f"prepare.py has no function '{name}'",
            place=place_of("prepare.documents") or "prepare.documents",
            remedy=f"{did_you_mean(name, known)} Or write `def {name}(...)` in {code.__file__}.",
        )


def own_functions(code: ModuleType) -> list[Callable[..., Any]]:
    """Functions that a module defines under a public name."""
    return [
        value
        for name, value in vars(code).items()
        if inspect.isfunction(value) and value.__module__ == code.__name__ and name == value.__name__ and name[0] != "_"
    ]


def fetch_input(source: Source) -> Path:
    """The input file, downloaded if it is an address and not here yet. Raises UserError if there is none."""
    settings, file = source.config.prepare, source.input_file
    place = source.place_of("prepare.input") or "prepare.input"
    if source.is_address and not settings.input.startswith("https://"):
        raise UserError(
            f'input = "{settings.input}" is not an https address', place=place, remedy="Give https://... or a file."
        )
    if source.is_address and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        download(settings.input, file, settings.sha256, "prepare.input", source.listener)
    kind = ENDINGS.get(file.suffix.lower())
    if kind and settings.format in ("text", "pairs"):
        raise UserError(
            f'input = "{settings.input}" is a table, and format = "{settings.format}" would learn its header, quotes and commas',
            place=place,
            remedy=f'Set prepare.format = "{kind}"; prepare.columns names its columns. If it is plain text, give it the '
            "ending .txt.",
        )
    if file.is_dir():
        raise UserError(f'input = "{settings.input}" is a folder', place=place, remedy="Name one file in it.")
    if not file.exists():
        raise UserError(
            f'input = "{settings.input}" does not exist: no file {file}',
            place=place,
            remedy="Relative paths start at the experiment's folder. Put the file there, or change prepare.input.",
        )
    return file


def check_sum(source: Source, found: str) -> None:
    """Raise UserError if the config gives a `sha256` and the input's checksum is another one."""
    wanted = source.config.prepare.sha256
    if wanted and found != wanted:
        raise UserError(
            f"{source.input_file} does not match prepare.sha256: its sha256 is {found}",
            place=source.place_of("prepare.sha256") or "prepare.sha256",
            remedy="Delete the file to have it downloaded again."
            if source.is_address
            else "Correct prepare.sha256, or the file.",
        )


def pairs(
    path: Path, separator: str, on_bytes: Callable[[bytes], object] = lambda block: None
) -> Iterator[tuple[Example, str]]:
    """Examples of a file with one prompt and completion per line, each with its place, FILE:LINE.

    The separator stays with the prompt, the line break with the completion. Blank lines are skipped.
    """
    rest, number = "", 0
    for text in chain(read_text(path, on_bytes), ["\n"]):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            number += 1
            if not line.strip():
                continue
            prompt, found, completion = line.partition(separator)
            if not found:
                raise UserError(
                    f'no separator "{separator}" in "{line[:60]}"',
                    place=f"{path}:{number}",
                    remedy=f"Each line is PROMPT{separator}COMPLETION. Set the separator with prepare.separator.",
                )
            yield Example(prompt + found, completion + "\n"), f"{path}:{number}"


def default_size(source: Source) -> int:
    """How many characters are drawn if prepare.size is not given. Who asks for random numbers usually goes on forever."""
    return ENDLESS if source.function is not None and wants(source.function, "rng") else FINITE


def draw(
    spool: Spool, documents: object, size: int, function: Callable[..., Any], listener: Listener, *, given: bool
) -> None:
    """Add what documents() returned to the spool, until there are `size` characters. Exceptions of documents() pass through.

    given: the user has chosen the size. The listener is told if documents are left, except where the user has chosen the
    size of a stream that asks for random numbers: such a stream has no end.
    """
    if isinstance(documents, (str, Example, Conversation)) or not isinstance(documents, Iterable):
        raise UserError(
            f"{title(function)} returned {type(documents).__name__}, which yields no documents",
            place=source_of(function),
            remedy="Write `yield` for each document.",
        )
    source = iter(documents)
    for document in source:
        spool.add(document)
        drawn = spool.characters + spool.left_out_characters
        if (len(spool) + spool.left_out) % 4096 == 0:
            listener.progress("drawing documents", min(drawn, size), size)
        if drawn >= size:
            break
    if spool.left_out and not len(spool):
        raise UserError(
            f"all {spool.left_out:,} documents of {title(function)} are also in held_out(), so none are left",
            place=source_of(function),
            remedy="Let held_out() yield fewer prompts, or documents() others.",
        )
    if not len(spool):
        raise UserError(
            f"{title(function)} yielded nothing",
            place=source_of(function),
            remedy="It must `yield` at least two documents.",
        )
    listener.progress("drawing documents", size, size)
    cut = drawn >= size and not (given and wants(function, "rng"))
    if cut and next(source, None) is not None:
        more = "" if given else " For more: `prepare.size=NUMBER`."
        said = f"{title(function)} has more: the dataset is its first {size:,} characters{' (prepare.size)' * given}.{more}"
        listener.say(Advice(said))
