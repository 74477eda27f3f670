"""chat: turns with a model on a terminal, or line by line from stdin."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import TINY
from preparing import write

from core import Conversation, Message, open_experiment
from core.chat.render import render, render_prompt
from core.chat.tools import MOST_CALLS
from core.errors import UserError
from core.lab import answering, chatting
from core.lab.answering import ToolCall
from core.lab.chatting import begin_talk, cleared, reply, with_choice, with_system
from core.lab.model import LoadedModel

ROOT = Path(__file__).parents[1]
Terrarium = Callable[..., Result]
CODE = """from core import Conversation, Message


def documents(rng):
    while True:
        word = "".join(rng.choices("abc", k=2))
        yield Conversation([Message("user", word), Message("assistant", word[::-1])])


def tools():
    return {"bab": lambda text: f"cc{text}", "b": lambda text: "bxyz"}
"""
CHAT = TINY.replace("[prepare]\n", '[prepare]\nspecial_tokens = "chat"\n').replace("block_size = 16", "block_size = 32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("chat") / "talker", CODE, CHAT)
    open_experiment(str(folder), {"train.schedule.max_iters": 150}).train()
    return folder


@pytest.fixture
def talker(lab: Path, trained: Path) -> Path:
    """The trained experiment, in a place of its own."""
    return Path(shutil.copytree(trained, lab / "talker"))


def lines(*typed: str, options: tuple[str, ...] = ()) -> Result:
    """Run chat with these lines on stdin."""
    from core.cli.main import cli

    return CliRunner().invoke(cli, ["chat", "talker", *options], input="".join(f"{line}\n" for line in typed))


def written_by(model: LoadedModel, monkeypatch: pytest.MonkeyPatch, *replies: str) -> None:
    """Let the model write these texts, in which special tokens stand by their names, one for each turn."""
    from core.encoders.special import special_ids

    ids = special_ids(model.encoder)
    turns = []
    for text in replies:
        tokens: list[int] = []
        while text:
            name = next((name for name in ids if text.startswith(name)), "")
            tokens += [ids[name]] if name else model.encoder.encode(text[0]).tolist()
            text = text[len(name) or 1 :]
        turns.append(tokens)
    answers = iter(turns)

    def write_next(*_: object, **__: object) -> object:
        import torch

        return (torch.tensor([token]) for token in next(answers))

    monkeypatch.setattr(chatting, "generate", write_next)


def test_several_turns(talker: Path) -> None:
    done = lines("ab", "", "ca", options=("--json", "--temperature", "0"))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert [message["role"] for message in found["messages"]] == ["user", "assistant"] * 2
    assert found["messages"][0]["content"] == "ab" and found["messages"][1]["content"] in done.output
    best = json.loads((talker / "out" / "default" / "summary.json").read_text())["best_step"]
    assert found["run"] == "default" and f"talker/default at step {best}." in done.output


def test_history_has_the_ids_of_training(talker: Path) -> None:
    model = open_experiment("talker").run().load()
    talk = begin_talk(model, temperature=0)
    for text in ("ab", "cc", "ba"):
        before = talk
        found = reply(talk, text)
        talk = found.talk
        whole = render(Conversation(talk.messages), model.encoder).ids
        asked = render_prompt(Conversation((*before.messages, Message("user", text))), model.encoder)
        assert whole[: len(asked)].tolist() == asked.tolist()
    assert reply(before, "ba").text == found.text  # greedy
    assert talk.seed == 3


def test_commands(talker: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    done = lines(
        "/regen", "ab", "/regen", f"/save {file}", "/system c", "/temperature 0.5", "/topk 3", "/clear", "/help", "/quit", "cc",
        options=("--json",),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (
        "nothing has been said yet" in done.output
        and "/temperature T" in done.output
        and f"saved: {file}" in done.output
    )
    [line] = file.read_text().splitlines()
    assert [message["role"] for message in json.loads(line)["messages"]] == ["user", "assistant"]
    found = json.loads(done.stdout[done.stdout.rindex('{\n  "experiment"') :])
    assert [(message["role"], message["content"]) for message in found["messages"]] == [("system", "c")]


@pytest.mark.parametrize(
    ("line", "message", "remedy"),
    [
        ("/cleer", "no command is called /cleer", "Did you mean 'clear'?"),
        ("/temperature warm", "'warm' is no number", "For example: /temperature 1"),
        ("/topk 1.5", "'1.5' is no number", "For example: /topk 1"),
        ("/temperature -1", "temperature = -1.0", ""),
        ("/save /no/such/folder/x", "cannot be written", "Name a file"),
        ("xyz", "'x'", ""),
    ],
)
def test_mistakes_are_told_and_the_talk_goes_on(talker: Path, line: str, message: str, remedy: str) -> None:
    done = lines(line, "ab", options=("--json",))
    assert done.exit_code == 0 and message in done.output and remedy in done.output, done.output
    assert '"content": "ab"' in done.output


def test_the_oldest_turns_leave_whole_and_it_is_told(talker: Path) -> None:
    model = open_experiment("talker").run().load()
    talk = with_system(begin_talk(model, temperature=0, max_new_tokens=4), "c")
    for _ in range(8):
        talk = reply(talk, "ab").talk
    assert talk.left_out > 0 and talk.left_out % 2 == 0 and len(talk.messages) == 1 + 16
    done = lines(*["ab"] * 8, options=("--max-new-tokens", "4"))
    assert "turns no longer fit, and the model does not see them.)" in done.output


def test_a_message_that_the_model_cannot_see_whole_is_refused(talker: Path) -> None:
    model = open_experiment("talker").run().load()
    with pytest.raises(UserError, match="tokens do not fit the"):
        reply(begin_talk(model), "ab" * model.block_size)
    done = lines("ab" * model.block_size, "ab", options=("--max-new-tokens", "4"))
    assert "tokens do not fit the" in done.output and done.exit_code == 0, done.output


def test_an_answer_can_be_stopped(talker: Path) -> None:
    model = open_experiment("talker").run().load()
    pieces: list[str] = []
    found = reply(begin_talk(model), "ab", pieces.append, lambda: True)
    assert found.stopped or not found.text
    assert "".join(pieces) == found.text and len(found.text) <= 1


def test_calls_of_tools_are_answered(talker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_experiment("talker").run().load()
    written_by(model, monkeypatch, "a<|tool|>bab<|end|>", "c<|tool|>b<|end|>", "c<|end|>")
    calls: list[ToolCall] = []
    found = reply(begin_talk(model), "ab", on_call=calls.append)
    assert [(message.role, message.content, message.call) for message in found.talk.messages] == [
        ("user", "ab", ""), ("assistant", "a", "bab"), ("tool", "cc", ""), ("assistant", "c", "b"), ("tool", "b", ""), ("assistant", "c", "")
    ]  # fmt: skip
    assert found.text == "acc" and calls == [ToolCall("bab", "cc", 1), ToolCall("b", "b", 2)]
    written_by(model, monkeypatch, *["a<|tool|>bab<|end|>"] * (MOST_CALLS + 1))
    talk = reply(begin_talk(model), "ab").talk
    assert talk.messages[-1] == Message("assistant", "a") and len(talk.messages) == 2 * MOST_CALLS + 2
    written_by(model, monkeypatch, "a<|tool|>bab")  # the limit came before the end of the call
    assert reply(begin_talk(model), "ab").talk.messages[1:] == (Message("assistant", "a"),)
    written_by(model, monkeypatch, *["<|tool|>bab<|end|>"] * (MOST_CALLS + 1))
    assert reply(begin_talk(model), "ab").talk.messages == ()


def test_a_call_that_the_vocabulary_cannot_say_again_ends_the_answer(
    talker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two words of a call have a space between them, which is no character of this vocabulary."""
    model = open_experiment("talker").run().load()
    written_by(model, monkeypatch, "a<|tool|>b<|end|>")
    monkeypatch.setattr(answering, "reply_of", lambda ids, encoder: Message("assistant", "a", "b b"))
    found = reply(begin_talk(model), "ab")
    assert found.talk.messages[1:] == (Message("assistant", "a"),) and not found.stopped


def test_a_terminal_shows_calls_in_lines_of_their_own(talker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_experiment("talker").run().load()
    written_by(model, monkeypatch, "a<|tool|>bab<|end|>", "<|tool|>b<|end|>", "ca<|end|>")
    done = lines("ab")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-4:] == ["a", "bab = cc", "b = b", "ca"]
    written_by(model, monkeypatch, "a<|tool|>bab<|end|>", "ca<|end|>")
    monkeypatch.setattr("core.cli.console.is_terminal", lambda stream: True)
    assert "a\n\x1b[2mbab = cc\x1b[0m\nca\n" in lines("ab").output  # dim


def test_a_result_cannot_steer_a_terminal() -> None:
    from core.cli.talking import line_of

    assert line_of(ToolCall("weather\tBonn", "a\x1b[2Jb\r\n c", 0)) == "weather Bonn = a [2Jb c"


def test_an_answer_without_text_does_not_count(talker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_experiment("talker").run().load()
    written_by(model, monkeypatch, "<|end|>")
    found = reply(begin_talk(model), "ab")
    assert (found.text, found.talk.messages, found.talk.seed) == ("", (), 1)


def test_choices_are_checked(talker: Path) -> None:
    talk = begin_talk(open_experiment("talker").run().load(), system="c")
    assert cleared(reply(talk, "ab").talk).messages == talk.messages
    with pytest.raises(UserError, match="no choice is called 'heat'"):
        with_choice(talk, "heat", 1)
    with pytest.raises(UserError, match="top_k"):
        begin_talk(talk.model, top_k=-1)


def test_a_model_without_special_tokens_is_refused(spaces: Path, terrarium: Terrarium) -> None:
    assert terrarium("train", "spaces", "-q").exit_code == 0
    done = terrarium("chat", "spaces")
    assert done.exit_code == 2 and "was not trained on conversations with special tokens" in done.stderr
    assert 'prepare.special_tokens = "chat"' in done.stderr


def test_ctrl_c_at_the_prompt_drops_the_line(talker: Path) -> None:
    pty = pytest.importorskip("pty")
    own, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "core.cli", "chat", "talker"], stdin=other, stdout=other, stderr=other, cwd=talker.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}, start_new_session=True, preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(other)
    screen = Screen(own)
    try:
        for _ in range(3):
            screen.wait_for("> ")
            screen.interrupt("half a li", "(Ctrl-D ends.)")
        screen.wait_for("> ")
        os.write(own, b"/clear\n")
        screen.wait_for("is forgotten.)")
        screen.wait_for("> ")
        os.write(own, b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(own)
    assert "interrupted" not in screen.said


def take_terminal() -> None:
    """In a child: make its stdin the terminal that Ctrl-C comes from. A suite in the background would ignore Ctrl-C."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Screen:
    """What a program writes to a terminal: `wait_for` looks for texts one behind the other."""

    def __init__(self, terminal: int) -> None:
        self.terminal, self.said, self.seen = terminal, "", 0

    def wait_for(self, text: str, seconds: float = 120) -> None:
        while (place := self.said.find(text, self.seen)) < 0:
            if not select.select([self.terminal], [], [], seconds)[0]:
                raise TimeoutError(f"no {text!r} in {self.said!r}")
            self.said += os.read(self.terminal, 4096).decode(errors="replace")
        self.seen = place + len(text)

    def interrupt(self, line: str, answer: str) -> None:
        """Type a line and Ctrl-C, again if needed: Python may miss one that comes before it waits for keys."""
        for _ in range(10):
            os.write(self.terminal, line.encode() + b"\x03")
            with contextlib.suppress(TimeoutError):
                return self.wait_for(answer, 5)
        raise TimeoutError(f"Ctrl-C ten times, and no {answer!r} in {self.said!r}")
