"""How fast each encoder is: text in, a table of MB/s out.

    python -m tests.benchmarks.encoders [FILE] [--megabytes N]

Without a FILE it makes up text of 200,000 words whose frequencies fall as in natural language (Zipf's law).
gpt2 is left out where its vocabulary cannot be had. `tokenizers` is that library by itself, with GPT-2's pattern: it learns from
all of the text, where bpe takes a sample of 4 MB. A second column counts CPU time instead of wall time: it is
what one core does, also on a busy machine.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from core.encoders import register_encoders
from core.encoders.text import spans
from core.errors import UserError

PIECE = 1 << 17  # characters, as prepare cuts a stream
GROUP = 16  # pieces that are encoded together


def made_up_text(megabytes: int) -> str:
    """English in the lengths of its words and lines, and in how often a word comes again."""
    rng = np.random.default_rng(1)
    words = ["".join(map(chr, rng.integers(97, 123, length))) for length in rng.integers(2, 11, 200_000)]
    lines, length = [], 0
    while length < megabytes * 1_000_000:
        chosen = rng.zipf(1.3, 5000) % len(words)
        lines.append(
            ", ".join(" ".join(words[word] for word in chosen[start : start + 8]) for start in range(0, 5000, 8))
        )
        length += len(lines[-1]) + 2
    return ".\n".join(lines)


def measure(task: Callable[[], Any], megabytes: float) -> tuple[Any, str]:
    """What the task returns, and its speed by wall time and by CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = task()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return result, f"{megabytes / wall:8.1f} /{megabytes / cpu:6.1f}"


class Library:
    """Hugging Face's tokenizers by itself, as its own documentation uses it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int) -> Library:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
        )
        return cls(tokenizer)

    def encode_batch(self, texts: Sequence[str]) -> list[Any]:
        return [np.array(encoding.ids, np.uint32) for encoding in self.tokenizer.encode_batch_fast(list(texts))]

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--megabytes", type=int, default=20)
    options = parser.parse_args()
    text = options.file.read_text(encoding="utf-8") if options.file else made_up_text(options.megabytes)
    text = text[: options.megabytes * 1_000_000]
    megabytes = len(text.encode()) / 1e6
    pieces = list(spans(text, PIECE))
    print(f"{megabytes:.1f} MB on {os.cpu_count()} cores; MB per second of wall time / of CPU time")
    print(f"{'':16}{'learn':>16}{'encode':>16}{'decode':>16}{'tokens':>12}")

    encoders: dict[str, Any] = {}
    register_encoders(encoders.__setitem__)
    encoders["tokenizers"] = Library
    rows = [("char", 0), ("words", 0), ("bytes", 0)]
    rows += [(kind, vocab_size) for vocab_size in (1024, 16384) for kind in ("bpe", "tokenizers")]
    for kind, vocab_size in (*rows, ("gpt2", 0)):
        try:
            encoder, learn = measure(lambda: encoders[kind].fit(pieces, vocab_size=vocab_size), megabytes)  # noqa: B023
        except UserError:
            print(f"{kind:16}{'its vocabulary is not on this machine':>48}")
            continue

        def encode() -> list[Any]:
            groups = range(0, len(pieces), GROUP)
            return [ids for start in groups for ids in encoder.encode_batch(pieces[start : start + GROUP])]  # noqa: B023

        batch, encoding = measure(encode, megabytes)
        lists = [ids.tolist() for ids in batch]
        decoded, decoding = measure(lambda: list(map(encoder.decode, lists)), megabytes)  # noqa: B023
        assert decoded == pieces or kind == "words", kind  # spans cut at spaces, which words imply between words only
        name = f"{kind} {vocab_size or ''}"
        print(f"{name:16}{learn:>16}{encoding:>16}{decoding:>16}{sum(map(len, batch)):12,}", flush=True)


if __name__ == "__main__":
    main()
