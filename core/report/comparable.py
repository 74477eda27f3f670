"""Find out whether runs measure the same thing: losses over the same targets, bits of the same text, the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.report.runs import RunData, datasets_of
from core.tracking.figures import side_name

TARGETS = ("train.data.mask_prompt", "train.data.layout")  # which tokens the loss is over
READ = "train.runtime.eval_iters"  # 0: the whole validation side; else so many of its batches
BATCH = ("train.data.batch_size", "train.data.block_size")


def not_one_loss(runs: Sequence[RunData]) -> list[str]:
    """Why the validation losses of some runs cannot be compared; empty if they can.

    They are means over tokens, so they need the same validation data, encoder, targets and length of context. What a run
    does not say, as that of a loop of one's own, does not count.
    """
    reasons = ["other data"] if len(known(datasets_of([run.summary for run in runs]))) > 1 else []
    return reasons + other_tokens([run.config for run in runs])


def other_tokens(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings, with dotted keys, that make losses on the same data means over other tokens."""
    return settings_that_differ(configs, (*TARGETS, "train.data.block_size", *part_read(configs)))


def not_one_text(runs: Sequence[RunData]) -> list[str]:
    """Why bits per byte cannot be compared; empty if they can. They need the same text, whatever the tokens are."""
    reasons = []
    if len(known(datasets_of([run.summary for run in runs]))) > 1 and len(texts(runs)) > 1:
        reasons.append("other validation text")
    if len({run.summary.get("side") for run in runs}) > 1:
        reasons.append("other side")
    configs = [run.config for run in runs]
    return reasons + settings_that_differ(configs, (*TARGETS, *part_read(configs)))


def part_read(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The settings that decide which part of the validation side is read. The size of a batch matters only for a part."""
    parts = {config.get(READ) for config in configs}
    return (READ, *BATCH) if parts - {None, 0} else (READ,)


def settings_that_differ(configs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """`train.data.mask_prompt is true and false` for each key whose values differ."""
    values = {key: known([config.get(key) for config in configs]) for key in dict.fromkeys(keys)}
    return [
        f"{key} is {' and '.join(str(value).lower() for value in found)}"
        for key, found in values.items()
        if len(found) > 1
    ]


def known(values: Sequence[Any]) -> list[Any]:
    """The different values, without None."""
    return list(dict.fromkeys(value for value in values if value is not None))


def texts(runs: Sequence[RunData]) -> list[Any]:
    """The different validation texts. Older runs do not record theirs; it then counts as the same."""
    return known([run.summary.get("val_text") for run in runs])


def other_data(runs: Sequence[RunData]) -> list[str]:
    """Warnings about the data of runs that are compared."""
    data, found = datasets_of([run.summary for run in runs]), []
    if len(known(data)) > 1:
        told = "the groups were not trained on the same data, so their losses per token cannot be compared. "
        if len(texts(runs)) > 1:
            found.append(f"{told}Bits per byte cannot either: their validation texts differ.")
        elif texts(runs) and all(run.summary.get("val_text") for run in runs):
            found.append(f"{told}Bits per byte can: their validation text is the same.")
        else:
            found.append(
                f"{told}Bits per byte can, if the validation text is the same, which older runs do not record."
            )
        if any(run.summary.get("accuracy") is not None for run in runs):
            found.append("exact match is measured on other prompts in other data.")
    elif None in data and known(data):
        found.append("some runs do not say which data they are measured on. Compare them only if it is the same.")
    scored = {side_name(run.summary.get("side")) for run in runs if run.summary.get("accuracy") is not None}
    if len(scored) > 1:
        found.append("exact match is measured on test prompts in some runs and on validation prompts in others.")
    return found
