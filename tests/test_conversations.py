"""Conversations as ids: special tokens never come from text, a history is a prefix of what training sees, and what is learnt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_encoders import BPE, KINDS, PROSE, SPELLED, TEXTS, knowing

from core import Conversation, Message
from core.chat.conversation import SPECIAL, check_conversation, question_of
from core.chat.render import PromptText, render, render_prompt, reply_of, shortened, spelled, trimmed, turns_of
from core.encoders.base import Encoder, identity
from core.encoders.bytes import BytesEncoder
from core.encoders.special import WithSpecialTokens, has_special, rebuilt, special_ids
from core.encoders.text import END
from core.errors import UserError
from core.sampling.generate import prompt_ids

BYTES = WithSpecialTokens(BytesEncoder(), SPECIAL)
TOOLS = Conversation([
    Message("system", "Be brief."), Message("user", "3*4?"), Message("assistant", "Hm. ", call="calculator 3*4"),
    Message("tool", "=12"), Message("assistant", "It is 12."), Message("user", "And <|end|>?"), Message("assistant", "Bye."),
])  # fmt: skip


def special(kind: str, *texts: str) -> WithSpecialTokens:
    return WithSpecialTokens(knowing(kind, *texts), SPECIAL)


def as_text(ids: Sequence[int], encoder: Encoder = BYTES) -> str:
    return "".join([piece.text for piece in spelled(ids, [False] * len(ids), encoder)])


def learnt_text(conversation: Conversation) -> list[str]:
    """Each learnt stretch."""
    rendered = render(conversation, BYTES)
    stretches, before = list[str](), False
    for piece in spelled(rendered.ids.tolist(), rendered.learnt.tolist(), BYTES):
        if piece.learnt:
            stretches.append((stretches.pop() if before else "") + piece.text)
        before = piece.learnt
    return stretches


# Valid conversations: perhaps a system message, then exchanges, each with or without a call, and perhaps a last question.
words = st.text(min_size=1, max_size=12) | st.sampled_from([*SPECIAL, "<|user|>hello<|end|>", " a b ", "\n"])
calls = st.tuples(words, st.sampled_from(["", "calculator 3*4", "now"]), st.text(max_size=5))


@st.composite
def histories(draw: st.DrawFn, asks: bool = False) -> Conversation:
    messages = [Message("system", draw(words))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0 if asks else 1, 4))):
        text, call, result = draw(calls)
        messages += [Message("user", draw(words)), Message("assistant", text, call)]
        if call:
            messages += [Message("tool", result), Message("assistant", draw(words))]
    return Conversation([*messages, Message("user", draw(words))] if asks else messages)


def test_a_conversation_is_written_as_the_page_says() -> None:
    assert as_text(render(TOOLS, BYTES).ids.tolist()) == (
        "<|bos|><|system|>Be brief.<|end|><|user|>3*4?<|end|><|assistant|>Hm. <|tool|>calculator 3*4<|end|><|result|>=12<|end|>"
        "<|assistant|>It is 12.<|end|><|user|>And <|end|>?<|end|><|assistant|>Bye.<|end|>"
    )


@settings(max_examples=100)
@given(conversation=histories())
def test_the_ids_of_a_conversation_give_its_turns_back(conversation: Conversation) -> None:
    assert turns_of(render(conversation, BYTES).ids.tolist(), BYTES) == tuple(
        message for message in conversation.messages if message.content or message.call
    )


def test_the_loss_is_on_what_the_assistant_writes() -> None:
    """Its text, its calls and its <|end|>; never <|assistant|>, a result, the user or the system message."""
    assert learnt_text(TOOLS) == ["Hm. <|tool|>calculator 3*4<|end|>", "It is 12.<|end|>", "Bye.<|end|>"]


@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_nothing_of_another_role_is_learnt(role: str) -> None:
    rendered = render(TOOLS, BYTES)
    mine = [message.content for message in TOOLS.messages if message.role == role]
    assert mine
    whole, learnt = as_text(rendered.ids.tolist()), as_text(rendered.ids[rendered.learnt].tolist())
    assert all(text in whole and text not in learnt.replace("<|end|>", "\0") for text in mine)


@settings(max_examples=100)
@given(conversation=histories())
def test_every_turn_of_the_assistant_ends_in_a_target(conversation: Conversation) -> None:
    rendered = render(conversation, BYTES)
    ends = rendered.ids == special_ids(BYTES)[END]
    speaks = [message.role == "assistant" for message in conversation.messages]
    assert int(ends.sum()) == len(speaks)
    assert rendered.learnt[ends].tolist() == speaks
    assert not rendered.learnt[0]
    opens = rendered.ids == special_ids(BYTES)["<|assistant|>"]
    assert not rendered.learnt[opens].any()
    assert rendered.learnt[
        np.flatnonzero(opens) + 1
    ].all()  # what follows <|assistant|> is learnt, be it text or <|tool|>


@KINDS
@settings(max_examples=30)
@given(conversation=histories())
def test_a_history_has_the_ids_that_training_sees(kind: str, conversation: Conversation) -> None:
    """In front of every turn of the assistant, the prompt of chat is a prefix of the whole conversation."""
    texts = [text for message in conversation.messages for text in (message.content, message.call) if text]
    encoder = special(kind, *texts)
    whole = render(conversation, encoder).ids
    for number, message in enumerate(conversation.messages):
        if message.role == "assistant":
            prompt = render_prompt(Conversation(conversation.messages[:number]), encoder)
            assert np.array_equal(whole[: len(prompt)], prompt)
            assert prompt[-1] == special_ids(encoder)["<|assistant|>"]


@KINDS
@settings(max_examples=40)
@given(text=TEXTS | SPELLED | st.sampled_from(SPECIAL))
def test_text_never_becomes_a_special_token(kind: str, text: str) -> None:
    plain = knowing(kind, text)
    encoder = WithSpecialTokens(plain, SPECIAL)
    ids = encoder.encode(text)
    assert np.array_equal(ids, plain.encode(text))
    assert not set(ids.tolist()) & set(special_ids(encoder).values())
    assert encoder.encode_batch([text, text])[1].tolist() == ids.tolist()
    assert encoder.decode(ids.tolist()) == plain.decode(ids.tolist())


@KINDS
def test_special_tokens_stand_behind_the_ids_of_text_and_are_saved(kind: str) -> None:
    plain = knowing(kind, PROSE)
    encoder = WithSpecialTokens(plain, SPECIAL)
    assert list(special_ids(encoder).values()) == list(range(plain.vocab_size, plain.vocab_size + 7))
    assert encoder.vocab_size == plain.vocab_size + 7
    assert encoder.end_token == special_ids(encoder)[END]
    assert encoder.kind == kind
    assert not has_special(plain)
    assert identity(encoder) != identity(plain)
    if kind != "gpt2":  # its merges are a file
        again = rebuilt(type(plain), encoder.state())
        assert identity(again) == identity(encoder)
        assert special_ids(again) == special_ids(encoder)
        assert identity(rebuilt(type(plain), plain.state())) == identity(plain)


def test_decoding_drops_special_tokens() -> None:
    ids = [*BYTES.encode("a").tolist(), special_ids(BYTES)["<|user|>"], *BYTES.encode("é").tolist()]
    assert BYTES.decode(ids) == "aé"
    words = special("words", "a b")
    between = [*words.encode("a").tolist(), special_ids(words)["<|user|>"], *words.encode("b").tolist()]
    assert words.decode(between) == "ab"
    assert words.between("a", "b") == " "
    assert BYTES.between("a", "b") == ""


def test_a_damaged_state_is_refused() -> None:
    with pytest.raises(UserError, match="not the state of a 'bytes' encoder"):
        rebuilt(BytesEncoder, {"special_tokens": "<|bos|>"})


def test_an_encoder_without_special_tokens_says_which_key_gives_them() -> None:
    with pytest.raises(UserError) as error:
        render(TOOLS, BytesEncoder())
    assert (
        error.value.message
        == "this bytes encoder has no special tokens, so it cannot encode conversations turn by turn"
    )
    assert error.value.place == "prepare.special_tokens"
    assert 'prepare.special_tokens = "chat"' in error.value.remedy


@settings(max_examples=60)
@given(conversation=histories())
def test_a_reply_is_read_back(conversation: Conversation) -> None:
    """What is learnt of each turn, as a model would write it, becomes that turn again."""
    for number, message in enumerate(conversation.messages):
        if message.role == "assistant":
            begin = len(render_prompt(Conversation(conversation.messages[:number]), BYTES))
            written = render(conversation, BYTES).ids[begin:].tolist()
            assert reply_of(written, BYTES) == message


def test_a_reply_without_an_end_is_read_as_far_as_it_goes() -> None:
    assert reply_of(BYTES.encode("It i").tolist(), BYTES) == Message("assistant", "It i")
    tool = special_ids(BYTES)["<|tool|>"]
    assert reply_of([tool, *BYTES.encode(" now  a\n").tolist()], BYTES) == Message("assistant", "", call="now a")


@settings(max_examples=100)
@given(conversation=histories(asks=True), at_most=st.integers(1, 200))
def test_the_oldest_turns_leave_whole(conversation: Conversation, at_most: int) -> None:
    kept, left = shortened(conversation, BYTES, at_most)
    check_conversation(kept, asks=True)
    head = [message for message in conversation.messages if message.role == "system"]
    assert list(kept.messages[: len(head)]) == head
    assert kept.messages[len(head) :] == conversation.messages[len(head) + left :]
    assert kept.messages[-1] == conversation.messages[-1]
    fits = len(render_prompt(kept, BYTES)) <= at_most
    assert fits or sum(message.role == "user" for message in kept.messages) == 1
    assert (left == 0) or len(render_prompt(conversation, BYTES)) > at_most


def test_a_conversation_is_trimmed_for_training() -> None:
    assert trimmed(TOOLS, BYTES, 1000) is TOOLS
    kept = trimmed(TOOLS, BYTES, 40)
    assert [message.content for message in kept.messages] == ["Be brief.", "And <|end|>?", "Bye."]
    with pytest.raises(UserError) as error:
        trimmed(TOOLS, BYTES, 20)
    assert error.value.message == "the last turns of a conversation have 32 tokens, more than 20: 'And <|end|>?'"
    unanswered = Conversation([Message("user", "a"), Message("assistant", "b" * 50), Message("user", "c")])
    with pytest.raises(UserError, match="have 59 tokens, more than 20: 'a'"):
        trimmed(unanswered, BYTES, 20)


def test_a_prompt_for_people_knows_its_ids() -> None:
    ids = render_prompt(Conversation([Message("user", "<|end|>")]), BYTES).tolist()
    prompt = PromptText.of(ids, BYTES)
    assert prompt == "<|bos|><|user|><|end|><|end|><|assistant|>"
    assert prompt_ids(BYTES, prompt) == ids
    assert prompt_ids(BYTES, str(prompt)) != ids
    assert prompt_ids(BYTES, "") == [special_ids(BYTES)[END]]


def test_the_question_is_what_the_user_asks_first() -> None:
    assert question_of(TOOLS) == "Be brief.\x003*4?"
    assert question_of(Conversation(TOOLS.messages[1:])) == "3*4?"


def test_equal_conversations_have_one_hash() -> None:
    one, other = ([Message("user", "a"), Message("assistant", "b")] for _ in range(2))
    assert Conversation(one) == Conversation(tuple(other))
    assert len({Conversation(one), Conversation(other)}) == 1


ORDER = (
    "Write at most one system message, then turns of the user and the assistant in turn. A call is followed by its result, and "
    "that by the assistant."
)
WRONG: list[tuple[list[Message], str, str]] = [
    ([], "the conversation is empty", 'Write at least Message("user", "text").'),
    ([Message("me", "a")], "turn 1: unknown role 'me'", "Known: assistant, system, tool, user."),
    ([Message("asistant", "a")], "turn 1: unknown role 'asistant'", "Did you mean 'assistant'?"),
    ([Message("assistant", "a")], "turn 1 is of the assistant, but a conversation begins with the system or the user", ORDER),
    ([Message("user", "a"), Message("user", "b")], "turn 2 is of the user, but after the user comes the assistant", ORDER),
    ([Message("user", "a"), Message("system", "b")], "turn 2 is of the system, but after the user comes the assistant", ORDER),
    ([Message("system", "a"), Message("assistant", "b")], "turn 2 is of the assistant, but after the system comes the user", ORDER),
    ([Message("user", "a"), Message("assistant", "b"), Message("assistant", "c")], "turn 3 is of the assistant, but after the assistant comes the user", ORDER),
    ([Message("user", "a"), Message("assistant", "b"), Message("tool", "c")], "turn 3 is of the tool, but after the assistant comes the user", ORDER),
    ([Message("user", "a"), Message("assistant", "", "now"), Message("user", "c")], "turn 3 is of the user, but after a call comes the tool", ORDER),
    ([Message("user", "a"), Message("assistant", "", "now"), Message("tool", ""), Message("user", "c")], "turn 4 is of the user, but after the tool comes the assistant", ORDER),
    ([Message("user", "")], "turn 1: the user says nothing", "Leave the turn out, or give it text."),
    ([Message("user", "a"), Message("assistant", "")], "turn 2: the assistant says nothing", "Leave the turn out, or give it text."),
    ([Message("user", "a", "now")], "turn 1: the user calls a tool", 'Only the assistant calls tools; Message("tool", "text") is a call\'s result.'),
    ([Message("user", "a"), Message("assistant", "b", "now\n")], "turn 2: the call 'now\\n' is not one line without spaces around it", 'Write the name of the tool, a space and what it gets: call="calculator 3*4".'),
    ([Message("user", "a")], "the assistant says nothing in this conversation, so there is nothing to learn", 'Add a Message("assistant", "text").'),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "message", "remedy"), WRONG)
def test_a_wrong_conversation_is_refused(messages: list[Message], message: str, remedy: str) -> None:
    with pytest.raises(UserError) as error:
        render(Conversation(messages), BYTES)
    assert error.value.message == message
    assert error.value.remedy == remedy


def test_a_prompt_must_end_where_the_assistant_begins() -> None:
    with pytest.raises(UserError) as error:
        render_prompt(TOOLS, BYTES)
    assert error.value.message == "the conversation ends with a turn of the assistant, so there is nothing to answer"
    assert error.value.remedy == "End it with a turn of the user, or with a tool's result."


def test_bpe_keeps_its_merges_beside_special_tokens() -> None:
    encoder = WithSpecialTokens(BPE, SPECIAL)
    assert encoder.encode(PROSE).tolist() == BPE.encode(PROSE).tolist()
