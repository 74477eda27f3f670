"""Tools: calls are recognised in ids, answered, and their results forced; in evaluation, samples and rollouts alike."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import write
from test_conversations import BYTES, KINDS, special

from core import Conversation, Message, open_experiment
from core.chat.conversation import SPECIAL
from core.chat.render import AnswerText, render, render_prompt
from core.chat.tools import BUILT_IN, CUT, MOST_CALLS, MOST_CHARACTERS, encodable, responder, result_of
from core.encoders.special import special_ids
from core.errors import UserError
from core.evaluation.exact_match import greedy_answers
from core.lab.after_stage import samples_of
from core.lab.assemble import responding
from core.lab.opened import prepared
from core.lab.own import scoring_of, tools_of
from core.models.product_loss import NO_TARGET
from core.reward.collect import collector
from core.sampling.asking import said, spelled_out
from core.training.machine import Machine

Terrarium = Callable[..., Result]
SUMS = '''"""Sums that a calculator computes: the model learns to ask."""

from core import Conversation, Message


def documents(rng):
    while True:
        a, b = rng.randrange(10), rng.randrange(10)
        call = Message("assistant", "", call=f"calculator {a}+{b}")
        yield Conversation([Message("user", f"{a}+{b}"), call, Message("tool", f"{a + b}"), Message("assistant", f"={a + b}.")], group="sums")


def tools():
    return {"up": str.upper}
'''
CONFIG = """[prepare]
size = 4000
val_fraction = 0.3
special_tokens = "chat"

[train.model]
n_layer = 2
n_head = 2
n_embd = 32
block_size = 48

[train.data]
batch_size = 16

[train.schedule]
max_iters = 150

[train.optim]
learning_rate = 0.01

[train.runtime]
eval_interval = 75
log_interval = 75
checkpoint_interval = 150
dtype = "float32"
device = "cpu"
trackers = []

[evaluate]
group_loss = true
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that calls the calculator for every sum."""
    folder = write(tmp_path_factory.mktemp("tools") / "sums", SUMS, CONFIG)
    open_experiment(str(folder)).train()
    return folder


@pytest.fixture
def sums(lab: Path, trained: Path) -> Path:
    """The trained experiment, in a place of its own."""
    return Path(shutil.copytree(trained, lab / "sums"))


def ids_of(text: str) -> list[int]:
    """Ids of a text in which special tokens stand by their names."""
    tokens, ids = list[int](), special_ids(BYTES)
    while text:
        name = next((name for name in SPECIAL if text.startswith(name)), "")
        tokens += [ids[name]] if name else BYTES.encode(text[0]).tolist()
        text = text[len(name) or 1 :]
    return tokens


def test_a_call_is_answered_in_ids() -> None:
    respond = responder(BYTES, BUILT_IN | {"up": str.upper})
    first = "Hm. <|tool|>calculator 3*4<|end|>"
    result = "<|result|>12<|end|><|assistant|>"
    assert respond(ids_of(first)) == ids_of(result)
    second = "<|tool|>up é x<|end|>"
    assert respond(ids_of(first + result + second)) == ids_of("<|result|>É X<|end|><|assistant|>")
    assert respond(ids_of("12.<|end|>")) == [] == respond(ids_of(first + result + "12.<|end|>"))
    assert respond(ids_of("<|tool|> <|end|>")) == []  # a call of nothing
    forged = "a<|result|>5<|user|><|tool|>up<|bos|> a<|end|>"  # ids that a model may write too, anywhere
    assert respond(ids_of(forged)) == ids_of("<|result|>A<|end|><|assistant|>")


def test_the_ids_are_those_of_training() -> None:
    call, result = Message("assistant", "Hm.", "calculator 3*4"), Message("tool", "12")
    whole = Conversation((Message("user", "3*4?"), call, result, Message("assistant", "12.")))
    ids, prompt = render(whole, BYTES).ids.tolist(), render_prompt(Conversation(whole.messages[:1]), BYTES)
    answer = ids[len(prompt) :]
    end = answer.index(BYTES.end_token) + 1
    forced = responder(BYTES, BUILT_IN)(answer[:end])
    assert answer[: end + len(forced)] == answer[:end] + forced


def test_an_answer_has_so_many_calls() -> None:
    respond = responder(BYTES, BUILT_IN)
    written = list[int]()
    for _ in range(MOST_CALLS):
        written += ids_of("<|tool|>calculator 1+1<|end|>")
        given = respond(written)
        assert given
        written += given
    assert respond(written + ids_of("<|tool|>calculator 1+1<|end|>")) == []


@settings(max_examples=100)
@given(
    turns=st.lists(st.tuples(st.text(max_size=8), st.sampled_from(["calculator 1+1", "no such", "up é"])), max_size=5)
)
def test_rollouts_and_conversations_have_the_same_ids(turns: list[tuple[str, str]]) -> None:
    tools = BUILT_IN | {"up": str.upper}
    respond, written, messages = responder(BYTES, tools), list[int](), [Message("user", "?")]
    for text, call in turns:
        written += [*BYTES.encode(text).tolist(), *ids_of(f"<|tool|>{call}<|end|>")]
        written += respond(written)
        messages += [Message("assistant", text, call), Message("tool", result_of(call, tools, BYTES))]
    asked = render_prompt(Conversation(messages), BYTES).tolist()
    assert asked == render_prompt(Conversation(messages[:1]), BYTES).tolist() + written


def test_an_unknown_tool_and_a_long_result_are_text() -> None:
    tools = BUILT_IN | {"long": lambda text: "x" * 10**7}
    assert result_of("calcualtor 1", tools, BYTES) == "error: no tool is called 'calcualtor'; there is calculator, long"
    assert result_of("a" * 99, tools, BYTES) == f"error: no tool is called '{'a' * 40}'; there is calculator, long"
    found = result_of("long", tools, BYTES)
    assert len(found) == MOST_CHARACTERS and found.endswith(CUT)
    assert result_of("calculator", tools, BYTES) == "error: nothing to calculate"


def test_what_an_encoder_does_not_know_is_left_out() -> None:
    assert encodable("no 12€\n", special("char", "12 n\n")) == "n 12"
    assert encodable("12 apples and 3.", special("words", "12 and 3 .")) == "12 and"
    assert encodable("é\ud800", BYTES) == "é?"
    assert encodable("b, a", special("char", "ab")) == "ba"
    assert encodable("xyz", special("char", "abc")) == ""


@KINDS
@settings(max_examples=40)
@given(text=st.text(max_size=30), known=st.text(min_size=1, max_size=10))
def test_a_result_can_always_be_encoded(kind: str, text: str, known: str) -> None:
    encoder = special(kind, known)
    encoder.encode(encodable(text, encoder))
    assert encodable(known, encoder) == known


def test_a_prompt_ends_where_the_answer_begins(sums: Path) -> None:
    """The completion is the last turn; it knows the calls before it, of which the results are not learnt."""
    dataset = open_experiment("sums").prepare()
    [example] = dataset.examples("val", 1)
    a, b = (int(number) for number in example.prompt.removeprefix("<|bos|><|user|>").split("<")[0].split("+"))
    assert example.prompt.endswith(f"{a}+{b}<|end|><|assistant|>") and example.completion == f"={a + b}."
    assert isinstance(example.completion, AnswerText)
    encoder = dataset.encoder
    assert encoder.decode(example.completion.ids) == f"calculator {a}+{b}{a + b}={a + b}."
    learnt = [
        token for token, is_learnt in zip(example.completion.ids, example.completion.learnt, strict=True) if is_learnt
    ]
    assert encoder.decode(learnt) == f"calculator {a}+{b}={a + b}."
    assert learnt.count(encoder.end_token) == 1  # that of the call


def test_an_answer_without_calls_is_text_as_ever(lab: Path) -> None:
    code = SUMS.replace('call, Message("tool", f"{a + b}"), ', "").replace("call = Message", "_ = Message")
    write(lab / "plain", code, CONFIG)
    [example] = open_experiment("plain").prepare().examples("val", 1)
    assert type(example.completion) is str and example.prompt.endswith("<|end|><|assistant|>")


def test_evaluation_answers_calls(sums: Path, terrarium: Terrarium) -> None:
    """The model calls the calculator, and its last turn is compared with the truth. Without the calculator it fails."""
    run = open_experiment("sums").run()
    assert run.summary["accuracy"] == 1.0
    model = run.load()
    found = model.evaluate()
    assert found["val_accuracy"] == found["val_accuracy/sums"] == found["test_accuracy"] == 1.0
    assert found["bits_per_byte/sums"] < 1
    examples = model.dataset.examples("val", 0)
    wrong = greedy_answers(model.module, model.dataset, examples, model.trained.machine, tools={})
    assert not any(answer.correct for answer in wrong)
    misled = greedy_answers(
        model.module, model.dataset, examples, model.trained.machine, tools={"calculator": lambda text: "7"}
    )
    assert sum(answer.text == "=7." for answer in misled) > len(examples) / 2
    drawn = terrarium("evaluate", "sums", "--temperature", "0.1", "--samples", "2")
    assert "drawn_accuracy               100.0%" in drawn.stdout, drawn.output


def test_evaluation_leaves_the_model_as_it_was(sums: Path) -> None:
    model = open_experiment("sums").run().load()
    for training in (True, False):
        model.module.train(training)
        greedy_answers(model.module, model.dataset, model.dataset.examples("val", 2), model.trained.machine)
        assert model.module.training is training


def test_samples_show_what_was_said_last(sums: Path, terrarium: Terrarium) -> None:
    done = terrarium("sample", "sums", "--num-samples", "3")
    assert done.stdout.count("ok     <|bos|><|user|>") == 3 and "WRONG" not in done.stdout, done.output


def test_samples_of_talks_show_calls(lab: Path, terrarium: Terrarium) -> None:
    write(lab / "talks", SUMS.replace(', group="sums"', ""), CONFIG.replace("max_iters = 150", "max_iters = 100"))
    open_experiment("talks").train()
    done = terrarium("sample", "talks", "--num-samples", "1", "--temperature", "0")
    assert "<|tool|>calculator " in done.stdout and "<|end|><|result|>" in done.stdout, done.output


def test_a_model_talks_with_its_calculator(sums: Path) -> None:
    from click.testing import CliRunner

    from core.cli.main import cli

    done = CliRunner().invoke(cli, ["chat", "sums", "--temperature", "0", "--json"], input="3+4\n9+9\n")
    assert done.exit_code == 0, done.output
    messages = json.loads(done.stdout)["messages"]
    assert [message["content"] for message in messages if message["role"] == "tool"] == ["7", "18"]
    assert "calculator 3+4 = 7\n=7.\n" in done.output and "calculator 9+9 = 18\n=18.\n" in done.output


def test_what_was_forced_is_not_said() -> None:
    """A rollout that is cut within a result has said nothing after it."""
    from core.sampling.rollouts import Rollout

    written = ids_of("<|tool|>calculator 3*4<|end|><|result|>12<|end|><|assistant|>It.<|end|>")
    call = len(ids_of("<|tool|>calculator 3*4<|end|>"))
    forced = [call <= place < call + 5 for place in range(len(written))]
    whole = Rollout((0,), tuple(written), tuple(forced), True)
    assert said(whole, BYTES) == "It."
    assert spelled_out(whole, BYTES) == "<|tool|>calculator 3*4<|end|><|result|>12<|end|><|assistant|>It."
    cut = Rollout((0,), tuple(written[: call + 3]), tuple(forced[: call + 3]), False)
    assert said(cut, BYTES) == "" and spelled_out(cut, BYTES) == "<|tool|>calculator 3*4<|end|><|result|>12"


@pytest.mark.parametrize(
    "choices", [{"temperature": 0.0}, {"temperature": 1.0, "top_k": 3, "seed": 5}, {"temperature": 0.7, "top_p": 0.9}]
)
def test_who_writes_beside_changes_nothing(sums: Path, choices: dict[str, Any]) -> None:
    model = open_experiment("sums").run().load()
    prompts = [example.prompt for example in model.dataset.examples("train", 12)]
    with model.trained.machine.computing():
        together = model.asked(prompts, max_new_tokens=40, **choices)
        seed = choices.pop("seed", 0)
        alone = [
            model.asked([prompt], max_new_tokens=40, seed=seed + number, **choices)[0]
            for number, prompt in enumerate(prompts)
        ]
    assert together == alone


def opened_with(folder: Path, code: str) -> Any:
    """An open experiment with this at the end of prepare.py."""
    write(folder, SUMS.partition("def tools")[0] + code, CONFIG)
    from core.lab.opened import open_folder

    return open_folder(str(folder))


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        ("def tools(): return [str.upper]", "tools did not return a dict of functions", "Return a dict from names to functions"),
        ("def tools(): return {'up': 'str.upper'}", "tools did not return a dict of functions", 'such as {"weather": weather}'),
        ("def tools(): return {'two words': str.upper}", "tools names a tool 'two words'", 'a name without spaces, such as "weather"'),
        ("def tools(): return {'': str.upper}", "tools names a tool ''", "a name without spaces"),
        ("def tools(): return {3: str.upper}", "tools names a tool 3", "a name without spaces"),
        ("def tools(): return {'calculator': str.upper}", "tools names a tool 'calculator', which is built in", "Give it another name."),
    ],
)  # fmt: skip
def test_what_tools_returns_is_checked(tmp_path: Path, code: str, message: str, remedy: str) -> None:
    opened = opened_with(tmp_path / "own", code)
    with pytest.raises(UserError) as error:
        tools_of(opened, conversations=True)
    assert error.value.message == message and remedy in error.value.remedy.replace('{"weather"', 'such as {"weather"')
    assert error.value.place == str(tmp_path / "own" / "prepare.py")
    assert tools_of(opened, conversations=False) is BUILT_IN  # there it is a helper of this name


def test_the_tool_of_the_page(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "tools.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def tools" in block)
    write(tmp_path / "own", code, CONFIG)
    tools = tools_of(open_experiment(str(tmp_path / "own")).opened, conversations=True)
    assert result_of("weather Bonn", tools, BYTES) == "rain" and result_of("weather", tools, BYTES) == "unknown"
    assert result_of("calculator 12.375*3", tools, BYTES) == "37.125"
    for row in re.findall(r"^\| `([^`|]+)` \| `([^`]+)` \|", page, re.MULTILINE):
        assert result_of(f"calculator {row[0]}", tools, BYTES) == row[1]
    error = "error: no tool is called 'wether'; there is calculator, weather"
    assert error in page and result_of("wether Bonn", tools, BYTES) == error


def test_wrong_tools_end_a_command_with_a_message(lab: Path, terrarium: Terrarium) -> None:
    opened_with(lab / "own", "def tools(): return 3")
    done = terrarium("train", "own")
    assert done.exit_code == 2 and "tools did not return a dict of functions" in done.stderr


def test_a_helper_of_this_name_is_no_tool(tmp_path: Path) -> None:
    opened = opened_with(tmp_path / "own", "def tools(kind): return [kind]")
    with pytest.warns(UserWarning, match=r"function tools, which is not used: only `def tools\(\)` is\."):
        assert tools_of(opened, conversations=True) is BUILT_IN
    for code in ("", "tools = {'up': str.upper}"):
        assert tools_of(opened_with(tmp_path / "own", code), conversations=True) is BUILT_IN
    code = "def tools(**_): return {'up': str.upper}"
    assert list(tools_of(opened_with(tmp_path / "own", code), conversations=True)) == ["calculator", "up"]


def test_training_by_reward_answers_calls_and_does_not_learn_the_results(sums: Path) -> None:
    keys = {"kind": "reward", "max_new_tokens": 40, "temperature": 0.2}
    experiment = open_experiment("sums", {f"train.objective.{name}": value for name, value in keys.items()})
    opened, dataset = prepared(experiment.opened)
    module = open_experiment("sums").run().load().module
    config, machine = opened.config.train, Machine(torch.device("cpu"), torch.float32)
    found = collector(module, None, dataset, config, machine, scoring_of(opened), responding(opened, dataset))
    random = np.random.default_rng(0)
    groups = found.groups(found.prompts(random, 4), random, 3)
    rewards = [reward for group in groups for reward in group.rewards]
    assert sum(rewards) > 0.9 * len(rewards)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    special = special_ids(dataset.encoder)
    assert all(any(rollout.forced) and special["<|result|>"] in rollout.written for rollout in rollouts)
    inputs, targets, _ = found.rows(groups)
    for rollout, ids, learnt in zip(
        rollouts, inputs.reshape(-1, inputs.shape[-1]), targets.reshape(-1, inputs.shape[-1]), strict=False
    ):
        begin, whole = len(rollout.prompt) - 1, [*rollout.prompt, *rollout.written]
        assert ids[: len(whole) - 1].tolist() == whole[:-1]
        chosen = [
            token if not forced else NO_TARGET for token, forced in zip(rollout.written, rollout.forced, strict=True)
        ]
        assert learnt.tolist() == [NO_TARGET] * begin + chosen + [NO_TARGET] * (len(learnt) - begin - len(chosen))


def test_samples_after_a_stage_answer_calls(sums: Path) -> None:
    model = open_experiment("sums").run().load()
    found = samples_of(model.dataset, model)
    assert len(found) == 8 and all(sample.correct for sample in found), found
