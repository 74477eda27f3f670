"""What answers get right and wrong: by place, by carries, and kinds of errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.documents import Example
from core.encoders.char import CharEncoder
from core.encoders.words import WordsEncoder
from core.evaluation.answers import (
    by_carries,
    by_place,
    carries,
    details,
    errors,
    kind_of_error,
    summands,
    token_accuracy,
)
from core.evaluation.exact_match import Answer, answered
from core.report.nearest import answered_so, nearest

numbers = st.integers(min_value=0, max_value=10**6)


def test_places_are_counted_from_the_start_and_from_the_end() -> None:
    pairs = [("123", "124"), ("45", "145"), ("7", "")]
    assert by_place(pairs) == [[1, 3], [1, 2], [0, 1]]
    assert by_place(pairs, from_end=True) == [[1, 3], [2, 2], [1, 1]]
    assert token_accuracy(pairs) == (2, 6)
    assert by_place([]) == []


def test_an_answer_that_is_too_long_is_right_in_the_places_of_the_truth() -> None:
    assert by_place([("12", "123")]) == [[1, 1], [1, 1]]
    assert by_place([("12", "123")], from_end=True) == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("prompt", "pair"),
    [
        ("12+34=", (12, 34)),
        ("$007 + 5$", (7, 5)),
        ("Add: 1 + 2 = ", (1, 2)),
        ("1+2+3=", None),
        ("1.5+2=", None),
        ("-1+2=", None),
        ("1-2=", None),
        ("abc: ", None),
        ("+", None),
    ],
)
def test_a_sum_in_a_prompt(prompt: str, pair: tuple[int, int] | None) -> None:
    assert summands(prompt) == pair


def test_carries_by_hand() -> None:
    assert carries(12, 34) == []
    assert carries(5, 7) == [1]
    assert carries(95, 7) == [1, 2]
    assert carries(1, 999) == [1, 2, 3]
    assert carries(0, 0) == []


@given(numbers, numbers)
def test_a_carry_for_every_nine_that_the_sum_of_digits_lacks(a: int, b: int) -> None:
    """Legendre: each carry takes ten ones and gives one."""

    def digits(n: int) -> int:
        return sum(map(int, str(n)))

    assert 9 * len(carries(a, b)) == digits(a) + digits(b) - digits(a + b)


def test_by_carries_only_where_the_answer_is_the_sum() -> None:
    assert by_carries([("5+7=", "12", True), ("1+1=", "2", False), ("2+2=", "4", True), ("ab", "x", True)]) == {
        0: [1, 2],
        1: [1, 1],
    }
    assert by_carries([("5+7=", "21", True)]) == {1: [1, 1]}  # the ones first
    assert by_carries([("20+20=", "9", True), ("1+1=", "2", True)]) == {}  # modulo 31
    assert by_carries([("ab", "x", True)]) == {}


@pytest.mark.parametrize(
    ("prompt", "truth", "answer", "kind"),
    [
        ("12+34=", "46", "", "empty"),
        ("12+34=", "46", " ", "empty"),
        ("12+34=", "46", "64", "reversed"),
        ("12+34=", "46", "47", "off by one"),
        ("12+34=", "46", "45", "off by one"),
        ("15+37=", "52", "42", "a carry lost"),
        ("5+7=", "12", "2", "a carry lost"),
        ("95+7=", "102", "92", "a carry lost"),
        ("95+7=", "102", "2", "a carry lost"),
        ("999+1=", "1000", "890", "a carry lost"),
        ("15+37=", "25", "24", "a carry lost"),  # the ones first: 42 for 52
        ("15+37=", "25", "35", "off by one"),
        ("12+34=", "46", "36", "one digit wrong"),  # no carry that could be lost
        ("12+34=", "46", "56", "a carry too many"),
        ("12+34=", "46", "146", "a carry too many"),
        ("15+37=", "52", "62", "one digit wrong"),  # the tens do get a carry
        ("3*4=", "12", "22", "one digit wrong"),  # no sum
        ("3*4=", "12", "2", "a digit too few"),
        ("3*4=", "12", "112", "a digit too many"),
        ("3*4=", "1234", "12", "too short"),
        ("3*4=", "12", "12345", "too long"),
        ("3*41=", "123", "321", "reversed"),
        ("3*41=", "123", "153", "one digit wrong"),
        ("3*41=", "123", "456", "other"),
        ("copy ab", "abc", "cba", "reversed"),
        ("copy ab", "abc", "ab", "too short"),
        ("copy ab", "abc", "abcd", "too long"),
        ("copy ab", "abc", "acb", "in another order"),
        ("copy ab", "abc", "abd", "one character wrong"),
        ("copy ab", "abc", "xyz", "other"),
    ],
)
def test_kinds_of_errors(prompt: str, truth: str, answer: str, kind: str) -> None:
    assert kind_of_error(prompt, truth, answer) == kind


@given(numbers, numbers, st.data())
def test_any_lost_carry_is_found(a: int, b: int, data: st.DataObject) -> None:
    """A sum that forgets some of the carries, digit by digit."""
    places = carries(a, b)
    if not places:
        return
    lost = data.draw(st.sets(st.sampled_from(places), min_size=1))
    total, carry, place = 0, 0, 0
    while 10**place <= max(a, b) or carry:
        digit = a // 10**place % 10 + b // 10**place % 10 + carry
        total += digit % 10 * 10**place
        place += 1
        carry = digit >= 10 and place not in lost
    kind = kind_of_error(f"{a}+{b}=", str(a + b), str(total))
    assert kind == ("reversed" if str(total) == str(a + b)[::-1] else "a carry lost")


def test_details_of_answers() -> None:
    encoder = CharEncoder.fit(["0123456789+=\n"])
    sums = [("5+7=", "12\n"), ("1+2=", "3\n")]
    answers = [
        Answer(Example(*sums[0]), "2\n"),
        Answer(Example(*sums[1]), "3\n"),
    ]
    found = details(answers, encoder, "\n")
    assert found == {
        "prompts": 2,
        "token_accuracy": 1 / 3,
        "from_start": [[1, 2], [0, 1]],
        "from_end": [[2, 2], [0, 1]],
        "carries": {"0": [1, 1], "1": [0, 1]},
        "errors": {"a carry lost": 1},
    }
    assert [kind for kind, _ in errors(answers, "\n")] == ["a carry lost"]
    assert details([], encoder, "\n")["token_accuracy"] is None


def test_the_part_that_counts_is_what_is_looked_at() -> None:
    encoder = CharEncoder.fit(["0123456789+=, \n"])
    answer = Answer(Example("1+2=", "1+2, 3\n"), "1+2, 4\n", lambda text: text.rpartition(", ")[2])
    assert details([answer], encoder, "\n")["errors"] == {"off by one": 1}
    assert details([answer], encoder, "\n")["from_start"] == [[0, 1]]


def test_a_space_that_only_decoding_puts_before_an_answer_is_no_error() -> None:
    """The prompt ends in a word, the answer begins with one: their space is implied."""
    words = WordsEncoder.fit(["3 + 4 = 7\n"])
    example, spaced = Example("3 + 4 =", "7\n"), Example("3 + 4 = ", "7\n")
    assert answered(words, [example], [" 7\n"], None)[0].correct
    assert not answered(words, [spaced], [" 7\n"], None)[0].correct
    assert answered(words, [spaced], ["7\n"], None)[0].correct
    assert not answered(CharEncoder.fit(["3+4=7 \n"]), [example], [" 7\n"], None)[0].correct


def test_text_that_cannot_be_encoded_is_compared_by_characters() -> None:
    encoder = CharEncoder.fit(["01\n"])
    assert details([Answer(Example("1", "10\n"), "1x\n")], encoder, "\n")["from_start"] == [[0, 1], [0, 1]]


def test_training_examples_behind_an_answer() -> None:
    examples = [Example("12+34=", "46\n"), Example("1+1=", "2\n"), Example("40+6=", "46\n")]
    assert answered_so("46\n", examples) == examples[:1]
    assert answered_so("46\n", examples, 5) == [examples[0], examples[2]]
    assert answered_so("9\n", examples) == []
    assert nearest("12+35=", examples, 1) == examples[:1]
