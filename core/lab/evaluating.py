"""Evaluate a trained model and report the metrics to the listener."""

from __future__ import annotations

from typing import Any

from core.lab.model import LoadedModel
from core.tracking.figures import loss_text, share_text

SHOWN_MISTAKES = 5
NOT_METRICS = ("experiment", "run", "step", *(f"{side}_prompts" for side in ("val", "train", "test")))


def evaluate(model: LoadedModel) -> dict[str, Any]:
    """Evaluate a checkpoint on the whole validation side. Reports the metrics and the first wrong answers."""
    found = model.evaluate()
    say = model.opened.listener.say
    say(f"evaluated {model.run.title} at step {model.step}:")
    for name, value in found.items():
        if name not in NOT_METRICS:
            text = share_text if "accuracy" in name else loss_text
            shown = text(value) if isinstance(value, float) else value
            prompts = found.get(f"{name.partition('_')[0]}_prompts") if name.endswith("_accuracy") else None
            say(f"  {name:<28} {shown}{'' if prompts is None else f' of {prompts:,} prompts'}")
    for answer in model.mistakes[:SHOWN_MISTAKES]:
        say(f"  wrong: {answer.example.prompt!r} -> {answer.text!r}, not {answer.example.completion!r}")
    return found
