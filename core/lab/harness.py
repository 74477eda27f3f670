"""A trained model for lm-evaluation-harness (EleutherAI): `harness_model(run.load())` is what its `simple_evaluate` takes.

lm-eval is an extra, `eval`, and is imported only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import UserError
from core.evaluation.suites.rows import Row, row_of
from core.evaluation.suites.scoring import Score, score
from core.lab.model import LoadedModel
from core.optional import installing
from core.sampling.generate import complete, prompt_ids

NEW_TOKENS = 256  # where a request names no limit, as in the harness
CHOICES = {"until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p"}


class HarnessRequests:
    """Answers the three kinds of requests of lm-evaluation-harness. A request has its arguments in `args`."""

    def __init__(self, model: LoadedModel) -> None:
        self.loaded = model

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """For each (context, continuation): the log-likelihood of the continuation in nats, and whether it is the greedy one.

        Space at the end of a context belongs to the continuation, as in the harness's own models.
        """
        rows = [self.row(*request.args) for request in requests]
        scores = self.scores([row for row in rows if row.scored])
        measured = iter(scores)
        found = [next(measured) if row.scored else Score(0.0, 0, True) for row in rows]
        return [(-each.nats, row.whole and each.greedy) for row, each in zip(rows, found, strict=True)]

    def row(self, context: str, continuation: str) -> Row:
        """The ids of both. The context begins as a document does; without one, the continuation does."""
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation if stripped else continuation
        encoder = self.loaded.encoder
        prompt = prompt_ids(encoder, self.loaded.begun(stripped or context))
        ids = [int(token) for token in encoder.encode(continuation)]
        return row_of(prompt, ids, self.block_size)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """For each (text,): the log-likelihood of all of it, in nats, in windows of block_size tokens that follow each other.

        The first token counts if there is one that stands before it: the one that begins documents, or that ends them.
        """
        windows = [self.windows(*request.args) for request in requests]
        scores = iter(self.scores([row for rows in windows for row in rows]))
        return [-sum(next(scores).nats for _ in rows) for rows in windows]

    def windows(self, text: str) -> list[Row]:
        """Rows that together measure each token of a text once."""
        begin, end = self.loaded.trained.begin, self.loaded.encoder.end_token
        before = end if begin is None else begin
        ids = [*([] if before is None else [before]), *(int(token) for token in self.loaded.encoder.encode(text))]
        parts = [ids[first : first + self.block_size + 1] for first in range(0, len(ids) - 1, self.block_size)]
        return [Row(tuple(part), len(part) - 1) for part in parts]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """For each (context, choices): what the model writes, up to the first of the texts in `until`, which are left out.

        Raises UserError for a choice that is not known here.
        """
        return [self.written(context, choices) for context, choices in (request.args for request in requests)]

    def written(self, context: str, choices: Mapping[str, Any]) -> str:
        """The answer to one context."""
        if unknown := choices.keys() - CHOICES:
            raise UserError(
                f"the harness asks to decode with '{min(unknown)}', which is not known here",
                place="generation_kwargs",
                remedy=f"Known: {', '.join(sorted(CHOICES))}.",
            )
        given = choices.get("until") or []
        until = [given] if isinstance(given, str) else list(given)
        draws = choices.get("do_sample", choices.get("temperature", 0) > 0)
        with self.loaded.trained.machine.computing():
            text = complete(
                self.loaded.module,
                self.loaded.encoder,
                [self.loaded.begun(context)],
                max_new_tokens=int(choices.get("max_gen_toks", choices.get("max_new_tokens", NEW_TOKENS))),
                temperature=float(choices.get("temperature", 1.0)) if draws else 0.0,
                top_k=int(choices.get("top_k", 0)),
                top_p=float(choices.get("top_p", 1.0)),
                stop=until[0] if len(until) == 1 else "",
            )[0]
        return text[: min((text.index(end) for end in until if end and end in text), default=len(text))]

    @property
    def block_size(self) -> int:
        """Tokens that the model sees."""
        return self.loaded.block_size

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """What the suites measure, too."""
        trained = self.loaded.trained
        with trained.machine.computing():
            return score(self.loaded.module, rows, trained.machine, self.loaded.encoder.vocab_size)


def harness_model(model: LoadedModel) -> Any:
    """A model of lm-evaluation-harness, `lm_eval.api.model.LM`. Raises UserError if lm-eval is not installed."""
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise UserError("lm-eval is not installed", remedy=f"Install it: {installing('eval')}") from None

    class HarnessModel(HarnessRequests, LM):  # type: ignore[misc]
        """Its methods are those above; LM adds what the harness keeps about a model."""

        def __init__(self) -> None:
            LM.__init__(self)
            HarnessRequests.__init__(self, model)

    return HarnessModel()
