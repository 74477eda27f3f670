"""Ask a model that was trained on conversations: prompts in, its answers out, with the calls of tools answered on the way."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from core.chat.render import AnswerText, PromptText, reply_of
from core.chat.tools import Tools, responder
from core.encoders.base import Encoder
from core.sampling.generate import prompt_ids
from core.sampling.rollouts import Rollout, roll_out


def ask(
    model: nn.Module,
    encoder: Encoder,
    prompts: Sequence[str],
    tools: Tools,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[Rollout]:
    """What the model writes after each prompt, up to the <|end|> of a turn without a call. Prompt i is drawn with seed + i.

    max_new_tokens: of a whole answer, with calls and results. Raises UserError for a prompt that cannot be encoded, and for
    an encoder without special tokens.
    """
    respond, training = responder(encoder, tools), model.training
    try:
        return roll_out(
            model,
            [prompt_ids(encoder, prompt) for prompt in prompts],
            range(seed, seed + len(prompts)),
            ends=[int(encoder.end_token or 0)],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            respond=respond,
        )
    finally:
        model.train(training)


def said(rollout: Rollout, encoder: Encoder) -> str:
    """The assistant's last turn: what the model wrote behind the last result of a tool."""
    begin = max((place for place, forced in enumerate(rollout.forced) if forced), default=-1) + 1
    return reply_of(rollout.written[begin:], encoder).content


def spelled_out(rollout: Rollout, encoder: Encoder) -> str:
    """All of an answer, for people to read: calls and results too, with special tokens by their names, without the last <|end|>."""
    return str(PromptText.of(rollout.written[: len(rollout.written) - rollout.ended], encoder))


def answer_size(completion: str, encoder: Encoder) -> int:
    """The tokens that an answer needs: of an AnswerText its calls and results too. Raises UserError for text that cannot be encoded."""
    return len(completion.ids) if isinstance(completion, AnswerText) else len(encoder.encode(completion))
