"""train.model.kind = "hf": a causal language model of transformers. Token ids (B, T) -> logits (B, T, V).

Shapes: B rows, T tokens, C channels, V rows of the model's vocabulary, which may be more than the encoder has ids.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import torch
from torch import Tensor, nn

from core.config import Fraction, Model
from core.errors import UserError
from core.huggingface.base import NAME_KEY, Base, context_of, find_base, load_base
from core.huggingface.cache import PretrainedCache
from core.huggingface.lora import (
    ALL_LINEAR,
    ALPHA,
    RANK,
    AdaptedLayers,
    Lora,
    adapt,
    grouped,
    linear_layers,
    shape_of_layer,
)
from core.huggingface.quantized import keep_layout, quantise, refuse_full_finetuning
from core.models.loss import CutAtHead

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Rank = Annotated[int, pydantic.Field(ge=1, le=4096)]
Scale = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
TRIED = 4  # tokens, to see whether a model looks ahead


class Pretrained(nn.Module):
    """A base model, with adapters that are trained while it is frozen, or as a whole.

    vocab_size: V. encoder_ids: the first ones, which the encoder has. pretrained_base: what tells its files from others. adapted: the layers with adapters, none without LoRA. base_numbers: how
    many numbers the base has.
    """

    def __init__(
        self,
        config: Model,
        vocab_size: int,
        folder: Path | None = None,
        *,
        name: str,
        revision: str = "auto",
        lora: bool = True,
        r: Rank = RANK,
        alpha: Scale = ALPHA,
        dropout: Fraction = 0.0,
        target_modules: str | list[str] = ALL_LINEAR,
        quantize: Literal["none", "nf4"] = "none",
        weights: Literal["auto", "float32", "bfloat16"] = "auto",
        gradient_checkpointing: bool = False,
    ) -> None:
        """name: a folder, a .gguf file or a name on the hub; relative paths start at `folder`. revision: the hub's commit.

        lora: train adapters of rank r, scaled by alpha / r, beside the layers target_modules. weights: their precision, "auto":
        float32. gradient_checkpointing: compute activations again for the gradient, which saves memory and costs time.
        Raises UserError for a model that is not there or does not fit.
        """
        super().__init__()
        if quantize == "nf4" and not lora:
            raise refuse_full_finetuning()
        if not lora:
            warn_of_unused(
                r=r != RANK, alpha=alpha != ALPHA, dropout=dropout > 0, target_modules=target_modules != ALL_LINEAR
            )
        base = find_base(name, revision, folder)
        weightless = torch.get_default_device().type == "meta"
        model = load_base(base, DTYPES.get(weights, torch.float32), weightless=weightless)
        refuse_long_context(model, config, base)
        refuse_large_vocabulary(model, vocab_size, base)
        if not weightless:
            refuse_seeing_ahead(model, base)
        assert config.block_size is not None
        self.base, self.pretrained_base = base, {} if weightless else base.identity
        self.vocab_size, self.block_size = rows_of(model), config.block_size
        self.encoder_ids = vocab_size
        self.base_numbers = sum(parameter.numel() for parameter in model.parameters())
        self.is_quantised = quantize == "nf4"
        shapes = {path: shape_of_layer(layer) for path, layer in linear_layers(model).items()}
        self.matrix_numbers = matrix_numbers(model, shapes)
        self.lora = Lora(r, alpha, dropout, target_modules) if lora else None
        if self.is_quantised:
            quantise(model, name)
        names = adapt(model, self.lora) if self.lora else []
        self.adapted = {path: shapes[path] for path in names}
        if gradient_checkpointing:
            checkpoint_activations(model)
        self.model = model
        self.head_cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self.can_be_cut: bool | None = None  # not yet known
        self.train()

    def forward(self, tokens: Tensor, cache: PretrainedCache | None = None) -> Tensor:
        """Logits (B, T, V) for tokens (B, T). With a cache, whose tokens they follow and join, those after the last one, (B, 1, V)."""
        if cache is None:
            logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
            return logits
        logits = cache.read(self.model, tokens)
        logits[..., self.encoder_ids :] = -torch.inf  # rows of the vocabulary that no id of the encoder has
        return logits

    def new_cache(self, batch_size: int) -> PretrainedCache:
        """Room for the keys and values of block_size tokens of batch_size rows, which grows as it is filled."""
        return PretrainedCache(self.model, self.block_size)

    def cut_at_head(self, tokens: Tensor) -> CutAtHead | None:
        """The hidden states before the output head, and the head; None where the model does more than that in the end."""
        if self.can_be_cut is None:
            self.can_be_cut = self.is_cut_here(tokens[:1, :2])
        if not self.can_be_cut:
            return None
        hidden = self.model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
        parameters = [each for each in self.model.get_output_embeddings().parameters() if each.requires_grad]
        return CutAtHead(hidden, self.head, tuple(parameters))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., C)."""
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        return self.head_cap * torch.tanh(logits / self.head_cap) if self.head_cap else logits

    @torch.no_grad()
    def is_cut_here(self, tokens: Tensor) -> bool:
        """Whether decoder and head together give the model's own logits, which is tried with some tokens (B, T)."""
        if not hasattr(self.model, "get_decoder") or self.model.get_output_embeddings() is None:
            return False
        training = self.training
        self.eval()  # without dropout
        try:
            hidden = self.model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
            return bool(torch.equal(self.head(hidden), self(tokens)))
        finally:
            self.train(training)

    def train(self, mode: bool = True) -> Pretrained:
        """As torch's, but 4-bit layers stay in training mode."""
        super().train(mode)
        if self.is_quantised:
            keep_layout(self.model)
        return self

    def flops_per_token(self, block_size: int) -> int:
        """Floating-point operations of forward and backward for one token: of a frozen matrix 4 for each number, of a trained one 6.

        A frozen matrix needs no gradient of its own, only that of its inputs. Attention as in core.models.build.
        """
        text = self.model.config.get_text_config()
        trained = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        work = 4 * self.matrix_numbers + 6 * trained if self.lora else 6 * self.matrix_numbers
        width = int(text.num_attention_heads) * int(
            getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        )
        return work + (8 if self.lora else 12) * int(text.num_hidden_layers) * width * block_size

    def adapted_layers(self) -> list[AdaptedLayers]:
        """The layers with adapters, equal ones together."""
        return grouped(self.adapted)

    @staticmethod
    def settled(params: Mapping[str, Any], folder: Path | None, precision: str) -> dict[str, Any]:
        """The params with what they leave open: the newest commit of the hub, and the precision of the weights.

        precision: of this machine's matrix products. A frozen base may have it too. Weights that are trained stay float32: an
        update of 1e-5 of a number is lost in bfloat16.
        """
        base = find_base(str(params["name"]), str(params.get("revision", "auto")), folder)
        chosen = params.get("weights", "auto")
        if chosen == "auto":
            chosen = precision if params.get("lora", True) else "float32"
        return {**params, "revision": base.revision, "weights": chosen}


def checkpoint_activations(model: Any) -> None:
    """Have a model compute its activations again for the gradient. transformers is renaming this."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def refuse_long_context(model: Any, config: Model, base: Base) -> None:
    """Raise UserError if the rows are longer than what the base model can see."""
    longest = context_of(model)
    if longest is not None and config.block_size is not None and config.block_size > longest:
        raise UserError(
            f"block_size = {config.block_size:,} is more than the {longest:,} tokens that {base.name} can see",
            place="train.model.block_size",
            remedy=f"Set train.model.block_size and train.data.block_size to {longest:,} at most.",
        )


@torch.no_grad()
def refuse_seeing_ahead(model: Any, base: Base) -> None:
    """Raise UserError if another last token changes the logits before it: such a model reads what it is to predict."""
    rows = rows_of(model)
    tokens = torch.arange(1, TRIED + 1)[None] % rows  # (1, T)
    other = tokens.clone()
    other[0, -1] = rows - 1
    one, two = (model(input_ids=each, use_cache=False).logits[0, :-1].float() for each in (tokens, other))  # (T - 1, V)
    rounding = torch.finfo(model.dtype).eps ** 0.5  # relative: experts may add up in another order
    if float((one - two).abs().max()) > rounding * float(one.std()):
        raise UserError(
            f"{base.name} is a {type(model).__name__} that sees the tokens behind the one that it predicts, so it cannot write",
            place=NAME_KEY,
            remedy="Give a causal language model: one that was trained to predict the next token, such as GPT-2, Llama or Qwen.",
        )


def warn_of_unused(**given: bool) -> None:
    """Warn of keys of adapters that are given and have no effect without adapters."""
    if names := [name for name, is_given in given.items() if is_given]:
        warnings.warn(
            f"train.model.params: lora = false trains the whole model, so {', '.join(names)} "
            f"{'have' if len(names) > 1 else 'has'} no effect. Leave out what is not used.",
            stacklevel=3,
        )


def refuse_large_vocabulary(model: Any, vocab_size: int, base: Base) -> None:
    """Raise UserError if the encoder has more ids than the base model has rows for."""
    rows = rows_of(model)
    if vocab_size > rows:
        raise UserError(
            f"the encoder has {vocab_size:,} ids, and {base.name} knows {rows:,}",
            place="prepare.encoder",
            remedy='Use the tokenizer of the base model: prepare.encoder = "hf".',
        )


def rows_of(model: Any) -> int:
    """The rows of a model's vocabulary."""
    return int(model.get_input_embeddings().weight.shape[0])


def matrix_numbers(model: Any, shapes: Mapping[str, tuple[int, int]]) -> int:
    """Numbers in matrices that each token is multiplied with. A tied output head is one of them."""
    return sum(outputs * inputs for outputs, inputs in shapes.values())
