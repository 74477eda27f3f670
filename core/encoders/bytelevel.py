"""Byte-level BPE: a list of merges in, a coder between text and ids out. `bpe` learns the merges, `gpt2` reads them.

Ids: 256 bytes in GPT-2's order, then one per merge, then the end token. The tokenizers library does the merging,
but each distinct piece of text only once: its cost per token is far above that of a dict (docs/LOG.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from core.encoders.base import Ids
from core.encoders.text import WHITESPACE, spans, utf8

# Unset, tokenizers prints a warning at every fork; "true" in a forked child would wait for threads that it lacks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=lambda: os.environ.update(TOKENIZERS_PARALLELISM="false"))

# Cuts text where GPT-2's pattern cuts it, at fewer places: ASCII is cut as finely as there, while a run with other
# characters stays whole, so that no table of Unicode's letters (it differs from Python to Python) is needed here.
# tokenizers cuts further what this leaves whole.
LINE_BREAK = 198  # its id
OTHER = r"\x00-\x08\x0e-\x1f!-/:-@\[-`{-\x7f"  # ASCII that is no letter, digit or whitespace
HIGH = r"\x80-\U0010ffff"
PIECE = re.compile(
    rf" ?[A-Za-z]+(?![A-Za-z{HIGH}])"
    r"|'(?:[sdmt]|ll|ve|re)"
    rf"| ?[0-9]+(?![0-9{HIGH}])"
    rf"| ?[{OTHER}]+(?![{OTHER}{HIGH}])"
    rf"|[{WHITESPACE}]+(?![^{WHITESPACE}])"
    rf"| ?[^{WHITESPACE}]+"
    rf"|[{WHITESPACE}]"
)
GROUP = 1 << 20  # characters cut into pieces at a time: about 20 MB of small strings
CACHE = 1 << 22  # characters of distinct pieces to remember: about 600,000 words of English, 120 MB
NEW = 1 / 3  # of the pieces of a group: from there on looking up costs more than it saves
SHORT = 1 << 12  # characters handed to tokenizers as one text: it slows down on longer ones
BATCH = 512  # pieces in a text for tokenizers: enough to spread its cost, few enough to keep all cores busy


def alphabet() -> list[str]:
    """The printable character that stands for each byte in merges, in the order of GPT-2's ids.

    Printable bytes of Latin-1 come first and stand for themselves; the others follow as U+0100 and on.
    Source: bytes_to_unicode in openai/gpt-2, src/encoder.py.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, printable), *(chr(256 + n) for n in range(256 - len(printable)))]


def alphabet_bytes() -> dict[str, int]:
    """The byte that each character of `alphabet` stands for."""
    letters = alphabet()
    printable = [ord(letter) for letter in letters if ord(letter) < 256]
    others = [byte for byte in range(256) if byte not in printable]
    return dict(zip(letters, [*printable, *others], strict=True))


def tokenizer(model: models.BPE) -> Tokenizer:
    """A tokenizer of the library with GPT-2's cuts and without special tokens: text can spell none."""
    result = Tokenizer(model)
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return result


class ByteLevel:
    """merges: pairs of tokens in order of rank, each spelled in `alphabet`."""

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        vocabulary = {letter: token for token, letter in enumerate(alphabet())}
        for left, right in merges:
            vocabulary.setdefault(left + right, len(vocabulary))
        self.end_token = len(vocabulary)
        self.vocab_size = len(vocabulary) + 1
        byte = alphabet_bytes()
        self.bytes = [*(bytes(byte[letter] for letter in token) for token in vocabulary), b""]  # of each id
        self.tokenizer = tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), cache_capacity=0))
        self.known: dict[str, bytes] = {}  # ids of pieces met before, as bytes of uint32
        self.room = CACHE

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,). Raises UserError for half a surrogate pair."""
        return np.concatenate([self.encode_group([span])[0] for span in spans(text, GROUP)])

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text."""
        ids: list[Ids] = []
        for group in groups(texts, GROUP):
            ids += self.encode_group(group) if len(group) > 1 else [self.encode(group[0])]
        return ids

    def encode_group(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of texts that are small enough to be held in pieces all at once."""
        for text in texts:
            utf8(text)
        if self.room < 0:
            self.known.clear()
            self.room = CACHE
        pieces = [PIECE.findall(text) for text in texts]
        new = set(chain.from_iterable(pieces)).difference(self.known)
        if len(new) > NEW * sum(map(len, pieces)):
            return self.encode_anew(texts)
        self.learn(new)
        ids_of = self.known.__getitem__
        # A bytearray, as numpy gives only that out as writable, and torch.from_numpy warns of anything else.
        return [np.frombuffer(bytearray().join(map(ids_of, of_text)), np.uint32) for of_text in pieces]

    def encode_anew(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of texts in which hardly a piece comes twice, on all cores: remembering would only cost."""
        parts = [list(spans(text, SHORT)) for text in texts]
        encodings = iter(self.tokenizer.encode_batch_fast(list(chain.from_iterable(parts))))
        return [np.concatenate([np.array(next(encodings).ids, np.uint32) for _ in of_text]) for of_text in parts]

    def learn(self, new: set[str]) -> None:
        """Remember the ids of pieces not met before, found on all cores.

        The library takes 5 us for a text, however short, and 1 us for a piece inside one: pieces go to it as lines.
        A line break before a word is a token of its own, whatever the word begins with.
        """
        self.room -= sum(map(len, new))
        words = [piece for piece in new if not piece.isspace()]
        batches = [words[start : start + BATCH] for start in range(0, len(words), BATCH)]
        batches += [[piece] for piece in new if piece.isspace()]
        encodings = self.tokenizer.encode_batch_fast(["\n".join(batch) for batch in batches])
        for batch, encoding in zip(batches, encodings, strict=True):
            ids = np.array(encoding.ids, np.uint32)
            ends = [*np.flatnonzero(ids == LINE_BREAK).tolist(), len(ids)] if len(batch) > 1 else [len(ids)]
            data, start = ids.tobytes(), 0
            for piece, end in zip(batch, ends, strict=True):
                self.known[piece] = data[4 * start : 4 * end]
                start = end + 1

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; the end token becomes "", bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.bytes.__getitem__, ids)).decode(errors="replace")


def groups(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Texts in order, in lists of at most `size` characters in all; a longer text stands alone."""
    group: list[str] = []
    held = 0
    for text in texts:
        if group and held + len(text) > size:
            yield group
            group, held = [], 0
        group.append(text)
        held += len(text)
    if group:
        yield group
