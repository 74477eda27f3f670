"""The chat format of a pretrained model, as marks: what stands between the texts of a conversation, in ids.

A model's files have a template in jinja, which writes a whole conversation. It is asked to write a few, and what stands between
their texts gives the marks. The marks are then proven: other conversations must get the ids that the template gives them. Where
there is no template, or it writes something that marks cannot say, the format follows from the special tokens that the model has.
The template is not used for anything else: which tokens are learnt is known from our own pieces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tokenizers import Tokenizer

from core.chat.conversation import ASSISTANT, BOS, END, RESULT, SYSTEM, TOOL, USER, Conversation, Message
from core.chat.marks import GAP, NO_SYSTEM, SYSTEM_END, Marks
from core.chat.render import render, render_prompt
from core.encoders.base import Encoder
from core.encoders.special import marks_of
from core.errors import UserError
from core.huggingface.tokenizer_files import KEY, TokenizerFiles

Turns = Sequence[tuple[str, str]]  # role and text
AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)
Write = Callable[..., str]  # a conversation, as turns, to text
CALL = "<tool_call>"
# Conversations whose ids must be those of the template, each as its turns.
PROOFS: tuple[Turns, ...] = (
    (("user", "Hello!"), ("assistant", "Hi, what's up?")),
    (
        ("system", "Be brief."),
        ("user", "3 + 4?"),
        ("assistant", "7"),
        ("user", "Danke, und 5\u00d76?"),
        ("assistant", "30."),
    ),
    (
        ("user", "def f(x):\n    return x"),
        ("assistant", "\u00dcber 1,234 \U0001f600"),
        ("user", "<b>Ok</b>"),
        ("assistant", "!"),
    ),
)


@dataclass(frozen=True)
class ChatFormat:
    """The texts of the marks. begin: before all. no_system: behind it, without a system message.

    user, assistant, result: what opens their turns; system: None if there is no system message. end: a special token that
    ends a turn; gap: what stands behind it. system_end: between the system message and the user's text, where both are one turn.
    """

    user: str
    assistant: str
    end: str
    gap: str = ""
    begin: str = ""
    system: str | None = None
    no_system: str = ""
    system_end: str = ""
    result: str = ""


HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
CHATML = ChatFormat(
    user="<|im_start|>user\n",
    assistant="<|im_start|>assistant\n",
    end="<|im_end|>",
    gap="\n",
    system="<|im_start|>system\n",
    result="<|im_start|>tool\n",
)
LLAMA3 = ChatFormat(
    user=HEADER.format("user"),
    assistant=HEADER.format("assistant"),
    end="<|eot_id|>",
    system=HEADER.format("system"),
    result=HEADER.format("ipython"),
)
GEMMA = ChatFormat(
    user="<start_of_turn>user\n",
    assistant="<start_of_turn>model\n",
    end="<end_of_turn>",
    gap="\n",
    system="<start_of_turn>user\n",
    system_end="\n\n",
    result="<start_of_turn>tool\n",
)
KNOWN = {"ChatML": CHATML, "Llama 3": LLAMA3, "Gemma": GEMMA}


def chat_encoder(files: TokenizerFiles, with_marks: Callable[[Marks, Sequence[str]], AnyEncoder]) -> AnyEncoder:
    """An encoder with the marks of the model's own format, else of the format that its special tokens belong to, else plain ones.

    with_marks: makes an encoder with marks, and with sentences on how they were found. Raises UserError where nothing ends a
    turn.
    """
    write = writer(files)
    asked = None if write is None else format_of(files, write)
    if write is not None and asked is not None:
        note = "Conversations are written in the model's own chat format."
        encoder = with_marks(marks_of_format(asked, files), [note])
        if proven(encoder, files.tokenizer, write):
            return encoder
    why = "has no chat template" if not files.template else "has a chat template that cannot be followed exactly"
    for name, each in KNOWN.items():
        if all(files.tokenizer.token_to_id(token) is not None for token in (each.end, special_part(each.user))):
            chosen = replace(each, begin=text_of(files.begin, files))
            note = f"The model {why}. Conversations are written in the format {name}, by its special tokens."
            return with_marks(marks_of_format(chosen, files), [note])
    note = f"The model {why}, and no special tokens for turns. They are opened by plain text, such as <|user|>."
    return with_marks(marks_of_format(plain_format(files), files), [note])


def special_part(opens: str) -> str:
    """The first special token of what opens a turn."""
    return opens[: opens.index(">") + 1]


def plain_format(files: TokenizerFiles) -> ChatFormat:
    """Turns opened by text, and ended by the token that ends documents. Raises UserError if there is none."""
    if files.end is None:
        raise UserError(
            "this tokenizer has no chat format, and no token that ends a text, so nothing can end a turn",
            place=KEY,
            remedy='Name a tokenizer with an eos_token in tokenizer_config.json. Or set prepare.special_tokens = "none".',
        )
    return ChatFormat(
        user="<|user|>\n",
        assistant="<|assistant|>\n",
        end=text_of(files.end, files),
        gap="\n",
        begin=text_of(files.begin, files),
        system="<|system|>\n",
        result="<|result|>\n",
    )


def text_of(token: int | None, files: TokenizerFiles) -> str:
    """The text of a special token; "" of none."""
    return "" if token is None else str(files.tokenizer.id_to_token(token))


def writer(files: TokenizerFiles) -> Write | None:
    """The function `write(turns, ask=False)` that writes a conversation by the template; None without a template or jinja2.

    ask: with what opens a turn of the assistant at the end. It raises ValueError for what the template refuses.
    """
    if not files.template:
        return None
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    tokens = {"bos_token": text_of(files.bos, files), "eos_token": text_of(files.end, files)}
    try:
        template = environment.from_string(files.template)
    except TemplateError:
        return None

    def write(turns: Turns, *, ask: bool = False) -> str:
        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            return str(template.render(messages=messages, add_generation_prompt=ask, raise_exception=refuse, **tokens))
        except (TemplateError, TypeError, LookupError) as error:
            raise ValueError(str(error)) from None

    return write


def format_of(files: TokenizerFiles, write: Write) -> ChatFormat | None:
    """The format that a template writes, from what it puts between texts; None where it is none that a ChatFormat can be."""
    turns = [("user", "@U1@"), ("assistant", "@A1@"), ("user", "@U2@"), ("assistant", "@A2@")]
    try:
        before, asked, closed, _, tail = between(write(turns), turns)
    except ValueError:
        return None
    end = first_special(tail, files.tokenizer)
    if not end or not closed.startswith(tail) or not asked.startswith(tail):
        return None
    user, assistant = closed.removeprefix(tail), asked.removeprefix(tail)
    bos = text_of(files.bos, files)
    begin = bos if before.startswith(bos) and not user.startswith(bos) else ""  # ChatML's bos opens turns
    before = before.removeprefix(begin)
    if not user or not assistant or not before.endswith(user):
        return None
    found = ChatFormat(
        user,
        assistant,
        end,
        tail.removeprefix(end),
        begin,
        no_system=before.removesuffix(user),
        result=result_of(write, tail, user),
    )
    return with_system(found, write, tail)


def between(text: str, turns: Turns) -> list[str]:
    """What stands before, between and behind the texts of turns. Raises ValueError if one does not stand there once."""
    found = []
    for _, content in turns:
        before, _, text = text.partition(content)
        found.append(before)
        if not _ or content in text:
            raise ValueError(f"{content!r} does not stand there once")
    return [*found, text]


def first_special(text: str, tokenizer: Tokenizer) -> str:
    """The special token with which a text begins; "" if it begins with none."""
    names = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    return max((name for name in names if name and text.startswith(name)), key=len, default="")


def result_of(write: Write, tail: str, user: str) -> str:
    """What opens a tool's result: as the template has it, else as what opens a turn of the user, with another name."""
    turns = [("user", "@U1@"), ("assistant", "@A1@"), ("tool", "@R1@"), ("assistant", "@A2@")]
    with contextlib.suppress(ValueError):
        opens, closes = between(write(turns), turns)[2:4]
        if opens.startswith(tail) and closes.startswith(tail) and opens != tail:
            return opens.removeprefix(tail)
    return user.replace("user", "tool") if "user" in user else f"{user}Result: "


def with_system(found: ChatFormat, write: Write, tail: str) -> ChatFormat:
    """The format with what opens the system message, if the template has one."""
    turns = [("system", "@S1@"), ("user", "@U1@"), ("assistant", "@A1@")]
    try:
        before, joint, *_ = between(write(turns), turns)
    except ValueError:
        return found
    system = before.removeprefix(found.begin)
    if joint == tail + found.user:
        return replace(found, system=system)
    return replace(found, system=system, system_end=joint)


def marks_of_format(chosen: ChatFormat, files: TokenizerFiles) -> dict[str, tuple[int, ...]]:
    """The ids of the marks. Those that a format does not have, and that need not be there, are left out."""

    def ids(text: str) -> tuple[int, ...]:
        return tuple(files.tokenizer.encode(text, add_special_tokens=False).ids)

    texts = {BOS: chosen.begin, USER: chosen.user, ASSISTANT: chosen.assistant, RESULT: chosen.result, END: chosen.end}
    optional = {GAP: chosen.gap, NO_SYSTEM: chosen.no_system, SYSTEM_END: chosen.system_end}
    found = {name: ids(text) for name, text in (texts | {TOOL: CALL}).items()}
    found |= {name: ids(text) for name, text in optional.items() if text}
    return found | ({} if chosen.system is None else {SYSTEM: ids(chosen.system)})


def proven(encoder: Encoder, tokenizer: Tokenizer, write: Write) -> bool:
    """Whether conversations have the ids that the template gives them, and prompts, too.

    The template writes a GAP at the end, where nothing follows it.
    """
    marks = marks_of(encoder)
    for turns in PROOFS:
        if turns[0][0] == "system" and SYSTEM not in marks:
            continue
        messages = tuple(Message(role, text) for role, text in turns)
        whole, prompt = Conversation(messages), Conversation(messages[:-1])
        ours = [
            (*render(whole, encoder).ids.tolist(), *marks.get(GAP, ())),
            (*render_prompt(prompt, encoder).tolist(),),
        ]
        theirs = [write(turns), write(turns[:-1], ask=True)]
        if ours != [tuple(tokenizer.encode(text, add_special_tokens=False).ids) for text in theirs]:
            return False
    return True
