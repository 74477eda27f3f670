"""The report about all stages of a run: its figures are those of pipeline.json, and it needs no model and no dataset."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from core.cli.main import cli
from core.evaluation.intervals import correlation_of, of_difference, wilson
from core.report import changes
from core.report.after_stage import OnData
from core.report.changes import BETTER, UNCLEAR, UNKNOWN, WORSE, Change, loss_change, loss_interval, share_change
from core.report.document import Dialogue, Document, PageSection, PageTable, Said
from core.report.markdown import markdown
from core.report.page import page
from core.report.pipeline_report import write_pipeline_report
from core.report.reward import Rewarded, rewarded
from core.report.runs import RunData
from core.report.stage_costs import commit_text
from core.report.stage_figures import read_pipeline
from core.report.stage_gains import reward_section
from core.report.stage_words import figure_text

Terrarium = Callable[..., Result]
PREPARE = '''"""Frogs: texts, then questions, then the same questions again."""

from core import Conversation, Message

WORDS = ("moss", "pond", "leaf", "rain", "mud", "fern", "toad", "newt")


def texts(rng):
    while True:
        yield " ".join(rng.choices(WORDS, k=14)) + ".\\n"


def talks(rng):
    while True:
        words = ["".join(rng.choices("abcdef", k=3)) for _ in range(rng.randint(1, 2))]
        turns = [turn for word in words for turn in (Message("user", f"Say {word}"), Message("assistant", word))]
        yield Conversation(turns, group=rng.choice(["one", "two"]) if len(words) == 1 else None)
'''
STAGES = """
[[stages]]
name = "base"
prepare.documents = "texts"

[[stages]]
name = "talk"
prepare.documents = "talks"

[[stages]]
name = "more"
prepare.documents = "talks"
prepare.seed = 5
"""
CONFIG = (
    TINY.replace("size = 2000", 'size = 6000\nencoder = "bytes"\nspecial_tokens = "chat"')
    .replace("block_size = 16", "block_size = 64")
    .replace("n_embd = 16", "n_embd = 8")
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of texts and conversations whose loop has ended."""
    folder = tmp_path_factory.mktemp("looped") / "experiments" / "frogs"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(CONFIG + STAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent.parent)
        patch.delenv("TERRARIUM_EXPERIMENTS", raising=False)
        done = CliRunner().invoke(cli, ["loop", "frogs"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def frogs(lab: Path, whole: Path) -> Path:
    """The same, in a place of its own."""
    return Path(shutil.copytree(whole, lab / "frogs"))


class Balanced(HTMLParser):
    """Raises AssertionError where tags do not close in order."""

    VOID = ("meta", "br", "use", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def after_stage(experiment: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((experiment / "out/default" / stage / "after_stage.json").read_text())
    return found


def rows_of(experiment: Path) -> dict[str, list[str]]:
    """The cells of each row of the page's tables in Markdown, by their first cell, without notes."""
    text = (experiment / "out/default/report.md").read_text().replace("\\_", "_")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            first, *cells = (cell.partition("<br>")[0].strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            found.setdefault(first, cells)
    return found


def section(experiment: Path, title: str) -> str:
    text = (experiment / "out/default/report.md").read_text()
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0].replace("\\", "")


def test_the_page_has_every_section_and_its_tags_close(frogs: Path) -> None:
    html, text = ((frogs / "out/default" / name).read_text() for name in ("report.html", "report.md"))
    Balanced(re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL))
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert titles == re.findall(r"<h2>(.+)</h2>", html) == [
        "What each stage gained and forgot", "Metrics by stage", "What was forgotten", "Curves", "Same prompts, stage by stage",
        "Conversations", "Tokenizer", "Data", "Cost", "Machine and code", "Run it again",
    ]  # fmt: skip
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert "python -m core.cli" in section(frogs, "Run it again")


def test_its_figures_are_those_of_the_file(frogs: Path) -> None:
    table = json.loads((frogs / "out/default/pipeline.json").read_text())["table"]
    rows, shown = rows_of(frogs), 0
    for key, values in table.items():
        if "/" in key or key == "bits_per_byte":
            assert rows[key] == [
                figure_text(key, values[stage]) if stage in values else "" for stage in ("base", "talk", "more")
            ]
            shown += 1
    assert shown == 8 and "val_loss" not in rows  # the same as base/val_loss after base, and so on
    main = table["talk/test_accuracy"]
    gained = f"{figure_text('accuracy', main['base'])} → {figure_text('accuracy', main['talk'])}"
    assert gained in section(frogs, "What each stage gained and forgot")


def test_what_was_forgotten_is_compared_along_the_line_of_weights(frogs: Path) -> None:
    pipeline = read_pipeline(frogs / "out/default", "frogs", ["base", "talk", "more"])
    assert pipeline.lines == {"base": ["base"], "talk": ["base", "talk"], "more": ["base", "talk", "more"]}
    change = pipeline.change("base/val_loss", "base", "more")
    assert change and change.interval and change.interval[0] < change.after - change.before < change.interval[1]
    told = section(frogs, "What was forgotten")
    assert ("base/val_loss" in told.partition("|")[0]) == (change.verdict == WORSE)
    assert "after more" in told and "more/" not in told.replace("after more", "")


def test_every_stage_completes_the_same_prompts(frogs: Path) -> None:
    found = {stage: after_stage(frogs, stage)["on"] for stage in ("base", "talk", "more")}
    for data in found:
        asked = {json.dumps([sample["prompt"] for sample in on[data]["samples"]]) for on in found.values()}
        assert len(asked) == 1 and len(json.loads(asked.pop())) == {"base": 4}.get(data, 8)
    texts, questions = found["base"]["base"]["samples"], found["talk"]["talk"]["samples"]
    assert all(sample["correct"] is None and not sample["truth"].startswith(sample["prompt"]) for sample in texts)
    assert all(sample["prompt"].startswith("Say ") and sample["correct"] in (True, False) for sample in questions)
    shown = section(frogs, "Same prompts, stage by stage")
    assert all(sample["prompt"] in shown for sample in [*texts, *questions])
    assert "| prompt | after base | after talk | after more | in the data |" in shown


def test_prompts_are_held_out(frogs: Path, terrarium: Terrarium) -> None:
    from core import open_experiment

    known = {
        example.prompt for example in open_experiment("frogs").run("default/talk").load().dataset.examples("train", 0)
    }
    asked = [sample["prompt"] for sample in after_stage(frogs, "talk")["on"]["talk"]["samples"]]
    assert not any(f"<|user|>{prompt}<|end|>" in text for prompt in asked for text in known)


def test_conversations_are_shown_turn_by_turn(frogs: Path) -> None:
    assert after_stage(frogs, "base")["on"]["talk"]["talks"] == []  # it was not taught to talk
    talks = after_stage(frogs, "more")["on"]["more"]["talks"]
    assert talks and all([turn["role"] for turn in talk[:2]] == ["user", "assistant"] for talk in talks)
    assert all(turn["text"] != turn["expected"] for talk in talks for turn in talk)
    assert f"**user:** {talks[0][0]['text']}" in section(frogs, "Conversations")
    html = (frogs / "out/default/report.html").read_text()
    assert '<div class="turn user"><b>user</b>Say ' in html and "<summary>After talk, conversation 1</summary>" in html


def test_tokenizer_data_cost_and_machine(frogs: Path) -> None:
    info = json.loads((frogs / "datasets/basic/base/dataset.json").read_text())
    tokens, documents = info["train"]["tokens"], info["train"]["documents"]
    assert f"{info['train']['bytes'] / tokens:.3f}" in section(frogs, "Tokenizer")
    assert "All stages have one tokenizer" in section(frogs, "Tokenizer") and "7 of them special" in section(
        frogs, "Tokenizer"
    )
    data = section(frogs, "Data")
    assert f"texts() of prepare.py | {documents:,} | {tokens:,} |" in data and "| talk | one |" in data
    pipeline = json.loads((frogs / "out/default/pipeline.json").read_text())
    cost = section(frogs, "Cost")
    assert all(f"{count:,}" in cost for count in [*pipeline["tokens"].values(), sum(pipeline["tokens"].values())])
    summary = json.loads((frogs / "out/default/talk/summary.json").read_text())
    assert f"{summary['mfu']:.1%}" in cost if summary["mfu"] else True
    assert f"| torch | {summary['environment']['torch']} |" in section(frogs, "Machine and code")
    assert "none (not in git); the experiment's code has the hash" in section(frogs, "Machine and code")


def test_it_is_written_again_without_models_and_data(frogs: Path, terrarium: Terrarium) -> None:
    shutil.rmtree(frogs / "datasets")
    for folder in frogs.glob("out/default/*/checkpoints"):
        shutil.rmtree(folder)
    before = {name: (frogs / "out/default" / name).read_bytes() for name in ("report.md", "pipeline.json")}
    for name in ("report.html", "report.md"):
        (frogs / "out/default" / name).unlink()
    done = terrarium("report", "frogs")
    path = frogs / "out/default/report.html"
    assert done.exit_code == 0 and f"stages of default: {path}" in done.output, done.output
    assert {name: (frogs / "out/default" / name).read_bytes() for name in before} == before
    one = json.loads(terrarium("report", "frogs", "--run", "default", "--json").stdout)
    assert one["files"] == {"html": str(path), "md": str(path.with_suffix(".md"))} and "stages" not in one
    every = json.loads(terrarium("report", "frogs", "--json").stdout)
    assert every["stages"] == {"default": one["files"]}
    assert every["files"]["html"] == str(frogs / "out/report.html")


def test_a_run_from_before_has_a_page_without_intervals_of_losses(frogs: Path, terrarium: Terrarium) -> None:
    for path in frogs.glob("out/default/*/after_stage.json"):
        path.unlink()
    assert terrarium("report", "frogs", "--run", "default").exit_code == 0
    text = (frogs / "out/default/report.md").read_text()
    assert "## Tokenizer" not in text and "## Conversations" not in text
    assert "no interval" in section(frogs, "What was forgotten")


def test_what_is_of_other_weights_is_left_out(frogs: Path, terrarium: Terrarium) -> None:
    path = frogs / "out/default/more/after_stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": 1}))
    assert terrarium("report", "frogs", "--run", "default").exit_code == 0
    assert "| prompt | after base | after talk | in the data |" in section(frogs, "Same prompts, stage by stage")


def test_a_damaged_file_is_named(frogs: Path, terrarium: Terrarium) -> None:
    path = frogs / "out/default/talk/after_stage.json"
    for text in ("{", '{"step": 3}', "[]", path.read_text().replace('"tokens"', '"tokans"', 1)):
        path.write_text(text)
        refused = terrarium("report", "frogs", "--run", "default")
        assert refused.exit_code == 2, refused.output
        assert "not what was measured after a stage" in refused.stderr and str(path) in refused.stderr
        assert "Delete it. The report is then without samples of this stage" in refused.stderr


def test_a_run_with_a_stage_that_has_not_begun(frogs: Path, terrarium: Terrarium) -> None:
    shutil.rmtree(frogs / "out/default/more")
    shutil.rmtree(frogs / "out/default/talk")
    done = terrarium("report", "frogs", "--run", "default")
    assert done.exit_code == 0, done.output
    assert "1 of them complete" in (frogs / "out/default/report.md").read_text()
    assert "validation loss, from fresh weights" in section(frogs, "What each stage gained and forgot")


def test_an_experiment_without_stages_has_no_such_pages(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    assert set(json.loads(terrarium("report", "spaces", "--json").stdout)) == {"experiment", "files"}
    assert "stages" not in terrarium("report", "spaces").output
    assert not (spaces / "out/default/after_stage.json").exists()


# Reward and skill


def values(reward: Sequence[float], strict: Sequence[float], lenient: Sequence[float]) -> list[dict[str, float]]:
    pairs = zip(reward, strict, lenient, strict=True)
    return [
        {"step": 10.0 * step, "reward": a, "strict_accuracy": b, "lenient_accuracy": c}
        for step, (a, b, c) in enumerate(pairs, 1)
    ]


def with_reward(rows: list[dict[str, float]], **config: Any) -> RunData:
    steps = {"train.objective.prompts_per_step": 20, "train.runtime.log_interval": 10}
    run = RunData(Path(), {}, {"train.objective.kind": "reward"} | steps | config)
    run.__dict__["rows"] = rows
    return run


def of(rows: list[dict[str, float]], **config: Any) -> Rewarded:
    found = rewarded(with_reward(rows, **config))
    assert found is not None
    return found


def test_a_reward_for_form_alone_is_told_in_plain_words() -> None:
    form = of(values([0.1, 0.5, 0.9], [0.1, 0.4, 0.5], [0.5, 0.52, 0.51]))
    assert form.verdict == "The reward rose, the skill did not."
    assert form.changes["strict_accuracy"].verdict == BETTER and form.changes["lenient_accuracy"].verdict == UNCLEAR
    assert of(values([0.1, 0.9], [0.1, 0.3], [0.6, 0.4])).verdict == "The reward rose, the skill did not, and fell."
    assert (
        of(values([0.1, 0.9], [0.1, 0.5], [0.3, 0.6])).verdict
        == "The skill rose: more answers are right, in whatever form."
    )
    assert (
        of(values([0.5, 0.52], [0.3, 0.3], [0.4, 0.42])).verdict
        == "Neither the reward nor the skill rose beyond its interval."
    )
    fell = of(values([0.5, 0.5], [0.3, 0.3], [0.6, 0.2])).verdict
    assert fell == "Neither the reward nor the skill rose beyond its interval; the skill fell."
    some = [
        {name: value for name, value in row.items() if name != "lenient_accuracy"}
        for row in values([0.1, 0.9], [0, 1], [0, 0])
    ]
    assert "says whether the skill rose" in of(some).verdict


def test_how_many_prompts_a_reward_is_of() -> None:
    rows = values([0.1, 0.9], [0.1, 0.5], [0.5, 0.5])
    assert of(rows).prompts == (200, 200)
    rows[-1]["step"] = 14.0  # the last row is of fewer steps
    assert of(rows).prompts == (200, 80)
    assert of(rows, **{"train.objective.prompts_per_step": 0}).changes["reward"].verdict == UNKNOWN
    assert rewarded(with_reward([])) is None
    assert rewarded(RunData(Path(), {}, {})) is None


def test_the_first_and_the_last_tenth_of_the_steps_are_compared() -> None:
    """A last row of one step is not taken alone: it is mostly chance."""
    rows = values([0.1] + [0.5] * 18 + [0.8], [0.0] * 20, [0.0] * 20)
    rows[-1]["step"] = 191.0
    found = of(rows)
    assert found.prompts == (400, 420)
    change = found.changes["reward"]
    assert (change.before, change.after) == (pytest.approx(0.3), pytest.approx((0.8 + 20 * 0.5) / 21))
    assert of(values([0.1], [0.1], [0.1])).changes["reward"].verdict == UNCLEAR


@pytest.mark.parametrize("reward", [(-1.0, 0.5), (0.4, 12.0)])
def test_a_reward_that_is_no_share_has_no_interval(reward: tuple[float, float]) -> None:
    found = of(values(reward, [0.1, 0.1], [0.5, 0.5]))
    assert found.changes["reward"].verdict == UNKNOWN
    assert found.verdict.startswith("The skill did not rise beyond its interval. The reward is no share")
    table = reward_section(found)[1]
    assert isinstance(table, PageTable)
    assert [cell.text for cell in table.rows[0]][1:4] == [
        f"{reward[0]:.4f}",
        f"{reward[1]:.4f}",
        f"{reward[1] - reward[0]:+.4f}",
    ]
    assert of(values(reward, [0.1, 0.9], [0.5, 0.5])).verdict == "The reward rose, the skill did not."
    assert of(values(reward, [0.1, 0.1], [0.5, 0.1])).verdict.startswith("The skill fell.")


def test_a_stage_with_a_reward_says_so_at_the_top(frogs: Path) -> None:
    folder = frogs / "out/default/more"
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace('kind = "tokens"', 'kind = "reward"'))
    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    more = ["0.0,0.0,0.5", *[",,"] * (len(lines) - 2), "1.0,1.0,0.5"]
    rows = [
        f"{header},reward,strict_accuracy,lenient_accuracy",
        *(f"{a},{b}" for a, b in zip(lines, more, strict=True)),
    ]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    write_pipeline_report(frogs / "out/default", "frogs", ["base", "talk", "more"])
    text = (frogs / "out/default/report.md").read_text()
    assert "> In stage more: The reward rose, the skill did not." in text
    told = section(frogs, "Reward and skill in more")
    assert told.strip().startswith("The reward rose, the skill did not.") and "| 50.0% | 50.0% | +0.0 points" in told
    assert "reward by step" in (frogs / "out/default/report.html").read_text()


# Changes and their intervals


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=60))
def test_a_change_of_shares_backwards_is_the_same_backwards(pairs: list[tuple[bool, bool]]) -> None:
    first, second = ("".join("01"[pair[side]] for pair in pairs) for side in (0, 1))
    a, b, n = first.count("1") / len(pairs), second.count("1") / len(pairs), len(pairs)
    there, back = share_change(a, b, (n, n), (first, second)), share_change(b, a, (n, n), (second, first))
    assert there.interval and back.interval
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.interval[0] - 1e-9 <= b - a <= there.interval[1] + 1e-9
    if first == second:
        assert there.verdict == UNCLEAR


def test_the_intervals_are_those_of_the_papers() -> None:
    """Newcombe (1998): 56/70 and 48/80 unpaired, method 10; and of pairs, whose intervals are narrower where answers agree."""
    low, high = of_difference((48 / 80, 56 / 70), (wilson(48 / 80, 80), wilson(56 / 70, 70)))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=2e-4)
    first, second = "1" * 30 + "0" * 20, "1" * 40 + "0" * 10
    paired, not_paired = (share_change(0.6, 0.8, (50, 50), right).interval for right in ((first, second), ("", "")))
    assert paired and not_paired and paired[0] > not_paired[0] and paired[1] < not_paired[1]
    assert correlation_of([True, False], [True, True]) == 0.0


def test_the_interval_of_a_share_holds_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        skill = rng.random(200)
        first, second = skill + 0.1 * rng.random(200) > 0.5, skill + 0.1 * rng.random(200) > 0.45
        marks = tuple("".join("01"[int(each)] for each in found) for found in (first, second))
        change = share_change(first.mean(), second.mean(), (200, 200), (marks[0], marks[1]))
        assert change.interval
        held += change.interval[0] <= 0.05 <= change.interval[1]
    assert held / 400 > 0.92


def test_the_interval_of_a_loss_holds_as_often_as_it_says() -> None:
    rng, held, of_change = np.random.default_rng(2), 0, 0
    for _ in range(400):
        targets = rng.integers(50, 200, 20)
        hard = rng.normal(2, 0.5, 20)
        nats = [(hard + shift + rng.normal(0, 0.05, 20)) * targets for shift in (0.0, 0.03)]
        first, second = (OnData(part.tolist(), targets.tolist()) for part in nats)
        a, b = (float(part.sum() / targets.sum()) for part in nats)
        interval, change = loss_interval(a, first), loss_change(a, b, first, second)
        assert interval and change.interval
        held += interval[0] <= 2 <= interval[1]
        of_change += change.interval[0] <= 0.03 <= change.interval[1]
        assert change.interval[1] - change.interval[0] < (interval[1] - interval[0]) / 2  # hard parts are hard for both
    assert held / 400 > 0.92 and of_change / 400 > 0.92


def test_without_enough_to_go_by_there_is_no_interval() -> None:
    few = OnData([2.0, 3.0], [1, 1])
    assert loss_interval(2.5, few) is None and loss_interval(2.5, OnData()) is None
    assert loss_change(2.5, 2.0, few, few).verdict == UNKNOWN
    some, other = OnData([2.0, 3.0, 4.0], [1, 1, 1]), OnData([2.0, 3.0, 4.0], [1, 1, 2])
    assert loss_change(3.0, 2.25, some, other).verdict == UNKNOWN  # other data
    assert share_change(0.1, 0.9, (None, 10)).verdict == UNKNOWN
    assert Change(0.5, 0.5, None, up=True).verdict == UNCLEAR
    assert loss_change(2.0, 3.0, some, OnData([5.0, 6.0, 7.1], [1, 1, 1])).verdict == WORSE
    assert changes.half_width(np.array([1.0, 2.0, 3.0]), np.zeros(3)) is None


# Turns


def test_turns_are_text_and_never_markup() -> None:
    hostile = "<script>alert(1)</script> **x** | y\n# z"
    document = Document("t", [], [PageSection("s", [Dialogue([Said("user", hostile, hostile)], "folded & shut")])])
    html, text = page(document), markdown(document)
    assert "<script>" not in html and "<summary>folded &amp; shut</summary>" in html
    [line] = [line for line in text.splitlines() if line.startswith("- ")]
    assert r"\*\*x\*\*" in line and r"\<script" in line
    assert page(Document("t", [], [PageSection("s", [Dialogue([])])])).count("<h2>") == 0


# Commits


def test_a_commit_is_named_with_changes() -> None:
    commit = "0123456789abcdef" * 2
    assert commit_text({"environment": {"git_commit": commit, "git_dirty": False}}) == "0123456789ab, unchanged"
    changed = commit_text({"environment": {"git_commit": f"{commit}+changes", "git_dirty": True}})
    assert changed == "0123456789ab with uncommitted changes"
    assert commit_text({}) is None


def test_stages_of_different_commits_are_told_apart(frogs: Path, terrarium: Terrarium) -> None:
    path = frogs / "out/default/more/summary.json"
    summary = json.loads(path.read_text())
    summary["environment"] |= {"git_commit": "feedbeef" * 5, "git_dirty": False, "torch": "9.9"}
    path.write_text(json.dumps(summary))
    assert terrarium("report", "frogs", "--run", "default").exit_code == 0
    told = section(frogs, "Machine and code")
    assert "more: feedbeeffeed, unchanged" in told and "more: 9.9" in told and "base: none (not in git)" in told


def test_a_stage_that_was_killed_is_not_taken_for_whole(frogs: Path, terrarium: Terrarium) -> None:
    path = frogs / "out/default/more/summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted", "flops": None, "mfu": None}))
    assert terrarium("report", "frogs", "--run", "default").exit_code == 0
    assert "2 of them complete" in (frogs / "out/default/report.md").read_text()
    assert (
        "| interrupted |" in section(frogs, "Cost")
        and "of this machine's peak" not in (frogs / "out/default/report.md").read_text()
    )
