"""compare: groups of runs side by side, from the arguments to the picture."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from core import durable, files
from core.config import Config, replaced
from core.defaults import resolve
from core.lab.comparing import compare_experiments
from core.report.comparison import Group
from core.report.differences import differences
from core.report.naming import names_of
from core.report.overlay import PALETTE, PANELS, band, in_short, labels, overlay, shortened
from core.report.runs import RunData, by_settings, read_run
from core.roles import flat
from core.toml import dump
from core.tracking import Tracker
from core.tracking.environment import code_hash, environment
from core.tracking.metrics import MetricsFile, accuracy_columns

Command = Callable[..., Result]
SHIFTS = (0.0, 0.021, -0.013, 0.008, -0.019)  # of the loss, by seed
DATA, OTHER_DATA = "ab" * 32, "cd" * 32


@pytest.fixture
def made(lab: Path) -> Callable[..., Path]:
    """Write a run's folder as train leaves it: made("spaces", "wide-0", seed=0, loss=1.4, n_embd=128)."""

    def make(
        experiment: str, name: str, *, seed: int, loss: float | None, n_embd: int = 32, data: str = DATA, rate: float = 1.0,
        accuracy: float | None = None, facts: dict[str, Any] | None = None, **summary: Any,
    ) -> Path:  # fmt: skip
        home, folder = lab / experiment, lab / experiment / "out" / name
        folder.mkdir(parents=True)
        (home / "config.toml").touch()
        keys = {"train.model.n_embd": n_embd, "train.runtime.seed": seed, "sample.runtime.seed": seed}
        config = replaced(resolve(Config()), keys)
        files.write_text(folder / "config.toml", dump(config.model_dump()))
        metrics = MetricsFile(folder, accuracy_columns([]), keep_until=-1)
        for step in range(0, 101, 10):
            row = {
                "step": step,
                "tokens": 64 * step,
                "seconds": step / rate,
                "val_loss": (loss or 1.0) + 2.0 * 0.9**step,
            }
            metrics.append(row | ({} if accuracy is None else {"val_accuracy": accuracy * step / 100}))
        durable.close(metrics.descriptor)
        about = {"python": "3.11.7", "torch": "2.13.0", "git_commit": "1" * 40, "code": "2" * 16} | (facts or {})
        files.write_json(folder / "summary.json", {
            "experiment": experiment, "run": name, "status": "completed", "seed": seed, "steps": 100, "parameters": 1000 * n_embd,
            "train_seconds": 100 / rate, "tokens_per_second": 64 * rate, "best_val_loss": loss, "final_val_loss": loss and loss + 0.01,
            "bits_per_byte": loss and loss / 1.4, "accuracy": accuracy, "dataset_fingerprint": data, "device": "cpu", "dtype": "float32",
            "environment": about,
        } | summary)  # fmt: skip
        return folder

    return make


@pytest.fixture
def widths(made: Callable[..., Path]) -> None:
    """Five seeds of width 32, of which the first is `default`, and five of width 128, whose loss is lower by about 0.1."""
    for seed, shift in enumerate(SHIFTS):
        made("spaces", f"narrow-{seed}" if seed else "default", seed=seed, loss=1.5 + shift)
        made("spaces", f"wide-{seed}", seed=seed, loss=1.4 + shift + 0.01 * (seed % 2), n_embd=128)


def rows(done: Result) -> list[str]:
    """The lines of the table of groups."""
    return done.stdout.partition("\ngroup ")[2].partition("\n\n")[0].splitlines()[1:]


def test_a_clear_difference_of_five_seeds(terrarium: Command, widths: None, lab: Path) -> None:
    done = terrarium("compare", "spaces", "spaces/wide-*")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("spaces/wide-* is better than spaces: val loss lower by 0.096 ")  # first of all
    assert len(rows(done)) == 2
    assert "spaces/wide-*      5  1.4034 ± 0.0210" in done.stdout
    assert (
        "spaces/wide-* is better than spaces: val loss lower by 0.096 (95 % interval 0.090 to 0.102; 5 seeds each, paired)."
        in done.stdout
    )
    assert "config  train.model.n_embd      32            128" in done.stdout
    picture = lab / "spaces" / "out" / "compare.png"
    assert done.stdout.endswith(f"\n\ncurves: {picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_identical_settings_over_five_seeds_are_no_evidence(terrarium: Command, made: Callable[..., Path]) -> None:
    draw = random.Random(3)
    for seed in range(5):
        made("spaces", f"a-{seed}", seed=seed, loss=1.5 + draw.gauss(0, 0.02))
        made("spaces", f"b-{seed}", seed=seed + 10, loss=1.5 + draw.gauss(0, 0.02))
        made("spaces", f"again-{seed}", seed=seed, loss=1.5)
    done = terrarium("compare", "spaces/a-*", "spaces/b-*")
    assert "No evidence of a difference: val loss of b-* is " in done.stdout
    assert "; 5 seeds each); about " in done.stdout and "more seeds per group would be needed" in done.stdout
    assert "config  train.runtime.seed  0, 1, 2, 3, 4  10, 11, 12, 13, 14" in done.stdout


def test_one_seed_gives_no_verdict(terrarium: Command, widths: None) -> None:
    done = terrarium("compare", "spaces/default", "spaces/wide-0")
    assert (
        "No verdict with one seed each: val loss of wide-0 is lower by 0.100 than that of default. A verdict needs several"
        in done.stdout
    )


def test_single_runs_stay_apart_though_they_differ_in_nothing_but_their_seed(terrarium: Command, widths: None) -> None:
    done = terrarium("compare", "spaces/default", "spaces/narrow-1")
    assert [line.split()[:2] for line in rows(done)] == [["default", "1"], ["narrow-1", "1"]]
    assert "config  train.runtime.seed        0         1" in done.stdout
    assert "sample.runtime" not in done.stdout


def test_an_experiment_alone_is_all_its_settings_named_by_what_tells_them_apart(
    terrarium: Command, widths: None
) -> None:
    done = terrarium("compare", "spaces")
    assert [line.split()[:2] for line in rows(done)] == [["n_embd=32", "5"], ["n_embd=128", "5"]]
    assert "n_embd=128 is better than n_embd=32: val loss lower by " in done.stdout


def test_a_name_has_the_settings_that_were_chosen_and_not_what_follows(made: Callable[..., Path]) -> None:
    def group(name: str, **settings: Any) -> list[RunData]:
        run = read_run(made("spaces", name, seed=0, loss=1.0))
        config = replaced(Config(), {f"train.{key.replace('__', '.')}": value for key, value in settings.items()})
        return [RunData(run.folder, run.summary, flat(resolve(config).model_dump()))]

    assert names_of([group("a"), group("b", model__n_embd=256)]) == ["n_embd=128", "n_embd=256"]
    assert names_of([group("c", data__block_size=32), group("d", data__block_size=64)]) == [
        "block_size=32",
        "block_size=64",
    ]
    faster = group("e", optim__learning_rate=0.005, model__n_layer=2)
    assert names_of([group("f"), faster]) == ["n_layer=4, learning_rate=0.02", "n_layer=2, learning_rate=0.005"]
    many = {"model__n_layer": 2, "model__n_embd": 8, "model__dropout": 0.1, "optim__weight_decay": 0.3}
    assert names_of([group("g"), group("h", **many)]) == ["g", "h"]
    strange = [replace(run, config=run.config | {"train.model.gone": 1}) for run in group("i")]
    assert names_of([group("j"), strange]) == ["j", "i"]


def test_a_list_is_one_group(terrarium: Command, widths: None) -> None:
    done = terrarium("compare", "spaces/default,narrow-1", "spaces/wide-0,wide-[12]", "--json")
    groups = json.loads(done.stdout)["groups"]
    assert [[run["run"] for run in group["runs"]] for group in groups] == [
        ["spaces/default", "spaces/narrow-1"], ["spaces/wide-0", "spaces/wide-1", "spaces/wide-2"],
    ]  # fmt: skip


def test_a_run_whose_name_is_a_pattern_is_that_run(terrarium: Command, made: Callable[..., Path]) -> None:
    for name in ("a[1]", "a,b", "a"):
        made("spaces", name, seed=0, loss=1.5)
    done = terrarium("compare", "spaces/a[1]", "spaces/a,b", "spaces/a")
    assert [line.split()[:2] for line in rows(done)] == [["a[1]", "1"], ["a,b", "1"], ["a", "1"]]


def test_an_experiment_may_be_a_path(terrarium: Command, widths: None) -> None:
    done = terrarium("compare", "experiments/spaces/", "experiments/spaces/wide-*")
    assert done.exit_code == 0 and "experiments/spaces/wide-* is better than experiments/spaces" in done.stdout


def test_exact_match_has_a_verdict_of_its_own(terrarium: Command, made: Callable[..., Path]) -> None:
    for seed, shift in enumerate(SHIFTS[:3]):
        made("spaces", f"a-{seed}", seed=seed, loss=1.5 + shift, accuracy=0.5 + shift)
        made("spaces", f"b-{seed}", seed=seed, loss=1.5 - shift, accuracy=0.7 + 1.1 * shift)
    done = terrarium("compare", "spaces/a-*", "spaces/b-*")
    assert "No evidence of a difference: val loss of b-* is" in done.stdout
    assert (
        "b-* is better than a-*: exact match higher by 20.0 points, 70.3% instead of 50.3% (95 % interval 15."
        in done.stdout
    )
    assert done.stdout.index("b-* is better") < done.stdout.index("No evidence")


def test_other_data_is_warned_of_and_judged_in_bits_per_byte(
    terrarium: Command, made: Callable[..., Path], lab: Path
) -> None:
    made("one", "default", seed=0, loss=1.5)
    made("two", "default", seed=0, loss=2.5, data=OTHER_DATA, facts={"code": "3" * 16})
    done = terrarium("compare", "one", "two")
    assert (
        "warning: the groups were not trained on the same data, so their losses per token cannot be compared"
        in done.stdout
    )
    assert "No verdict with one seed each: bits per byte of two is higher by 0.714 than that of one" in done.stdout
    assert [line.split() for line in done.stdout.splitlines()[-5:-2]] == [
        ["data", "fingerprint", "abababababab", "cdcdcdcdcdcd"], ["code", "experiment", "one", "two"],
        ["code", "prepare.py", "and", "other", "*.py", "222222222222", "333333333333"],
    ]  # fmt: skip
    assert (lab / "one" / "out" / "compare.png").is_file()


def test_losses_over_other_tokens_are_no_verdict(terrarium: Command, made: Callable[..., Path]) -> None:
    """With and without the prompts in the loss, and with other contexts: exact match is compared, the loss is not."""
    for seed, shift in enumerate(SHIFTS):
        made("spaces", f"a-{seed}", seed=seed, loss=0.5 + shift, accuracy=0.97, prompts=106, side="test")
        for name, key, value in (("b", "data.mask_prompt", False), ("c", "data.block_size", 32)):
            folder = made(
                "spaces", f"{name}-{seed}", seed=seed, loss=1.0 + 0.9 * shift, accuracy=0.97, prompts=106, side="test"
            )
            config = replaced(resolve(Config()), {f"train.{key}": value, "train.runtime.seed": seed})
            files.write_text(folder / "config.toml", dump(config.model_dump()))
    done = terrarium("compare", "spaces/a-*", "spaces/b-*")
    assert done.stdout.startswith(
        "No evidence of a difference: exact match is the same in every run, 97.0% of 106 test prompts (5 seeds each).\n"
    )
    assert re.search(r"\ngroup +seeds +exact match of 106 test prompts +val loss", done.stdout)
    assert (
        "No verdict on val loss: b-* and a-* do not measure it alike (train.data.mask_prompt is true and false)."
        in done.stdout
    )
    assert "better" not in done.stdout
    done = terrarium("compare", "spaces/a-*", "spaces/c-*", "--json")
    told = json.loads(done.stdout)["verdicts"]
    assert [(verdict["measure"], verdict["evidence"]) for verdict in told] == [
        ("accuracy", False), ("bits_per_byte", True), ("best_val_loss", False),
    ]  # fmt: skip  # bits per byte are of the same text, whatever the context
    assert told[2]["sentence"].endswith("(train.data.block_size is 64 and 32).")


def test_losses_of_parts_of_the_validation_side_are_no_verdict(terrarium: Command, made: Callable[..., Path]) -> None:
    for seed, shift in enumerate(SHIFTS):
        made("spaces", f"a-{seed}", seed=seed, loss=1.5 + shift)
        folder = made("spaces", f"b-{seed}", seed=seed, loss=1.4 + shift)
        config = replaced(resolve(Config()), {"train.runtime.eval_iters": 1, "train.runtime.seed": seed})
        files.write_text(folder / "config.toml", dump(config.model_dump()))
    done = terrarium("compare", "spaces/a-*", "spaces/b-*")
    assert done.stdout.startswith(
        "No verdict on val loss: b-* and a-* do not measure it alike (train.runtime.eval_iters is 0 and 1).\n"
    )
    assert "better" not in done.stdout  # bits per byte of older runs are of the same part


@pytest.mark.parametrize(
    ("texts", "verdict"), [(("v", "v"), "b is higher by"), (("v", "w"), ""), ((None, "w"), "b is higher")]
)
def test_bits_per_byte_need_the_same_text(
    terrarium: Command, made: Callable[..., Path], texts: tuple[str | None, str], verdict: str
) -> None:
    for name, loss, data, text in (("a", 1.5, "d1", texts[0]), ("b", 2.5, "d2", texts[1])):
        made("spaces", name, seed=0, loss=loss, data_hash=data, val_text=text, side="test")
    told = terrarium("compare", "spaces/a", "spaces/b").stdout
    assert "No verdict on val loss: b and a do not measure it alike (other data)." in told
    assert ("bits per byte of " + verdict in told) if verdict else ("bits per byte of" not in told)
    assert ("Bits per byte cannot either: their validation texts differ." in told) == (not verdict)
    assert re.search(r"data +hash +d1 +d2", told)


def test_the_bytes_of_a_dataset_decide_not_the_code_that_made_it(terrarium: Command, made: Callable[..., Path]) -> None:
    for seed, shift in enumerate(SHIFTS):
        made("spaces", f"a-{seed}", seed=seed, loss=1.5 + shift, data_hash="d", side="val", data=f"{seed}" * 64)
        made(
            "spaces", f"b-{seed}", seed=seed, loss=1.4 + 0.9 * shift, data="1" * 64, n_embd=64
        )  # before data_hash: that of a-1
    done = terrarium("compare", "spaces")
    assert [line.split()[:2] for line in rows(done)] == [["n_embd=32", "5"], ["n_embd=64", "5"]]
    assert "n_embd=64 is better than n_embd=32: val loss lower by 0.100" in done.stdout and "warning" not in done.stdout


def test_exact_match_of_other_sides_is_warned_of(terrarium: Command, made: Callable[..., Path]) -> None:
    made("spaces", "a", seed=0, loss=1.5, accuracy=0.5)
    made("spaces", "b", seed=0, loss=1.5, accuracy=0.6, side="test", prompts=200)
    told = terrarium("compare", "spaces/a", "spaces/b").stdout
    assert "warning: exact match is measured on test prompts in some runs and on validation prompts in others." in told
    assert "60.0% of 200 test prompts" in told


def test_figures_of_an_older_run_are_of_one_checkpoint(terrarium: Command, made: Callable[..., Path]) -> None:
    """Its summary has the lowest loss of the run beside the step of checkpoint best."""
    folder = made("spaces", "old", seed=0, loss=1.0, accuracy=0.5, best_step=50)
    made("spaces", "new", seed=1, loss=1.25, accuracy=0.5, best_step=50, side="test", prompts=9)
    groups = json.loads(terrarium("compare", "spaces/old", "spaces/new", "--json").stdout)["groups"]
    at_50 = next(row["val_loss"] for row in read_run(folder).rows if row["step"] == 50)
    assert [group["runs"][0]["best_val_loss"] for group in groups] == [at_50, 1.25] and at_50 != 1.0
    assert groups[0]["runs"][0]["accuracy"] == 0.25


def test_seeds_of_one_setting_stand_as_one_group_without_asking(terrarium: Command, made: Callable[..., Path]) -> None:
    for seed, shift in enumerate(SHIFTS):
        made("spaces", f"a-{seed}", seed=seed, loss=1.5 + shift)
    done = terrarium("compare", "spaces")
    assert done.exit_code == 0, done.output
    [row] = done.stdout.splitlines()[1:2]
    assert re.match(r"a-0 +5  1\.4994 ± 0\.0161", row)
    assert "All runs have the same settings and data (5 seeds), so there is nothing to compare yet." in done.stdout
    assert done.stdout.splitlines()[-1].startswith("curves: ")


def test_three_runs_of_one_seed_are_one_seed(terrarium: Command, made: Callable[..., Path]) -> None:
    for name, accuracy in (("a-0", 0.95), ("a-1", 0.97), ("a-2", 0.99)):
        made("spaces", name, seed=7, loss=1.5, accuracy=accuracy)
    made("spaces", "b", seed=7, loss=1.5, accuracy=0.9)
    done = terrarium("compare", "spaces/a-*", "spaces/b")
    assert re.match(r"a-\*    1 \(3 runs\) +97\.0%  ", rows(done)[0]), rows(done)
    assert (
        "No verdict with one seed each: exact match of b is lower by 7.00 points than that of a-*, 90.0% instead of 97.0%."
        in done.stdout
    )


def test_run_folders_of_any_place_are_compared(
    terrarium: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a Tracker writes them in another repository, with settings of its own."""
    monkeypatch.chdir(tmp_path)
    for name, loss in (("baseline", 1.5), ("wide", 1.25)):
        with Tracker(f"runs/{name}", config={"learning_rate": 0.1, "width": loss}, seed=0, trackers=()) as tracker:
            tracker.log_step(step=10, train_loss=loss, val_loss=loss)
    for arguments in (["runs/baseline", "runs/wide"], ["runs/basel*", str(tmp_path / "runs" / "wide")]):
        done = terrarium("compare", *arguments)
        assert done.exit_code == 0, done.output
        assert "lower by 0.250 than that of" in done.stdout and "config  width" in done.stdout
        assert (tmp_path / "runs" / "compare.png").is_file()
    whole = terrarium("compare", "runs")
    assert [line.split()[0] for line in rows(whole)] == ["width=1.5", "width=1.25"]
    assert "runs/wide is one group of runs" in terrarium("compare", "runs/wide").stderr
    compared = compare_experiments(["runs/baseline", "runs/wide"])
    assert "val loss of" in compared.verdicts[0]


def test_code_and_environment_that_differ_are_named(terrarium: Command, made: Callable[..., Path]) -> None:
    made("spaces", "a", seed=0, loss=1.5)
    made("spaces", "b", seed=0, loss=1.5, facts={"git_commit": "1" * 40 + "+changes", "torch": "2.14.0", "code": None})
    done = terrarium("compare", "spaces/a", "spaces/b")
    assert "code         git commit  111111111111  111111111111+changes" in done.stdout
    assert "environment  torch             2.13.0  2.14.0" in done.stdout
    assert "prepare.py" not in done.stdout  # a run that does not know its code differs in nothing by it


def test_nothing_differs(terrarium: Command, made: Callable[..., Path]) -> None:
    made("spaces", "a", seed=0, loss=1.5)
    made("spaces", "b", seed=0, loss=1.5)
    done = terrarium("compare", "spaces/a", "spaces/b")
    assert "Nothing differed: settings, data, code and environment are the same." in done.stdout
    assert "val loss of b equals that of a" in done.stdout


def test_runs_that_are_not_complete_are_left_out(terrarium: Command, made: Callable[..., Path]) -> None:
    for seed, shift in enumerate(SHIFTS):
        made("spaces", f"a-{seed}", seed=seed, loss=1.5 + shift)
        made("spaces", f"b-{seed}", seed=seed, loss=1.4 + 0.9 * shift, status="failed" if seed == 4 else "completed")
    made("spaces", "c", seed=0, loss=None, status="interrupted")
    done = terrarium("compare", "spaces/a-*", "spaces/b-*", "spaces/c")
    assert "warning: spaces/b-4 is not complete (failed), so it is left out of the figures." in done.stdout
    assert "b-*    4 (of 5)" in done.stdout
    assert "1 of a-*'s 5 seeds is left out: the other group does not have it." in done.stdout
    assert "; 4 seeds each, paired)." in done.stdout
    assert "Nothing to compare: c has no val loss of a completed run." in done.stdout


def test_a_group_of_several_settings_is_warned_of(terrarium: Command, widths: None) -> None:
    done = terrarium("compare", "spaces/default", "spaces/wide-0,narrow-1,default")
    assert (
        "warning: the runs of wide-0,narrow-1,default differ in more than their seed: train.model.n_embd."
        in done.stdout
    )
    assert "warning: in more than one group: default." in done.stdout
    assert "2 runs of wide-0,narrow-1,default have the seed 0: their mean counts as one." in done.stdout


def test_many_tests_find_something_by_chance(terrarium: Command, made: Callable[..., Path]) -> None:
    for width in (8, 16, 24, 32, 40, 48):
        for seed in (0, 1):
            made("spaces", f"w{width}-{seed}", seed=seed, loss=1.5 + 0.01 * seed * width, n_embd=width)
    done = terrarium("compare", "spaces")
    assert "5 differences are tested at 95% each: of 20 that do not exist, about one shows up by chance." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spaces/defautl", "spaces"], "spaces has no run 'defautl'\n  Did you mean 'default'?"),
        (["spaces", "spacs"], "no experiment is called 'spacs'\n  Did you mean 'spaces'?"),
        (["spaces", "spaces/vide-*"], "no run of spaces matches 'vide-*'\n  Did you mean 'wide-"),
        (["spaces/default"], "spaces/default is one group of runs, and a comparison needs two\n  Name another: EXP, EXP/RUN"),
        (["spaces/wide-*"], "spaces/wide-* is one group of runs, and a comparison needs two"),
        (["spaces/wide-0", "spaces/wide-0"], "spaces/wide-0 and spaces/wide-0 are the same run\n  Name runs that differ"),
        (["spaces/wide-*", "spaces/wide-[0-9]"], "spaces/wide-* and spaces/wide-[0-9] are the same runs\n"),
        (["lone"], "lone has one run, and a comparison needs two\n  Train another: "),
        (["mixed", "spaces"], "mixed has runs with 2 different settings, and none of them is called default\n  Choose one: mixed/a, mixed/b."),
        (["empty"], "empty has no runs yet\n  Train one: python -m core.cli train empty"),
        (["spaces", "empty"], "empty has no runs yet\n  Train one: python -m core.cli train empty"),
        (["spaces", "empty/a*"], "no run of empty matches 'a*'\n  Train one: python -m core.cli train empty"),
        (["spaces", "--out", "a.pdf"], "--out: 'a.pdf' ends in .pdf, which is not the suffix of a known format\n  A picture ends in .png or .svg"),
        (["spaces", "--out", "a"], "--out: 'a' ends in no suffix, which is not the suffix of a known format"),
    ],
)  # fmt: skip
def test_mistakes(
    terrarium: Command, widths: None, made: Callable[..., Path], lab: Path, arguments: list[str], message: str
) -> None:
    made("lone", "a", seed=0, loss=1.0)
    made("mixed", "a", seed=0, loss=1.0)
    made("mixed", "b", seed=0, loss=1.0, n_embd=64)
    (lab / "empty").mkdir()
    (lab / "empty" / "config.toml").touch()
    done = terrarium("compare", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr and not done.stdout


def test_forms_for_other_programs_have_stdout_to_themselves(terrarium: Command, widths: None) -> None:
    rows = list(csv.DictReader(io.StringIO(terrarium("compare", "spaces", "--format", "csv").stdout)))
    assert [row["group"] for row in rows] == ["n_embd=32", "n_embd=128"]
    assert float(rows[0]["best_val_loss_mean"]) == pytest.approx(1.4994) and float(
        rows[0]["best_val_loss_std"]
    ) == pytest.approx(0.0160, abs=1e-4)
    markdown = terrarium("compare", "spaces", "--format", "markdown")
    assert (
        markdown.stdout.startswith("| group | seeds | val loss |")
        and "\n\n- n\\_embd=128 is better than" in markdown.stdout
    )
    assert "curves: " in markdown.stderr and "curves: " not in markdown.stdout
    latex = terrarium("compare", "spaces", "--format", "latex").stdout
    assert latex.startswith("% n_embd=128 is better than n_embd=32") and latex.rstrip().endswith(r"\end{tabular}")
    found = json.loads(terrarium("compare", "spaces", "--json").stdout)
    assert found["verdicts"][0]["better"] == "n_embd=128" and found["verdicts"][0]["measure"] == "best_val_loss"
    assert found["verdicts"][0]["low"] < found["verdicts"][0]["difference"] < found["verdicts"][0]["high"] < 0
    assert found["differences"] == [
        {"kind": "config", "key": "train.model.n_embd", "values": {"n_embd=32": "32", "n_embd=128": "128"}}
    ]
    assert found["groups"][1]["figures"]["parameters"] == {"mean": 128000.0, "std": 0.0}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("t.txt", "n_embd=128 is better than n_embd=32: "), ("t.md", "# n\\_embd=32 / n\\_embd=128\n"), ("t.csv", "group,seeds,"), ("t.tex", "% n_embd=128 is"),
        ("t.json", "{\n"), ("t.html", "<!doctype html>"),
    ],
)  # fmt: skip
def test_out_is_written_as_its_suffix_says_with_the_picture_beside(
    terrarium: Command, widths: None, tmp_path: Path, name: str, start: str
) -> None:
    done = terrarium("compare", "spaces", "--out", f"new/{name}")
    assert done.exit_code == 0 and done.stdout.endswith(f"\nwritten: new/{name}\ncurves: new/t.png\n")
    content = (tmp_path / "new" / name).read_text(encoding="utf-8")
    assert content.startswith(start) and content.endswith("\n")
    assert (tmp_path / "new" / "t.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "experiments" / "spaces" / "out" / "compare.png").exists()


@pytest.mark.pictures
def test_out_may_be_a_picture(terrarium: Command, widths: None, tmp_path: Path) -> None:
    assert terrarium("compare", "spaces", "--out", "a.svg").exit_code == 0
    drawing = ElementTree.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8"))
    words = " ".join(text for element in drawing.iter() if (text := element.text))
    assert (
        "n_embd=128 1.4" in words
        and "tokens" in words
        and "seconds" in words
        and "from the lowest to the highest" in words
    )
    assert "exact match" not in words


def test_what_users_wrote_is_text_in_every_form(terrarium: Command, made: Callable[..., Path], tmp_path: Path) -> None:
    made("spaces", "<b>&_$x$", seed=0, loss=1.5)
    made("spaces", "b", seed=0, loss=1.4)
    assert terrarium("compare", "spaces/<b>&_$x$", "spaces/b", "--out", "t.html").exit_code == 0
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "<b>&_" not in page and "&lt;b&gt;&amp;_$x$" in page
    assert (
        r"\textless{}b\textgreater{}\&\_\$x\$ & 1"
        in terrarium("compare", "spaces/<b>&_$x$", "spaces/b", "--format", "latex").stdout
    )


def test_a_band_is_over_what_all_seeds_have(made: Callable[..., Path]) -> None:
    runs = [
        read_run(made("spaces", name, seed=0, loss=loss, rate=rate))
        for name, loss, rate in (("a", 1.0, 1.0), ("b", 2.0, 2.0))
    ]
    by_step, by_seconds = (band(Group("x", runs), panel) for panel in (PANELS[0], PANELS[2]))
    assert by_step is not None and by_seconds is not None
    assert by_step.x.tolist() == list(range(0, 101, 10))
    # One run took a half of the other's 100 seconds: side by side at each step, at the mean of their clocks.
    assert by_seconds.x[-1] == 75.0 and len(by_seconds.x) == len(by_step.x)
    assert by_seconds.low.tolist() == by_step.low.tolist()
    assert by_step.mean[-1] == pytest.approx(1.5, abs=1e-3) and by_step.high[-1] - by_step.low[-1] == pytest.approx(1.0)
    assert by_seconds.last == by_step.last
    assert band(Group("x", runs), PANELS[3]) is None


def test_runs_that_evaluated_at_other_steps_are_read_on_straight_lines(made: Callable[..., Path]) -> None:
    """As by a budget in time: there is no common step, but a stretch of seconds that both have."""
    runs = [read_run(made("spaces", name, seed=0, loss=1.0)) for name in ("a", "b")]
    for row in runs[1].rows:
        row["step"] += 1
    found = band(Group("x", runs), PANELS[2])
    assert found is not None and found.seeds == 2
    assert found.x[-1] == runs[0].rows[-1]["seconds"]


def test_seven_groups_have_a_colour_each_and_the_eighth_another_line(made: Callable[..., Path]) -> None:
    groups = [Group(str(seed), [read_run(made("spaces", str(seed), seed=seed, loss=1.0 + seed))]) for seed in range(8)]
    lines = overlay(groups).axes[0].get_lines()
    assert [line.get_color() for line in lines[:7]] == list(PALETTE) and lines[7].get_color() == PALETTE[0]
    assert (lines[0].get_linestyle(), lines[7].get_linestyle()) == ("-", "--")


def test_a_run_without_any_evaluation_leaves_the_picture_empty(terrarium: Command, made: Callable[..., Path]) -> None:
    for name in ("a", "b"):
        (made("spaces", name, seed=0, loss=None, status="failed") / "metrics.csv").unlink()
    done = terrarium("compare", "spaces/a", "spaces/b")
    assert done.exit_code == 0 and "Nothing to compare: a and b has no val loss" not in done.stdout
    assert "Nothing to compare: a and b have no val loss of a completed run." in done.stdout


def test_names_and_counts_that_fit_beside_an_axis() -> None:
    assert shortened("a" * 22 + "b" * 20) == "a" * 16 + "…" + "b" * 17
    assert labels(["rate=0.1, max_iters=30", "rate=0.2, max_iters=30"]) == ["rate=0.1", "rate=0.2"]
    assert labels(["a" * 30 + letter + "b" * 30 for letter in "xy"])[1].startswith("2: aaa")
    assert labels(["same, same"]) == ["same, same"]
    assert shortened("cost in $") == r"cost in \$"
    assert [in_short(count) for count in (0, 500, 12_500, 2_000_000, 3.5e9)] == ["0", "500", "12.5k", "2M", "3.5B"]


def test_a_run_records_its_code(tmp_path: Path) -> None:
    assert code_hash(tmp_path) is None
    (tmp_path / "prepare.py").write_text("x = 1\n")
    first = code_hash(tmp_path)
    assert first is not None and len(first) == 16 and environment(tmp_path)["code"] == first
    (tmp_path / "numbers.py").write_text("y = 1\n")
    second = code_hash(tmp_path)
    (tmp_path / "numbers.py").rename(tmp_path / "other.py")
    assert len({first, second, code_hash(tmp_path)}) == 3


def test_comparing_needs_no_torch(widths: None, tmp_path: Path) -> None:
    code = "import sys; from core.cli.main import cli; cli(['compare', 'spaces'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_real_runs(terrarium: Command, spaces: Path) -> None:
    """Two settings with two seeds each, trained; then data that another prepare.py makes."""
    for width in (16, 32):
        for seed in (0, 1):
            settings = [f"train.model.n_embd={width}", f"train.runtime.seed={seed}"]
            options = [part for text in settings for part in ("-s", text)]
            assert terrarium("train", "spaces", "--run", f"w{width}-{seed}", "-q", *options).exit_code == 0
    done = terrarium("compare", "spaces", "--json")
    found = json.loads(done.stdout)
    assert [(group["group"], group["seeds"]) for group in found["groups"]] == [("n_embd=16", 2), ("n_embd=32", 2)]
    assert [verdict["measure"] for verdict in found["verdicts"]] == ["accuracy", "best_val_loss"]
    assert found["verdicts"][1]["paired"] and found["verdicts"][1]["seeds"] == [2, 2]
    assert all(set(run) >= {"best_val_loss", "bits_per_byte", "train_seconds"} for run in found["groups"][0]["runs"])
    kinds = {(difference["kind"], difference["key"]) for difference in found["differences"]}
    assert ("config", "train.model.n_embd") in kinds and not any(kind in ("data", "code") for kind, _ in kinds)

    (spaces / "prepare.py").write_text((spaces / "prepare.py").read_text(encoding="utf-8").replace('"abc"', '"abd"'))
    assert terrarium("train", "spaces", "--run", "other", "-q").exit_code == 0
    done = terrarium("compare", "spaces/w16-0", "spaces/other")
    assert "warning: the groups were not trained on the same data" in done.stdout
    assert {"hash", "prepare.py and other *.py"} <= {
        line[6:].strip().split("  ")[0] for line in done.stdout.splitlines()
    }


@pytest.mark.parametrize("name", ["curves.png", "table.csv"])
def test_a_place_that_cannot_be_written_is_told(terrarium: Command, widths: None, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / name).mkdir()
    for place in (tmp_path / "file" / name, tmp_path / name):
        done = terrarium("compare", "spaces", "--out", str(place))
        assert done.exit_code == 2, done.output
        assert f"--out {place}: cannot be written: " in done.stderr
        assert "Choose a file in a folder that you can write to." in done.stderr


def test_runs_in_another_place_are_found(terrarium: Command, made: Callable[..., Path], lab: Path) -> None:
    for name in ("a", "b"):
        made("spaces", name, seed=0, loss=1.0)
    (lab / "spaces" / "out").rename(lab / "spaces" / "elsewhere")
    assert terrarium("compare", "spaces/a", "spaces/b").exit_code == 2
    there = ("-s", "train.runtime.out_dir=elsewhere")
    done = terrarium("compare", "spaces/a", "spaces/b", *there)
    assert done.exit_code == 0, done.output
    assert (lab / "spaces" / "elsewhere" / "compare.png").is_file()
    assert terrarium("report", "spaces", *there).exit_code == 0
    assert (lab / "spaces" / "elsewhere" / "report.md").is_file()


def test_a_group_that_holds_default_is_called_so(made: Callable[..., Path]) -> None:
    groups = [
        [read_run(made("spaces", name, seed=seed, loss=1.0)) for name, seed in names]
        for names in ([("a", 1), ("default", 7)], [("b", 1)])
    ]
    assert names_of(groups) == ["default", "b"]


def test_a_note_about_the_entropy_is_no_setting(made: Callable[..., Path]) -> None:
    runs = [read_run(made("spaces", name, seed=seed, loss=1.0)) for name, seed in (("a", 0), ("b", 1))]
    runs[1].config["evaluate.optimal_loss"] = 0.5
    assert len(by_settings(runs)) == 1


def test_a_terminal_is_not_filled_with_what_differed(terrarium: Command, made: Callable[..., Path]) -> None:
    made("spaces", "a", seed=0, loss=1.0)
    (made("spaces", "b", seed=0, loss=1.0) / "config.toml").write_text("lr = 0.1\n")  # of a loop of one's own
    done = terrarium("compare", "spaces/a", "spaces/b")
    assert done.exit_code == 0, done.output
    told = done.stdout.partition("What differed:\n")[2].splitlines()
    assert len(told) < 32
    [rest] = [line for line in told if line.startswith("... and ")]
    assert re.fullmatch(r"\.\.\. and \d+ more; a page \(\.html\) or a Markdown file \(\.md\) lists all of them", rest)


def test_what_nobody_has_set_was_chosen_by_timing(made: Callable[..., Path]) -> None:
    timings = {"bfloat16, sdpa attention, 1 thread": 5.0, "float32, sdpa attention, 1 thread": 4.0}
    runs = [
        read_run(made("spaces", name, seed=0, loss=1.0, choices={"milliseconds": found}))
        for name, found in (("a", timings), ("b", {}))
    ]
    for run, dtype, attention in zip(runs, ("float32", "bfloat16"), ("sdpa", "explicit"), strict=True):
        run.config.update({"train.runtime.dtype": dtype, "train.runtime.attention": attention})
    assert {row.key: row.values for row in differences([[run] for run in runs])} == {
        "train.runtime.dtype": ("float32 (chosen by timing)", "bfloat16"),
        "train.runtime.attention": ("sdpa", "explicit"),
    }
