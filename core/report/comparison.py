"""Compare groups of runs: a row of figures per group, a verdict per pair, and what differed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.report.bootstrap import LEVEL
from core.report.comparable import not_one_loss, not_one_text, other_data
from core.report.differences import Difference, differences, mixed_settings
from core.report.runs import RunData
from core.report.tables import Table
from core.report.verdict import Measure, Prompts, Seeded, Verdict, judge
from core.tracking.figures import HELD_OUT, exact_match_columns, figure, loss_text, prompts_in_words, share_text

LOSS = Measure("best_val_loss", "val loss")
BITS = Measure("bits_per_byte", "bits per byte")
EXACT = Measure("accuracy", "exact match", lower_is_better=False, unit="points", factor=100.0, share=True)
PROBES = replace(EXACT, key=HELD_OUT, title="exact match of held_out()")
Form = Callable[[float], str]


@dataclass(frozen=True)
class Column:
    """A figure of summary.json. form: formats a number."""

    key: str
    title: str
    form: Form


COLUMNS = (
    Column("accuracy", "exact match", share_text),
    Column(PROBES.key, "of held_out()", share_text),
    Column("best_val_loss", "val loss", loss_text),
    Column("final_val_loss", "final val loss", loss_text),
    Column("bits_per_byte", "bits per byte", loss_text),
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
        """A figure of the counted runs that have it, by seed. Several runs of one seed count as one, by their mean."""
        found: dict[int | str, list[float]] = {}
        for run in self.counted:
            if (value := finite_number(figure(run.summary, key))) is not None:
                found.setdefault(run.name if run.seed is None else run.seed, []).append(value)
        return [statistics.fmean(values) for values in found.values()]

    @property
    def seeds(self) -> int:
        """How many seeds the counted runs have. A run without a seed counts as one."""
        return len({run.name if run.seed is None else run.seed for run in self.counted})

    def seeded(self, key: str) -> list[Seeded]:
        """(seed, value) of every counted run."""
        return [(run.seed, figure(run.summary, key)) for run in self.counted]


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

    @property
    def conclusions(self) -> list[Verdict]:
        """The verdict that counts of each pair: on exact match where there is one."""
        return [verdict for index, verdict in enumerate(self.verdicts) if not index or self.verdicts[index - 1].second != verdict.second]  # fmt: skip

    @property
    def details(self) -> list[Verdict]:
        """The other verdicts."""
        leading = self.conclusions
        return [verdict for verdict in self.verdicts if verdict not in leading]


def compare(groups: Sequence[Group]) -> Comparison:
    """Compare each group with the first one."""
    first, *others = groups
    verdicts = [verdict for other in others for verdict in verdicts_of(first, other)]
    notes = [f"warning: {note}" for note in warnings(groups)]
    notes += dict.fromkeys(note for verdict in verdicts for note in verdict.notes)
    if not others:
        notes.append(f"All runs have the same settings and data ({seeds(first)} {'seed' if first.seeds == 1 else 'seeds'}), so there is nothing to compare yet.")  # fmt: skip
    tested = sum(verdict.low is not None for verdict in verdicts)
    if tested >= 5:
        notes.append(f"{tested} differences are tested at {LEVEL:.0%} each: of {round(1 / (1 - LEVEL))} that do not exist, about one shows up by chance.")  # fmt: skip
    return Comparison(list(groups), verdicts, differences([group.runs for group in groups]), notes)


def verdicts_of(first: Group, other: Group) -> list[Verdict]:
    """On exact match if both groups have it, on that of held_out(), then on the loss, or on bits per byte where losses are not comparable.

    A loss is no verdict where it averages other tokens; the sentence says which setting makes them differ.
    """
    runs = [*first.drawn, *other.drawn]
    found = []
    if first.values(EXACT.key) and other.values(EXACT.key):
        found.append(
            judge(
                *sides(first, other, replace(EXACT, of=prompts_in_words([run.summary for run in runs]))),
                prompts_of(first, other),
            )
        )
    if first.values(PROBES.key) and other.values(PROBES.key):
        found.append(judge(*sides(first, other, PROBES), probes_of(first, other)))
    reasons = not_one_loss(runs)
    if not reasons:
        return [*found, judge(*sides(first, other, LOSS))]
    bits = first.values(BITS.key) and other.values(BITS.key) and not not_one_text(runs)
    found += [judge(*sides(first, other, BITS))] if bits else []
    said = f"No verdict on {LOSS.title}: {other.name} and {first.name} do not measure it alike ({'; '.join(reasons)})."
    return [*found, Verdict(LOSS, first.name, other.name, (first.seeds, other.seeds), False, (), said)]


def sides(first: Group, other: Group, measure: Measure) -> tuple[Measure, str, list[Seeded], str, list[Seeded]]:
    """The arguments of `judge`."""
    return measure, first.name, first.seeded(measure.key), other.name, other.seeded(measure.key)


def prompts_of(first: Group, other: Group) -> Prompts:
    """How many prompts exact match is measured on, in each group: the fewest of its runs. None: not recorded."""
    a, b = (min((run.summary.get("prompts") or 0 for run in group.counted), default=0) for group in (first, other))
    return a or None, b or None


def probes_of(first: Group, other: Group) -> Prompts:
    """The same of held_out()."""
    asked = [
        [(run.summary.get("held_out") or {}).get("prompts") or 0 for run in group.counted] for group in (first, other)
    ]
    a, b = (min(counts, default=0) for counts in asked)
    return a or None, b or None


def warnings(groups: Sequence[Group]) -> list[str]:
    """Reasons why the comparison says less than it seems to."""
    found = other_data([run for group in groups for run in group.runs])
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
    title, prompts = exact_match_columns([[run.summary for run in group.counted] for group in comparison.groups])
    rows = []
    for group, of in zip(comparison.groups, prompts, strict=True):
        cells = {column.key: mean_and_deviation(group.values(column.key), column.form) for column in columns}
        if EXACT.key in cells and cells[EXACT.key] != "-":
            cells[EXACT.key] += of
        rows.append((group.name, seeds(group), *cells.values()))
    return Table(("group", "seeds", *(title if column.key == EXACT.key else column.title for column in columns)), rows)


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
            | {column.key: finite_number(figure(run.summary, column.key)) for column in columns}
            for run in group.runs
        ]
        groups.append({"group": group.name, "seeds": group.seeds, "figures": figures, "runs": runs})
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
    """5; 4 (of 5) where a run does not count; 1 (3 runs) where several runs have one seed."""
    counted, given = len(group.counted), len(group.runs)
    rest = [f"{counted} runs"] if counted != group.seeds else []
    rest += [f"of {given}"] if counted != given else []
    return f"{group.seeds} ({' '.join(rest)})" if rest else str(group.seeds)


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


def finite_number(value: Any) -> Any:
    """The value if it is a finite number, else None."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None
