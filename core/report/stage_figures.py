"""The figures of a run with stages, read from its folders: metrics by stage, and how each changed from stage to stage."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.evaluation.intervals import Interval, wilson
from core.report.after_stage import AfterStage, OnData, read_after_stage
from core.report.changes import Change, loss_change, loss_interval, share_change
from core.report.runs import RunData, read_run
from core.tracking.figures import HELD_OUT, figure

OTHERS = "other_stages.json"  # in a stage's run folder: {other stage: {metric: value}}, measured with its best weights
OWN = {
    "val_loss": "best_val_loss", "bits_per_byte": "bits_per_byte", "val_accuracy": "val_accuracy", "accuracy": "accuracy",
    HELD_OUT: HELD_OUT,
}  # fmt: skip
AGAIN = (
    "val_loss",
    "val_accuracy",
    "test_accuracy",
    HELD_OUT,
)  # of a stage's data, measured after every stage
SAME_AS = {
    "val_loss": ("val_loss",),
    "val_accuracy": ("val_accuracy",),
    "accuracy": ("test_accuracy", "val_accuracy"),
    HELD_OUT: (HELD_OUT,),
}  # own metric -> those measured after every stage that say the same
MAIN = ("test_accuracy", "val_accuracy", "val_loss")  # the first of them that a stage has is what it is about
Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Pipeline:
    """A run with stages. stages: all of them, in their order. The rest has only those that have begun.

    table: metric -> stage -> value, as in pipeline.json. prompts: the same of the numbers of prompts. after: what
    after_stage.json has.
    """

    folder: Path
    experiment: str
    stages: list[str]
    runs: dict[str, RunData]
    table: Metrics
    prompts: Metrics
    after: dict[str, AfterStage]

    @functools.cached_property
    def lines(self) -> dict[str, list[str]]:
        """Stage -> the stages whose weights it goes back to, the first one first, itself last."""
        found: dict[str, list[str]] = {}
        for name, run in self.runs.items():
            start = str(run.config.get("train.model.init_from") or "").removeprefix("./")
            found[name] = [*found.get(start, []), name]
        return found

    def origin(self, stage: str) -> str:
        """The stage that another goes on from; "" for none."""
        return self.lines[stage][-2] if len(self.lines[stage]) > 1 else ""

    def main_metric(self, stage: str) -> str:
        """The row of the table that says best what a stage learnt; "" if there is none."""
        candidates = [f"{stage}/{metric}" for metric in MAIN] + ["accuracy", "val_loss"]
        return next((key for key in candidates if stage in self.table.get(key, {})), "")

    def on(self, key: str, stage: str) -> OnData:
        """What a stage's weights did on the data of a row of the table."""
        found = self.after.get(stage)
        return (found.on.get(key.partition("/")[0] if "/" in key else stage) if found else None) or OnData()

    def interval(self, key: str, stage: str) -> Interval | None:
        """The 95 % interval of a figure, over held-out data; None if it is not known."""
        value = self.table[key][stage]
        if key.endswith("accuracy"):
            prompts = self.prompts.get(key, {}).get(stage)
            return wilson(value, prompts) if prompts else None
        return loss_interval(value, self.on(key, stage)) if key.endswith("val_loss") else None

    def change(self, key: str, before: str, after: str) -> Change | None:
        """How a figure of one stage's data differs between two stages; None if one of them does not have it."""
        values = self.table.get(key, {})
        if "/" not in key or before not in values or after not in values:
            return None
        first, second = self.on(key, before), self.on(key, after)
        if not key.endswith("accuracy"):
            return loss_change(values[before], values[after], first, second)
        side = key.partition("/")[2].removesuffix("_accuracy")
        prompts = self.prompts.get(key, {})
        counts = prompts.get(before), prompts.get(after)
        return share_change(
            values[before], values[after], counts, (first.right.get(side, ""), second.right.get(side, ""))
        )


def read_pipeline(folder: Path, experiment: str, stages: Sequence[str]) -> Pipeline:
    """Read a run with stages. stages: all of them, in their order. Raises UserError for damaged files of a stage."""
    runs = {name: read_run(folder / name) for name in stages if (folder / name / "summary.json").is_file()}
    table, prompts = tables_of(folder, runs)
    read = {name: read_after_stage(folder / name, run.summary) for name, run in runs.items()}
    after = {name: found for name, found in read.items() if found is not None}
    return Pipeline(folder, experiment, list(stages), runs, table, prompts, after)


def tables_of(folder: Path, runs: dict[str, RunData]) -> tuple[Metrics, Metrics]:
    """{metric: {stage: value}}: each stage's own figures, then STAGE/METRIC for the data of a stage after every stage.

    The second table has the number of prompts of each exact match.
    """
    found: Metrics = {}
    prompts: Metrics = {}
    for name, run in runs.items():
        for metric, field in OWN.items():
            put(found, metric, name, figure(run.summary, field))
        put(prompts, "accuracy", name, run.summary.get("prompts"))
        put(prompts, HELD_OUT, name, (run.summary.get("held_out") or {}).get("prompts"))
    for measured_on in runs:
        for name in runs:
            measured = read_json(folder / name / ("evaluation.json" if name == measured_on else OTHERS))
            values = measured if name == measured_on else measured.get(measured_on, {})
            for metric in AGAIN:
                put(found, f"{measured_on}/{metric}", name, values.get(metric))
                put(prompts, f"{measured_on}/{metric}", name, values.get(metric.replace("accuracy", "prompts")))
    return {metric: values for metric, values in found.items() if "/" not in metric or len(values) > 1}, prompts


def put(found: Metrics, metric: str, stage: str, value: Any) -> None:
    """Note a figure, if there is one."""
    if isinstance(value, (int, float)):
        found.setdefault(metric, {})[stage] = value


def read_json(path: Path) -> dict[str, Any]:
    """A dict in a file; {} if it is missing or damaged: it is measured again where it is needed."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
