"""Plots and the HTML report of a run folder."""

from __future__ import annotations

import itertools
import re
import struct
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from core import durable, files
from core.config import Config
from core.data.dataset import load_dataset
from core.data.documents import Example
from core.defaults import resolve
from core.errors import UserError
from core.report.nearest import nearest
from core.report.plots import (
    ACCURACY,
    BY_STEP,
    draw,
    loss_curves,
    lr_schedule,
    present,
    spread,
    svg,
    thinned,
    write_plots,
)
from core.report.run_report import duration, write_report
from core.report.samples import Mistake, Sample, Written, read_samples, write_samples
from core.roles import flat
from core.toml import dump
from core.tracking.metrics import MetricsFile, accuracy_columns

pytestmark = pytest.mark.pictures
HOSTILE = '</pre></td><script>alert("1")</script><img src=x onerror=alert(1)>&amp;\u2028'
SUMMARY = {
    "experiment": "insert_spaces", "run": "wide", "description": "Does width help?", "status": "completed", "seed": 7, "steps": 30,
    "train_seconds": 6.25, "tokens_per_second": 73012.3, "parameters": 805632, "device": "cpu", "dtype": "bfloat16",
    "best_val_loss": 0.01314, "best_step": 30, "bits_per_byte": 0.0421, "accuracy": 0.993, "accuracy_by_group": {"short": 1.0, "long": 0.912},
    "side": "test", "prompts": 1520, "prompts_by_group": {"short": 1000, "long": 520},
    "dataset_fingerprint": "d3adb33f" * 8, "environment": {"python": "3.11.7", "torch": "2.13.0", "git_commit": "7add6dd"},
    "command": "python -m core.cli loop insert_spaces --run wide",
}  # fmt: skip


def row(step: int, **extra: float) -> dict[str, float]:
    return {"step": step, "seconds": step / 10, "train_loss": 3 / step, "learning_rate": 0.02} | extra


def run_folder(folder: Path, rows: list[dict[str, float]], **summary: Any) -> Path:
    """A run folder as train writes it."""
    metrics = MetricsFile(folder, accuracy_columns(["short"]), keep_until=-1)
    for values in rows:
        metrics.append(values)
    durable.close(metrics.descriptor)  # metrics.json, which has no room for infinity, is not looked at
    files.write_text(folder / "config.toml", dump(resolve(Config()).model_dump()))
    files.write_json(folder / "summary.json", SUMMARY | summary)
    return folder


EVALUATED = [
    row(step, **({"val_loss": 3.2 / step, "val_accuracy": step / 30, "train_accuracy": 1.0} if step % 10 == 0 else {}))
    for step in range(1, 31)
]


class Reader(HTMLParser):
    """Collects the tags and the visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(folder: Path, samples: list[Sample] | None = None) -> tuple[str, Reader]:
    if samples:
        write_samples(folder, Written(samples))
    page = write_report(folder).read_text(encoding="utf-8")
    return page, Reader(page)


def size_of_png(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


# Plots


def test_the_pictures_are_real_and_accuracy_gets_a_panel_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir(), (tmp_path / "examples").mkdir()
    plain = write_plots(run_folder(tmp_path / "plain", [row(1), row(2, val_loss=2.0)]))
    examples = write_plots(run_folder(tmp_path / "examples", EVALUATED))
    assert [path.name for path in plain] == ["loss_curves.png", "lr_schedule.png"]
    assert size_of_png(examples[0])[0] == 1.5 * size_of_png(plain[0])[0]
    assert size_of_png(examples[1]) == size_of_png(plain[1])


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(10, val_loss=1.0)],
        [row(10)],
        [{"step": 5, "seconds": 1.0}],
        [row(1), row(2, val_loss=float("nan")), row(3, train_loss=float("inf"))],
        [row(1, learning_rate=0.0, train_loss=0.0, val_loss=0.0)],
    ],
)
def test_few_blank_and_infinite_values_can_be_drawn(rows: list[dict[str, float]], tmp_path: Path) -> None:
    for path in write_plots(run_folder(tmp_path, rows)):
        assert min(size_of_png(path)) > 300
    read(tmp_path)


def test_curves_end_in_their_final_values() -> None:
    texts = {text.get_text() for ax in loss_curves(EVALUATED).axes for text in ax.texts}
    assert texts == {"train 0.100", "val 0.107", "val 100.0%", "train 100.0%", "memorised", "generalised"}
    assert [text.get_text() for text in lr_schedule(EVALUATED).axes[0].texts] == ["0.02"]


def test_a_loss_that_falls_by_more_than_tenfold_has_a_logarithmic_axis() -> None:
    assert loss_curves(EVALUATED).axes[0].get_yscale() == "log"
    assert loss_curves(EVALUATED[2:12]).axes[0].get_yscale() == "linear"


def test_labels_stand_at_the_height_of_their_curves() -> None:
    rows = [row(step, train_loss=4 - step / 10, val_loss=4.0) for step in range(1, 21)]
    ax = loss_curves(rows).axes[0]
    low, high = ax.get_ylim()
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert heights == pytest.approx({"train 2.000": (2 - low) / (high - low), "val 4.000": (4 - low) / (high - low)})


@given(heights=st.lists(st.floats(0, 1), max_size=13))
def test_labels_never_overlap_and_stay_on_the_panel(heights: list[float]) -> None:
    result = spread(heights, 0.075)
    assert all(-1e-9 <= height <= 1 + 1e-9 for height in result)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    assert all(result[above] - result[below] > 0.0749 for below, above in itertools.pairwise(order))


def test_labels_that_have_room_stay_where_they_are() -> None:
    assert spread([0.9, 0.2, 0.5], 0.075) == pytest.approx([0.9, 0.2, 0.5])
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])


def test_panels_without_data_are_left_out() -> None:
    assert present([row(1)], [BY_STEP, ACCURACY]) == [BY_STEP]


def test_svg_stands_alone_in_the_colours_of_the_page() -> None:
    drawing = svg(draw(EVALUATED, [BY_STEP]), 'a "label" <b>')
    root = ElementTree.fromstring(re.sub(r"xlink:", "", drawing))
    assert root.get("aria-label") == 'a "label" <b>'
    assert "currentColor" in drawing and "var(--blue, #0072b2)" in drawing
    assert "#444444" not in drawing and "http" not in drawing
    assert "nats per token" in "".join(root.itertext())


# The report


def test_the_report_tells_the_result_the_settings_and_the_command(tmp_path: Path) -> None:
    page, reader = read(run_folder(tmp_path, EVALUATED))
    assert "<title>insert_spaces / wide</title>" in page
    expected = ("Does width help?", "99.3%", "0.0131", "0.0421", "6.2 s", "73,012", "805,632", "91.2%", "2.13.0",
                SUMMARY["command"], "seed 7, commit 7add6dd, data d3adb33fd3ad")  # fmt: skip
    assert [text for text in expected if str(text) not in reader.text] == []
    assert [key for key in flat(resolve(Config()).model_dump()) if key not in reader.text] == []
    assert "not complete" not in reader.text
    assert [tag for tag, _ in reader.tags].count("svg") == 4


def test_samples_stand_beside_the_truth_with_the_score(tmp_path: Path) -> None:
    samples = [Sample("ab: ", "a b\n", "a b\n"), Sample("dab: ", "d b\n", "d a b\n"), Sample("free", " text")]
    page, reader = read(run_folder(tmp_path, EVALUATED), samples)
    assert "Samples: 1 of 2 right" in reader.text
    cells = '<td class="mark bad">wrong</td><td class="text">dab: </td><td class="text bad">d b</td><td class="text">d a b</td>'
    assert cells in page


def test_running_text_shows_what_was_given_softly(tmp_path: Path) -> None:
    page, _ = read(run_folder(tmp_path, EVALUATED), [Sample("ROMEO:", "\nAy me!"), Sample("\n", "JULIET")])
    assert '<pre><span class="soft">ROMEO:</span>\nAy me!</pre>' in page
    assert "<pre>JULIET</pre>" in page


def test_many_samples_are_cut_and_the_reader_is_told(tmp_path: Path) -> None:
    _, reader = read(run_folder(tmp_path, EVALUATED), [Sample("a", str(number), "b") for number in range(60)])
    assert "The first 50 of 60; all are in samples.txt." in reader.text
    assert "Samples: 0 of 60 right" in reader.text


@pytest.mark.parametrize("truth", [None, HOSTILE])
def test_hostile_text_is_shown_and_does_nothing(truth: str | None, tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path, EVALUATED, description=HOSTILE, experiment=HOSTILE, run=HOSTILE, status=HOSTILE, command=HOSTILE,
        accuracy_by_group={HOSTILE: 0.5}, environment={HOSTILE: HOSTILE}, device=HOSTILE,
    )  # fmt: skip
    _, reader = read(folder, [Sample(HOSTILE, HOSTILE, truth)])
    assert not {"script", "img", "iframe", "link", "object"} & {tag for tag, _ in reader.tags}
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert reader.text.count(HOSTILE) >= 9


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page, reader = read(run_folder(tmp_path, EVALUATED), [Sample("a", "b", "c")])
    references = [
        value
        for _, attributes in reader.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset")
    ]
    assert all(value and value.startswith("#") for value in references)
    assert not re.search(r"https?://|@import|url\((?!#)", page)


def test_each_share_stands_with_its_prompts_and_all_figures_are_of_one_step(tmp_path: Path) -> None:
    _, reader = read(run_folder(tmp_path, EVALUATED))
    for said in ("exact match1,520 test prompts", "bits per bytetest text", "30step of these figurescheckpoint best"):
        assert said in reader.text.replace("\n", "")
    assert "| group | exact match | test prompts |  |" in (tmp_path / "report.md").read_text()
    assert "| long | 91.2% | 520 |" in (tmp_path / "report.md").read_text()


def test_an_older_run_has_the_figures_of_its_checkpoint(tmp_path: Path) -> None:
    """It recorded the lowest loss of the run beside the step of checkpoint best, and exact match of 100 prompts."""
    rows = [row(100, val_loss=0.4889, val_accuracy=0.03), row(200, val_loss=0.6638, val_accuracy=0.08)]
    older = {
        "best_val_loss": 0.4889,
        "best_step": 200,
        "accuracy": 0.08,
        "side": None,
        "prompts": None,
        "prompts_by_group": None,
    }
    _, reader = read(run_folder(tmp_path, rows, **older))
    text = reader.text.replace("\n", "")
    assert (
        "0.6638validation loss" in text
        and "200step of these figures" in text
        and "0.4889" not in text.partition("Best values")[0]
    )
    assert "8.0%exact matchvalidation prompts" in text


def test_small_losses_are_not_shown_as_zero(tmp_path: Path) -> None:
    run_folder(tmp_path, [row(10, val_loss=4.2e-6)], best_val_loss=4.2e-6, bits_per_byte=3.1e-5, accuracy=0.99999)
    _, reader = read(tmp_path)
    assert "4.2e-06" in reader.text and "3.1e-05" in reader.text and "99.999%" in reader.text
    assert "0.0000" not in reader.text and "100.0%exact" not in reader.text.replace("\n", "")


def test_a_group_without_a_name_or_with_a_line_break_keeps_its_row(tmp_path: Path) -> None:
    groups = {"": 0.5, "a\nb": 0.25, " c": 1.0, "ä b": 0.75}
    run_folder(tmp_path, EVALUATED, accuracy_by_group=groups, prompts_by_group=dict.fromkeys(groups, 4))
    _, reader = read(tmp_path)
    twin = (tmp_path / "report.md").read_text()
    for shown in ('| "" | 50.0% | 4 |', r'| "a\\nb" | 25.0% | 4 |', '| " c" | 100.0% | 4 |', "| ä b | 75.0% | 4 |"):
        assert shown in twin
    assert r'"a\nb"' in reader.text


def test_a_report_on_many_rows_is_quick_and_small(tmp_path: Path) -> None:
    """100,000 rows: of the curve, what can be seen is drawn. The highest and lowest values are."""
    rows = [row(step, val_loss=2.0 + (step == 51_234)) for step in range(1, 100_001)]
    folder = run_folder(tmp_path, [])
    lines = ["step,seconds,train_loss,val_loss"] + [
        f"{r['step']},{r['seconds']},{r['train_loss']},{r['val_loss']}" for r in rows
    ]
    files.write_text(folder / "metrics.csv", "\n".join(lines) + "\n")
    begin = time.monotonic()
    page = write_report(folder)
    assert time.monotonic() - begin < 5
    assert page.stat().st_size < 500_000
    assert (51_234, 3.0) in thinned([(r["step"], r["val_loss"]) for r in rows])
    assert thinned([(1.0, 2.0), (2.0, 3.0)]) == [(1.0, 2.0), (2.0, 3.0)]


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path, [], status="interrupted", steps=1200, accuracy=None, accuracy_by_group=None, best_val_loss=None
    )
    (folder / "checkpoints" / "last").mkdir(parents=True)
    _, reader = read(folder)
    assert "This run is not complete (interrupted): it is at step 1,200." in reader.text
    assert (
        "Curves" not in reader.text
        and "Exact match by group" not in reader.text
        and "validation loss" not in reader.text
    )


def test_a_summary_of_little_is_enough(tmp_path: Path) -> None:
    run_folder(tmp_path, EVALUATED)
    files.write_json(tmp_path / "summary.json", {"experiment": "mine", "run": "default", "status": "completed"})
    _, reader = read(tmp_path)
    assert "python -m core.cli loop mine" in reader.text


def test_a_folder_without_config_is_no_run(tmp_path: Path) -> None:
    run_folder(tmp_path, EVALUATED)
    (tmp_path / "config.toml").unlink()
    with pytest.raises(UserError, match=r"the run has no config\.toml\n  Train it again with `fresh=True`\."):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (60, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# The twin in Markdown


def test_the_twin_says_the_same(tmp_path: Path) -> None:
    written = Written(
        [Sample("ab: ", "a b\n", "a b\n"), Sample("dab: ", "d b\n", "d a b\n")],
        [Mistake("dab: ", "d b\n", "d a b\n", "3", [("dac: ", "d a c\n"), ("da: ", "d a\n")])],
        wrong=7,
        searched=1234,
    )
    write_samples(run_folder(tmp_path, EVALUATED), written)
    _, reader = read(tmp_path)
    twin = (tmp_path / "report.md").read_text(encoding="utf-8")
    seen = (
        "Does width help?", "99.3%", "0.0131", "6.2 s", "73,012", "91.2%", SUMMARY["command"], "seed 7, commit 7add6dd",
        "Samples: 1 of 2 right", "1 of 7 wrong answers", "of 1,234 searched", "dac: d a c",
    )  # fmt: skip
    for text in seen:
        assert text in reader.text
        assert text in twin
    assert "| wrong | dab: | d b | d a b |" in twin
    assert "dac: d a c<br>da: d a" in twin
    assert "![loss curves](loss_curves.png)" in twin
    assert "train.optim.learning\\_rate" in twin


def test_hostile_text_is_only_text_in_markdown(tmp_path: Path) -> None:
    run_folder(tmp_path, EVALUATED, description=HOSTILE, command="```\n<img src=x>", run="| [a](b) `c`")
    write_samples(tmp_path, Written([Sample("``` <b>", "# no title")]))
    write_report(tmp_path)
    twin = (tmp_path / "report.md").read_text(encoding="utf-8")
    fenced = re.sub(r"(?ms)^(`{3,})text$.*?^\1$", "", twin)
    assert "```" not in fenced
    assert not re.search(r"(?<!\\)<(?!br>)", fenced)
    assert r"\| \[a\](b) \`c\`" in fenced


def test_cost_names_operations_and_the_share_of_the_peak(tmp_path: Path) -> None:
    _, reader = read(
        run_folder(tmp_path, EVALUATED, flops=2_550_000_000_000, mfu=0.104, peak_flops=369e9, wall_seconds=80.2)
    )
    assert "2.55 TFLOP" in reader.text
    assert "10.4% of 369 GFLOP/s" in reader.text
    assert "1 min 20 s" in reader.text


def test_the_loss_that_none_can_be_below_stands_beside_that_of_the_run(tmp_path: Path) -> None:
    config = Config.model_validate({"evaluate": {"optimal_loss": 0.0099}})
    run_folder(tmp_path, EVALUATED)
    assert "lowest possible" not in read(tmp_path)[1].text
    files.write_text(tmp_path / "config.toml", dump(resolve(config).model_dump()))
    assert "0.0099lowest possible loss" in read(tmp_path)[1].text


def test_damaged_samples_are_told(tmp_path: Path) -> None:
    run_folder(tmp_path, EVALUATED)
    (tmp_path / "samples.json").write_text('{"samples": [3]}')
    with pytest.raises(
        UserError, match=r"samples\.json: not the samples of a run\n  Delete it; `loop` writes it again\."
    ):
        write_report(tmp_path)


def test_wrong_answers_stand_beside_what_was_learnt(spaces: Path, terrarium: Callable[..., Result]) -> None:
    done = terrarium("loop", "spaces")
    assert done.exit_code == 0, done.output
    run = spaces / "out" / "default"
    kept = read_samples(run)
    assert kept.wrong >= len(kept.mistakes) > 0  # six steps teach nothing
    dataset = load_dataset(spaces / "datasets" / "basic")
    learnt = {(example.prompt, example.completion) for example in dataset.examples("train", 0)}
    held_out = {(example.prompt, example.completion) for example in dataset.examples("val", 0)}
    assert kept.searched == len(learnt)
    for mistake in kept.mistakes:
        assert (mistake.prompt, mistake.truth) in held_out
        assert mistake.text != mistake.truth
        assert len(mistake.nearest) == 2 and set(mistake.nearest) <= learnt
    assert "Wrong answers" in (run / "report.html").read_text()
    before = (run / "report.md").read_text()
    assert terrarium("train", "spaces").exit_code == 0  # it is finished; its report is written again
    assert (run / "report.md").read_text() == before


def distance(one: str, other: str) -> int:
    """Levenshtein's, by its definition."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        before, row[0] = row[0], number
        for at, wanted in enumerate(other, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (letter != wanted))
    return row[-1]


WORDS = st.text("abc", max_size=5)


@given(prompt=WORDS, prompts=st.lists(WORDS, max_size=8))
def test_the_nearest_examples_are_those_of_fewest_edits(prompt: str, prompts: list[str]) -> None:
    found = nearest(prompt, [Example(text, str(number)) for number, text in enumerate(prompts)])
    expected = sorted(range(len(prompts)), key=lambda number: (distance(prompt, prompts[number]), number))[:2]
    assert [int(example.completion) for example in found] == expected
