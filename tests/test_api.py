"""The Python API: what docs/reference/api.md promises, in scripts and in notebooks."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PREPARE, TINY

import core
from core import Tracker, UserError, compare_experiments, open_experiment, train_model, train_models
from core.errors import Interrupted
from core.listener import Silent

ROOT = Path(__file__).parents[1]
ONE_THREAD = {"train.runtime.threads": 1, "train.runtime.attention": "explicit"}


class Heard(Silent):
    """A listener that keeps all it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.rows: list[dict[str, float]] = []
        self.told: list[tuple[str, float, float]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def row(self, metrics: dict[str, float]) -> None:
        self.rows.append(metrics)

    def progress(self, what: str, done: float, total: float) -> None:
        self.told.append((what, done, total))


def weights(run: Any, name: str = "last") -> bytes:
    return bytes((run.folder / "checkpoints" / name / "model.safetensors").read_bytes())


@pytest.mark.slow
def test_the_block_of_the_reference(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/reference/api.md begins with it. The experiment is the shipped one, with fewer steps for what need not be right."""
    shutil.copytree(
        ROOT / "experiments" / "insert_spaces", lab / "insert_spaces", ignore=shutil.ignore_patterns("out", "datasets")
    )
    short = {"train.schedule.max_iters": 5, "train.model.n_embd": 16, "train.runtime.dtype": "float32", **ONE_THREAD}
    exp = open_experiment("insert_spaces", {"train.model.n_embd": 64, **ONE_THREAD})
    data = exp.prepare()
    assert data.train.tokens > data.val.tokens > 0
    assert len(data.examples("val", 5)) == 5
    rows: list[dict[str, float]] = []
    run = exp.train("wide", seed=1, on_row=rows.append)
    best = next(row for row in run.metrics if row["step"] == run.summary["best_step"])
    assert run.summary["best_val_loss"] == best["val_loss"] < 1 and run.summary["seed"] == 1
    assert run.metrics[-1]["step"] == rows[-1]["step"] == run.summary["steps"]
    if importlib.util.find_spec("pandas"):
        assert list(run.frame().columns)[:2] == ["step", "tokens"]
        assert len(run.frame()) == len(run.metrics)
    model = run.load()
    assert model.evaluate()["val_accuracy"] > 0.5
    assert model.complete(["cab: "], temperature=0) == ["c a b\n"]
    assert "".join(model.stream("cab: ", temperature=0)) == "c a b\n"
    assert isinstance(model.module, torch.nn.Module) and model.encoder.decode(model.encoder.encode("cab")) == "cab"
    assert exp.run("wide").load().step == model.step
    assert [each.name for each in exp.runs()] == ["wide"]

    metrics, checkpoint_dir = train_model(
        {"experiment": "insert_spaces", "train.model.kind": "lstm", "prepare.params.max_letters": 2, "run": "lstm",
         "prepare.dataset_dir": "datasets/two", **short}
    )  # fmt: skip
    assert metrics["val_loss"] == metrics["best_val_loss"] and checkpoint_dir.name == "best" and checkpoint_dir.is_dir()
    runs = train_models({"experiment": "insert_spaces", **short}, seeds=[0, 13], jobs=2)
    assert [each.summary["seed"] for each in runs] == [0, 13]
    compared = compare_experiments(
        [run.folder, *(each.folder for each in runs)],
        output_path="comparison.png",
        experiment_names=["wide", "0", "13"],
    )
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")
    assert len(compared.verdicts) >= 2 and "wide" in str(compared)
    assert capsys.readouterr().out == ""


def test_a_frame_without_pandas_says_what_to_do(spaces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_experiment("spaces").train()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        UserError, match=r"a frame needs pandas, which is not installed\n  pip install pandas, or use `met"
    ):
        run.frame()


@pytest.mark.slow  # test_sweep.py compares bits of runs at once, too
def test_many_at_once_are_those_in_turn(spaces: Path) -> None:
    settings = {"experiment": "spaces", **ONE_THREAD}
    together = train_models({**settings, "run": "together"}, seeds=[0, 1], jobs=2)
    in_turn = train_models({**settings, "run": "in-turn"}, seeds=[0, 1])
    alone = [open_experiment("spaces", ONE_THREAD).train(f"alone{seed}", seed=seed) for seed in (0, 1)]
    for each, other, third in zip(together, in_turn, alone, strict=True):
        assert weights(each) == weights(other) == weights(third)


def test_the_recorded_command_is_the_call(spaces: Path) -> None:
    exp = open_experiment("spaces", {"train.model.n_embd": 32})
    run = exp.train("wide", seed=3, description="Does width help?")
    assert run.summary["command"] == (
        "open_experiment('spaces', {'train.model.n_embd': 32}).train('wide', seed=3, description='Does width help?')"
    )
    assert repr(exp) == "open_experiment('spaces', {'train.model.n_embd': 32})"
    assert eval(repr(exp), {"open_experiment": open_experiment}).run("wide").folder == run.folder


def test_overrides_nested_and_dotted_are_the_same(spaces: Path) -> None:
    one = open_experiment("spaces", {"train": {"model": {"n_layer": 2}}, "prepare.params.max_letters": 1})
    two = open_experiment(str(spaces), {"train.model.n_layer": 2, "prepare": {"params": {"max_letters": 1}}})
    assert one.opened.config == two.opened.config and one.opened.config.train.model.n_layer == 2
    assert open_experiment("spaces", {"train.model.n_ff": None}).opened.config.train.model.n_ff == 64


def test_a_variant(spaces: Path) -> None:
    (spaces / "config.large.toml").write_text("[train.model]\nn_embd = 32\n")
    run = open_experiment("spaces", variant="large").train()
    assert run.name == "large" and run.summary["command"] == "open_experiment('spaces', variant='large').train()"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train.model.n_lyer": 2},
            "`train.model.n_lyer=2`: unknown key 'train.model.n_lyer'\n  Did you mean 'n_layer'?",
        ),
        ({"train.model.n_layer": "two"}, "train.model.n_layer"),
        ({"train.model.n_head": 3}, "is not divisible by n_head = 3"),
    ],
)
def test_wrong_settings_name_the_key_and_no_flag(spaces: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        open_experiment("spaces", settings)
    assert message in str(caught.value) and " -s " not in str(caught.value)
    assert caught.value._render_traceback_() == [f"error: {caught.value}"]


def test_mistakes_are_told(spaces: Path) -> None:
    exp = open_experiment("spaces")
    with pytest.raises(UserError, match="spaces has no run 'nothing'"):
        exp.run("nothing")
    with pytest.raises(UserError, match='the settings have no "experiment"'):
        train_model({})
    with pytest.raises(UserError, match="a comparison needs two runs"):
        compare_experiments([spaces])
    with pytest.raises(UserError, match="exclude each other"):
        exp.train(resume=True, fresh=True)
    run = exp.train()
    with pytest.raises(UserError, match="1 names for 2 runs"):
        compare_experiments([run.folder, run.folder], experiment_names=["a"])
    with pytest.raises(UserError, match="no choice is called 'temprature'"):
        run.load().complete(["a: "], temprature=0)
    with pytest.raises(UserError, match=r"other settings: train\.model\.n_embd: 16 -> 32"):
        open_experiment("spaces", {"train.model.n_embd": 32}).train()
    with pytest.raises(UserError, match="there are no seeds"):
        train_models({"experiment": "spaces"}, seeds=[])


def test_a_listener_hears_everything_and_a_finished_run_is_left_alone(spaces: Path) -> None:
    heard = Heard()
    exp = open_experiment("spaces", listener=heard)
    exp.train(listener=heard)
    assert any(line.startswith("training spaces/default: ") for line in heard.lines)
    assert [row["step"] for row in heard.rows] == [2, 3, 4, 6]
    assert {"wall_seconds", "ms_per_step", "val_loss", "tokens_per_second"} <= heard.rows[-1].keys()
    assert ("training, steps", 6, 6) in heard.told
    again = Heard()
    exp.train(listener=again)
    assert "spaces/default is finished. To train it again: `fresh=True`; to train another: `run=NAME`." in again.lines
    assert not again.rows


def test_ctrl_c_saves_and_leaves_the_handlers_as_they_were(spaces: Path) -> None:
    exp = open_experiment("spaces", ONE_THREAD)
    whole = exp.train("whole")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        exp.train("broken", on_row=stop)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert caught.value._render_traceback_() == [f"interrupted, and saved. Go on with: {exp!r}.train('broken')"]
    assert exp.run("broken").summary["status"] == "interrupted"
    assert 3 <= exp.run("broken").summary["steps"] < 6
    assert exp.train("broken").summary["status"] == "completed"
    assert weights(exp.run("broken")) == weights(whole)


@pytest.mark.slow
def test_the_process_is_as_it_was(spaces: Path) -> None:
    """Threads, determinism, random numbers and the memory limit, in a process of the user's own."""
    script = f"""
import json, multiprocessing, os, random, resource, sys, time, torch
from core import open_experiment
torch.set_num_threads(2)
torch.manual_seed(5)
random.seed(5)
def state():
    return [torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory, torch.get_rng_state().tolist(),
            random.getstate() == random.Random(5).getstate(), resource.getrlimit(resource.RLIMIT_DATA)]
def surroundings():  # torch's and ours are allowed to add to them only what is theirs
    return {{name: value for name, value in os.environ.items() if name.startswith(("TOKENIZERS", "MLFLOW", "_MLFLOW", "GOMP"))}}
before, around = state(), surroundings()
exp = open_experiment({str(spaces)!r}, {{"train.runtime.threads": 1, "train.model.dropout": 0.1}})
model = exp.train().load()
model.evaluate()
model.complete(["a: "], temperature=1.0)
next(model.stream("a: "))
exp.check(timing=False)
import core.encoders.bpe
from core import train_models
train_models({{"experiment": {str(spaces)!r}, "train.runtime.threads": 1}}, seeds=[0, 1], jobs=2)
import core.process
with core.process.computing("cpu"):
    core.process.be_deterministic(compiling=True)
assert not sys.modules["torch._inductor.config"].deterministic
assert state() == before, (state(), before)
assert surroundings() == around, surroundings()
if sys.platform == "linux":  # a process of the user's own is not ours
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=time.sleep, args=(60,))
    process.start()
    time.sleep(0.5)
    process.terminate()
    process.join(20)
    assert process.exitcode == -15, process.exitcode
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_importing_core_brings_nothing_heavy() -> None:
    code = "import sys, core; print([name for name in ('torch', 'numpy', 'pydantic', 'click', 'pluggy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in core.__all__:
        assert getattr(core, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = core.nothing


def test_a_notebook_can_complete_the_names() -> None:
    assert dir(core) == sorted(core.__all__)


def test_the_command_of_many_runs_holds_text_and_no_home(
    lab: Path, spaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(lab.parent))
    train_models({"experiment": spaces, "run": "many", **ONE_THREAD}, seeds=[0])
    page = (spaces / "out" / "sweeps" / "many" / "report.md").read_text()
    assert "train_models({'experiment': '~/" in page and str(lab.parent) not in page


def test_two_open_experiments_do_not_see_each_others_hooks(lab: Path) -> None:
    hook = "\n\nseen = []\n\n\ndef on_metrics(run, step, metrics):\n    seen.append((run.title, step))\n"
    model = "\n\ndef register_models(register):\n    from core.models.lstm import LSTM\n\n    register('mine', LSTM)\n"
    for name, more in (("one", hook + model), ("two", hook)):
        folder = lab / name
        folder.mkdir()
        (folder / "prepare.py").write_text(PREPARE + more)
        (folder / "config.toml").write_text(TINY)
    one, two = open_experiment("one", {"train.model.kind": "mine"}), open_experiment("two")
    two.train()
    one.train()
    seen = [{title for title, _ in exp.opened.code.seen} for exp in (one, two)]
    assert seen == [{"one/default"}, {"two/default"}]
    with pytest.raises(UserError, match='unknown model "mine"'):
        open_experiment("two", {"train.model.kind": "mine"}).train("other")


def test_runs_of_a_users_own_loop_are_compared(tmp_path: Path) -> None:
    folders = []
    for name, offset in (("a", 0.0), ("b", 1.0)):
        with Tracker(tmp_path / "mine" / "out" / name, config={"lr": 0.1 + offset}, seed=1, trackers=()) as tracker:
            for step in (1, 2, 3):
                tracker.log_step(step=step, tokens=10 * step, val_loss=2.0 + offset - 0.1 * step)
        folders.append(tmp_path / "mine" / "out" / name)
    compared = compare_experiments(folders, output_path=tmp_path / "c.html", experiment_names=["a", "b"])
    assert compared.files["written"] == tmp_path / "c.html" and compared.files["curves"].is_file()
    assert [group["group"] for group in compared.as_dict()["groups"]] == ["a", "b"]
    assert "val loss" in compared.verdicts[0]
    assert compared._repr_html_().startswith("<iframe srcdoc=")


def test_runs_and_reports_show_themselves_in_a_notebook(spaces: Path) -> None:
    exp = open_experiment("spaces")
    run = exp.train()
    assert "spaces / default" in run._repr_html_() and "data:image/png;base64," in run._repr_html_()
    prompts = f"{run.summary['prompts']:,} test prompts"
    assert re.search(rf">exact match</th><td>[\d.]+%</td><td>{prompts}</td>", run._repr_html_())
    assert "accuracy" not in run._repr_html_().partition("<img")[0]
    assert repr(run) == "TrainedRun(spaces/default, completed)" and "step=" in repr(run.load())
    page = run.report()
    assert Path(page) == run.folder / "report.html" and "&lt;!doctype html&gt;" in page._repr_html_().lower()
    assert Path(exp.report()).is_file()


NOTEBOOK = (
    "from core import open_experiment, compare_experiments\nexp = open_experiment('spaces')",
    "run = exp.train()",
    "run",
    "import os, signal\n"
    "before = signal.getsignal(signal.SIGINT)\n"
    "exp.train('broken', seed=7, listener=type('Stop', (), {'say': lambda *_: None, 'progress': lambda *_: None,\n"
    "    'row': lambda self, row: os.kill(os.getpid(), signal.SIGINT)})())",
    "assert signal.getsignal(signal.SIGINT) == before\nexp.run('broken').summary['status']",
    "exp.train('broken', seed=7).summary['status']",
    "compare_experiments([run.folder, exp.run('broken').folder])",
    "exp.report()",
)


@pytest.mark.slow
def test_a_real_notebook(spaces: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Executed by a Jupyter kernel: one live display per training, pages for runs, comparisons and reports."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    cells = [nbformat.v4.new_code_cell(code) for code in NOTEBOOK]
    cells[3].metadata["tags"] = ["raises-exception"]
    book = nbformat.v4.new_notebook(cells=cells)
    kernel = {"display_name": "Python", "language": "python", "name": "python3"}
    book.metadata["kernelspec"] = kernel
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(spaces.parent.parent)}}).execute()  # fmt: skip
    _, trained, shown, broken, status, again, compared, report = book.cells
    displays = [output for output in trained.outputs if output.output_type == "display_data"]
    assert len(trained.outputs) == len(displays) == 1, trained.outputs
    page = displays[0].data["text/html"]
    assert "trained spaces/default" in page and "<progress" in page and "val loss" in page
    assert "spaces / default" in shown.outputs[-1].data["text/html"]
    [error] = [output for output in broken.outputs if output.output_type == "error"]
    assert error.ename == "Interrupted" and error.traceback == [
        "interrupted, and saved. Go on with: open_experiment('spaces').train('broken', seed=7)"
    ]
    assert status.outputs[-1].data["text/plain"] == "'interrupted'"
    assert again.outputs[-1].data["text/plain"] == "'completed'"
    assert "<iframe" in compared.outputs[-1].data["text/html"] and "<iframe" in report.outputs[-1].data["text/html"]


@pytest.mark.slow
def test_the_shipped_tour_runs(lab: Path) -> None:
    """docs/how-to/tour.py, a notebook as a script, on the shipped experiment with fewer steps."""
    target = lab / "insert_spaces"
    shutil.copytree(ROOT / "experiments" / "insert_spaces", target, ignore=shutil.ignore_patterns("out", "datasets"))
    config = (target / "config.toml").read_text()
    (target / "config.toml").write_text(
        config + "\n[sample.sample]\nnum_samples = 2\n" if "sample.sample" not in config else config
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TOUR_STEPS": "4", "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "how-to" / "tour.py")], capture_output=True, text=True, cwd=lab.parent, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "val_accuracy" in done.stdout and (lab.parent / "comparison.png").is_file()
    assert json.loads((target / "out" / "tour" / "summary.json").read_text())["status"] == "completed"


def test_a_run_is_loaded_with_its_own_settings(spaces: Path) -> None:
    """Also by an experiment that is open with others, of which the device alone would count."""
    open_experiment("spaces").train()
    exp = open_experiment("spaces", {"train.model.n_embd": 32, "sample.runtime.threads": 1})
    exp.train("wide", seed=3)
    widths = {run.name: run.load().config.train.model.n_embd for run in exp.runs()}
    assert widths == {"default": 16, "wide": 32}
    assert exp.run("default").load("last").config.sample.runtime.threads == 1
    with pytest.raises(UserError, match="a run has no checkpoint 'final'"):
        exp.run("default").load("final")  # type: ignore[arg-type]


def test_a_listener_of_the_experiment_hears_each_call_and_so_does_on_row(spaces: Path) -> None:
    heard, rows = Heard(), list[dict[str, float]]()
    exp = open_experiment("spaces", listener=heard)
    exp.prepare()
    assert any("the dataset is ready" in line for line in heard.lines)
    exp.train(on_row=rows.append)
    assert rows == heard.rows and rows
    own = Heard()
    exp.train("other", listener=own, on_row=rows.append)
    assert own.rows and rows == heard.rows + own.rows


def test_the_progress_of_a_run_that_stops_early_ends(spaces: Path) -> None:
    heard = Heard()
    open_experiment("spaces", {"train.runtime.stop_when": "val_loss > 0"}).train(listener=heard)
    assert ("training, steps", 3, 6) in heard.told and heard.told[-1] == ("training, steps", 6, 6)


def test_values_of_other_kinds(spaces: Path, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    run = open_experiment(spaces, {"train.runtime.out_dir": tmp_path / "elsewhere"}).train(seed=numpy.int64(4))
    assert run.folder == tmp_path / "elsewhere" / "default-seed4" and run.summary["seed"] == 4
    with pytest.raises(UserError, match=r"train\.model\.n_layer is set, which config\.toml cannot hold"):
        open_experiment("spaces", {"train.model.n_layer": {1}})


def test_a_path_is_a_folder(spaces: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(spaces, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for name in (Path("elsewhere"), "./elsewhere", str(tmp_path / "elsewhere")):
        assert open_experiment(name).folder == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0"),
        ({"top_p": 2.0}, "top_p"),
    ],
)
def test_wrong_choices_of_sampling_are_told(spaces: Path, choices: dict[str, Any], message: str) -> None:
    exp = open_experiment("spaces")
    exp.train()
    model = exp.run().load()
    with pytest.raises(UserError, match=message):
        model.complete(["a: "], **choices)
    with pytest.raises(UserError, match="prompts is one text"):
        model.complete("a: ")


def test_what_is_no_run_is_told_and_runs_may_stand_for_their_folders(spaces: Path, tmp_path: Path) -> None:
    exp = open_experiment("spaces")
    one, two = exp.train(seed=1), exp.train(seed=2)
    with pytest.raises(UserError, match="nowhere: is not a run folder"):
        compare_experiments([one, tmp_path / "nowhere"])
    compared = compare_experiments([one, [two.folder]])
    assert repr(compared) == "Compared(spaces/default-seed1, spaces/default-seed2)" and repr(exp.prepare()).startswith(
        "Dataset("
    )


def test_nothing_is_renamed_by_a_listener_that_fails(spaces: Path) -> None:
    exp = open_experiment("spaces")
    exp.train()

    class Failing(Heard):
        def say(self, text: str) -> None:
            if text.startswith("check: "):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exp.train(fresh=True, listener=Failing())
    assert [run.name for run in exp.runs()] == ["default"]
