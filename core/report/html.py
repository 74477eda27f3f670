"""report.html of a run: in go its summary.json, metrics.csv, config.toml and samples, out comes one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from core import files
from core.report.page import bar, cards, cell, fold, page, section, table
from core.report.plots import ACCURACY, BY_SECONDS, BY_STEP, LEARNING_RATE, draw, present, svg
from core.report.samples import Sample, one_line
from core.tracking.begin import flat
from core.tracking.metrics import read_rows
from core.tracking.run import read_config, read_summary

SHOWN_SAMPLES = 50
Summary = Mapping[str, Any]


def write_report(folder: Path, samples: Sequence[Sample] = ()) -> Path:
    """Write report.html into a run folder, from the files there and the model's samples. Returns its path.

    Raises UserError where config.toml or summary.json is missing or damaged.
    """
    summary, rows = read_summary(folder), read_rows(folder / "metrics.csv")
    title = f"{summary.get('experiment', '')} / {summary.get('run', folder.name)}"
    parts = [
        header(title, summary),
        section("Curves", curves(rows)),
        section(sample_title(samples), sample_table(samples)),
        section("Accuracy by group", accuracy_table(summary.get("accuracy_by_group") or {})),
        section("Run it again", command(summary)),
        section("Settings", settings(read_config(folder))),
        section("Environment", environment(summary)),
    ]
    path = folder / "report.html"
    files.write_text(path, page(title, parts))
    return path


def header(title: str, summary: Summary) -> str:
    """What was tried, how it ended, and the figures that matter."""
    status = summary.get("status")
    lines = [f"<h1>{escape(title)}</h1>"]
    if summary.get("description"):
        lines.append(f'<p class="lead">{escape(summary["description"])}</p>')
    if status != "completed":
        lines.append(
            f'<p class="notice">This run is not complete ({escape(str(status))}): it stands at step {summary.get("steps") or 0:,}.</p>'
        )
    return "\n".join([*lines, cards(figures(summary))])


def figures(summary: Summary) -> list[tuple[str, str, str]]:
    """(value, name, remark) of the results that the run has."""

    def shown(key: str, form: str) -> str:
        value = summary.get(key)
        return "" if value is None else format(value, form)

    best = shown("best_step", ",")
    seconds = summary.get("train_seconds")
    candidates = [
        (shown("accuracy", ".1%"), "exact match", "held-out prompts"),
        (shown("best_val_loss", ".4f"), "validation loss", f"nats per token, step {best}" if best else ""),
        (shown("bits_per_byte", ".4f"), "bits per byte", ""),
        ("" if seconds is None else duration(seconds), "of training", f"{shown('steps', ',')} steps"),
        (shown("tokens_per_second", ",.0f"), "tokens per second", ""),
        (shown("parameters", ","), "parameters", ""),
    ]
    return [candidate for candidate in candidates if candidate[0]]


def duration(seconds: float) -> str:
    """6.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 59.95:  # what would be rounded to 60.0 is a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def curves(rows: Sequence[dict[str, Any]]) -> str:
    """Loss by step and by time, exact match and learning rate, as far as they were measured."""
    panels = present(rows, [BY_STEP, BY_SECONDS, ACCURACY, LEARNING_RATE])
    drawings = "\n".join(svg(draw(rows, [panel]), panel.title) for panel in panels)
    return f"<figure>\n{drawings}\n</figure>" if drawings else ""


def sample_title(samples: Sequence[Sample]) -> str:
    """The heading, with the score where the truth is known."""
    judged = [sample for sample in samples if sample.correct is not None]
    return f"Samples: {sum(bool(sample.correct) for sample in judged)} of {len(judged)} right" if judged else "Samples"


def sample_table(samples: Sequence[Sample]) -> str:
    """Answers beside the truth; running texts with what they started from in a softer colour."""
    shown = samples[:SHOWN_SAMPLES]
    if any(sample.truth is not None for sample in shown):
        rows = [answer(sample) for sample in shown]
        content = table(("", "given", "model", "truth"), rows)
    else:
        content = "\n".join(running_text(sample) for sample in shown)
    if len(samples) > len(shown):
        content += f'\n<p class="soft">The first {len(shown)} of {len(samples)}; all are in samples.txt.</p>'
    return content


def running_text(sample: Sample) -> str:
    """A text with its beginning, which was given, in a softer colour; a beginning of line breaks alone is not shown."""
    start = f'<span class="soft">{escape(sample.start)}</span>' if sample.start.strip() else ""
    return f"<pre>{start}{escape(sample.text)}</pre>"


def answer(sample: Sample) -> list[str]:
    """Cells of one answer."""
    mark = {True: cell("right", "mark good"), False: cell("wrong", "mark bad"), None: cell("")}[sample.correct]
    kind = "text bad" if sample.correct is False else "text"
    return [
        mark,
        cell(one_line(sample.start), "text"),
        cell(one_line(sample.text), kind),
        cell(one_line(sample.truth or ""), "text"),
    ]


def accuracy_table(groups: Mapping[str, float]) -> str:
    """Exact match of each group with a bar."""
    return table(
        ("group", "exact match", ""),
        [[cell(name), cell(f"{value:.1%}", "mark"), bar(value)] for name, value in groups.items()],
    )


def command(summary: Summary) -> str:
    """The command line of the run, and what else pins it down."""
    line = summary.get("command") or f"python -m core.cli loop {summary.get('experiment', '')}"
    commit = (summary.get("environment") or {}).get("git_commit")
    pins = [f"seed {summary['seed']}"] if summary.get("seed") is not None else []
    pins += [f"commit {commit}"] if commit else []
    pins += [f"data {summary['dataset_fingerprint'][:12]}"] if summary.get("dataset_fingerprint") else []
    return f'<pre>{escape(line)}</pre>\n<p class="soft">{escape(", ".join(pins))}</p>'


def settings(config: Mapping[str, Any]) -> str:
    """Every key of config.toml, section by section."""
    keys = {key: json.dumps(value, ensure_ascii=False) for key, value in flat(config).items()}
    return fold(
        f"All {len(keys)} keys",
        table(("key", "value"), [[cell(key, "text"), cell(value, "text")] for key, value in keys.items()]),
    )


def environment(summary: Summary) -> str:
    """What the run ran on."""
    known = {"device": summary.get("device"), "dtype": summary.get("dtype"), **(summary.get("environment") or {})}
    rows = [[cell(name.replace("_", " ")), cell(str(value))] for name, value in known.items() if value is not None]
    return table((), rows)
