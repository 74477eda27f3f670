"""When training by reward makes no sense any more: it has destroyed what was there, or nothing is left to tell apart."""

from __future__ import annotations

HALF = 0.5
KNOWN = 0.05  # an accuracy that is worth protecting
SILENT = 20  # steps in a row without any signal; one alone may be chance


def collapsed(row: dict[str, float], best: dict[str, float], silent: int) -> str:
    """Why a run should end at this evaluation; "" if it should not.

    It should, if greedy exact match has fallen below half of the best, and if no prompt of SILENT steps in a row had answers
    of different rewards. best: the best evaluation before it, {} if there is none. silent: steps in a row without a signal.
    """
    before, now = best.get("val_accuracy", 0.0), row.get("val_accuracy", 0.0)
    if before >= KNOWN and now < HALF * before:
        return f"val_accuracy fell from {before:.3g} to {now:.3g}; checkpoint best has the better weights"
    if silent >= SILENT:
        return f"in {silent} steps in a row, all answers to a prompt had the same reward, so nothing can be learnt from them"
    return ""
