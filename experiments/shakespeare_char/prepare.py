"""Tiny Shakespeare, character by character: 1.1 MB of plays."""

import re


def evaluate(run, model, encoder):
    """Share of the words of four sampled pages that stand in the plays: spelling, which a loss does not show."""
    from core.data.dataset import load_dataset
    from core.sampling.generate import complete

    dataset = load_dataset(run.experiment.folder / run.config.prepare.dataset_dir)
    known = set(words(encoder.decode(dataset.train.ids.tolist())))
    pages = complete(model, encoder, ["\n"] * 4, max_new_tokens=500, temperature=0.8)
    written = [word for page in pages for word in words(page)[:-1]]  # the last one may be cut off
    return {"known_words": sum(word in known for word in written) / max(len(written), 1)}


def words(text):
    return re.findall(r"[a-z']+", text.lower())
