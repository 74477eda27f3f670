"""What must not happen: lost work, figures of other data, tracebacks for the user's own mistakes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Terrarium = Callable[..., Result]


@pytest.mark.parametrize("name", ["..", ".", "", ".hidden", "a\nb", " "])
def test_a_run_name_is_one_visible_folder(spaces: Path, terrarium: Terrarium, name: str) -> None:
    before = {path: path.read_bytes() for path in spaces.rglob("*") if path.is_file()}
    result = (
        terrarium("train", "spaces", f"--run={name}")
        if name
        else terrarium("import", "--from", "nanogpt", "spaces", "x.pt", "--run", "..")
    )
    assert result.exit_code == 2
    assert "is not a valid run name" in result.stderr or "cannot be read" in result.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not (spaces / "out").exists()


def test_a_run_is_not_scored_on_other_data(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("loop", "spaces").exit_code == 0
    before = (spaces / "out" / "default" / "evaluation.json").read_bytes()
    assert terrarium("prepare", "spaces", "-s", "prepare.seed=7").exit_code == 0
    result = terrarium("evaluate", "spaces")
    assert result.exit_code == 2
    assert "the dataset is not the one that spaces/default was trained on" in result.stderr
    assert "--run default --fresh" in result.stderr
    assert (spaces / "out" / "default" / "evaluation.json").read_bytes() == before


def test_resume_and_fresh_exclude_each_other(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    result = terrarium("train", "spaces", "--resume", "--fresh")
    assert result.exit_code == 2
    assert "--resume and --fresh exclude each other" in result.stderr
    assert [path.name for path in (spaces / "out").glob("*/")] == ["default"]


def test_the_log_keeps_an_entry_per_run(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces", "--description", "first\n## of all").exit_code == 0
    assert terrarium("train", "spaces", "--fresh", "--description", "second").exit_code == 0
    (spaces / "EXPERIMENT_LOG.md").write_text(
        (spaces / "EXPERIMENT_LOG.md").read_text() + "\n## My own note\n\nKeep me.\n"
    )
    assert terrarium("loop", "spaces", "--run", "third").exit_code == 0
    log = (spaces / "EXPERIMENT_LOG.md").read_text()
    headings = [
        line.partition(" <!--")[0][14:] for line in log.splitlines() if line.startswith("## ") and "<!--" in line
    ]
    assert headings == ["default-1", "default", "third"]
    assert r"first \#\# of all" in log
    assert "(out/default-1/report.html)" in log
    assert "second" in log
    assert "Keep me." in log
    shutil.copytree(spaces, spaces.parent / "copy")
    assert terrarium("train", "copy").exit_code == 0
    copied = (spaces.parent / "copy" / "EXPERIMENT_LOG.md").read_text()
    assert r"first \#\# of all" not in copied
    assert "Keep me." in copied
    assert "<!-- copy/default " in copied


def test_what_is_written_below_an_entry_stays_when_the_entry_is_renewed(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("loop", "spaces").exit_code == 0
    path = spaces / "EXPERIMENT_LOG.md"
    path.write_text(path.read_text() + "\nIt learns.\n\n## Next\n\nWider.\n")
    assert terrarium("train", "spaces", "--run", "wide", "-s", "train.model.n_embd=32").exit_code == 0
    longer = ("-s", "train.schedule.max_iters=8", "-s", "train.schedule.lr_decay_iters=6")
    assert terrarium("train", "spaces", "--resume", *longer).exit_code == 0
    log = path.read_text()
    assert "\nIt learns.\n\n## Next\n\nWider.\n" in log
    assert log.count("<!-- spaces/default ") == log.count("<!-- spaces/wide ") == 1
    links = re.findall(r"\]\((.+?)\)", log)
    assert len(links) == 5  # `train` alone makes no samples
    assert all((spaces / link).is_file() for link in links)


def test_links_of_the_log_hold_for_any_name(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces", "--run", "a (b)", "--description", "<b>`x`").exit_code == 0
    log = (spaces / "EXPERIMENT_LOG.md").read_text()
    assert "[report](out/a%20%28b%29/report.html)" in log
    assert r"- To find out: \<b>\`x\`" in log


def test_a_damaged_run_stands_in_no_other_s_way(spaces: Path, terrarium: Terrarium) -> None:
    for run in ("a", "default"):
        assert terrarium("train", "spaces", "--run", run).exit_code == 0
    (spaces / "out" / "a" / "summary.json").write_text("{")
    (spaces / "out" / "default" / "config.toml").write_text("[")
    done = terrarium("train", "spaces", "--run", "b")
    assert done.exit_code == 0, done.output
    assert (spaces / "out" / "b" / "report.html").is_file()
    assert "the settings of the default run cannot be read" in (spaces / "EXPERIMENT_LOG.md").read_text()
    listed = terrarium("runs", "spaces")
    assert listed.exit_code == 0 and "\nb " in listed.stdout
    assert "a/summary.json: not the summary of a run; this run is left out" in listed.stderr
    assert '"b"' in terrarium("runs", "spaces", "--json").stdout
    named = terrarium("evaluate", "spaces", "--run", "a")
    assert named.exit_code == 2
    assert "not the summary of a run" in named.output


def test_damaged_metrics_are_told_and_blank_lines_are_none(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    metrics = spaces / "out" / "default" / "metrics.csv"
    metrics.write_text(metrics.read_text() + "\n")
    assert terrarium("report", "spaces", "--run", "default").exit_code == 0
    metrics.write_text(metrics.read_text() + "7,abc\n")
    done = terrarium("report", "spaces", "--run", "default")
    assert done.exit_code == 2
    assert re.search(r"metrics\.csv:\d+: not a row of numbers: .*'abc'\n  Fix or delete this line\.", done.output)


def test_a_rate_that_is_far_too_high_fails_with_advice(spaces: Path, terrarium: Terrarium) -> None:
    keys = [
        "-s",
        "train.model.preset=gpt2",
        "-s",
        "train.optim.learning_rate=1e30",
        "-s",
        "train.runtime.eval_interval=1",
    ]
    result = terrarium("train", "spaces", *keys)
    assert result.exit_code == 1
    assert "is nan at step" in result.stderr or "is inf at step" in result.stderr
    assert "Lower train.optim.learning_rate (now 1e+30)" in result.stderr
    assert "Traceback" not in result.output


def test_an_out_dir_elsewhere_works(spaces: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("loop", "spaces", "-s", f"train.runtime.out_dir={tmp_path}/elsewhere").exit_code == 0
    assert (tmp_path / "elsewhere" / "default" / "report.html").exists()


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("{'a': torch.tensor(2.0), 'b': float('nan')}", ""),
        ("{'a': 'much'}", "did not return a dict of numbers"),
        ("3", "dict of numbers"),
    ],
)
def test_evaluate_of_prepare_returns_numbers(spaces: Path, terrarium: Terrarium, returned: str, told: str) -> None:
    source = (spaces / "prepare.py").read_text()
    (spaces / "prepare.py").write_text(
        f"{source}\ndef evaluate(run, model, encoder):\n    import torch\n    return {returned}\n"
    )
    trained = terrarium("train", "spaces")
    assert (
        trained.exit_code == (2 if told else 0) and told in trained.stderr
    )  # at the first evaluation, not after the run
    assert terrarium("train", "spaces", "--fresh", "-s", "evaluate.every=0").exit_code == 0
    result = terrarium("evaluate", "spaces", "--json")
    assert result.exit_code == (2 if told else 0)
    assert told in result.stderr
    if not told:
        assert (json.loads(result.stdout)["a"], json.loads(result.stdout)["b"]) == (2.0, None)


@pytest.mark.parametrize(
    "config", ["[prepare]\ndataset_dir = 5\n", "train = 5\n", "prepare = []\n", "[train.runtime]\nout_dir = 1.5\n"]
)
def test_list_survives_any_config(spaces: Path, terrarium: Terrarium, config: str) -> None:
    odd = spaces.parent / "odd"
    odd.mkdir()
    (odd / "config.toml").write_text(config)
    result = terrarium("list")
    assert result.exit_code == 0
    assert "spaces" in result.stdout
    assert "runs odd` says why" in result.stdout


@pytest.mark.parametrize(("name", "command"), [("datasets", "prepare"), ("out", "train")])
def test_a_file_where_a_folder_belongs_is_told(spaces: Path, terrarium: Terrarium, name: str, command: str) -> None:
    (spaces / name).touch()
    result = terrarium(command, "spaces")
    assert result.exit_code == 2
    assert f"{spaces / name}: is a file, and a folder is needed here" in result.stderr


def test_what_is_not_to_be_had_is_told_before_anything_is_made(spaces: Path, terrarium: Terrarium) -> None:
    for key in (
        "train.runtime.device=gpu",
        "train.optim.name=lamb",
        'train.runtime.trackers=["wandbb"]',
        "train.model.kind=rnn",
    ):
        result = terrarium("train", "spaces", "-s", key)
        assert result.exit_code == 2
        assert key.partition("=")[0] in result.stderr
    assert not (spaces / "datasets").exists()


def test_a_checksum_given_by_hand_counts_in_any_order(text: Path, terrarium: Terrarium) -> None:
    wrong, file = f"prepare.sha256={'0' * 64}", "prepare.input=datasets/raw/input.txt"
    for first, second in ((wrong, file), (file, wrong)):
        assert terrarium("prepare", "text", "-s", first, "-s", second).exit_code == 2
    (text / "config.toml").write_text(
        (text / "config.toml").read_text().replace("[prepare]", f'[prepare]\nsha256 = "{"0" * 64}"')
    )
    assert terrarium("prepare", "text").exit_code == 2
    assert terrarium("prepare", "text", "-s", file).exit_code == 0


def test_a_variant_is_a_name(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "spaces", "--variant", "../x")
    assert result.exit_code == 2
    assert "'../x' is not a valid variant name" in result.stderr


def test_a_table_given_as_a_value_is_told(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "spaces", "-s", "train.schedule=3")
    assert result.exit_code == 2
    assert "train.schedule is a table of keys: write [train.schedule] in the file" in result.stderr


def test_a_start_file_in_the_config_is_beside_it(text: Path, terrarium: Terrarium) -> None:
    (text / "start.txt").write_text("quick")
    (text / "config.toml").write_text(
        (text / "config.toml").read_text()
        + '\n[sample.sample]\nstart = "FILE:start.txt"\nnum_samples = 1\nmax_new_tokens = 3\n'
    )
    result = terrarium("loop", "text")
    assert result.exit_code == 0, result.output
    assert (text / "out" / "default" / "samples.txt").read_text().startswith("quick")


def test_advice_for_a_path_names_the_path(spaces: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    shutil.copytree(spaces, elsewhere)
    result = terrarium("sample", str(elsewhere))
    assert result.exit_code == 2
    assert f"python -m core.cli train '{elsewhere}'" in result.stderr


def test_the_summary_tells_the_accuracy_of_the_checkpoint_that_is_used(spaces: Path, terrarium: Terrarium) -> None:
    source = (spaces / "prepare.py").read_text()
    forgetful = """
def on_metrics(run, step, metrics):
    from core.evaluation import exact_match

    if step == 3:  # the evaluation after this one finds every answer wrong
        exact_match.Answer.correct = property(lambda answer: False)
"""
    (spaces / "prepare.py").write_text(source + forgetful)
    from core.evaluation.exact_match import Answer

    whole = Answer.correct
    Answer.correct = property(lambda answer: True)  # type: ignore[assignment, method-assign]
    try:
        assert terrarium("train", "spaces").exit_code == 0
    finally:
        Answer.correct = whole  # type: ignore[method-assign]
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert (summary["best_step"], summary["val_accuracy"]) == (3, 1.0)


def test_a_signal_just_behind_a_step_is_saved_too(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.training.pace import Pace

    whole = Pace.over
    # The loop looks before the first step, and at its end whether to save. The look after that lies behind the step.
    signals = iter([0, 0, signal.SIGINT])  # one only: a second would end the process at once

    def interrupt(pace: Pace) -> bool:
        if number := next(signals, 0):
            os.kill(os.getpid(), number)
        return whole(pace)

    monkeypatch.setattr(Pace, "over", interrupt)
    result = terrarium("train", "spaces", "-s", "train.runtime.checkpoint_interval=100")
    assert result.exit_code == 130
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    state = json.loads((spaces / "out" / "default" / "checkpoints" / "last" / "state.json").read_text())
    assert state["step"] == summary["steps"] == 2
