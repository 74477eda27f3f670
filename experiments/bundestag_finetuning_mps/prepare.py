"""Finetune any pretrained language model with LoRA on speeches or on text files of your own."""

from core.corpora.finetuning import finetuning_corpus, finetuning_files, layout, write_finetuning_data


def inputs(folder, *, source: str | list[str] = ""):
    return finetuning_files(source, folder)


def prepare(
    job,
    *,
    source: str | list[str] = "",
    comments: bool = False,
    presidency: bool = False,
    add_structure_tokens: bool = True,
    doc_separator: str = "\n\n",
):
    """One document for each speech or text file; a session or a file is on one side as a whole."""
    corpus = finetuning_corpus(job, source, comments=comments, presidency=presidency)
    write = layout(add_structure_tokens=add_structure_tokens, doc_separator=doc_separator)
    write_finetuning_data(job, corpus, write)
