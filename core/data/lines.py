"""Read the lines of another program's running text as Examples: PROMPT, a separator, COMPLETION, a line break."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.config import Prepare
from core.data.dataset import Dataset, Split
from core.errors import UserError

Array = npt.NDArray[Any]


def as_examples(dataset: Dataset, prepare: Prepare) -> Dataset:
    """The same data with masks and documents in memory, if `prepare.format` is "pairs" and prepare did not make it.

    What is before the separator in a line is the prompt, and includes it; the rest is learnt, with the line break. Lines
    without a separator, and those that are cut off at the beginning or end of a side, are left out.
    Raises UserError where a side has no line with the separator.
    """
    if dataset.owned or prepare.format != "pairs" or dataset.info["kind"] != "text":
        return dataset
    separator, line_break = ids_of(dataset, prepare.separator), ids_of(dataset, "\n")
    info: dict[str, Any] = {**dataset.info, "kind": "examples", "stop": "\n", "separator": prepare.separator}
    sides: dict[str, Split] = {}
    prompts: dict[str, set[bytes]] = {}
    lines, skipped, cut = 0, 0, False
    for name in ("train", "val", "test"):
        split: Split | None = getattr(dataset, name)
        if split is None:
            continue
        table = PairedLines(split.ids, separator, line_break, cut=cut)
        lines, skipped = lines + len(table.good), skipped + int((~table.good).sum())
        if not table.good.any():
            raise UserError(
                f"{split.path.name} has no whole line with the separator {prepare.separator!r}",
                place=str(split.path),
                remedy='Set prepare.separator to the text that ends a prompt, or prepare.format = "text".',
            )
        cut = bool(split.ids[-1] != line_break[-1])
        table = table.without_others()
        firsts, prompts[name] = table.different_prompts()
        starts = table.begins.astype(np.uint64)
        sides[name] = replace(split, ids=table.ids, mask=table.mask(), starts=starts, prompts=firsts)
        info[name] = {**info[name], **counts(sides[name], table, dataset)}
    info["split"] = {"kind": "lines", "overlap": len(prompts["val"] & prompts["train"])}
    if "test" in prompts:
        info["split"]["test_overlap"] = len(prompts["test"] & prompts["train"])
    info["fingerprint"] = hashlib.sha256(f"{dataset.fingerprint} {prepare.separator}".encode()).hexdigest()
    info["note"] = (
        f"{dataset.folder}: its {lines:,} lines are read as prompts that end in {prepare.separator!r}, and completions. "
        f"{skipped:,} of them have no {prepare.separator!r} or are cut off, and are left out."
    )
    return replace(dataset, info=info, train=sides["train"], val=sides["val"], test=sides.get("test"))


def ids_of(dataset: Dataset, text: str) -> Array:
    """Ids of the separator or line break. Raises UserError where the vocabulary does not have it."""
    try:
        return dataset.encoder.encode(text)
    except UserError as error:
        if dataset.encoder.kind == "gpt2":  # it knows every text; its merges could not be downloaded
            raise
        raise UserError(
            f"the vocabulary of {dataset.folder} has no {text!r}, so its lines cannot be read as pairs",
            place='prepare.format = "pairs"',
            remedy="Set prepare.separator to a text that the data holds."
            if text != "\n"
            else f'Set prepare.format = "text". {error.remedy}',
        ) from None


class PairedLines:
    """The lines of a side: begins and ends (D,), the ends of their prompts (D,), and which are whole pairs, good (D,)."""

    def __init__(self, ids: Array, separator: Array, line_break: Array, *, cut: bool) -> None:
        """cut: the side begins inside a line."""
        self.ids, self.marks = ids, (separator, line_break)
        ends = np.flatnonzero(ids == line_break[-1]) + 1
        whole = np.ones(len(ends), bool)
        if not len(ends) or ends[-1] < len(ids):
            ends, whole = np.append(ends, len(ids)), np.append(whole, False)
        whole[0] &= not cut
        self.begins, self.ends = np.append(0, ends[:-1]), ends
        at = np.flatnonzero(ids[: len(ids) - len(separator) + 1] == separator[0])
        for offset in range(1, len(separator)):
            at = at[ids[at + offset] == separator[offset]]
        behind = np.append(at + len(separator), len(ids) + 1)
        self.asked = behind[np.searchsorted(at, self.begins)]
        self.good = whole & (self.asked < self.ends)

    def without_others(self) -> PairedLines:
        """The same with the whole pairs only."""
        if self.good.all():
            return self
        changes = np.zeros(len(self.ids) + 1, np.int8)
        changes[self.begins[self.good]] += 1
        changes[self.ends[self.good]] -= 1
        return PairedLines(self.ids[np.cumsum(changes[:-1], dtype=np.int8) > 0], *self.marks, cut=False)

    def mask(self) -> Array:
        """1 where a token is learnt, (N,) uint8."""
        changes = np.zeros(len(self.ids) + 1, np.int8)
        changes[self.asked[self.good]] += 1
        changes[self.ends[self.good]] -= 1
        return np.cumsum(changes[:-1], dtype=np.int8).astype(np.uint8)

    def different_prompts(self) -> tuple[Array, set[bytes]]:
        """The number of the first line with each prompt, (P,), and the prompts."""
        found: dict[bytes, int] = {}
        for number in np.flatnonzero(self.good).tolist():
            found.setdefault(self.ids[self.begins[number] : self.asked[number]].tobytes(), number)
        return np.array(list(found.values()), np.uint64), set(found)


def counts(split: Split, table: PairedLines, dataset: Dataset) -> dict[str, int]:
    """What dataset.json would say of a side."""
    learnt, good = split.ids[split.mask != 0], table.good
    return {
        "target_tokens": len(learnt),
        "target_bytes": len(dataset.encoder.decode(learnt.tolist()).encode()),
        "longest_prompt": int((table.asked - table.begins)[good].max()),
        "longest_completion": int((table.ends - table.asked)[good].max()),
    }
