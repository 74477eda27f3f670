"""How a speech is written: four lines that say who speaks and about what, a blank line, the speech. And what is odd in a sample."""

import re
from collections import Counter
from itertools import pairwise

HEADER = ("Sprecher", "Partei", "Jahr", "Thema")
UNKNOWN = "unbekannt"
END = "\n\n"  # a speech has no blank line of its own
LONGEST_WORD = 40  # letters: longer ones are rare even in German laws
NGRAM = 4  # words


def with_header(speech):
    """A speech as a document."""
    values = (speech.speaker, speech.party, speech.date[:4], speech.topic)
    header = "".join(f"{name}: {value or UNKNOWN}\n" for name, value in zip(HEADER, values, strict=True))
    return f"{header}\n{speech.text}{END}"


def analysed(sample):
    """What a sample looks like, as a dict that JSON can hold.

    header: the value of each line that a header should have, None where it is missing; complete: all are there, in order, before a blank
    line. lines: how many there are, how many are repeated, mean length in characters. ngrams: of NGRAM words: how many, how many different, the most
    frequent. anomalies: what no speech has, each with how often.
    """
    head, blank, text = sample.partition("\n\n")
    found = [line.partition(": ") for line in head.splitlines()]
    values = {name: value for name, colon, value in found if colon}
    lines = [line for line in text.splitlines() if line.strip()]
    words = text.split()
    grams = Counter(zip(*(words[start:] for start in range(NGRAM)), strict=False))
    return {
        "header": {name: values.get(name) for name in HEADER}
        | {"complete": bool(blank) and [name for name, _, _ in found] == list(HEADER)},
        "lines": {
            "count": len(lines),
            "repeated": len(lines) - len(set(lines)),
            "mean_length": sum(map(len, lines)) / len(lines) if lines else 0.0,
        },
        "ngrams": {
            "size": NGRAM,
            "count": sum(grams.values()),
            "different": len(grams),
            "most_frequent": [[" ".join(gram), count] for gram, count in grams.most_common(3) if count > 1],
        },
        "anomalies": anomalies(text, words),
    }


def anomalies(text, words):
    """What should not be in a speech, each with how often it is. Only what was found."""
    found = {
        "no_text": int(not words),
        "control_characters": len(re.findall(r"[\x00-\x08\x0b-\x1f\x7f]", text)),
        "broken_characters": text.count("\ufffd"),
        "long_words": sum(len(word) > LONGEST_WORD for word in words),
        "words_twice_in_a_row": sum(left == right for left, right in pairwise(words)),
        "header_lines_in_the_text": sum(text.count(f"\n{name}: ") for name in HEADER),
    }
    return {name: count for name, count in found.items() if count}


def shares(samples):
    """Metrics of some analysed samples, each from 0 to 1."""
    count = len(samples)
    grams = sum(sample["ngrams"]["count"] for sample in samples)
    lines = sum(sample["lines"]["count"] for sample in samples)
    return {
        "header_complete": sum(sample["header"]["complete"] for sample in samples) / count,
        "lines_repeated": sum(sample["lines"]["repeated"] for sample in samples) / max(lines, 1),
        "ngrams_repeated": 1 - sum(sample["ngrams"]["different"] for sample in samples) / max(grams, 1),
        "samples_with_anomalies": sum(bool(sample["anomalies"]) for sample in samples) / count,
    }
