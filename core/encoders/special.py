"""Special tokens: ids behind those of any encoder, which no text ever becomes; and the marks of conversations in ids.

A mark is what stands between the texts of a conversation, such as what opens a turn of the user. With `WithSpecialTokens` each
is one id. An encoder with a format of its own may write a mark as several ids, or as none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from typing_extensions import Self

from core.encoders.base import Encoder, Ids
from core.encoders.text import END, wrong_state
from core.errors import UserError

STATE = "special_tokens"  # their names, in the encoder's state


class WithSpecialTokens(Encoder):
    """An encoder of any kind with special tokens behind its ids. `encode` never returns one, and `decode` drops them.

    kind: that of the inner encoder. special: name -> id. marks: name -> (id,). end_token: the id of <|end|>, which ends
    documents too.
    """

    def __init__(self, inner: Encoder, names: Sequence[str]) -> None:
        self.inner, self.kind = inner, inner.kind
        self.special = {name: inner.vocab_size + number for number, name in enumerate(names)}
        self.marks = {name: (token,) for name, token in self.special.items()}
        self.vocab_size = inner.vocab_size + len(self.special)
        self.end_token = self.special.get(END, inner.end_token)

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 0) -> Self:
        """Raises TypeError: fit the inner encoder, and put special tokens behind its ids."""
        raise TypeError("fit the inner encoder")

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Raises TypeError: `rebuilt` knows the kind of the inner encoder."""
        raise TypeError("use rebuilt()")

    def state(self) -> dict[str, Any]:
        """The inner encoder's state, and the names of the special tokens in the order of their ids."""
        return self.inner.state() | {STATE: list(self.special)}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,); none of them is special. Raises UserError as the inner encoder."""
        return self.inner.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text."""
        return self.inner.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids. Special ids become "", and the texts beside them are decoded apart."""
        tokens, texts, start = [int(token) for token in ids], [], 0
        for place, token in enumerate(tokens):
            if token >= self.inner.vocab_size:
                texts.append(self.inner.decode(tokens[start:place]))
                start = place + 1
        return "".join([*texts, self.inner.decode(tokens[start:])])

    def between(self, before: str, after: str) -> str:
        """What the inner encoder puts between two texts."""
        own = getattr(self.inner, "between", None)
        return str(own(before, after)) if own else ""


def marks_of(encoder: Encoder) -> dict[str, tuple[int, ...]]:
    """The marks of conversations, name -> ids. Raises UserError if the encoder has none."""
    if not has_special(encoder):
        raise UserError(
            f"this {encoder.kind} encoder has no special tokens, so it cannot encode conversations turn by turn",
            place="prepare.special_tokens",
            remedy='Set prepare.special_tokens = "chat" and prepare the data again; in a pipeline, from its first stage on.',
        )
    found: dict[str, tuple[int, ...]] = encoder.marks  # type: ignore[attr-defined]
    return found


def special_ids(encoder: Encoder) -> dict[str, int]:
    """The marks that are one id, name -> id. Raises UserError if the encoder has no marks at all."""
    return {name: ids[0] for name, ids in marks_of(encoder).items() if len(ids) == 1}


def has_special(encoder: Encoder) -> bool:
    """Whether an encoder can mark the turns of conversations."""
    return bool(getattr(encoder, "marks", None))


def rebuilt(kind: type[Encoder], state: dict[str, Any]) -> Encoder:
    """An encoder from its state, with its special tokens if it has some. Raises UserError for a state of another kind."""
    names = state.get(STATE)
    if names is None:
        return kind.from_state(state)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise wrong_state(kind.kind, state)
    return WithSpecialTokens(kind.from_state({key: value for key, value in state.items() if key != STATE}), names)
