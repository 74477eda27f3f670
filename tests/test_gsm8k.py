"""GSM8K: answers with marks become turns with calls of the calculator and back without loss, and a verifier of answers."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import Result
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import write

from core import Conversation, Message, open_experiment
from core.chat.calculator import calculate
from core.chat.conversation import SPECIAL, check_conversation
from core.chat.gsm8k import MARK, answer_of, final_answer, score, turns_of
from core.chat.render import render, reply_of
from core.encoders.bytes import BytesEncoder
from core.encoders.special import WithSpecialTokens
from core.errors import UserError
from core.evaluation.exact_match import Answer
from core.lab.own import own_function

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "gsm8k"
REAL = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs GSM8K in ../shared/data/gsm8k")
CLIPS = "She sold 48/2 = <<48/2=24>>24 clips.\nTogether <<48+24=72>><<72*1=72>>72.\n#### 72"


def answers() -> Iterator[str]:
    for side in ("train", "test"):
        for line in (FOLDER / f"{side}.jsonl").read_text(encoding="utf-8").splitlines():
            yield json.loads(line)["answer"]


def test_marks_become_calls_and_results() -> None:
    assert turns_of(CLIPS) == (
        Message("assistant", "She sold 48/2 = ", "calculator 48/2"), Message("tool", "24"),
        Message("assistant", "24 clips.\nTogether ", "calculator 48+24"), Message("tool", "72"),
        Message("assistant", "", "calculator 72*1"), Message("tool", "72"), Message("assistant", "72.\n#### 72"),
    )  # fmt: skip
    check_conversation(Conversation((Message("user", "How many?"), *turns_of(CLIPS))))
    assert answer_of(turns_of(CLIPS)) == CLIPS
    assert turns_of("#### 5") == (Message("assistant", "#### 5"),)


@pytest.mark.parametrize("odd", ["<<1+1>>", "<<=2>>2", "<< 1+1=2>>", "<<1  +1=2>>", "<<1=1=1>>", "<<1\n=1>>", "<<<1=1>", "1 << 2", ">>", "<<a<<b>>"])  # fmt: skip
def test_what_is_no_mark_stays_text(odd: str) -> None:
    assert turns_of(f"{odd} ") == (Message("assistant", f"{odd} "),)


def test_an_answer_that_ends_with_a_call_is_refused() -> None:
    with pytest.raises(UserError) as error:
        turns_of("It is <<1+1=2>>")
    assert error.value.message == "the answer ends with a call: 'It is <<1+1=2>>'"
    assert error.value.remedy == "Write what the assistant says about the result behind it."


def test_a_call_of_another_tool_has_no_mark() -> None:
    with pytest.raises(UserError) as error:
        answer_of([Message("assistant", "", "weather Bonn"), Message("tool", "rain"), Message("assistant", "Rain.")])
    assert error.value.message == "the call 'weather Bonn' has no mark in GSM8K"
    assert error.value.remedy == "Only calls of the calculator have one."


PARTS = st.sampled_from(
    ["<<", ">>", "=", "1+1", "2", " ", "\n", "<", ">", "<<1+1=2>>", "<<3*4=12>>12", "####", "é", "x"]
)


@settings(max_examples=300)
@given(parts=st.lists(PARTS, max_size=12))
def test_any_text_comes_back(parts: list[str]) -> None:
    text = "".join(parts) + "."
    assert answer_of(turns_of(text)) == text
    check_conversation(Conversation((Message("user", "?"), *turns_of(text))))


@REAL
def test_all_problems_come_back_without_loss() -> None:
    """From marks to turns and back, and through the ids of training."""
    encoder, problems, calls, equal = WithSpecialTokens(BytesEncoder(), SPECIAL), 0, 0, 0
    for number, text in enumerate(answers()):
        turns = turns_of(text)
        assert answer_of(turns) == text and "<<" not in "".join(turn.content for turn in turns)
        problems, calls = problems + 1, calls + sum(bool(turn.call) for turn in turns)
        for mark in MARK.finditer(text):
            value = calculate(mark[1])
            equal += value == mark[2]
            if "/" not in mark[2]:  # one result is written 3/4
                assert abs(Decimal(value) - Decimal(mark[2])) <= Decimal("0.005") * max(1, abs(Decimal(mark[2])))
        if number % 50 == 0:
            ids = render(Conversation((Message("user", "?"), *turns)), encoder).ids.tolist()
            ends = [place for place, token in enumerate(ids) if token == encoder.end_token]
            written = [reply_of(ids[begin + 2 : end + 1], encoder) for begin, end in pairwise(ends)]
            # A result is read like a turn without a call.
            assert [(turn.content, turn.call) for turn in written] == [(turn.content, turn.call) for turn in turns]
    assert (problems, calls, equal) == (8792, 27998, 27175)


FINAL = [
    ("It is 4.\n#### 18", "18", "18"), ("#### $18.00", "18", "18"), ("#### -5", "-5", "-5"), ("#### 70,000", "70000", "70000"), ("####7", "7", "7"),
    ("#### 12.50.", "12.5", "12.5"), ("#### 20%", "20", "20"), ("#### 1\n#### 2", "2", "2"), ("#### 18 or 19", None, "19"), ("#### eighteen", None, None),
    ("#### ", None, None), ("#### 18 dollars", None, "18"), ("18", None, "18"), ("1,000 apples, or 12.50.", None, "12.5"), ("5-3 is -2", None, "-2"),
    ("x=-7.", None, "-7"), ("It costs $3,000", None, "3000"), ("3, 4", None, "4"), ("2-1", None, "1"), ("007", None, "7"), ("-0", None, "0"), (".5", None, "0.5"),
    ("", None, None), ("#### 1,00", None, "0"), ("#### " + "1" * 101, None, None), ("#### 1/2", None, "2"), ("####\n42", "42", "42"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "strict", "lenient"), FINAL)
def test_final_answers(text: str, strict: str | None, lenient: str | None) -> None:
    assert final_answer(text) == strict
    assert final_answer(text, lenient=True) == lenient


def test_scores() -> None:
    assert score("So 72.\n#### 72.00", CLIPS) == 1.0
    assert score("So 72.", CLIPS) == 0.0 and score("So 72.", CLIPS, lenient=True) == 1.0
    assert score("#### 71", CLIPS, lenient=True) == 0.0
    assert score("no", "no") == 0.0  # a reference without an answer is never met


def perturbed(text: str, rng: random.Random) -> str:
    """An answer that gives another number, or none."""
    head, truth = text.rsplit("#### ", 1)
    number = truth.replace(",", "")
    wrong = [
        str(int(number) + rng.choice([-10, -1, 1, 10])) if number.lstrip("-").isdigit() else number + "1",
        f"-{number}" if number != "0" and number[0] != "-" else number + "1", f"{number}0" if number != "0" else "10", f"{number}.5",
        f"{truth} or {truth}", f"{number}/1", "", "no number", f"{number}x",
    ]  # fmt: skip
    return rng.choice(
        [f"{head}#### {rng.choice(wrong)}", f"{head}{truth}", f"{head}### {truth}", f"#### {truth}\n{head}"]
    )


@REAL
def test_reference_answers_score_one_and_perturbed_ones_zero() -> None:
    everything = list(answers())
    assert [score(text, text) for text in everything] == [1.0] * 8792
    assert [score(text, text, lenient=True) for text in everything] == [1.0] * 8792
    rng = random.Random(0)
    for text in rng.sample(everything, 1000):
        wrong = perturbed(text, rng)
        assert score(wrong, text) == 0.0, (wrong[-40:], text[-20:])


def test_the_prepare_py_of_the_page(lab: Path, terrarium: Callable[..., Result]) -> None:
    """It makes a dataset of conversations with calls, and its answer() compares the numbers."""
    page = Path(__file__).parents[1] / "docs" / "how-to" / "tools.md"
    [code] = re.findall(r"```py\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    folder = write(
        lab / "gsm8k",
        code,
        TINY.replace("size = 2000", 'special_tokens = "chat"').replace("block_size = 16", "block_size = 160"),
    )
    (folder / "datasets" / "raw").mkdir(parents=True)
    lines = [
        json.dumps({"question": f"How many are {n} and 1?", "answer": CLIPS.replace("72", str(n))}) for n in range(50)
    ]
    (folder / "datasets" / "raw" / "train.jsonl").write_text("\n".join(lines))
    done = terrarium("check", "gsm8k", "--no-timing")
    assert done.exit_code == 0 and "<|tool|>calculator 48/2<|end|>" in done.output, done.output
    experiment = open_experiment("gsm8k")
    [example] = experiment.prepare().examples("train", 1)
    own = own_function(experiment.opened.code, "answer")
    assert Answer(example, f"So.\n#### {example.completion.rpartition(' ')[2]}.0", own).correct
    assert not Answer(example, "So it is.", own).correct


@REAL
def test_only_the_number_counts() -> None:
    rng = random.Random(1)
    for text in rng.sample(list(answers()), 200):
        number = re.sub(",", "", text.rsplit("#### ", 1)[1])
        for other in (
            f"#### {number}",
            f"Hm.\n####  ${number}",
            f"#### {number}.",
            f"#### {number}.00" if "." not in number else f"#### {number}0",
        ):
            assert score(other, text) == 1.0
