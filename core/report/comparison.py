"""Compare groups of runs: a row of figures per group, a verdict per pair, and what differed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.report.bootstrap import LEVEL
from core.report.differences import Difference, differences, fingerprints, mixed_settings
from core.report.runs import RunData
from core.report.tables import Table
from core.report.verdict import Measure, Seeded, Verdict, judge

LOSS = Measure("best_val_loss", "val loss")
BITS = Measure("bits_per_byte", "bits per byte")
ACCURACY = Measure("accuracy", "accuracy", lower_is_better=False, unit="points", factor=100.0, most=1.0)
Form = Callable[[float], str]


@dataclass(frozen=True)
class Column:
    """A figure of summary.json. form: formats a number."""

    key: str
    title: str
    form: Form


COLUMNS = (
    Column("best_val_loss", "val loss", "{:.4f}".format),
    Column("final_val_loss", "final val loss", "{:.4f}".format),
    Column("bits_per_byte", "bits per byte", "{:.4f}".format),
    Column("accuracy", "accuracy", "{:.1%}".format),
    Column("train_seconds", "seconds", "{:,.1f}".format),
    Column("tokens_per_second", "tokens/s", "{:,.0f}".format),
    Column("parameters", "parameters", "{:,.0f}".format),
)


@dataclass(frozen=True)
class Group:
    """name: in tables and sentences. runs: named by the user, usually of one setting and several seeds."""

    name: str
    runs: list[RunData]

    @property
    def counted(self) -> list[RunData]:
        """The completed runs. The result of a failed or interrupted run says nothing about its settings."""
        return [run for run in self.runs if run.summary.get("status") == "completed"]

    @property
    def drawn(self) -> list[RunData]:
        """The runs to draw: the counted ones, or all if none counts, so that a run can be watched beside others."""
        return self.counted or self.runs

    def values(self, key: str) -> list[float]:
        """A figure of the counted runs that have it."""
        return [value for run in self.counted if (value := finite(run.summary.get(key))) is not None]

    def seeded(self, key: str) -> list[Seeded]:
        """(seed, value) of every counted run."""
        return [(run.seed, run.summary.get(key)) for run in self.counted]


@dataclass(frozen=True)
class Comparison:
    """The groups (the first is the baseline), verdicts by pair, what differed, and notes with warnings."""

    groups: list[Group]
    verdicts: list[Verdict]
    differences: list[Difference]
    notes: list[str]

    @property
    def names(self) -> list[str]:
        return [group.name for group in self.groups]


def compare(groups: Sequence[Group]) -> Comparison:
    """Compare each group with the first one."""
    first, *others = groups
    verdicts = [verdict for other in others for verdict in verdicts_of(first, other)]
    notes = [f"warning: {note}" for note in warnings(groups)]
    notes += dict.fromkeys(note for verdict in verdicts for note in verdict.notes)
    tested = sum(verdict.low is not None for verdict in verdicts)
    if tested >= 5:
        notes.append(f"{tested} differences are tested at {LEVEL:.0%} each: of {round(1 / (1 - LEVEL))} that do not exist, about one shows up by chance.")  # fmt: skip
    return Comparison(list(groups), verdicts, differences([group.runs for group in groups]), notes)


def verdicts_of(first: Group, other: Group) -> list[Verdict]:
    """On loss, and on accuracy if both groups have it.

    Losses per token on different data cannot be compared, so bits per byte are used there. With accuracy the loss still
    comes first: it can tell groups apart whose accuracy is 100 %.
    """
    same_data = len(fingerprints([*first.runs, *other.runs])) == 1
    loss = LOSS if same_data or not (first.values(BITS.key) and other.values(BITS.key)) else BITS
    measures = [loss, *([ACCURACY] if first.values(ACCURACY.key) and other.values(ACCURACY.key) else [])]
    return [
        judge(measure, first.name, first.seeded(measure.key), other.name, other.seeded(measure.key))
        for measure in measures
    ]


def warnings(groups: Sequence[Group]) -> list[str]:
    """Reasons why the comparison says less than it seems to."""
    found = []
    if len(fingerprints(run for group in groups for run in group.runs)) > 1:
        found.append("the groups were not trained on the same data, so their losses per token cannot be compared. Bits per byte can, if the texts are of one kind.")  # fmt: skip
    for group in groups:
        for run in group.runs:
            if run not in group.counted:
                found.append(
                    f"{run.title} is not complete ({run.summary.get('status')}), so it is left out of the figures."
                )
        if mixed := mixed_settings(group.runs):
            found.append(f"the runs of {group.name} differ in more than their seed: {', '.join(mixed[:4])}{' ...' if mixed[4:] else ''}.")  # fmt: skip
    folders = [run.folder for group in groups for run in group.runs]
    if len(set(folders)) < len(folders):
        twice = dict.fromkeys(folder.name for folder in folders if folders.count(folder) > 1)
        found.append(f"in more than one group: {', '.join(twice)}.")
    return found


def table(comparison: Comparison) -> Table:
    """For reading: one row per group, mean ± standard deviation over its seeds. Figures that no group has are left out."""
    columns = present(comparison)
    rows = [
        (group.name, seeds(group), *(mean_and_deviation(group.values(column.key), column.form) for column in columns))
        for group in comparison.groups
    ]
    return Table(("group", "seeds", *(column.title for column in columns)), rows)


def numbers(comparison: Comparison) -> Table:
    """For a program: mean and standard deviation in separate columns, in full precision, blank where unknown."""
    columns = present(comparison)
    titles = [f"{column.key}{part}" for column in columns for part in ("_mean", "_std")]
    rows = []
    for group in comparison.groups:
        figures = [figure for column in columns for figure in moments(group.values(column.key))]
        rows.append((group.name, seeds(group), *("" if figure is None else repr(figure) for figure in figures)))
    return Table(("group", "seeds", *titles), rows)


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """As JSON values: groups with every run's figures, verdicts, differences and notes."""
    columns = present(comparison)
    groups = []
    for group in comparison.groups:
        figures = {
            column.key: dict(zip(("mean", "std"), moments(group.values(column.key)), strict=True)) for column in columns
        }
        runs = [
            {"run": run.title, "seed": run.seed, "status": run.summary.get("status")}
            | {column.key: finite(run.summary.get(column.key)) for column in columns}
            for run in group.runs
        ]
        groups.append({"group": group.name, "seeds": len(group.counted), "figures": figures, "runs": runs})
    verdicts = [
        asdict(replace(verdict, notes=())) | {"measure": verdict.measure.key, "notes": list(verdict.notes)}
        for verdict in comparison.verdicts
    ]
    found = [
        asdict(difference) | {"values": dict(zip(comparison.names, difference.values, strict=True))}
        for difference in comparison.differences
    ]
    return {"groups": groups, "verdicts": verdicts, "differences": found, "notes": comparison.notes}


def present(comparison: Comparison) -> list[Column]:
    return [column for column in COLUMNS if any(group.values(column.key) for group in comparison.groups)]


def seeds(group: Group) -> str:
    """5, or 4 (of 5) where a run does not count."""
    counted, given = len(group.counted), len(group.runs)
    return str(counted) if counted == given else f"{counted} (of {given})"


def mean_and_deviation(values: Sequence[float], form: Form) -> str:
    """1.2345 ± 0.0012. Only the mean for one value or equal values, and - for none."""
    mean, deviation = moments(values)
    if mean is None:
        return "-"
    return f"{form(mean)} ± {form(deviation)}" if deviation else form(mean)


def moments(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1). None where there are too few values."""
    if not values:
        return None, None
    return math.fsum(values) / len(values), statistics.stdev(values) if len(values) > 1 else None


def finite(value: Any) -> Any:
    """The value if it is a finite number, else None."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None
