"""Speeches in the German Bundestag in tokens: cl100k_base from tiktoken's file, or a vocabulary that is learnt from the speeches."""

from core.corpora.corpus import bundestag_files, speech_corpus
from core.corpora.speech import with_heading

from . import cl100k as vocabulary


def inputs(folder, *, source: str | list[str] = ""):
    return bundestag_files(source, folder)


def prepare(
    job,
    *,
    source: str | list[str] = "",
    comments: bool = False,
    presidency: bool = False,
    cl100k: str = "",
    own: bool = False,
):
    """One document for each speech; a session is on one side as a whole. own: do not look for cl100k_base."""
    corpus = speech_corpus(job, source, comments=comments, presidency=presidency)
    path = None if own else vocabulary.cl100k_file(cl100k, job.fetch)
    if path is None:
        job.say(
            f"cl100k_base is not used: {'as asked' if own else 'it is not here'}. "
            f"A vocabulary ({job.config.prepare.encoder}) is learnt from the speeches."
        )
    else:
        job.say(f"The vocabulary is cl100k_base: {path}")
    job.write(*corpus.texts(with_heading), encoder=path and vocabulary.encoder_of(path))
