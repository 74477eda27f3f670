"""LSTM: token ids (B, T) -> logits (B, T, V). The baseline without attention (Hochreiter and Schmidhuber, 1997).

Shapes: B rows, T tokens, C channels, V ids, L layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.config import Model
from core.models.layers import softcap


class LSTMState:
    """What an LSTM remembers of the `length` tokens before: hidden and cell state, each (L, B, C); None at the start."""

    def __init__(self) -> None:
        self.length = 0
        self.state: tuple[Tensor, Tensor] | None = None


class LSTM(nn.Module):
    """n_layer layers of width n_embd between embedding and head. block_size bounds training rows, not memory."""

    def __init__(self, config: Model, vocab_size: int) -> None:
        super().__init__()
        assert config.block_size is not None and config.softcap is not None
        self.config, self.vocab_size, self.block_size, self.softcap = (
            config,
            vocab_size,
            config.block_size,
            config.softcap,
        )
        self.wte = nn.Embedding(vocab_size, config.n_embd)
        between = (
            config.dropout if config.n_layer > 1 else 0.0
        )  # torch warns of dropout between layers where there is one
        self.lstm = nn.LSTM(config.n_embd, config.n_embd, config.n_layer, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.lm_head = nn.Linear(config.n_embd, vocab_size, bias=False)
        if config.tie_weights:
            self.lm_head.weight = self.wte.weight
        initialise(self)

    def forward(self, tokens: Tensor, cache: LSTMState | None = None) -> Tensor:
        """Logits (B, T, V) for tokens (B, T), which follow those of the cache; the cache then remembers them too."""
        y, state = self.lstm(self.dropout(self.wte(tokens)), None if cache is None else cache.state)  # y (B, T, C)
        if cache is not None:
            cache.state, cache.length = state, cache.length + tokens.shape[1]
        logits: Tensor = self.lm_head(self.dropout(y))
        return softcap(logits, self.softcap) if self.softcap else logits

    def new_cache(self, batch_size: int) -> LSTMState:
        """An empty memory; it takes the batch size of the first tokens."""
        return LSTMState()


@torch.no_grad()
def initialise(model: LSTM) -> None:
    """Matrices uniform with deviation 1/sqrt(C); forget gates open (Jozefowicz et al., 2015), so that gradients reach back."""
    C = model.config.n_embd
    for name, parameter in model.lstm.named_parameters():
        if name.startswith("weight"):
            nn.init.uniform_(parameter, -((3 / C) ** 0.5), (3 / C) ** 0.5)
        else:
            nn.init.zeros_(parameter)
            if name.startswith("bias_ih"):
                parameter[C : 2 * C] = 1.0  # gates lie in the order input, forget, cell, output
    nn.init.normal_(model.wte.weight, std=0.02 if model.config.tie_weights else 1.0)
    if not model.config.tie_weights:
        nn.init.normal_(model.lm_head.weight, std=0.001)
