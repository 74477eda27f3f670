"""Speeches in the German Bundestag, character by character, or in overlapping pairs of characters."""

from core.corpora.corpus import bundestag_files, speech_corpus
from core.corpora.speech import with_heading

from .ngrams import CharNgramEncoder


def inputs(folder, *, source: str | list[str] = ""):
    return bundestag_files(source, folder)


def prepare(
    job, *, source: str | list[str] = "", comments: bool = False, presidency: bool = False, ngram_size: int = 1
):
    """One document for each speech; a session is on one side as a whole."""
    corpus = speech_corpus(job, source, comments=comments, presidency=presidency)
    encoder = None
    if ngram_size != 1:
        texts = (text for side in corpus.texts(with_heading) for text in side)
        encoder = CharNgramEncoder.fit(texts, ngram_size=ngram_size)
    job.write(*corpus.texts(with_heading), encoder=encoder)


def register_encoders(register):
    register(CharNgramEncoder.kind, CharNgramEncoder)
