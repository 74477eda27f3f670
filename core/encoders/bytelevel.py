"""Byte-level BPE with a given list of merges. `bpe` learns the merges, `gpt2` reads them.

Ids: 256 bytes in GPT-2's order, then one per merge, then the end token. The tokenizers library does the merging,
but only once for each distinct piece of text: it costs far more per token than a dict (docs/LOG.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from core.encoders.base import Ids
from core.encoders.text import WHITESPACE, spans, utf8
from core.errors import UserError

# Cuts text at some of the places where GPT-2's pattern cuts it. ASCII is cut at all of them. A run with other
# characters stays whole, so no table of Unicode's letters is needed (it differs between Python versions).
# tokenizers makes the remaining cuts.
LINE_BREAK = 198  # its id
OTHER = r"\x00-\x08\x0e-\x1f!-/:-@\[-`{-\x7f"  # ASCII other than letters, digits and whitespace
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
# Named ways to cut text into pieces, within which pairs are merged. Sources: openai/gpt-2, src/encoder.py;
# openai/tiktoken, cl100k_base. `digits` is GPT-2's with each digit alone, so that numbers keep their places.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "digits": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}
GPT2 = "gpt2"
GROUP = 1 << 20  # characters cut into pieces at a time: about 20 MB of small strings
CACHE = 1 << 22  # characters of distinct pieces to remember: about 600,000 words of English, 120 MB
NEW = 1 / 3  # fraction of a group's pieces: above it, looking up costs more than it saves
SHORT = 1 << 12  # characters passed to tokenizers as one text: it is slower on longer ones
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


def tokenizer(model: models.BPE, split_pattern: str = GPT2) -> Tokenizer:
    """A tokenizer of the library that cuts text by a pattern and has no special tokens, so no text can become one.

    split_pattern: a name in PATTERNS, or a regular expression whose matches are pieces; what it leaves out is a piece too.
    Raises UserError for one that is no regular expression.
    """
    result = Tokenizer(model)
    if split_pattern == GPT2:
        result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return result
    try:
        cut = pre_tokenizers.Split(Regex(PATTERNS.get(split_pattern, split_pattern)), "isolated")
    except Exception as error:  # the library raises no narrower one
        raise UserError(
            f"{split_pattern!r} is no regular expression: {error}",
            place="prepare.split_pattern",
            remedy=f"Write one, or a name: {', '.join(PATTERNS)}.",
        ) from None
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    result.pre_tokenizer = pre_tokenizers.Sequence([cut, letters])
    return result


@contextmanager
def cutting(split_pattern: str) -> Iterator[None]:
    """Raises UserError in place of the library's panic when an own pattern gives up on a text, as `(a+)+b` does."""
    try:
        yield
    except BaseException as error:  # the library's panic is no Exception, and its class cannot be imported
        if type(error).__name__ != "PanicException" or split_pattern in PATTERNS:
            raise
        raise UserError(
            f"{split_pattern!r} cannot cut this text: {error}",
            place="prepare.split_pattern",
            remedy="Write a pattern that has less to try: no repetition within a repetition.",
        ) from None


class ByteLevel:
    """A coder between text and ids. merges: pairs of tokens in order of rank, each spelled in `alphabet`.

    split_pattern: as for `tokenizer`.
    """

    def __init__(self, merges: Sequence[tuple[str, str]], split_pattern: str = GPT2) -> None:
        self.split_pattern = split_pattern
        vocabulary = {letter: token for token, letter in enumerate(alphabet())}
        for left, right in merges:
            vocabulary.setdefault(left + right, len(vocabulary))
        self.end_token = len(vocabulary)
        self.vocab_size = len(vocabulary) + 1
        byte = alphabet_bytes()
        self.bytes = [*(bytes(byte[letter] for letter in token) for token in vocabulary), b""]  # of each id
        model = models.BPE(vocab=vocabulary, merges=list(merges), cache_capacity=0)
        self.tokenizer = tokenizer(model, split_pattern)
        self.known: dict[str, bytes] = {}  # ids of pieces seen before, as bytes of uint32
        self.room = CACHE

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,). Raises UserError for half a surrogate pair, and as `cutting` does."""
        return np.concatenate([self.encode_group([span])[0] for span in spans(text, GROUP)])

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text. New pieces are merged on all cores."""
        ids: list[Ids] = []
        for group in groups(texts, GROUP):
            ids += self.encode_group(group) if len(group) > 1 else [self.encode(group[0])]
        return ids

    def encode_group(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of texts whose pieces all fit in memory at once."""
        for text in texts:
            utf8(text)
        if self.split_pattern != GPT2:  # PIECE knows no other cuts
            with cutting(self.split_pattern):
                encodings = self.tokenizer.encode_batch_fast(list(texts))
            return [np.array(encoding.ids, np.uint32) for encoding in encodings]
        if self.room < 0:
            self.known.clear()
            self.room = CACHE
        pieces = [PIECE.findall(text) for text in texts]
        new = set(chain.from_iterable(pieces)).difference(self.known)
        if len(new) > NEW * sum(map(len, pieces)):
            return self.encode_anew(texts)
        self.learn(new)
        ids_of = self.known.__getitem__
        # A bytearray gives a writable array; torch.from_numpy warns about others.
        return [np.frombuffer(bytearray().join(map(ids_of, of_text)), np.uint32) for of_text in pieces]

    def encode_anew(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of texts in which few pieces repeat, on all cores. The cache is not used: it would cost more than it saves."""
        parts = [list(spans(text, SHORT)) for text in texts]
        encodings = iter(self.tokenizer.encode_batch_fast(list(chain.from_iterable(parts))))
        return [np.concatenate([np.array(next(encodings).ids, np.uint32) for _ in of_text]) for of_text in parts]

    def learn(self, new: set[str]) -> None:
        """Store the ids of new pieces, found on all cores.

        The library takes 5 us for a text, however short, and 1 us for a piece inside one, so pieces are passed as lines.
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
        """Text of ids; the end token becomes "", invalid UTF-8 becomes U+FFFD."""
        return b"".join(map(self.bytes.__getitem__, ids)).decode(errors="replace")


def groups(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Texts in order, in lists of at most `size` characters in total. A longer text is in a list of its own."""
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
