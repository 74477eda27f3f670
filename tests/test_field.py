"""The small failing inputs of ../shared/field: each does what its README.md calls right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FIELD = ROOT.parent / "shared" / "field"
Terrarium = Callable[..., Any]

pytestmark = pytest.mark.skipif(not FIELD.is_dir(), reason="../shared/field is not here")


@pytest.fixture
def field(lab: Path) -> Callable[[str], Path]:
    """Copy one of the folders into the lab."""
    return lambda name: shutil.copytree(FIELD / name, lab / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("masked-verdict", "train.data.mask_prompt", ("true", "false")),
        ("eval-iters-verdict", "train.runtime.eval_iters", ("0", "1")),
    ],
)
def test_verdicts_on_losses_that_are_measured_differently(
    field: Callable[[str], Path], terrarium: Terrarium, name: str, key: str, values: tuple[str, str]
) -> None:
    """None is given: exact match is compared, and no setting is marked as best by its loss."""
    folder = field(name)
    small = ("-s", "prepare.size=4000", "-s", "train.schedule.max_iters=4", "-s", "train.runtime.device=cpu")
    done = terrarium("sweep", name, "--seeds", "0..2", "--grid", f"{key}={','.join(values)}", *small)
    assert done.exit_code == 0, done.output
    assert f"The losses of these settings cannot be compared ({key} is {values[0]} and {values[1]})" in done.output
    assert re.search(r"\nNo evidence of a difference: exact match .*\nreport: ", done.output)
    told = terrarium("compare", name).stdout
    assert told.startswith("No evidence of a difference: exact match")
    assert re.search(rf"No verdict on val loss: .* do not measure it alike \({key} is \w+ and \w+\)\.", told)
    [report] = folder.glob("out/sweeps/*/report.md")
    for said in (done.output, told, report.read_text()):
        assert "better" not in said and "val loss of" not in said


def test_renamed_experiment(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    folder = field("renamed-experiment")
    assert terrarium("train", "renamed-experiment", "-q").exit_code == 0
    renamed = folder.rename(folder.with_name("renamed"))
    assert terrarium("sample", "renamed", "-q").exit_code == 0
    assert terrarium("train", "renamed", "--run", "second", "-q").exit_code == 0
    log = (renamed / "EXPERIMENT_LOG.md").read_text()
    assert [f"renamed/{run}" in log for run in ("default", "second")] == [True, True]
    shutil.copytree(renamed, folder)  # a copy under the old name, too, is a copy
    assert [row["run"] for row in json.loads(terrarium("runs", "renamed", "--json").stdout)] == ["default", "second"]
    copied = terrarium("sample", "renamed-experiment")
    assert copied.exit_code == 2 and "out/default is a copied run of 'renamed'." in copied.output


def test_parallel_first_start(field: Callable[[str], Path], lab: Path) -> None:
    folder = field("parallel-first-start")
    command = [sys.executable, "-m", "core.cli", "train", "parallel-first-start", "--run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([*command, run], cwd=lab.parent, env=environment, stderr=subprocess.PIPE, text=True)
        for run in ("a", "b")
    ]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    statuses = [json.loads((folder / "out" / run / "summary.json").read_text())["status"] for run in ("a", "b")]
    assert statuses == ["completed", "completed"]


@pytest.mark.slow
def test_own_model_key(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    folder = field("own-model-key")
    small = ("-s", "prepare.size=2000", "-s", "train.schedule.max_iters=2", "-q")
    assert terrarium("train", "own-model-key", *small).exit_code == 0
    assert "[train.model.params]\nn_loop = 3\n" in (folder / "out" / "default" / "config.toml").read_text()
    swept = terrarium("sweep", "own-model-key", *small, "--seeds", "0", "--grid", "train.model.params.n_loop=1,2")
    assert swept.exit_code == 0, swept.output
    for count in (1, 2):
        run = folder / "out" / f"sweep-n_loop-n_loop{count}-seed0"
        assert f"[train.model.params]\nn_loop = {count}\n" in (run / "config.toml").read_text()


def test_the_bytes_are_the_same_after_a_comment(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    folder = field("comment-orphans")
    assert terrarium("loop", folder.name, "-s", "train.schedule.max_iters=4").exit_code == 0
    with (folder / "prepare.py").open("a") as file:
        file.write("# a comment\n")
    assert "the data is the same as before" in terrarium("prepare", folder.name).stdout
    for command in ("sample", "evaluate"):
        done = terrarium(command, folder.name)
        assert done.exit_code == 0, done.output


def test_a_table_that_documents_reads_is_watched(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    folder = field("csv-not-watched")
    assert terrarium("prepare", folder.name).exit_code == 0
    lines = (folder / "table.csv").read_text().splitlines(keepends=True)
    (folder / "table.csv").write_text("".join(lines[: len(lines) // 2]))
    assert "(its input table.csv has changed)" in terrarium("prepare", folder.name).stdout


def test_a_finite_corpus_is_taken_whole(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    name = field("size-cuts-corpus").name
    tokens = re.findall(r"([\d,]+) (?:training|validation) tokens", terrarium("prepare", name).stdout)
    assert sum(int(count.replace(",", "")) for count in tokens) == 2_533_999
    told = terrarium("prepare", name, "-s", "prepare.size=1000000").stdout
    assert "documents() has more: the dataset is its first 1,000,000 characters (prepare.size).\n" in told


def test_lines_that_also_stand_in_train_are_counted(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    done = terrarium("check", field("repeated-lines").name, "--no-timing")
    assert re.search(r"lines +([\d,]+) of \1 also occur in train \(100.0%\)", done.stdout), done.stdout
    assert "100% of validation also occurs in training, so its loss rewards memorising" in done.stdout


def test_a_table_is_not_learnt_as_pairs(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    done = terrarium("loop", field("csv-pairs").name)
    assert done.exit_code == 2
    assert (
        'input = "data.csv" is a table, and format = "pairs" would learn its header, quotes and commas' in done.stderr
    )


def test_a_script_is_not_run(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    folder = field("prepare-script-rewrites-data")
    refused = terrarium("train", folder.name)
    assert refused.exit_code == 2
    assert "prepare.py is a script that makes data when it is run, not functions" in refused.stderr
    assert f"Run it once by hand: python {folder / 'prepare.py'}" in refused.stderr
    subprocess.run([sys.executable, folder / "prepare.py"], check=True)
    data = (folder / "train.bin").read_bytes()
    trained = terrarium("train", folder.name)
    assert trained.exit_code == 0, trained.output
    assert "prepare.py is a script, and not run. The data is used as it is." in trained.stdout
    assert terrarium("evaluate", folder.name).exit_code == 0
    assert (folder / "train.bin").read_bytes() == data


@pytest.mark.parametrize(
    ("name", "told", "written"),
    [
        ("gpt2-ids", "there is no meta.pkl, so the ids are taken to be GPT-2's", None),
        ("vocab-only-meta", "meta.pkl has no itos, so samples are written as ids", r"0( \d+){40}\n"),
        ("words-meta", "meta.pkl lists words", r"\n?((north|south|step|turn|\n)[ \n]?)+"),
    ],
)
def test_foreign_ids_are_learnt(
    field: Callable[[str], Path], terrarium: Terrarium, name: str, told: str, written: str | None
) -> None:
    trained = terrarium("train", field(name).name, "-s", "train.schedule.max_iters=2")
    assert trained.exit_code == 0, trained.output
    assert told in trained.stdout
    if written is not None:  # GPT-2's merges may not be here
        assert re.fullmatch(written, terrarium("sample", name).stdout)


def test_nanogpt_checkpoints_of_all_ages(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    folder = field("old-nanogpt-ckpt")
    subprocess.run([sys.executable, "make.py"], cwd=folder, check=True)
    for name in ("old", "padded", "plain"):
        done = terrarium("import", "--from", "nanogpt", folder.name, str(folder / f"{name}.pt"), "--run", name)
        assert done.exit_code == 0, done.output
        dropped = "has 64 ids, and the dataset 13: the last 51 are taken for padding and dropped."
        assert (dropped in done.stdout) == (name == "padded")
        assert terrarium("sample", folder.name, "--run", name).exit_code == 0


def test_utf16_is_named(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    name = field("utf16-advice").name
    for file, found, encoding in (
        ("input.txt", "it is UTF-16, by its first two bytes", "UTF-16"),
        ("nobom.txt", "a NUL character at byte 1. UTF-16 without a byte order mark looks like this", "UTF-16LE"),
    ):
        done = terrarium("prepare", name, "-s", f"prepare.input={file}")
        assert done.exit_code == 2
        assert f"{file}: not UTF-8 text: {found}" in done.stderr
        assert f"iconv -f {encoding} -t UTF-8 OLD > NEW" in done.stderr


def test_a_windows_path(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    done = terrarium("prepare", field("windows-path").name)
    assert done.exit_code == 2
    assert "In double quotes, a backslash starts an escape such as \\U." in done.stderr
    assert "in single quotes: input = 'C:\\Users\\me\\text.txt'" in done.stderr


def test_starts_are_read_as_they_are_meant(field: Callable[[str], Path], terrarium: Terrarium) -> None:
    folder = field("bom-prompt")
    assert terrarium("train", folder.name, "-q", "-s", "train.schedule.max_iters=2").exit_code == 0
    few = ("--max-new-tokens", "2", "--json")
    marked = terrarium("sample", folder.name, "--start", f"FILE:{folder / 'prompt.txt'}", *few)
    assert json.loads(marked.stdout)["samples"][0]["start"] == "12+34="
    typed = terrarium("sample", folder.name, "--start", r"\n12+3=", *few)  # as in newline-start
    assert json.loads(typed.stdout)["samples"][0]["start"] == "\n12+3="
    assert r"The vocabulary has no backslash, so \n and \t in the start are a line break and a tab." in typed.stderr
    long = terrarium("sample", folder.name, "--start", "12+3=" * 80, *few)  # as in long-prompt
    assert (
        "cut: the prompt has 400 tokens, and block_size is 32. The model sees only its end: '=12+3=12+3=12+3='"
        in long.stderr
    )


@pytest.mark.parametrize(
    ("code", "script"),
    [
        ("for n in range(3):\n    answer = n + 1\nloss = [1]\nevaluate = answer\n", False),  # a name may be a function
        ("for n in range(3):\n    answer = n + 1\nloss = sum([1])\n", True),
        ("import random\nrandom.seed(1)\ndef document(rng):\n    yield 'a'\n", False),  # almost documents
        ("import sys\nsys.path.insert(0, '.')\ndef documents():\n    yield 'a'\n", False),
        ("from other import *\nprint(1)\n", False),
        ("import numpy as np\nnp.zeros(3).tofile('x')\n", True),
        ("'text alone'\nN = 3\n", False),
        ("def main():\n    pass\nif __name__ == '__main__':\n    main()\n", True),
    ],
)
def test_what_is_a_script(tmp_path: Path, code: str, script: bool) -> None:
    from core.data.script import is_script

    (tmp_path / "prepare.py").write_text(code)
    assert is_script(tmp_path / "prepare.py") == script
