"""held_out() of prepare.py: Examples that training never shows, in the dataset, in a run's figures and in its report."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from preparing import Told, content, error_of, examples_code, run, write

from core.data.dataset import Side, verify
from core.data.documents import Example
from core.data.info import read_info

Terrarium = Callable[..., Result]
LETTERS = '''"""Spaces between letters."""
from core import Example


def row(letters):
    return Example("".join(letters) + ": ", " ".join(letters) + "\\n", group=f"{len(letters)} letters")


def documents(rng, *, alphabet: str = "abc", max_letters: int = 3):
    while True:
        yield row(rng.choices(alphabet, k=rng.randint(1, max_letters)))


PROBES
'''
PROBES = """
def held_out(rng, *, alphabet: str = "abc", longer: int = 2):
    yield row("abc")
    yield row("ba")
    for _ in range(20):
        yield row(rng.choices(alphabet, k=3 + longer))
"""
SMALL = "[prepare]\nsize = 3000\n"
SIDES: tuple[Side, ...] = ("train", "val", "test")


def with_probes(folder: Path, probes: str = PROBES, config: str = SMALL) -> Path:
    return write(folder, LETTERS.replace("PROBES", probes), config)


def test_examples_of_held_out_are_on_no_other_side(tmp_path: Path) -> None:
    told = Told()
    without, dataset = run(with_probes(tmp_path / "a", "")), run(with_probes(tmp_path / "b"), listener=told)
    found = dataset.examples("held_out", 0)
    assert found[:2] == [Example("abc: ", "a b c\n", "3 letters"), Example("ba: ", "b a\n", "2 letters")]
    assert {example.group for example in found[2:]} == {"5 letters"}
    assert dataset.groups == without.groups and "5 letters" not in dataset.groups
    asked = {example.prompt for example in found}
    before = {side: without.examples(side, 0) for side in SIDES}
    for side in SIDES:
        now = {example.prompt for example in dataset.examples(side, 0)}
        assert now == {example.prompt for example in before[side]} - asked
    removed = read_info(dataset.folder)["split"]["held_out_removed"]
    both = re.compile(rb"abc: a b c\n|(?<![abc])ba: b a\n")
    text = b"".join(
        without.encoder.decode(without.side(side).ids.tolist()).encode() for side in SIDES
    )  # the drawn documents are the same, those with these prompts apart
    assert removed == len(both.findall(text)) > 10
    assert any(
        f"Examples of held_out(), which training never shows; {removed:,} documents" in line for line in told.said
    )


def test_a_dataset_with_held_out_is_whole_and_current(tmp_path: Path) -> None:
    folder = with_probes(tmp_path / "a")
    dataset = run(folder)
    names = {f"held_out{part}.bin" for part in ("", ".mask", ".idx", ".prompts", ".group")}
    assert names <= content(dataset.folder).keys()
    assert names <= read_info(dataset.folder)["files"].keys()
    verify(dataset.folder)
    told = Told()
    assert content(run(folder, listener=told).folder) == content(dataset.folder)
    assert any("up to date" in line for line in told.said)
    (dataset.folder / "held_out.bin").unlink()
    told = Told()
    run(folder, listener=told)
    assert any("held_out.bin is missing" in line for line in told.said)


def test_other_probes_change_no_training_data(tmp_path: Path) -> None:
    """They have random numbers of their own, and a run is told by what it is trained on."""
    one, other = run(with_probes(tmp_path / "a")), run(with_probes(tmp_path / "b"), ["prepare.params.longer=3"])
    assert one.data_hash == other.data_hash
    assert one.examples("held_out", 0)[2:] != other.examples("held_out", 0)[2:]
    for side in SIDES:
        assert (one.side(side).ids == other.side(side).ids).all()


def test_probes_are_in_the_vocabulary_and_may_be_longer_than_documents(tmp_path: Path) -> None:
    probes = '\ndef held_out():\n    yield Example("xyz: ", "x y z\\n")\n'
    dataset = run(with_probes(tmp_path / "a", probes))
    assert dataset.examples("held_out", 0) == [Example("xyz: ", "x y z\n")]
    assert dataset.longest_answer("held_out") == 6
    longer = run(with_probes(tmp_path / "b"))
    assert longer.longest_completion == 6 and longer.longest_answer("held_out") == 10
    assert longer.longest_answer("val") == 6


def test_params_belong_to_the_function_that_has_them(tmp_path: Path) -> None:
    folder = with_probes(tmp_path / "a")
    assert {len(e.prompt) for e in run(folder, ["prepare.params.longer=4"]).examples("held_out", 0)[2:]} == {9}
    run(folder, ['prepare.params.alphabet="abd"'])
    found = error_of(folder, "prepare.params.longr=4")
    assert "unknown key 'prepare.params.longr'" in found.message
    found = error_of(folder, 'prepare.params.longer="x"')
    assert "held_out() declares longer: int" in found.remedy


@pytest.mark.parametrize(
    ("probes", "told", "remedy"),
    [
        ("def held_out():\n    return 3", "held_out() returned int, which yields no Examples", "Write `yield"),
        ("def held_out():\n    yield 'abc'", "held_out() yielded str, not an Example", "yield Example(prompt, completion)"),
        ("def held_out():\n    while True:\n        yield row('abc')", "yields more than 100,000 Examples", "It must end"),
        ("def held_out():\n    yield Example('a', 'b')", "must end as those of documents() do: with '\\n'", "no other end"),
        ("def held_out():\n    yield Example('', 'b\\n')", "empty prompt", ""),
    ],
)  # fmt: skip
def test_a_wrong_held_out_is_refused(tmp_path: Path, probes: str, told: str, remedy: str) -> None:
    error = error_of(with_probes(tmp_path / "a", probes))
    assert told in error.message and remedy in error.remedy
    assert not (tmp_path / "a" / "datasets" / "basic").exists()


def test_documents_must_be_examples_and_some_must_be_left(tmp_path: Path) -> None:
    text = "from core import Example\n\ndef documents():\n    yield 'ab'\n    yield 'cd'\n\ndef held_out():\n    yield Example('a', 'b')\n"
    assert "held_out() yields Examples, but documents() yields text" in error_of(write(tmp_path / "a", text)).message
    same = examples_code([("a:", "b\n"), ("c:", "d\n")]) + "\ndef held_out():\n    yield from documents()\n"
    error = error_of(write(tmp_path / "b", same))
    assert "all 2 documents of documents() are also in held_out()" in error.message and "fewer prompts" in error.remedy


def test_nothing_to_hold_out_is_told(tmp_path: Path) -> None:
    """So a variant can do without probes."""
    folder = with_probes(
        tmp_path / "a", "\ndef held_out(*, probes: int = 2):\n    yield from [row('abcde')] * probes\n"
    )
    told = Told()
    assert run(folder, ["prepare.params.probes=0"], listener=told).held_out is None
    assert any("held_out() yields nothing, so nothing is held out beside" in line for line in told.said)
    assert run(folder).examples("held_out", 0)[0].prompt == "abcde: "


@pytest.mark.parametrize("helper", ["def held_out(word):\n    return word", "def held_out(a, b):\n    return a"])
def test_a_helper_of_this_name_is_not_used(tmp_path: Path, helper: str) -> None:
    with pytest.warns(UserWarning, match="a function held_out, which is not used: only"):
        dataset = run(with_probes(tmp_path / "a", helper))
    assert dataset.held_out is None


def test_held_out_beside_prepare_is_told(tmp_path: Path) -> None:
    code = (
        "from core import Example\n\ndef prepare(job):\n"
        "    job.write([Example('a', 'b\\n')], [Example('c', 'd\\n')])\n\n"
        "def held_out():\n    yield Example('a', 'b\\n')\n"
    )
    with pytest.warns(UserWarning, match=r"held_out, which is not used: documents\(\) does not make the data"):
        assert run(write(tmp_path / "a", code)).held_out is None


def test_a_dataset_without_it_says_so(tmp_path: Path) -> None:
    from core.errors import UserError

    with pytest.raises(UserError, match=r"has no Examples of held_out\(\)") as error:
        run(with_probes(tmp_path / "a", "")).examples("held_out", 1)
    assert "def held_out()" in error.value.remedy


@pytest.fixture
def trained(spaces: Path, terrarium: Terrarium) -> Path:
    config = (spaces / "config.toml").read_text()
    (spaces / "prepare.py").write_text(LETTERS.replace("PROBES", PROBES))
    (spaces / "config.toml").write_text(config)
    assert terrarium("loop", "spaces", "-q").exit_code == 0
    return spaces


def test_a_run_measures_them_while_it_trains_and_at_its_end(trained: Path, terrarium: Terrarium) -> None:
    folder = trained / "out" / "default"
    summary = json.loads((folder / "summary.json").read_text())
    held_out = summary["held_out"]
    assert held_out["prompts"] == sum(held_out["prompts_by_group"].values()) > 2
    assert set(held_out["accuracy_by_group"]) == {"2 letters", "3 letters", "5 letters"}
    assert summary["side"] == "test" and summary["metrics"] is None
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"held_out_accuracy", "held_out_accuracy/5 letters"} <= set(header)
    found = json.loads(terrarium("evaluate", "spaces", "--json").stdout)
    assert found["held_out_accuracy"] == held_out["accuracy"] and found["held_out_prompts"] == held_out["prompts"]
    assert found["held_out_prompts/5 letters"] == held_out["prompts_by_group"]["5 letters"]
    details = json.loads((folder / "evaluation.json").read_text())["details"]
    assert details["step"] == summary["best_step"] and details.keys() == {"step", "val", "test", "held_out"}
    assert details["held_out"]["prompts"] == held_out["prompts"]


def test_the_report_shows_them_and_the_kinds_of_errors(trained: Path, terrarium: Terrarium) -> None:
    folder = trained / "out" / "default"
    text = (folder / "report.md").read_text()
    assert "## Prompts that training never shows" in text and "| 5 letters |" in text
    assert "## Right by place and by carries" in text and "(answers_held_out.png)" in text
    assert "## Kinds of errors" in text and "wrong answers to held\\_out() prompts, by kind" in text
    assert (folder / "answers.png").read_bytes()[:4] == b"\x89PNG"
    kinds = json.loads((folder / "samples.json").read_text())["errors"]
    assert {kind["side"] for kind in kinds} == {"val", "held_out"}
    assert all(kind["first"]["nearest"] and kind["number"] > 0 for kind in kinds)
    step = json.loads((folder / "summary.json").read_text())["best_step"]
    (folder / "evaluation.json").write_text(json.dumps({"details": {"step": step, "val": 3}}))
    result = terrarium("report", "spaces", "--run", "default")
    assert result.exit_code == 2 and "not the evaluation of a run" in result.stderr and "Delete it" in result.stderr


def test_probes_longer_than_the_context_are_told(spaces: Path, terrarium: Terrarium) -> None:
    probes = '\ndef held_out():\n    yield row("abc" * 9)\n'
    (spaces / "prepare.py").write_text(LETTERS.replace("PROBES", probes))
    assert terrarium("train", "spaces", "-q").exit_code == 0
    assert "cut: the prompt has 29 tokens, and block_size is 16" in terrarium("evaluate", "spaces").output


def test_details_of_a_file_of_prompts(lab: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    from conftest import TINY

    code = (
        "from core import Example\n\ndef documents(rng):\n    while True:\n"
        "        a, b = rng.randrange(20), rng.randrange(20)\n        yield Example(f'{a}+{b}=', f'{a + b}\\n')\n"
    )
    write(lab / "sums", code, TINY)
    assert terrarium("train", "sums", "-q").exit_code == 0
    rng = random.Random(0)
    pairs = [(rng.randrange(20), rng.randrange(20)) for _ in range(300)]
    (tmp_path / "p.tsv").write_text("".join(f"{a}+{b}=\t{a + b}\n" for a, b in pairs))
    told = terrarium("evaluate", "sums", "--prompts", str(tmp_path / "p.tsv")).stdout
    assert "prompts per second" in told and "by carries  0: " in told and "errors  " in told
    found = json.loads(terrarium("evaluate", "sums", "--prompts", str(tmp_path / "p.tsv"), "--json").stdout)
    details = found["details"]
    assert found["prompts_per_second"] > 0 and details["prompts"] == 300
    assert sum(counted for _, counted in details["carries"].values()) == 300
    assert sum(details["errors"].values()) == round(300 * (1 - found["accuracy"]))
    assert details["from_start"][0][1] == 300


@pytest.mark.slow
def test_comparisons_and_sweeps_show_them(trained: Path, terrarium: Terrarium) -> None:
    done = terrarium(
        "sweep", "spaces", "--seeds", "0..2", "--grid", "train.optim.weight_decay=0,0.1", "--name", "decay"
    )
    assert done.exit_code == 0, done.output
    assert re.search(r"\| of held_out\(\) +\| val loss|of held_out\(\) +val loss", done.stdout), done.stdout
    groups = ["spaces/sweep-decay-weight_decay0-*", "spaces/sweep-decay-weight_decay0.1-*"]
    told = terrarium("compare", *groups).stdout
    assert re.search(r"\ngroup +seeds +exact match of .* +of held_out\(\) +val loss", told), told
    found = json.loads(terrarium("compare", *groups, "--json").stdout)
    verdicts = [verdict["measure"] for verdict in found["verdicts"]]
    assert verdicts == ["accuracy", "held_out_accuracy", "best_val_loss"]
    summary = json.loads((trained / "out/sweep-decay-weight_decay0-seed0/summary.json").read_text())
    assert found["groups"][0]["runs"][0]["held_out_accuracy"] == summary["held_out"]["accuracy"]


@pytest.mark.slow
def test_stages_measure_their_own_and_those_of_earlier_ones(spaces: Path, terrarium: Terrarium) -> None:
    config = (spaces / "config.toml").read_text()
    (spaces / "prepare.py").write_text(LETTERS.replace("PROBES", PROBES))
    stages = '\n[[stages]]\nname = "short"\n[[stages]]\nname = "long"\nprepare.params.max_letters = 4\n'
    (spaces / "config.toml").write_text(config + stages)
    assert terrarium("loop", "spaces", "-q").exit_code == 0
    folder = spaces / "out" / "default"
    table = json.loads((folder / "pipeline.json").read_text())["table"]
    assert table["held_out_accuracy"].keys() == table["short/held_out_accuracy"].keys() == {"short", "long"}
    (folder / "report.md").unlink()
    done = terrarium("report", "spaces", "--run", "default")
    assert done.exit_code == 0 and f"report: {folder / 'report.html'}" in done.output
    prompts = json.loads((folder / "short" / "summary.json").read_text())["held_out"]["prompts"]
    assert f"exact match of {prompts} prompts of held\\_out()" in (folder / "report.md").read_text()
