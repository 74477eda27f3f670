"""Overlapping n-grams of characters as ids: "abc" becomes "a", "ab", "bc" for n = 2. One id for each character, so nothing is lost."""

import numpy as np

from core.encoders.base import Encoder
from core.encoders.text import code_points, unknown, wrong_state
from core.errors import UserError

POINT_BITS = 21  # of a code point; three of them fit into 63 bits
SIZES = (2, 3)


class CharNgramEncoder(Encoder):
    """entries: text of each id, characters first, then n-grams of n characters.

    The id of a character says which n - 1 characters stand before it. Without them, at the beginning of a text, and where the
    n-gram is not known, it is the id of the character alone. What an id stands for is its last character.
    """

    kind = "char_ngram"
    end_token = None

    def __init__(self, entries, ngram_size):
        self.entries, self.ngram_size, self.vocab_size = list(entries), ngram_size, len(entries)
        self.last = [entry[-1] for entry in self.entries]
        self.characters, self.character_ids = self.table(1)
        self.ngrams, self.ngram_ids = self.table(ngram_size)

    def table(self, size):
        """The keys of the entries of this length, sorted, and their ids."""
        ids = np.array([number for number, entry in enumerate(self.entries) if len(entry) == size], np.uint32)
        keys = np.array([key_of(self.entries[number]) for number in ids], np.uint64)
        order = np.argsort(keys)
        return keys[order], ids[order]

    @classmethod
    def fit(cls, texts, *, vocab_size=0, ngram_size=2):
        """Collect the characters and the n-grams. vocab_size is not used: each gets an id."""
        if ngram_size not in SIZES:
            raise UserError(
                f"ngram_size = {ngram_size} is not possible",
                place="prepare.params.ngram_size",
                remedy=f"Choose 1 for characters, or {' or '.join(map(str, SIZES))}.",
            )
        characters, ngrams = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        for text in texts:
            points = points_of(text)
            characters = np.union1d(characters, points)
            ngrams = np.union1d(ngrams, keys_of(points, ngram_size))
        return cls([text_of(key, 1) for key in characters] + [text_of(key, ngram_size) for key in ngrams], ngram_size)

    @classmethod
    def from_state(cls, state):
        """Rebuild from `state()`. Raises UserError if the state is of another kind."""
        if set(state) != {"itos", "ngram_size"}:
            raise wrong_state(cls.kind, state)
        return cls(state["itos"], state["ngram_size"])

    def state(self):
        """The text of each id, and n."""
        return {"itos": self.entries, "ngram_size": self.ngram_size}

    def encode(self, text):
        """Ids of a text, shape (characters,). Raises UserError that names the first unknown character."""
        points = points_of(text)
        places = place_in(self.characters, points)
        if (places < 0).any():
            position = int((places < 0).argmax())
            raise unknown(f"character {text[position]!r}", text, position)
        ids = self.character_ids[places]
        places = place_in(self.ngrams, keys_of(points, self.ngram_size))
        known = np.flatnonzero(places >= 0)
        ids[known + self.ngram_size - 1] = self.ngram_ids[places[known]]
        return ids

    def decode(self, ids):
        """Text of ids: the last character of each, so that any ids have a text, also if they do not overlap."""
        return "".join([self.last[token] for token in ids])


def points_of(text):
    """Code points of a text, (characters,) uint64."""
    return np.frombuffer(code_points(text), np.uint32).astype(np.uint64)


def keys_of(points, size):
    """Each n-gram of a text as a number, (characters - size + 1,) uint64."""
    places = max(len(points) - size + 1, 0)
    keys = np.zeros(places, np.uint64)
    for offset in range(size):
        keys = (keys << np.uint64(POINT_BITS)) | points[offset : offset + places]
    return keys


def key_of(text):
    return int(keys_of(points_of(text), len(text))[0])


def text_of(key, size):
    """The n-gram that a number stands for."""
    points = [int(key) >> POINT_BITS * offset & (1 << POINT_BITS) - 1 for offset in range(size)]
    return "".join(map(chr, points[::-1]))


def place_in(keys, wanted):
    """Where each wanted key stands in sorted keys, -1 where it does not."""
    if not len(keys):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)
