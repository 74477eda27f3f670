"""Experiments in stages: their folders, settings and data; going on after a kill; what each stage forgot; sweeps over them."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import PREPARE, TINY
from copies import Lab, tiny
from cutting import Forks

from core import files, open_experiment
from core.cli.main import cli
from core.errors import UserError
from core.lab import pipeline
from core.stages import read_stages
from core.sweeps.workers import user_of
from core.toml import file_settings
from core.tracking.run import lock_file

Terrarium = Callable[..., Result]
STAGES = """
[[stages]]
name = "short"

[[stages]]
name = "long"
checkpoint = "last"
prepare.params.max_letters = 3
train.schedule.max_iters = 4

[[stages]]
name = "again"
from = "short"
train.optim.name = "adamw"
train.optim.learning_rate = 0.01
"""


@pytest.fixture
def staged(spaces: Path) -> Path:
    (spaces / "config.toml").write_text(TINY + STAGES)
    return spaces


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose loop has ended."""
    folder = tmp_path_factory.mktemp("looped") / "experiments" / "spaces"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(TINY + STAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent.parent)
        patch.delenv("TERRARIUM_EXPERIMENTS", raising=False)
        done = CliRunner().invoke(cli, ["loop", "spaces"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def looped(staged: Path, whole: Path) -> Path:
    """The same, in a place of its own."""
    return Path(shutil.copytree(whole, staged, dirs_exist_ok=True))


def pipeline_of(experiment: Path, run: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((experiment / "out" / run / "pipeline.json").read_text())
    return found


def summary_of(experiment: Path, stage: str, run: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((experiment / "out" / run / stage / "summary.json").read_text())
    return found


def test_folders_of_stages_are_no_slips_of_the_pen(spaces: Path, terrarium: Terrarium) -> None:
    stages = '\n[[stages]]\nname = "two_digits"\n[[stages]]\nname = "four_digits"\nprepare.size = 1234\n'
    (spaces / "config.toml").write_text(TINY + stages)
    done = terrarium("prepare", "spaces")
    assert done.exit_code == 0 and "Did you mean" not in done.output, done.output


def test_every_stage_is_a_run_with_a_dataset(looped: Path, terrarium: Terrarium) -> None:
    found = pipeline_of(looped)
    assert found["stages"] == ["short", "long", "again"]
    assert set(found) == {"stages", "table", "seconds", "tokens"}
    assert sorted(path.name for path in (looped / "datasets/basic").iterdir() if path.name[0] != ".") == [
        "long",
        "short",
    ]
    for stage in found["stages"]:
        folder = looped / "out/default" / stage
        assert (
            summary_of(looped, stage)["status"] == "completed"
            and summary_of(looped, stage)["run"] == f"default/{stage}"
        )
        assert (folder / "report.html").is_file() and (folder / "evaluation.json").is_file()
        assert found["table"]["val_loss"][stage] == summary_of(looped, stage)["best_val_loss"]
        assert found["tokens"][stage] == summary_of(looped, stage)["tokens"]
    assert summary_of(looped, "long")["steps"] == 4
    assert summary_of(looped, "long")["origin"]["checkpoint"] == "last"
    assert summary_of(looped, "again")["origin"]["checkpoint"] == "best"
    assert "origin" not in summary_of(looped, "short")
    page = (looped / "out/default/report.html").read_text()
    assert (
        "Metrics by stage" in page
        and 'href="long/report.html"' in page
        and (looped / "out/default/curves.png").is_file()
    )
    log = (looped / "EXPERIMENT_LOG.md").read_text()
    assert [line.split()[2] for line in log.splitlines() if line.startswith("## ")] == [
        "default/short", "default/long", "default/again",
    ]  # fmt: skip
    assert terrarium("runs", "spaces", "--json").stdout.count('"status": "completed"') == 3
    assert json.loads(terrarium("list", "--json").stdout)[0]["runs"] == 3


def test_each_stage_is_measured_before_and_after_it(looped: Path, terrarium: Terrarium) -> None:
    table = pipeline_of(looped)["table"]
    for stage in ("short", "long", "again"):
        assert set(table[f"{stage}/val_loss"]) == {"short", "long", "again"}
        assert table[f"{stage}/val_loss"][stage] == table["val_loss"][stage]
    measured = json.loads(
        terrarium("evaluate", "spaces", "--stage", "again", "--data", "datasets/basic/long", "--json").stdout
    )
    assert measured["val_loss"] == table["long/val_loss"]["again"]
    assert re.search(
        r"\| short/val\\_accuracy<br>exact match of \d+ validation prompts \| \d+\.\d%<br>",
        (looped / "out/default/report.md").read_text(),
    )


def test_a_finished_loop_does_nothing_again(looped: Path, terrarium: Terrarium) -> None:
    before = {path: path.read_bytes() for path in looped.rglob("out/default/**/*.json")}
    again = terrarium("loop", "spaces")
    assert again.exit_code == 0 and "evaluated" not in again.stdout and again.stdout.count("is finished") == 3
    assert {path: path.read_bytes() for path in looped.rglob("out/default/**/*.json")} == before


def test_stages_one_by_one_end_as_a_loop_does(looped: Path, terrarium: Terrarium) -> None:
    for stage in ("short", "long"):
        assert terrarium("train", "spaces", "--run", "two", "--stage", stage).exit_code == 0
    assert terrarium("loop", "spaces", "--run", "two").exit_code == 0
    for stage in ("short", "long", "again"):
        one, two = (looped / "out" / run / stage / "checkpoints/last" for run in ("default", "two"))
        assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert pipeline_of(looped)["table"] == pipeline_of(looped, "two")["table"]


def test_a_stage_that_was_killed_before_its_first_checkpoint_starts_from_the_right_weights(
    looped: Path, terrarium: Terrarium
) -> None:
    folder = looped / "out/default/long"
    weights = (folder / "checkpoints/last/model.safetensors").read_bytes()
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.csv").unlink()
    (folder / "other_stages.json").unlink()
    (folder / "summary.json").write_text(json.dumps(summary_of(looped, "long") | {"status": "interrupted", "steps": 0}))
    assert terrarium("loop", "spaces").exit_code == 0
    assert (folder / "checkpoints/last/model.safetensors").read_bytes() == weights


def test_which_stage_a_command_means(looped: Path, terrarium: Terrarium) -> None:
    def run_of(*arguments: str) -> str:
        return str(json.loads(terrarium(*arguments, "--json").stdout)["run"])

    assert run_of("sample", "spaces") == "default/again"
    assert run_of("sample", "spaces", "--stage", "long") == "default/long"
    assert run_of("evaluate", "spaces", "--run", "default/short") == "default/short"
    refused = terrarium("sample", "spaces", "--run", "default/short", "--stage", "long")
    assert refused.exit_code == 2 and "'default/short' and stage 'long' exclude each other" in refused.stderr
    unknown = terrarium("evaluate", "spaces", "--stage", "lang")
    assert unknown.exit_code == 2 and "spaces has no stage 'lang'\n  Did you mean 'long'?" in unknown.stderr
    compared = terrarium("compare", "spaces/default/short", "spaces/default/again")
    assert compared.exit_code == 0 and "short" in compared.stdout and "train.optim.name" in compared.stdout


def test_the_python_api(looped: Path) -> None:
    experiment = open_experiment("spaces")
    run = experiment.train("api")
    assert run.name == "api/again" and run.summary["status"] == "completed"
    assert experiment.run("default").name == "default/again" and experiment.run("default/long").name == "default/long"
    assert experiment.run("api/short").load().complete(["ab: "], temperature=0)
    assert [found.name for found in experiment.runs()][:3] == ["api/short", "api/long", "api/again"]


def test_a_stage_that_cannot_be_trained_leaves_no_run(staged: Path, terrarium: Terrarium) -> None:
    refused = terrarium("train", "spaces", "--stage", "long")
    assert refused.exit_code == 2 and "goes on from 'short', which is not finished" in refused.stderr
    assert not (staged / "out" / "default").exists()


def test_fresh_sets_the_whole_run_aside_or_one_stage(looped: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces", "--stage", "again", "--fresh").exit_code == 0
    assert summary_of(looped, "again-1")["run"] == "default/again-1"
    assert terrarium("train", "spaces", "--stage", "short", "--fresh").exit_code == 0
    stale = terrarium("loop", "spaces")
    assert stale.exit_code == 2
    assert "stage 'long' started from weights that 'short' no longer has: that one was trained again" in stale.stderr
    assert "--run default --stage long --fresh" in stale.stderr
    told = terrarium("train", "spaces", "--fresh")
    assert told.exit_code == 0 and "The old run default is now default-1." in told.stdout
    assert summary_of(looped, "long", "default-1")["run"] == "default-1/long"
    assert pipeline_of(looped)["table"]["val_loss"].keys() == {"short", "long", "again"}


@pytest.mark.parametrize(
    ("command", "is_locked"),
    [
        (("loop", "spaces"), True),
        (("train", "spaces"), True),
        (("loop", "spaces", "--stage", "short"), False),
        (("train", "spaces", "--run", "default/short"), False),
    ],
)
def test_a_run_is_in_use_also_while_none_of_its_stages_trains(
    staged: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], is_locked: bool
) -> None:
    """A stage alone leaves the others to whoever wants to train them at the same time."""
    users: list[str] = []

    def load_model(*arguments: object) -> None:
        users.extend(user_of(staged / "out" / name) for name in ("default", "default/short"))
        raise UserError("seen")

    monkeypatch.setattr(pipeline, "load_model", load_model)
    assert "seen" in terrarium(*command).stderr
    assert [user.startswith(f"process {os.getpid()} since ") for user in users] == [is_locked, False]
    assert user_of(staged / "out" / "default") == ""


def test_a_second_process_that_wants_the_same_stages_is_told(staged: Path, terrarium: Terrarium) -> None:
    with files.lock(lock_file(staged / "out" / "default"), "it"):
        told = terrarium("loop", "spaces")
        assert told.exit_code == 2 and f"run spaces/default is in use by process {os.getpid()} since " in told.stderr
        assert "Wait until it ends, or choose another name: --run NAME" in told.stderr
        assert not (staged / "out" / "default").exists()
        assert terrarium("train", "spaces", "--stage", "short").exit_code == 0


def test_a_stage_needs_the_one_before(staged: Path, terrarium: Terrarium) -> None:
    early = terrarium("train", "spaces", "--stage", "long")
    assert early.exit_code == 2
    assert "stage 'long' goes on from 'short', which is not finished" in early.stderr
    assert "--run default --stage short" in early.stderr


def test_a_run_without_stages_is_not_taken_for_one(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces").exit_code == 0
    slashed = terrarium("train", "spaces", "--run", "a/b")
    assert slashed.exit_code == 2 and "'a/b' names a stage, and spaces has none" in slashed.stderr
    none = terrarium("train", "spaces", "--stage", "b")
    assert none.exit_code == 2 and "Leave it out: its config lists no [[stages]]." in none.stderr
    (spaces / "config.toml").write_text(TINY + STAGES)
    former = terrarium("loop", "spaces")
    assert former.exit_code == 2 and "spaces/default is a run without stages" in former.stderr
    assert terrarium("loop", "spaces", "--run", "new").exit_code == 0


@pytest.mark.parametrize(
    ("text", "line", "message", "remedy"),
    [
        ('[[stages]]\nname = "a"\n[[stages]]\nname = "a"\n', 4, "two stages are called 'a'", "Rename"),
        ("[[stages]]\n[[stages]]\n", 1, "a stage has no name", 'name = "base"'),
        ('[[stages]]\nname = "a/b"\n', 2, "'a/b' is not a valid name of a stage", "letters"),
        ('[[stages]]\nname = "a"\nfrom = "b"\n', 3, "from = 'b' is no stage before 'a'", "fresh weights"),
        ('[[stages]]\nname = "a"\n[[stages]]\nname = "b"\ncheckpoint = "first"\n', 5, "checkpoint = 'first' is none", '"best"'),
        ('[[stages]]\nname = "a"\nform = "b"\n', 3, "unknown key 'form' of a stage", "Did you mean 'from'?"),
        ('[[stages]]\nname = "a"\n[[stages]]\nname = "b"\ntrain.model.n_embd = 8\n', 5,
         "stage 'b' goes on with the weights of 'a', so it cannot change the shape of the model (train.model.n_embd)", 'from = ""'),
        ('[[stages]]\nname = "a"\n[[stages]]\nname = "b"\n[stages.prepare]\nencoder = "bytes"\n', 6,
         "so it cannot change the vocabulary (prepare.encoder)", "above the first [[stages]]"),
        ('[[stages]]\nname = "a"\ntrain.runtime.out_dir = "x"\n', 3, "train.runtime.out_dir is the same for all stages", "above"),
    ],
)  # fmt: skip
def test_mistakes_in_the_list(
    spaces: Path, terrarium: Terrarium, text: str, line: int, message: str, remedy: str
) -> None:
    (spaces / "config.toml").write_text(text)
    with pytest.raises(UserError) as error:
        read_stages(file_settings(spaces))
    assert message in error.value.message and remedy in error.value.remedy
    assert error.value.place == f"{spaces / 'config.toml'}:{line}"
    assert terrarium("train", "spaces").exit_code == 2


def test_mistakes_elsewhere(staged: Path, terrarium: Terrarium) -> None:
    (staged / "config.toml").write_text("stages = 3\n" + TINY)
    assert "stages is no list of tables" in terrarium("train", "spaces").stderr
    (staged / "config.toml").write_text(TINY + STAGES + "train.schedule.max_itres = 3\n")
    wrong = terrarium("train", "spaces").stderr
    assert f"{staged / 'config.toml'}:" in wrong and "unknown key 'train.schedule.max_itres'" in wrong
    (staged / "config.toml").write_text(TINY + STAGES)
    shape = terrarium("train", "spaces", "-s", "stages.long.n_layer=2")
    assert shape.exit_code == 2 and "so it cannot change the shape of the model" in shape.stderr
    other = terrarium("train", "spaces", "-s", "stages.lang.max_iters=2")
    assert other.exit_code == 2 and "there is no stage 'lang'" in other.stderr
    (staged / "config.toml").write_text(TINY + STAGES + 'prepare.documents = "letters"\n')
    missing = terrarium("loop", "spaces").stderr
    assert "prepare.py has no function 'letters'" in missing and "Or write `def letters(...)`" in missing


@pytest.mark.slow
def test_a_stage_may_have_other_documents_and_other_weights(staged: Path, terrarium: Terrarium) -> None:
    more = "\ndef backwards(rng):\n    while True:\n        word = ''.join(rng.choices('abc', k=2))\n        yield Example(f'{word}: ', word[::-1] + '\\n')\n"
    (staged / "prepare.py").write_text((staged / "prepare.py").read_text() + more)
    stage = '\n[[stages]]\nname = "back"\nfrom = ""\nprepare.documents = "backwards"\ntrain.model.n_embd = 8\n'
    (staged / "config.toml").write_text(TINY + STAGES + stage)
    done = terrarium("loop", "spaces")
    assert done.exit_code == 0, done.output
    assert "origin" not in summary_of(staged, "back")
    assert summary_of(staged, "back")["parameters"] < summary_of(staged, "short")["parameters"]
    examples = open_experiment("spaces").run("default/back").load().dataset.examples("train", 0)
    assert all(example.completion.strip() == example.prompt[1::-1] for example in examples)


def test_overrides_of_all_stages_and_of_one(staged: Path, terrarium: Terrarium) -> None:
    done = terrarium("train", "spaces", "max_iters=3", "stages.long.max_iters=5", "eval_interval=1")
    assert done.exit_code == 0, done.output
    assert [summary_of(staged, stage)["steps"] for stage in ("short", "long", "again")] == [3, 5, 3]


@pytest.mark.slow
def test_a_sweep_over_whole_runs(staged: Path, terrarium: Terrarium) -> None:
    command = ("sweep", "spaces", "--seeds", "0,1", "--grid", "stages.long.learning_rate=0.01")
    done = terrarium(*command)
    assert done.exit_code == 0, done.output
    assert (staged / "out/sweep-lr-lr0.01-seed0/again/summary.json").is_file()
    [row] = [line for line in done.stdout.splitlines() if line.startswith("         0.01")]
    losses = [summary_of(staged, "again", f"sweep-lr-lr0.01-seed{seed}")["best_val_loss"] for seed in (0, 1)]
    assert f"{sum(losses) / 2:.4f}" in row
    assert "2 runs, 2 of them done" in terrarium(*command).stdout
    halved = terrarium("sweep", "spaces", "--seeds", "0,1", "--halving")
    assert halved.exit_code == 2 and "halving stops single runs early, and spaces has stages" in halved.stderr


SHIPPED = Path(__file__).parents[1] / "experiments"
KILLED = '\n[[stages]]\nname = "a"\n\n[[stages]]\nname = "b"\nprepare.params.alphabet = "cba"\ntrain.schedule.max_iters = 3\n'


@pytest.fixture(scope="module")
def short_stages(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Lab:
    return Lab(tiny(tmp_path_factory.mktemp("stages"), 4, KILLED), forks)


def kill_at_random(lab: Lab, times: int) -> None:
    """Kill the command at random moments and finish it, in ever new copies."""
    chance, killed = random.Random(3), 0
    while killed < times:
        folder = lab.copy()
        for _ in range(3):
            job = lab.forks.start(folder, *lab.command)
            time.sleep(chance.uniform(0, lab.seconds))
            job.kill()
            code, printed = job.wait()
            if code == 0:
                break
            assert code == -9, printed
            killed += 1
        lab.finish(folder)


def test_killed_at_random_inside_and_between_stages_it_ends_as_an_unbroken_one(short_stages: Lab) -> None:
    kill_at_random(short_stages, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "run", "stages", "times"),
    [
        ("arithmetic", ("--variant", "stages"), "stages", {"two": 40, "three": 60}, 20),
        (
            "chat",
            (
                "n_layer=2",
                "n_embd=32",
                "evaluate.max_prompts=20",
                "prepare.size=60000",
                "max_new_tokens=10",
                "stages.reward.train.objective.prompts_per_step=2",
                "stages.reward.train.objective.max_new_tokens=16",
            ),
            "default",
            {"base": 20, "mid": 30, "chat": 40, "reward": 15},
            10,
        ),
    ],
)
def test_a_shipped_experiment_killed_at_random_ends_as_an_unbroken_loop(
    tmp_path: Path, forks: Forks, name: str, options: tuple[str, ...], run: str, stages: dict[str, int], times: int
) -> None:
    folder = tmp_path / "original" / "experiments" / name
    shutil.copytree(SHIPPED / name, folder, ignore=shutil.ignore_patterns("out", "datasets", "__pycache__"))
    short = [f"stages.{stage}.max_iters={steps}" for stage, steps in stages.items()]
    lab = Lab(
        folder, forks, "loop", *options, *short, "eval_interval=10", "checkpoint_interval=7", "trackers=[]", run=run
    )
    assert list(lab.unbroken) == [*stages, "table"]
    kill_at_random(lab, times)


def test_check_looks_at_every_stage_and_across_them(staged: Path, terrarium: Terrarium) -> None:
    shown = terrarium("check", "spaces", "--no-timing").stdout
    assert [line for line in shown.splitlines() if line.startswith("stage ")] == [
        "stage short",
        "stage long",
        "stage again",
    ]
    found = json.loads(terrarium("check", "spaces", "--no-timing", "--json").stdout)
    assert list(found["stages"]) == ["short", "long", "again"]
    pairs = {(part["stage"], part["side"], part["train_of"]): part["in_train"] for part in found["across"]}
    assert set(pairs.values()) == {0} and ("short", "test", "long") in pairs and ("again", "val", "long") in pairs
    other = terrarium("check", "spaces", "--no-timing", "--json", "stages.long.prepare.split=shuffle").stdout
    assert any(part["in_train"] for part in json.loads(other)["across"])
    assert re.search(r"short \(val\) in long +0 of \d+ \(0.0%\)", shown)
    assert "stage short" not in terrarium("check", "spaces", "--no-timing", "--stage", "long").stdout


def test_stages_with_a_dataset_of_another_name(staged: Path, terrarium: Terrarium) -> None:
    """As a sweep over settings of the data names it: each stage has its folder below that name."""
    settings = ("-s", "prepare.dataset_dir=datasets/other", "-s", "prepare.size=1500")
    for command in ("loop", "evaluate", "sample"):
        done = terrarium(command, "spaces", *settings)
        assert done.exit_code == 0, done.output
    assert (staged / "datasets/other/short/train.bin").is_file() and not (staged / "datasets/basic").exists()
