"""The tokenizer of a pretrained model as an encoder. Training, evaluation and sampling all turn text into ids by it.

Special tokens are ids and never text: a text that spells one is encoded as the characters that it has. `encode` puts no token before or
behind a text, so a text has the same ids wherever it stands: what begins and ends documents is put around them as ids. No token is
added either: the model's vocabulary is kept.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from typing_extensions import Self

from core.chat.marks import Marks
from core.encoders.base import Encoder, Ids
from core.encoders.text import END, unknown, utf8, wrong_state
from core.errors import UserError
from core.huggingface.chat_format import chat_encoder
from core.huggingface.tokenizer_files import TokenizerFiles, built, pinned_name, read_tokenizer, tokenizer_hash

# Texts that a tokenizer which changes text does not give back.
PROBES = {
    "capital letters": "Aa",
    "accents": "é",
    "ligatures and other compatibility characters": "\ufb01",
    "accents in two characters": "e\u0301",
    "characters that it does not know": "\U0001f9a9\u3042",
    "a space at the beginning": " a",
    "the beginning of a text, where it adds a space": "a",
    "several spaces": "a  b",
    "a space before a full stop": "a .",
    "line breaks": "\n\na\n",
}
NO_MARKS: Marks = MappingProxyType({})
FRAMED = 2  # raised when other ids stand around documents, so that datasets are made again
UNUSED = ("post_processor", "padding", "truncation")  # parts of a tokenizer.json that do not decide the ids of a text


class HfEncoder(Encoder):
    """A tokenizer of the library `tokenizers`. content: as `canonical` gives it.

    begin, end_token: ids that begin and end a document; None if none does. marks: of conversations, name -> ids, see
    `core.chat.marks`; empty where it is not for conversations. special: the model's special tokens, name -> id. notes: what a user should know of how it was chosen.
    """

    kind = "hf"

    def __init__(
        self,
        content: str,
        begin: int | None = None,
        end: int | None = None,
        marks: Marks = NO_MARKS,
        notes: Sequence[str] = (),
    ) -> None:
        self.begin, self.end, self.marks, self.notes = begin, end, dict(marks), tuple(notes)
        self.content, self.tokenizer = content, built(content, self.kind)
        self.tokenizer.encode_special_tokens = True  # as ordinary text, that is
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        ids = [
            number for number in (begin, end, *(n for mark in self.marks.values() for n in mark)) if number is not None
        ]
        if max(ids, default=0) >= self.vocab_size:
            raise ValueError(f"the id {max(ids)} is outside the vocabulary of {self.vocab_size:,}")
        self.end_token = self.marks[END][0] if self.marks else end
        added = self.tokenizer.get_added_tokens_decoder()
        self.special = {token.content: number for number, token in added.items() if token.special}
        self.is_special = np.zeros(self.vocab_size, np.bool_)
        self.is_special[list(self.special.values())] = True

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0, tokenizer: str = "", chat: bool = False) -> Self:
        """Read a tokenizer; neither texts nor vocab_size are used.

        tokenizer: as `prepare.tokenizer`. chat: with the marks of the model's own chat format. Raises UserError if there is
        no such tokenizer.
        """
        files = read_tokenizer(tokenizer)
        return chat_encoder(files, functools.partial(cls.of_files, files)) if chat else cls.of_files(files)

    @classmethod
    def of_files(cls, files: TokenizerFiles, marks: Marks = NO_MARKS, notes: Sequence[str] = ()) -> Self:
        """The encoder with some marks."""
        return cls(canonical(files.tokenizer, marks), files.begin, files.end, marks, notes)

    @staticmethod
    def fingerprint(tokenizer: str) -> str:
        """A hash of the files that `fit` reads. Raises UserError as it does."""
        return f"{FRAMED} {tokenizer_hash(tokenizer)}"

    @staticmethod
    def pinned(tokenizer: str) -> str:
        """A name with what it stands for today: NAME@COMMIT for a name on the hub, which is fetched; any other as it is."""
        return pinned_name(tokenizer)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""
        if not {"tokenizer", "begin", "end"} <= set(state) <= {"tokenizer", "begin", "end", "marks"}:
            raise wrong_state(cls.kind, state)
        marks = {name: tuple(map(int, ids)) for name, ids in state.get("marks", {}).items()}
        return cls(state["tokenizer"], state["begin"], state["end"], marks)

    def state(self) -> dict[str, Any]:
        """The whole content of tokenizer.json, as text, and the ids that stand around texts."""
        marks = {"marks": {name: list(ids) for name, ids in self.marks.items()}} if self.marks else {}
        return {"tokenizer": self.content, "begin": self.begin, "end": self.end} | marks

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,); none of them is special. Raises UserError for text that the tokenizer has no ids for."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text, on all cores."""
        for text in texts:
            utf8(text)
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        found = [np.array(encoding.ids, np.uint32) for encoding in encodings]
        return [
            self.encode_apart(text) if self.is_special[ids].any() else ids
            for text, ids in zip(texts, found, strict=True)
        ]

    def encode_apart(self, text: str) -> Ids:
        """Ids of a text in which a special token is spelled that the model itself knows as a piece: it is cut there.

        Raises UserError for text that the tokenizer does not know.
        """
        ids: list[int] = []
        before = 0
        for part in apart(text, self.special):
            encoding = self.tokenizer.encode(part, add_special_tokens=False)
            for number, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
                if self.is_special[number]:
                    raise unknown(repr(part[begin:end]), text, before + begin)
            ids += encoding.ids
            before += len(part)
        return np.array(ids, np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids. Special ids become "", and the texts beside them are decoded apart. Invalid UTF-8 becomes U+FFFD."""
        return "".join([self.tokenizer.decode(run, skip_special_tokens=False) for run in self.runs(ids)])

    def runs(self, ids: Sequence[int]) -> Iterator[list[int]]:
        """The ids between special ones."""
        run: list[int] = []
        for token in map(int, ids):
            if self.is_special[token]:
                if run:
                    yield run
                run = []
            else:
                run.append(token)
        if run:
            yield run

    def between(self, before: str, after: str) -> str:
        """A space, if the tokenizer puts one before every text that it encodes."""
        return self.joint if before and after else ""

    @functools.cached_property
    def joint(self) -> str:
        """What stands between two texts that were encoded apart."""
        a, b = self.encode("a").tolist(), self.encode("b").tolist()
        return self.decode([*a, *b]).removeprefix(self.decode(a)).removesuffix("b")

    @functools.cached_property
    def changes(self) -> list[str]:
        """What of a text it does not give back as it was; empty for byte-level tokenizers without a normaliser."""
        return [what for what, text in PROBES.items() if self.given_back(text) != text]

    def given_back(self, text: str) -> str:
        """A text, encoded and decoded; "" if it cannot be encoded."""
        try:
            return self.decode(self.encode(text).tolist())
        except UserError:
            return ""


def canonical(tokenizer: Tokenizer, marks: Marks) -> str:
    """The content of tokenizer.json without what does not decide the ids of a text, so that equal tokenizers have equal ones.

    Tokens of the marks are special here, even if the file does not say so: some models have such a one for calls.
    """
    content, special = json.loads(tokenizer.to_str()), {token for mark in marks.values() for token in mark}
    for token in content["added_tokens"]:
        token["special"] = token["special"] or token["id"] in special
    return json.dumps(content | dict.fromkeys(UNUSED), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def apart(text: str, names: Iterable[str]) -> list[str]:
    """A text in parts, cut behind the first character of each name that it spells."""
    inside = [f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names if len(name) > 1]
    return re.split("|".join(inside), text) if inside else [text]
