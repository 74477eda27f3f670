"""Data for finetuning a model by any program: documents go in, train.jsonl, val.jsonl and tokenizer/ come out, beside our own files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from core import durable
from core.corpora import text_files
from core.corpora.corpus import SUFFIXES as PROTOCOLS
from core.corpora.corpus import SpeechCorpus, bundestag_files, speech_corpus
from core.corpora.sources import Names, ending_of, local_files
from core.corpora.speech import Speech, framed, with_heading
from core.data.info import SIDES, TEST
from core.data.job import PrepareJob
from core.encoders.base import Encoder

BOTH = (*PROTOCOLS, *text_files.SUFFIXES)


def inputs(folder: Path, *, source: Names = "") -> list[str]:
    """The files on this machine. A prepare.py that finetunes imports this function and the next one; both are called by their names."""
    if is_text(source, folder):
        return [str(path) for path in local_files(source, folder, text_files.SUFFIXES)]
    return bundestag_files(source, folder)


def prepare(
    job: PrepareJob,
    *,
    source: Names = "",
    comments: bool = False,
    presidency: bool = False,
    add_structure_tokens: bool = True,
    doc_separator: str = "\n\n",
) -> None:
    """One document for each speech or text file; a session or a file is on one side as a whole."""
    corpus = finetuning_corpus(job, source, comments=comments, presidency=presidency)
    write = layout(add_structure_tokens=add_structure_tokens, doc_separator=doc_separator)
    write_finetuning_data(job, corpus, write)


def is_text(source: Names, folder: Path) -> bool:
    """Whether a setting names raw text files instead of protocols. The first file decides."""
    return ending_of(source, folder, BOTH) in text_files.SUFFIXES


def finetuning_corpus(job: PrepareJob, source: Names, *, comments: bool, presidency: bool) -> SpeechCorpus:
    """Raw text files, protocols of the Bundestag, or, where `source` is empty, invented speeches."""
    if is_text(source, job.folder):
        return text_files.text_corpus(job, source)
    return speech_corpus(job, source, comments=comments, presidency=presidency)


def layout(*, add_structure_tokens: bool, doc_separator: str) -> Callable[[Speech], str]:
    """How a document is written. doc_separator: text behind each document."""

    def write(speech: Speech) -> str:
        if add_structure_tokens:
            text = framed(speech)
        else:
            text = speech.text if speech.speaker == text_files.NOBODY else with_heading(speech).rstrip("\n")
        return f"{text}{doc_separator}"

    return write


def write_finetuning_data(job: PrepareJob, corpus: SpeechCorpus, write: Callable[[Speech], str]) -> None:
    """Write the dataset, and beside it a file of {"text": ...} lines for each side, and the tokenizer if it has a file of its own."""
    sides = zip((*SIDES, TEST), corpus.texts(write), strict=True)
    encoder = job.write(*(kept_as_lines(texts, job.dataset_dir / f"{side}.jsonl") for side, texts in sides))
    content = content_of_tokenizer_json(encoder)
    if content is None:
        job.say(f"tokenizer/ is not written: {encoder.kind} has no tokenizer.json. Encoders bpe and hf have one.")
        return
    folder = job.dataset_dir / "tokenizer"
    durable.make_folders(folder)
    with durable.create(folder / "tokenizer.json") as file:
        file.write(content.encode())


def kept_as_lines(texts: Iterator[str], path: Path) -> Iterator[str]:
    """The same texts; each is also written into a file, as a line of JSON. Without a text there is no file."""
    file = None
    try:
        for text in texts:
            file = file or durable.create(path)
            file.write((json.dumps({"text": text}, ensure_ascii=False) + "\n").encode())
            yield text
    finally:
        if file is not None:
            file.close()


def content_of_tokenizer_json(encoder: Encoder) -> str | None:
    """The encoder as a tokenizer.json of the library tokenizers, which transformers reads; None for one that is not of that kind."""
    inner = getattr(getattr(encoder, "inner", encoder), "tokenizer", None)
    if inner is None:
        return None
    from tokenizers import Tokenizer, decoders

    copy = Tokenizer.from_str(inner.to_str())
    copy.decoder = copy.decoder or decoders.ByteLevel()
    return str(copy.to_str(pretty=True))
