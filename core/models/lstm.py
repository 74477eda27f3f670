"""LSTM: token ids (B, T) -> logits (B, T, V). The baseline without attention (Hochreiter and Schmidhuber, 1997).

Shapes: B rows, T tokens, C channels, V ids, L layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.config import Model
from core.errors import UserError
from core.models.layers import softcap


class LSTMState:
    """What an LSTM remembers of the `length` tokens before: hidden and cell state, each (L, B, C); None at the start."""

    def __init__(self) -> None:
        self.length = 0
        self.state: tuple[Tensor, Tensor] | None = None

    def take(self, other: LSTMState) -> None:
        """Remember what another one does."""
        self.length, self.state = other.length, other.state


class LSTMSlots:
    """Rows that begin and end at any time, for one token of each at once. views[i]: what row i remembers, for `used` rows."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self.lstm, self.length = lstm, 0
        self.views: list[LSTMState] = []

    @property
    def used(self) -> int:
        return len(self.views)

    def caches_of(self, model: nn.Module, tokens: Tensor) -> list[LSTMState]:
        """Memories of ids (B, T), one for each row."""
        found = [LSTMState() for _ in tokens]
        for state, row in zip(found, tokens, strict=True):
            model(row[None], state)
        return found

    def begin(self) -> LSTMState:
        """A new row, as an empty memory: fill it with all of its tokens but the last one. It becomes the last row."""
        self.views.append(LSTMState())
        return self.views[-1]

    def again(self, row: int) -> LSTMState:
        """A row, emptied, to be filled as by `begin`."""
        self.views[row] = LSTMState()
        return self.views[row]

    def end(self, row: int) -> None:
        """Give a row up. The last row takes its place."""
        last = self.views.pop()
        if row < self.used:
            self.views[row] = last

    @property
    def state(self) -> tuple[Tensor, Tensor]:
        """The states of all rows in order, each (L, B, C)."""
        zero = next(self.lstm.parameters()).new_zeros(self.lstm.num_layers, 1, self.lstm.hidden_size)
        hidden, cell = zip(*(view.state or (zero, zero) for view in self.views), strict=True)
        return torch.cat(hidden, dim=1), torch.cat(cell, dim=1)

    @state.setter
    def state(self, state: tuple[Tensor, Tensor]) -> None:
        hidden, cell = state
        for row, view in enumerate(self.views):
            view.state = hidden[:, row : row + 1].contiguous(), cell[:, row : row + 1].contiguous()


class LSTM(nn.Module):
    """n_layer layers between embedding and head. block_size bounds training rows, not memory.

    hidden: their width, channels; None: n_embd. single_bias: one bias per gate, as in the paper, instead of torch's two, of
    which only the sum counts. head_bias: a bias in the output head. Raises UserError where `hidden` cannot be.
    """

    def __init__(
        self,
        config: Model,
        vocab_size: int,
        *,
        hidden: int | None = None,
        single_bias: bool = False,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        assert config.block_size is not None and config.softcap is not None
        self.config, self.vocab_size, self.block_size, self.softcap = (
            config,
            vocab_size,
            config.block_size,
            config.softcap,
        )
        width = config.n_embd if hidden is None else hidden
        refuse_hidden(config, width)
        self.wte = nn.Embedding(vocab_size, config.n_embd)
        between = (
            config.dropout if config.n_layer > 1 else 0.0
        )  # torch warns of dropout between layers where there is one
        self.lstm = nn.LSTM(config.n_embd, width, config.n_layer, batch_first=True, dropout=between)
        if single_bias:
            use_single_bias(self.lstm)
        self.dropout = nn.Dropout(config.dropout)
        self.lm_head = nn.Linear(width, vocab_size, bias=head_bias)
        if config.tie_weights:
            self.lm_head.weight = self.wte.weight
        initialise(self)

    def forward(self, tokens: Tensor, cache: LSTMState | LSTMSlots | None = None) -> Tensor:
        """Logits (B, T, V) for tokens (B, T), which follow those of the cache; the cache then remembers them too."""
        y, state = self.lstm(self.dropout(self.wte(tokens)), None if cache is None else cache.state)  # y (B, T, C)
        if cache is not None:
            cache.state, cache.length = state, cache.length + tokens.shape[1]
        logits: Tensor = self.lm_head(self.dropout(y))
        return softcap(logits, self.softcap) if self.softcap else logits

    def new_cache(self, batch_size: int) -> LSTMState:
        """An empty memory; it takes the batch size of the first tokens."""
        return LSTMState()

    def new_slots(self, rows: int) -> LSTMSlots:
        """Room for rows of different lengths, for `forward` with one token of each."""
        return LSTMSlots(self.lstm)


def refuse_hidden(config: Model, width: int) -> None:
    """Raise UserError for a width below 1, and for one that a tied head cannot have."""
    place = f"train.model.params.hidden = {width}"
    if width < 1:
        raise UserError("a layer needs at least one channel", place=place, remedy="Raise it, or leave it out.")
    if config.tie_weights and width != config.n_embd:
        raise UserError(
            f"a tied head takes the width of the embedding, n_embd = {config.n_embd}",
            place=place,
            remedy="Leave it out, or set train.model.tie_weights = false.",
        )


def use_single_bias(lstm: nn.LSTM) -> None:
    """Fix the second bias of every layer at 0. It is then no parameter, and in no checkpoint."""
    for layer in range(lstm.num_layers):
        name = f"bias_hh_l{layer}"
        zeros = torch.zeros_like(lstm.get_parameter(name))
        del lstm._parameters[name]
        lstm.register_buffer(name, zeros, persistent=False)
    lstm._init_flat_weights()


@torch.no_grad()
def initialise(model: LSTM) -> None:
    """Matrices uniform with deviation 1/sqrt(hidden); forget gates open (Jozefowicz et al., 2015), so that gradients reach back."""
    C = model.lstm.hidden_size
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
    if model.lm_head.bias is not None:
        nn.init.zeros_(model.lm_head.bias)
