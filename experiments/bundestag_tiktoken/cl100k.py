"""cl100k_base, the vocabulary of GPT-4, from the file that the package tiktoken keeps: a file of ranks in, an encoder out.

The file has a token in each line, in base64, and its rank. A rank is an id, and says when two tokens are merged: the pair whose token
has the lowest rank first. The encoder `bpe` works by pairs in order, so each token is taken apart into the pair that makes it.
"""

import base64
import hashlib
import os
import tempfile
from itertools import pairwise
from pathlib import Path

from core.encoders.bpe import BpeEncoder
from core.encoders.bytelevel import alphabet, alphabet_bytes
from core.errors import UserError

ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
PATTERN = "gpt4"  # how cl100k_base cuts text before it merges
PLACE = "prepare.params.cl100k"


def cl100k_file(given, fetch):
    """The file that a setting names, or else tiktoken's own copy of it; None where there is neither. given: a file, an address, or ""."""
    if given:
        return fetch(given)
    copy = cache() / hashlib.sha1(ADDRESS.encode()).hexdigest()
    return copy if copy.is_file() and hashlib.sha256(copy.read_bytes()).hexdigest() == SHA256 else None


def cache():
    """Where tiktoken keeps its files."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            return Path(os.environ[variable])
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def read_ranks(path):
    """The tokens of a file, in the order of their ranks. Raises UserError for another file."""
    tokens = []
    for number, line in enumerate(path.read_bytes().splitlines()):
        token, _, rank = line.partition(b" ")
        try:
            tokens.append(base64.b64decode(token, validate=True))
            right = int(rank) == number
        except ValueError:
            right = False
        if not right or not tokens[-1]:
            raise UserError(
                f"{line[:60].decode(errors='replace')!r} is no token with rank {number}",
                place=f"{path}:{number + 1}",
                remedy=f"Give a file such as {ADDRESS}, with a token in base64 and its rank in each line.",
            )
    byte = alphabet_bytes()
    if tokens[:256] != [bytes([byte[letter]]) for letter in alphabet()]:
        raise UserError(
            "its first 256 tokens are not the bytes in GPT-2's order",
            place=str(path),
            remedy="Of tiktoken's files, cl100k_base.tiktoken has this order.",
        )
    return tokens


def encoder_of(path):
    """The encoder of a file of ranks. Its ids are those of tiktoken; behind them comes an end token."""
    tokens = read_ranks(path)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    letter = dict(zip((bytes([value]) for value in alphabet_bytes().values()), alphabet_bytes(), strict=True))

    def spelled(token):
        return "".join(letter[token[place : place + 1]] for place in range(len(token)))

    merges = []
    for token in tokens[256:]:
        pair = parts_of(token, ranks)
        if len(pair) != 2:
            raise UserError(
                f"token {ranks[token]}, {token!r}, is not made of two tokens with lower ranks",
                place=f"{path}:{ranks[token] + 1}",
                remedy=f"The file is damaged. Take it from {ADDRESS} again.",
            )
        merges.append(" ".join(map(spelled, pair)))
    return BpeEncoder(merges, PATTERN)


def parts_of(token, ranks):
    """The tokens of lower rank that a token is merged from: the last two, before the merge that makes it."""
    parts, limit = [token[place : place + 1] for place in range(len(token))], ranks[token]
    while len(parts) > 2:
        merged = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
        place = min(range(len(merged)), key=merged.__getitem__)
        if merged[place] >= limit:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts
