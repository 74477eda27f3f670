"""Write the report of a run: report.html, a self-contained page, and report.md, the same in Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from core import files, private
from core.private import quoted
from core.process import Program
from core.report import answers
from core.report.document import Cards, Cell, Code, Document, PageSection, PageTable, Paragraph, Part, Picture
from core.report.markdown import markdown
from core.report.on_the_way import group_pictures, on_the_way
from core.report.page import page
from core.report.plots import ACCURACY, BY_SECONDS, BY_STEP, LEARNING_RATE, draw, png, present
from core.report.runs import RunData, read_run
from core.report.samples import Mistake, Sample, Written, escaped, read_samples
from core.report.suites import suite_sections
from core.tracking.figures import loss_text, prompts_in_words, share_text, side_name

SHOWN_SAMPLES, SHOWN_MISTAKES = 50, 20
Summary = Mapping[str, Any]


def write_report(folder: Path, run: RunData | None = None, more: Sequence[PageSection] = ()) -> Path:
    """Write both into a run's folder, from the files there. Returns the page's path. run: if it is read already.

    more: sections of other parts of the program. Raises UserError where config.toml, summary.json, samples.json,
    evaluation.json or suites.json is damaged, or one of the first two is missing.
    """
    run = run or read_run(folder)
    details = answers.read_details(folder, run.summary.get("best_step"))
    more = [*suite_sections(folder, run.summary.get("best_step")), *more]
    write_pictures(folder, [*group_pictures(run.rows), *answers.pictures(details, run.summary)])
    return write_document(folder, "report", about(run, read_samples(folder), details, more))


def write_pictures(folder: Path, parts: Iterable[Part]) -> None:
    """Write the first drawing of each picture among the parts into its file, for Markdown."""
    for part in parts:
        if isinstance(part, Picture) and part.drawings:
            files.write_bytes(folder / part.file, png(next(iter(part.drawings.values()))()))


def write_document(folder: Path, name: str, document: Document) -> Path:
    """Write name.html and name.md into a folder. Returns the page's path."""
    private.write_text(folder / f"{name}.html", page(document))
    private.write_text(folder / f"{name}.md", markdown(document))
    return folder / f"{name}.html"


def about(
    run: RunData, written: Written, details: Mapping[str, Any] | None = None, more: Sequence[PageSection] = ()
) -> Document:
    """The whole report of a run. details: of its answers, by side. more: sections of other parts of the program."""
    summary = run.summary
    return Document(
        f"{summary.get('experiment', '')} / {run.name}",
        head(run),
        [
            PageSection("Curves", curves(run)),
            PageSection(sample_title(written.samples), samples(written.samples)),
            PageSection("Own metrics", own_metrics(summary)),
            PageSection("Memorising and generalising", reached(summary, run.config.get("train.runtime.eval_interval"))),
            PageSection("Best values, and values on the way", on_the_way(run.rows, planned(run.config))),
            PageSection("Exact match by group", accuracy(summary)),
            *about_answers(summary, written, details or {}),
            *more,
            PageSection("Cost", cost(summary)),
            PageSection("Run it again", again(summary)),
            PageSection("Settings", settings(run.config)),
            PageSection("Environment", environment(summary)),
        ],
    )


def planned(config: Mapping[str, Any]) -> int | None:
    """How many steps a run was to have; None where time decides. config: with dotted keys."""
    steps: int | None = config.get("train.schedule.max_iters")
    return None if config.get("train.runtime.max_minutes") else steps


def about_answers(summary: Summary, written: Written, details: Mapping[str, Any]) -> list[PageSection]:
    """The sections on what is right and wrong in the answers."""
    return [
        PageSection("Prompts that training never shows", answers.held_out(summary)),
        PageSection("Right by place and by carries", answers.places(details, summary)),
        PageSection("Kinds of errors", answers.kinds(written)),
        PageSection("Wrong answers", mistakes(written)),
    ]


def head(run: RunData) -> list[Part]:
    """The question of the run, how it ended, and its main figures."""
    summary = run.summary
    parts: list[Part] = [Paragraph(summary.get("description") or "", "lead")]
    status = summary.get("status")
    if status != "completed":
        parts.append(Paragraph(f"This run is not complete ({status}): {position(run)}.", "notice"))
    return [*parts, Cards(figures(summary, run.config.get("evaluate.optimal_loss")))]


def position(run: RunData) -> str:
    """Where a run is that is not complete. A killed run could not write its step into the summary."""
    step = max(run.summary.get("steps") or 0, int(run.rows[-1]["step"]) if run.rows else 0)
    if (run.folder / "checkpoints" / "last").is_dir() or not step or run.summary.get("status") == "running":
        return f"it is at step {step:,}"
    return f"it ended at about step {step:,}, before its first checkpoint, so it starts again from step 0"


def figures(summary: Summary, optimal: float | None) -> list[tuple[str, str, str]]:
    """(value, name, remark) of the results that the run has. optimal: the lowest possible loss, if it is known."""
    best, side, seconds = shown(summary, "best_step", ","), summary.get("side"), summary.get("train_seconds")
    candidates = [
        (written(summary, "accuracy", share_text), "exact match", prompts_in_words([summary]) or side_name(side)),
        (written(summary, "best_val_loss", loss_text), "validation loss", "nats per token"),
        ("" if optimal is None else loss_text(optimal), "lowest possible loss", "given by the experiment"),
        (
            written(summary, "bits_per_byte", loss_text),
            "bits per byte",
            f"{'test' if side == 'test' else 'validation'} text",
        ),
        (best, "step of these figures", "checkpoint best"),
        ("" if seconds is None else duration(seconds), "of training", f"{shown(summary, 'steps', ',')} steps"),
        (shown(summary, "tokens_per_second", ",.0f"), "tokens per second", ""),
        (shown(summary, "parameters", ","), "parameters", ""),
    ]
    return [candidate for candidate in candidates if candidate[0]]


def shown(summary: Summary, key: str, form: str) -> str:
    """A field in a format; "" if the run does not have it."""
    value = summary.get(key)
    return "" if value is None else format(value, form)


def written(summary: Summary, key: str, form: Callable[[float], str]) -> str:
    """A figure as text; "" if the run does not have it."""
    return "" if summary.get(key) is None else form(summary[key])


def duration(seconds: float) -> str:
    """6.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 59.95:  # more would be rounded to 60.0, which is a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def curves(run: RunData) -> list[Part]:
    """Loss by step and by time, exact match and learning rate, if they were measured."""
    panels = present(run.rows, [BY_STEP, BY_SECONDS, ACCURACY, LEARNING_RATE])
    drawings = {panel.title: partial(draw, run.rows, [panel]) for panel in panels}
    return [Picture("loss curves", drawings, "loss_curves.png"), *group_pictures(run.rows)]


def sample_title(samples: list[Sample]) -> str:
    """The heading, with the score if the truth is known."""
    judged = [sample for sample in samples if sample.correct is not None]
    return f"Samples: {sum(bool(sample.correct) for sample in judged)} of {len(judged)} right" if judged else "Samples"


def samples(drawn: list[Sample]) -> list[Part]:
    """Answers beside the truth, or running texts with their given beginning in a softer colour."""
    first = drawn[:SHOWN_SAMPLES]
    parts: list[Part]
    if any(sample.truth is not None for sample in first):
        parts = [PageTable(("", "given", "model", "truth"), [answer(sample) for sample in first])]
    else:
        parts = [Code(sample.text, sample.start if sample.start.strip() else "") for sample in first]
    if len(drawn) > len(first):
        parts.append(Paragraph(f"The first {len(first)} of {len(drawn)}; all are in samples.txt.", "soft"))
    return parts


def answer(sample: Sample) -> list[Cell]:
    """One answer."""
    mark = {True: Cell("right", "mark good"), False: Cell("wrong", "mark bad"), None: Cell("")}[sample.correct]
    kind = "text bad" if sample.correct is False else "text"
    texts = (sample.start, "text"), (sample.text, kind), (sample.truth or "", "text")
    return [mark, *(Cell(escaped(text), kind) for text, kind in texts)]


def own_metrics(summary: Summary) -> list[Part]:
    """The metrics of prepare.py's evaluate(), of checkpoint best."""
    if not (found := summary.get("metrics")):
        return []
    rows = [[Cell(name), Cell(f"{value:.4g}")] for name, value in found.items()]
    return [Paragraph("Measured by evaluate() of prepare.py, for checkpoint best.", "soft"), PageTable((), rows)]


def reached(summary: Summary, interval: int | None) -> list[Part]:
    """When the training prompts were known, when the validation prompts, and the delay. interval: steps between evaluations."""
    found = summary.get("reached") or {}
    thresholds = list(dict.fromkeys(name for passed in found.values() for name in passed))
    if not thresholds:
        return []
    rows = [
        [Cell(share_text(float(name))), *(Cell(moment(found, side, name)) for side in ("train", "val"))]
        for name in sorted(thresholds, key=float)
    ]
    parts: list[Part] = [Paragraph(" ".join(told_of(found)))]
    if interval:
        parts.append(Paragraph(f"Measured at evaluations, every {interval:,} steps.", "soft"))
    return [*parts, PageTable(("exact match", "of training prompts", "of validation prompts"), rows)]


def told_of(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """Sentences about 99 % of the training prompts (memorised) and of the validation prompts (generalised)."""
    train, val = (found.get(side, {}).get("0.99") for side in ("train", "val"))
    yield f"Memorised, 99% of the training prompts right: {moment(found, 'train', '0.99') or 'not reached'}."
    yield f"Generalised, 99% of the validation prompts right: {moment(found, 'val', '0.99') or 'not reached'}."
    if train and val:
        delay = int(val["step"] - train["step"])
        plural = "s" * (abs(delay) != 1)
        if not delay:
            yield "Both at the same evaluation."
        else:
            yield f"It generalised {abs(delay):,} step{plural} {'after' if delay > 0 else 'before'} it had memorised."


def moment(found: Mapping[str, Mapping[str, Mapping[str, float]]], side: str, threshold: str) -> str:
    """`at step 1,200, after 34.2 s`; "" if a side did not reach a threshold."""
    passed = found.get(side, {}).get(threshold)
    return f"at step {int(passed['step']):,}, after {duration(passed['seconds'])}" if passed else ""


def accuracy(summary: Summary) -> list[Part]:
    """Exact match of each group with the number of its prompts and a bar."""
    prompts = side_name(summary.get("side")) if summary.get("prompts_by_group") else ""
    return [PageTable(("group", "exact match", prompts, ""), answers.group_rows(summary))]


def mistakes(written: Written) -> list[Part]:
    """Wrong answers, each with the training examples whose prompts are most similar."""
    if not written.mistakes:
        return []
    first = written.mistakes[:SHOWN_MISTAKES]
    number = f"All {written.wrong}" if written.wrong <= len(first) else f"{len(first)} of {written.wrong:,}"
    told = (
        f"{number} wrong answers to held-out prompts, each with the training examples whose prompts need the fewest edits"
        f" (of {written.searched:,} searched)."
    )
    return [
        Paragraph(told, "soft"),
        PageTable(("given", "model", "truth", "kind", "nearest in training"), list(map(mistake, first))),
    ]


def mistake(wrong: Mistake) -> list[Cell]:
    near = "\n".join(f"{prompt}{escaped(completion)}" for prompt, completion in wrong.nearest)
    answers = Cell(escaped(wrong.text), "text bad"), Cell(escaped(wrong.truth), "text")
    return [Cell(wrong.prompt, "text"), *answers, Cell(wrong.kind), Cell(near, "text soft")]


def cost(summary: Summary) -> list[Part]:
    """The cost of the result: time, tokens, operations, and how much of the machine was used."""
    seconds, wall = summary.get("train_seconds"), summary.get("wall_seconds")
    flops, mfu, peak = summary.get("flops"), summary.get("mfu"), summary.get("peak_flops")
    rows = [
        ("training", "" if seconds is None else duration(seconds)),
        ("with evaluations and checkpoints", "" if wall is None else duration(wall)),
        ("tokens", shown(summary, "tokens", ",")),
        ("operations, estimated", "" if flops is None else f"{quantity(flops)}FLOP"),
        ("share of this machine's measured peak", "" if mfu is None else f"{mfu:.1%} of {quantity(peak or 0)}FLOP/s"),
    ]
    return [PageTable((), [[Cell(name), Cell(value)] for name, value in rows if value])]


def quantity(number: float) -> str:
    """Three digits and a prefix: 1.23e12 -> "1.23 T"."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g} "


def again(summary: Summary) -> list[Part]:
    """The command of the run, and the seed, commit and data that it needs."""
    line = summary.get("command") or f"{Program.name()} loop {quoted(str(summary.get('experiment') or ''))}"
    commit = (summary.get("environment") or {}).get("git_commit")
    pins = [f"seed {summary['seed']}"] if summary.get("seed") is not None else []
    pins += [f"commit {commit}"] if commit else []
    pins += [f"data {summary['dataset_fingerprint'][:12]}"] if summary.get("dataset_fingerprint") else []
    return [Code(line), Paragraph(", ".join(pins), "soft")]


def settings(config: Mapping[str, Any]) -> list[Part]:
    """Every key of config.toml, section by section."""
    rows = [[Cell(key, "text"), Cell(json.dumps(value, ensure_ascii=False), "text")] for key, value in config.items()]
    return [PageTable(("key", "value"), rows, folded=f"All {len(rows)} keys")]


def environment(summary: Summary) -> list[Part]:
    """The hardware and software that the run used."""
    known = {"device": summary.get("device"), "dtype": summary.get("dtype"), **(summary.get("environment") or {})}
    rows = [[Cell(name.replace("_", " ")), Cell(str(value))] for name, value in known.items() if value is not None]
    return [PageTable((), rows)]
