"""GPT: token ids (B, T) -> logits (B, T, V). core.config.Model has its settings: norms, positions, activation and more.

Parameters are named as in nanoGPT, so that preset "gpt2" exchanges weights with it.
Shapes: B rows, T tokens, C channels, H heads, D channels of a head, V ids, S tokens of context.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from core.config import Model
from core.models.attention import choose_attention, rotary_tables, scheme_of
from core.models.block import Attention, Block, Place
from core.models.cache import KVCache, memory_for
from core.models.decode import Decoder
from core.models.layers import FeedForward, Norm, rms_norm, softcap
from core.models.loss import CutAtHead
from core.models.ngrams import BEFORE, NGrams, Smear
from core.models.product_loss import CutAtProduct
from core.models.replayed import ReplayedDecoder, decoder_on
from core.models.slots import Slots


class Trace(NamedTuple):
    """What `GPT.trace` sees on the way: attention[i] (B, H, T, T) and hidden[i] (B, T, C), hidden[0] the embeddings."""

    logits: Tensor
    attention: list[Tensor]
    hidden: list[Tensor]


class GPT(nn.Module):
    """The model of [train.model], whose fields must be resolved (core.defaults.resolve).

    post_norm: norms after the sums, as in arXiv:1706.03762, and none before the head. ff_bias: biases in the feed-forward
    layers; None: as train.model.bias says. head_bias: a bias in the output head.
    attention: "auto" (core.models.attention.choose_attention), "explicit", "sdpa" or "sdpa32"; set it from outside.
    replays: whether a GPU's work for a token is recorded, see core.models.replayed.
    loss_chunk: tokens whose logits a compiled step computes at once; 0: all; see core.models.loss.use_loss_chunks.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        config: Model,
        vocab_size: int,
        *,
        post_norm: bool = False,
        ff_bias: bool | None = None,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        assert config.block_size is not None and config.softcap is not None and config.norm_eps is not None
        assert config.head_width is not None
        self.config, self.vocab_size, self.block_size = config, vocab_size, config.block_size
        self.n_head, self.head_width, self.softcap = config.n_head, config.head_width, config.softcap
        self.norm_eps = config.norm_eps
        self.attention, self.loss_chunk, self.replays = "auto", 0, False
        parts = {"wte": nn.Embedding(vocab_size, config.n_embd)}
        if config.position == "learned":
            parts["wpe"] = nn.Embedding(config.block_size, config.n_embd)
        elif config.position == "rope":
            cos, sin = rotary_tables(config.block_size, self.head_width, config.rope_base)
            self.register_buffer("cos", cos.float(), persistent=False)
            self.register_buffer("sin", sin.float(), persistent=False)
        blocks = nn.ModuleList(
            Block(config, layer, post_norm=post_norm, ff_bias=ff_bias) for layer in range(config.n_layer)
        )
        final = nn.Identity() if post_norm else Norm(config)
        self.transformer = nn.ModuleDict({**parts, "h": blocks, "ln_f": final})
        self.lm_head = nn.Linear(config.n_embd, vocab_size, bias=head_bias)
        if config.tie_weights:
            self.lm_head.weight = self.transformer["wte"].weight  # type: ignore[assignment]
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        # How many ids before a token count beside those that attention sees.
        self.lookback = max(int(bool(config.smear)), config.ngram - 2)
        initialise(self)
        self.smear = Smear(config.n_embd) if config.smear else None
        self.ngrams = NGrams(config.ngram, vocab_size) if config.ngram else None

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) for tokens (B, T), which follow those of the cache and join it. ValueError past block_size."""
        if cache is None:
            return self.head(self.through(*self.embed(tokens, tokens.shape[1], 0)), tokens)
        if tokens.shape[1] > 1 or not isinstance(cache, Decoder):
            return self.head(*self.read(tokens, cache))
        self.refuse_too_long(cache.longest + 1)
        if isinstance(cache, ReplayedDecoder):
            return cache.step(tokens, self.lookback, partial(self.decoded, cache))
        recent = cache.recall(tokens, self.lookback)
        return self.decoded(cache, recent, cache.length)

    def read(self, tokens: Tensor, cache: KVCache) -> tuple[Tensor, Tensor]:
        """Have tokens (B, T) join a cache. Returns what `head` takes: the last block's output, and the ids."""
        recent = cache.recall(tokens, self.lookback)
        x, place = self.embed(recent, tokens.shape[1], cache.length)
        for layer, block in enumerate(self.blocks):
            x = block.cached(x, place, cache, layer)
        cache.length += tokens.shape[1]
        return x, recent

    def decoded(self, cache: Decoder, recent: Tensor, start: int | Tensor) -> Tensor:
        """Logits (B, 1, V) of the last of the ids (B, 1 + lookback) of each row, with `start` as for `embed`."""
        x, place = self.embed(recent, 1, start)
        return self.finish(cache.decode(x[:, 0], place).unsqueeze(1), recent)

    def refuse_too_long(self, tokens: int) -> None:
        if tokens > self.block_size:
            raise ValueError(f"{tokens} tokens do not fit the model's block_size = {self.block_size}")

    def through(self, x: Tensor, place: Place) -> Tensor:
        """The last block's output (B, T, C) for embeddings (B, T, C)."""
        form = self.attention_form(x)
        for block in self.blocks:
            x = block(x, place, form)
        return x

    def cut_at_head(self, tokens: Tensor) -> CutAtHead | None:
        """What the head reads, for tokens (B, T), and the head; None with n-gram tables, which look at ids too."""
        if self.ngrams is not None:
            return None
        hidden = self.through(*self.embed(tokens, tokens.shape[1], 0))
        parts = (self.transformer["ln_f"], self.lm_head)
        parameters = tuple(each for part in parts for each in part.parameters() if each.requires_grad)
        return CutAtHead(hidden, lambda x: self.head(x, tokens), parameters)

    def cut_at_product(self, tokens: Tensor) -> CutAtProduct | None:
        """As `cut_at_head`, behind the last norm: what is left is a product and the bound of the logits."""
        if self.ngrams is not None:
            return None
        hidden = self.through(*self.embed(tokens, tokens.shape[1], 0))
        return CutAtProduct(self.transformer["ln_f"](hidden), self.lm_head.weight, self.lm_head.bias, self.softcap)

    @property
    def blocks(self) -> list[Block]:
        return cast("list[Block]", self.transformer["h"])

    def embed(self, recent: Tensor, T: int, start: int | Tensor) -> tuple[Tensor, Place]:
        """Hidden states (B, T, C) of tokens at places start, start + 1, ..., and the tables of those places.

        recent: the T ids, behind those of the `lookback` places before them, as far as there are any. start: for T = 1 also
        the place of each row, (B,); `recent` then has BEFORE where a row has not begun.
        """
        apart = isinstance(start, Tensor)
        if isinstance(start, Tensor):  # whose caller knows that they fit: reading them would wait for the device
            places: Tensor | slice = start[:, None]
        else:
            self.refuse_too_long(start + T)
            places = slice(start, start + T)
        x = self.transformer["wte"](recent.clamp(min=0) if apart else recent)
        if self.config.norm == "rmsnorm":  # without a scale of its own, so that the embedding's need not be right
            x = rms_norm(x, self.norm_eps)
        if apart and self.lookback:
            x = x * (recent > BEFORE).unsqueeze(-1)
        if self.smear is not None:
            x = self.smear(x)
        x = x[:, -T:]
        if self.config.position == "learned":
            x = x + self.transformer["wpe"].weight[places]  # type: ignore[index]
        if self.dropout is not None:
            x = self.dropout(x)
        # The residual stream has the precision of the matrix products: half the memory traffic, and no casts between.
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if self.config.position != "rope":
            return x, (None, None)
        cos, sin = self.cos[places].to(x.dtype), self.sin[places].to(x.dtype)  # (T, D); a place for each row: (B, 1, D)
        return x, (cos.unsqueeze(1), sin.unsqueeze(1)) if apart else (cos, sin)

    def head(self, x: Tensor, recent: Tensor) -> Tensor:
        """Logits (B, T, V) of the last block's output (B, T, C) and the ids, as in `embed`."""
        return self.finish(self.lm_head(self.transformer["ln_f"](x)), recent)

    def finish(self, logits: Tensor, recent: Tensor) -> Tensor:
        """Add what the n-gram tables say to logits (B, T, V), then bound them."""
        if self.ngrams is not None:
            logits = logits.float() + self.ngrams(recent)[:, -logits.shape[1] :]
        return softcap(logits, self.softcap) if self.softcap else logits

    def attention_form(self, x: Tensor) -> str:
        if self.attention != "auto":
            return self.attention
        return choose_attention(x.device, x.dtype, x.shape[1], self.head_width, x.shape[0] * self.n_head)

    def new_cache(self, batch_size: int) -> KVCache:
        """Room for the keys and values of block_size tokens of batch_size rows.

        The short path for single tokens takes the weights as they are now. Blocks that someone has replaced, changed, or
        derived from these, are called as they are.
        """
        if self.has_own_blocks:
            kind = decoder_on(self.lm_head.weight.device, replays=self.replays)
            return kind(self.blocks, cast(Norm, self.transformer["ln_f"]), self.lm_head, batch_size, self.block_size)
        scheme = scheme_of(self.config, 0)
        return KVCache(memory_for(self.config.n_layer, scheme, batch_size, self.block_size, self.lm_head.weight))

    def new_slots(self, rows: int) -> Slots | None:
        """Room for rows of different lengths, for `forward` with one token of each; None if a block is not our own."""
        if not self.has_own_blocks:
            return None
        norm = cast(Norm, self.transformer["ln_f"])
        return Slots(self.blocks, norm, self.lm_head, rows, self.block_size)

    @property
    def has_own_blocks(self) -> bool:
        """Whether every block computes what its class and the config say, so that the decoder may stand in for it."""
        return all(
            (type(block), type(block.attn), type(block.mlp)) == (Block, Attention, FeedForward)
            and block.attn.scheme == scheme_of(self.config, layer)
            and not block.post_norm
            for layer, block in enumerate(self.blocks)
        )

    @torch.no_grad()
    def trace(self, tokens: Tensor) -> Trace:
        """`forward` with attention maps and hidden states kept; slower, and apart from it so that it stays fast."""
        x, place = self.embed(tokens, tokens.shape[1], 0)
        attention, hidden = [], [x]
        for block in self.blocks:
            attention.append(block.attn.weights(block.attended(x), place))
            x = block(x, place, self.attention_form(x))
            hidden.append(x)
        return Trace(self.head(x, tokens), attention, hidden)


@torch.no_grad()
def initialise(model: GPT) -> None:
    """Fresh weights. modern, portable: matrices uniform with deviation 1/sqrt(inputs), head near zero, so that the first loss is ln V;
    else GPT-2's: normal with 0.02, projections back into the residual stream 0.02 / sqrt(2 n_layer)."""
    config = model.config
    modern = config.preset in ("modern", "portable")
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0 if modern and not config.tie_weights else 0.02)
        elif isinstance(module, nn.Linear):
            back = name.endswith("c_proj")
            if back and config.zero_init:
                nn.init.zeros_(module.weight)
            elif not modern:
                nn.init.normal_(module.weight, std=0.02 / (2 * config.n_layer) ** 0.5 if back else 0.02)
            elif module is not model.lm_head:
                bound = (3 / module.in_features) ** 0.5 / ((2 * config.n_layer) ** 0.5 if back else 1.0)
                nn.init.uniform_(module.weight, -bound, bound)
            elif not config.tie_weights:
                nn.init.normal_(module.weight, std=0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
