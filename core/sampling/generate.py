"""Sample from a model: tokens, pieces of text, or whole completions.

Shapes: B rows, T tokens of the prompt, V ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.chat.render import WithIds
from core.encoders.base import Encoder
from core.errors import UserError
from core.models.cache import KVCache
from core.sampling.samplers import choose, uniform_draws
from core.sampling.stops import Stops


def generate(
    model: nn.Module,
    prompts: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seeds: Sequence[int] | None = None,
    use_cache: bool = True,
) -> Generator[Tensor, None, None]:
    """Yield the next token of every row, (B,), max_new_tokens times. The caller may stop iterating earlier.

    prompts: ids (B, T), T >= 1. temperature 0: the likeliest token. seeds: one per row; 0, 1, ... if not given.
    When the context exceeds the model's block_size, it is cut to the last block_size // 2 tokens and computed again,
    with or without a cache. A model without `new_cache` computes the whole context at every step.
    The model is in evaluation mode until the iterator ends or is closed.
    """
    rows, begin, end = prompts.shape[0], 0, prompts.shape[1]
    block_size: int = model.block_size  # type: ignore[assignment]
    tokens = torch.empty(rows, end + max_new_tokens, dtype=torch.long, device=prompts.device)
    tokens[:, :end] = prompts
    draws = None
    if temperature:
        draws = uniform_draws(range(rows) if seeds is None else seeds, max_new_tokens, prompts.device)
    cache, known = model.new_cache(rows) if use_cache and hasattr(model, "new_cache") else None, 0  # type: ignore[operator]
    training = model.training
    model.eval()
    try:
        for step in range(max_new_tokens):
            if end - begin > block_size:
                begin = known = end - seen(end - begin, block_size)
                if isinstance(cache, KVCache):
                    cache.clear()
                elif cache is not None:
                    cache = model.new_cache(rows)  # type: ignore[operator]
            with torch.inference_mode():  # not around the yield, where it would affect the caller
                if cache is not None:
                    logits = model(tokens[:, known:end], cache)[:, -1]
                    known = end
                else:
                    logits = model(tokens[:, begin:end])[:, -1]
                draw = None if draws is None else draws[step]
                chosen = choose(logits, draw, temperature=temperature, top_k=top_k, top_p=top_p)
                tokens[:, end] = chosen
            end += 1
            yield chosen
    finally:
        model.train(training)


def seen(tokens: int, block_size: int) -> int:
    """How many of the last tokens of a context the model sees: all that fit, else the last block_size // 2."""
    return tokens if tokens <= block_size else max(block_size // 2, 1)


def complete(
    model: nn.Module,
    encoder: Encoder,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    stop: str = "",
    device: torch.device | None = None,
    batch_size: int = 256,
    show: Callable[[str], Any] | None = None,
    **choices: Any,
) -> list[str]:
    """Complete each prompt. Returns the completions, without the prompts.

    A completion ends after the first `stop`, which it includes, at the encoder's end token, which has no text, or after
    max_new_tokens. choices: as for `generate`. Prompt i is drawn with seed + i, independently of the other prompts.
    device: by default the model's. batch_size: the most rows at once; prompts in a batch have the same number of tokens.
    show: called with the pieces of the first prompt's completion as they come.
    Raises UserError for a prompt that the encoder cannot encode, and for an empty one if there is no end token.
    """
    device = next(model.parameters()).device if device is None else device
    by_length: dict[int, list[int]] = defaultdict(list)
    ids = [prompt_ids(encoder, prompt) for prompt in prompts]
    for number, tokens in enumerate(ids):
        by_length[len(tokens)].append(number)
    texts = [""] * len(prompts)
    for numbers in by_length.values():
        for at in range(0, len(numbers), batch_size):
            batch = numbers[at : at + batch_size]
            steps = generate(
                model,
                torch.tensor([ids[number] for number in batch], device=device),
                seeds=[seed + number for number in batch],
                **choices,
            )
            stops = Stops(encoder, [ids[number][-1] for number in batch], stop, show if batch[0] == 0 else None)
            for chosen in steps:
                if stops.take(chosen.tolist()):
                    break
            steps.close()
            for number, text in zip(batch, stops.texts(), strict=True):
                texts[number] = text
    return texts


def pieces(
    model: nn.Module, encoder: Encoder, prompt: str, *, seed: int = 0, stop: str = "", **choices: Any
) -> Generator[str, None, None]:
    """Yield the completion of one prompt in pieces. Joined, they are what `complete` returns. Raises the same errors."""
    ids, written = prompt_ids(encoder, prompt), list[str]()
    steps = generate(model, torch.tensor([ids], device=next(model.parameters()).device), seeds=[seed], **choices)
    stops = Stops(encoder, [ids[-1]], stop, written.append)
    shown, ended = 0, False
    while not ended:
        chosen = next(steps, None)
        ended = chosen is None or stops.take(chosen.tolist())
        yield from written[shown:]
        shown = len(written)
    steps.close()
    if rest := stops.text(0)[len("".join(written)) :]:  # a character whose last bytes are missing
        yield rest


def prompt_ids(encoder: Encoder, prompt: str) -> list[int]:
    """Ids of a prompt: of one that knows them its own. An empty prompt becomes the end token, after which a new document begins."""
    if isinstance(prompt, WithIds):
        return list(prompt.ids)
    if prompt:
        return [int(token) for token in encoder.encode(prompt)]
    if encoder.end_token is None:
        raise UserError(
            "the prompt is empty, so there is nothing to continue",
            place="start",
            remedy='Give some text, such as `start="\\n"`.',
        )
    return [encoder.end_token]
