"""The JSON bodies of requests: which fields there are, and what they may hold.

A field that would not be honoured is refused, except with the value that changes nothing.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from core.chat.conversation import Message
from core.serve.errors import Refused
from core.serve.limits import Limits

# Fields of OpenAI's API that we do not have, with the values that mean what we do anyway.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "store": (False,),
    "modalities": (["text"],),
    "cache_prompt": (True, False),
    "min_p": (0,),
    "typical_p": (1,),
    "repeat_penalty": (1,),
}
Body = TypeVar("Body", bound="Strict")
Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """No value is converted, no field is unknown, no number is infinite."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class StreamOptions(Strict):
    include_usage: bool = False


class Asked(Strict):
    """What every request for text has. None: the model's own default."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=1000)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None

    @property
    def choices(self) -> dict[str, Any]:
        """What `LoadedModel.decoding` takes."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return given | {"max_new_tokens": self.max_tokens}

    @property
    def stops(self) -> list[str]:
        """Texts before which the answer ends."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in found if text]

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class Part(Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class Turn(Strict):
    """A message of a conversation. call: of a tool, with which a turn of the assistant ends; its result is a turn of the tool."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part]
    call: str = ""

    @model_validator(mode="before")
    @classmethod
    def without_empty(cls, turn: Any) -> Any:
        """An answer that is sent back may have lists of calls and notes. They are empty, as ours are."""
        if not isinstance(turn, dict):
            return turn
        return {name: value for name, value in turn.items() if name not in ("tool_calls", "annotations") or value}

    @property
    def message(self) -> Message:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, content, self.call)


class AskedForChat(Asked):
    """The body of /v1/chat/completions. show_calls: the answer also says which tools were called, and their results."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    max_completion_tokens: Positive | None = None
    show_calls: bool = False

    @property
    def choices(self) -> dict[str, Any]:
        return super().choices | {"max_new_tokens": self.max_completion_tokens or self.max_tokens}


class AskedForText(Asked):
    """The body of /v1/completions."""

    prompt: str

    @field_validator("prompt", mode="before")
    @classmethod
    def alone(cls, prompt: Any) -> Any:
        """A list of one text is that text."""
        return prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt


class AskedForTokens(Strict):
    """The body of /tokenize."""

    content: str
    model: str | None = None


class AskedForContent(Strict):
    """The body of /detokenize."""

    tokens: list[Annotated[int, Field(ge=0)]]
    model: str | None = None


def read(kind: type[Body], data: bytes, limits: Limits) -> Body:
    """A body from its bytes. Raises Refused, which names the field and its value."""
    try:
        values = json.loads(data, parse_constant=refuse_constant)
        json.dumps(values, ensure_ascii=False).encode()  # half of a character is no text, and no disk takes it
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(values, dict):
        raise Refused(f"the body is {described(values)}, not an object", code="invalid_json")
    values = without_nulls(values)
    for name in ("max_tokens", "max_completion_tokens", "seed"):  # llama.cpp's way to leave them out
        if values.get(name) == -1:
            del values[name]
    for name, neutral in NEUTRAL.items():
        if name in values and name not in kind.model_fields:
            value = values.pop(name)
            if not any(type(value) is type(same) and value == same for same in (*neutral, *map(as_float, neutral))):
                raise Refused(f"{name} is not supported here. Leave it out.", param=name, code="unsupported_parameter")
    try:
        asked = kind.model_validate(values)
    except ValidationError as error:
        raise explained(error, kind) from None
    if isinstance(asked, Asked):
        refuse_too_much(asked, limits)
    return asked


def without_nulls(value: Any) -> Any:
    """JSON without fields that are null: they say nothing. Clients send what an answer had back, nulls included."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def as_float(value: Any) -> Any:
    """0 and 1 may be written 0.0 and 1.0."""
    return float(value) if type(value) is int else value


def refuse_too_much(asked: Asked, limits: Limits) -> None:
    """Raise Refused for a request that asks for more than one may."""
    given: list[tuple[str, int, int, str]] = [
        ("max_tokens", asked.choices["max_new_tokens"] or 0, limits.new_tokens, "is more than"),
        ("stop", len(asked.stops), limits.stops, "texts are more than"),
        ("stop", max(map(len, asked.stops), default=0), limits.stop_length, "characters are more than"),
    ]
    if isinstance(asked, AskedForChat):
        given.append(("messages", len(asked.messages), limits.messages, "messages are more than"))
    for param, value, most, words in given:
        if value > most:
            raise Refused(f"{param}: {value:,} {words} {most:,}", param=param, code="too_large")


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def explained(error: ValidationError, kind: type[BaseModel]) -> Refused:
    """The first mistake of a body, in words."""
    wrong = error.errors()[0]
    place = [part for part in wrong["loc"] if not str(part).startswith(("str", "list[", "function-"))]
    param = ".".join(map(str, place)) or "body"
    if wrong["type"] == "extra_forbidden":
        known = f" Fields: {', '.join(kind.model_fields)}." if len(place) == 1 else ""
        return Refused(
            f"{param} is not supported here. Leave it out.{known}", param=param, code="unsupported_parameter"
        )
    if wrong["type"] == "missing":
        return Refused(f"{param} is missing", param=param, code="missing_field")
    message = wrong["msg"].removeprefix("Value error, ")
    return Refused(
        f"{param}: {message[:1].lower()}{message[1:]}, not {described(wrong['input'])}",
        param=param,
        code="invalid_value",
    )


def described(value: Any) -> str:
    """A value of JSON in a few words."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else f"a list of {len(value):,}"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
