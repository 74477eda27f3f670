"""Speeches of German parliaments with a header: who speaks, for which party, when, about what. From a table like SpeakGer's."""

from core.corpora.corpus import SUFFIXES as PROTOCOLS
from core.corpora.corpus import bundestag_files, speech_corpus
from core.corpora.sources import ending_of, names_of

from . import layout, table

SAMPLES = 8


def inputs(folder, *, source: str | list[str] = "", metadata: str | list[str] = ""):
    files = bundestag_files if is_xml(source, folder) else table.table_files
    return [*files(source, folder), *table.table_files(metadata, folder)]


def prepare(
    job,
    *,
    source: str | list[str] = "",
    metadata: str | list[str] = "",
    columns: dict[str, str] | None = None,
    chair: bool = False,
    interjections: bool = False,
):
    """One document for each speech; a session is on one side as a whole. Without a source the speeches are invented."""
    if not names_of(source) or is_xml(source, job.folder):
        corpus = speech_corpus(job, source, comments=interjections, presidency=chair)
    else:
        corpus = table.table_corpus(job, source, metadata, columns or {}, chair=chair, interjections=interjections)
    job.write(*corpus.texts(layout.written))


def is_xml(source, folder):
    """Whether a setting names protocols of the Bundestag instead of tables."""
    return ending_of(source, folder, (*PROTOCOLS, *table.SUFFIXES)) in PROTOCOLS


def evaluate(run, model, encoder):
    """Sample some speeches from the first word of the header on, and measure what they look like. The samples stay in the run's folder."""
    import json

    from core.sampling.generate import complete

    start = f"{layout.HEADER[0]}:"  # no space behind it: it belongs to the token of the name
    answers = complete(
        model, encoder, [start] * SAMPLES, max_new_tokens=run.config.sample.sample.max_new_tokens, temperature=0.8
    )
    texts = [start + answer for answer in answers]
    analyses = [layout.analysed(text) for text in texts]
    folder = run.folder / "samples"
    folder.mkdir(exist_ok=True)
    (folder / "sample_best.txt").write_text(f"\n{'-' * 40}\n".join(texts) + "\n", encoding="utf-8")
    kept = [{"text": text, "analysis": analysis} for text, analysis in zip(texts, analyses, strict=True)]
    (folder / "sample_best.json").write_text(json.dumps(kept, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return layout.shares(analyses)
