"""The chat template of an encoder, in jinja: turns in; their text with the encoder's marks out, as `render` writes ids."""

from __future__ import annotations

import json
from collections.abc import Mapping

from core.chat.conversation import ASSISTANT, BOS, END, RESULT, SYSTEM, TOOL, USER
from core.chat.marks import GAP, NO_SYSTEM, SYSTEM_END
from core.encoders.base import Encoder
from core.encoders.special import WithSpecialTokens, has_special, marks_of
from core.huggingface.encoder import HfEncoder


def chat_template(encoder: Encoder) -> str | None:
    """The template, for an encoder with marks for conversations; None for others.

    A message has `role` and `content`, and may call a tool: in `call` as we write it, "NAME ARGUMENT", or in `tool_calls` as in
    OpenAI's API. A text that holds the name of a special token becomes that token in other programs. Ours keeps it text.
    """
    if not has_special(encoder):
        return None
    return template_of({name: text_of(encoder, name, ids) for name, ids in marks_of(encoder).items()})


def text_of(encoder: Encoder, name: str, ids: tuple[int, ...]) -> str:
    """How a mark is spelled. Ours are spelled by their names."""
    inner = encoder.inner if isinstance(encoder, WithSpecialTokens) else encoder
    return inner.tokenizer.decode(list(ids), skip_special_tokens=False) if isinstance(inner, HfEncoder) else name


def template_of(marks: Mapping[str, str]) -> str:
    """The template from the text of each mark."""
    opens = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": RESULT}
    roles = "{" + ", ".join(f"'{role}': {quoted(marks[mark])}" for role, mark in opens.items() if mark in marks) + "}"
    end, joined = quoted(marks[END]), quoted(marks.get(SYSTEM_END, ""))
    calls = ""
    if TOOL in marks:
        tool = quoted(marks[TOOL])
        calls = (
            f"{{%- if message.get('call') -%}}{{{{- {tool} + message['call'] -}}}}{{%- endif -%}}"
            "{%- for call in message.get('tool_calls') or [] -%}"
            f"{{{{- {tool} + call['function']['name'] -}}}}"
            "{%- for value in call['function']['arguments'].values() -%}{{- ' ' + value -}}{%- endfor -%}"
            "{%- endfor -%}"
        )
    # With a mark that ends the system message inside the user's turn, that stands for both the end and the user's mark.
    within = f"loop.index0 == 1 and messages[0]['role'] == 'system' and {joined}"
    opening = f"{{%- if not ({within}) -%}}{{{{- roles[message['role']] -}}}}{{%- endif -%}}"
    closing = (
        f"{{%- if message['role'] == 'system' and {joined} -%}}{{{{- {joined} -}}}}{{%- else -%}}{{{{- {end} -}}}}"
    )
    gap = f"{{%- if not loop.last or add_generation_prompt -%}}{{{{- {quoted(marks.get(GAP, ''))} -}}}}{{%- endif -%}}"
    return (
        f"{{%- set roles = {roles} -%}}{{{{- {quoted(marks.get(BOS, ''))} -}}}}"
        f"{{%- if messages[0]['role'] != 'system' -%}}{{{{- {quoted(marks.get(NO_SYSTEM, ''))} -}}}}{{%- endif -%}}"
        f"{{%- for message in messages -%}}{opening}{{{{- message['content'] or '' -}}}}{calls}{closing}{gap}{{%- endif -%}}"
        f"{{%- endfor -%}}{{%- if add_generation_prompt -%}}{{{{- roles['assistant'] -}}}}{{%- endif -%}}"
    )


def quoted(text: str) -> str:
    """A text as jinja reads it."""
    return json.dumps(text)
