"""The chat template of our conversations, in jinja: turns in; their text with special tokens out, as `render` writes ids."""

from __future__ import annotations

from core.chat.conversation import ASSISTANT, BOS, END, OPENS, RESULT, SYSTEM, TOOL, USER
from core.encoders.base import Encoder
from core.encoders.special import has_special

# A turn's call stands in `call` as we write it, "NAME ARGUMENT", or in `tool_calls` as OpenAI's API does, with one argument.
TEMPLATE = (
    f"{{{{- '{BOS}' -}}}}"
    "{%- for message in messages -%}"
    f"{{{{- {{'system': '{SYSTEM}', 'user': '{USER}', 'assistant': '{ASSISTANT}', 'tool': '{RESULT}'}}[message['role']] -}}}}"
    "{{- message['content'] or '' -}}"
    f"{{%- if message.get('call') -%}}{{{{- '{TOOL}' + message['call'] -}}}}{{%- endif -%}}"
    "{%- for call in message.get('tool_calls') or [] -%}"
    f"{{{{- '{TOOL}' + call['function']['name'] -}}}}"
    "{%- for value in call['function']['arguments'].values() -%}{{- ' ' + value -}}{%- endfor -%}"
    "{%- endfor -%}"
    f"{{{{- '{END}' -}}}}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}' -}}}}{{%- endif -%}}"
)
assert set(OPENS) == {"system", "user", "assistant", "tool"}


def chat_template(encoder: Encoder) -> str | None:
    """The template, for an encoder with our special tokens; None for others.

    A text that contains the name of a special token, such as "<|end|>", becomes that token in other programs. Ours keeps it text.
    """
    own = has_special(encoder) and not hasattr(encoder, "chat_template")
    return TEMPLATE if own else getattr(encoder, "chat_template", None)
