"""A language model that was trained with Terrarium, as transformers loads it: token ids (B, T) in, logits (B, T, V) out.

This file is written next to the weights and needs torch and transformers only. Load it with trust_remote_code=True.
It computes what the model computed in training, in its plainest form, without a cache of keys and values.
Shapes: B rows, T tokens, C channels, H heads of queries, K heads of keys and values, D channels of a head, V ids.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class TerrariumConfig(PretrainedConfig):
    """The keys of Terrarium's [train.model], under their own names."""

    model_type = "terrarium"

    def __init__(self, model=None, vocab_size=1, tie_word_embeddings=False, **others):
        """model: key of [train.model] -> value."""
        self.model = dict(model or {})
        self.vocab_size = vocab_size
        self.num_hidden_layers = self.model.get("n_layer", 0)
        self.hidden_size = self.model.get("n_embd", 0)
        super().__init__(tie_word_embeddings=tie_word_embeddings, **others)


def normalised(x, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class TerrariumNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.kind, self.eps = c["norm"], c["norm_eps"]
        self.weight = nn.Parameter(torch.ones(c["n_embd"])) if self.kind != "rmsnorm" else None
        self.bias = nn.Parameter(torch.zeros(c["n_embd"])) if self.kind == "layernorm" and c["bias"] else None

    def forward(self, x):
        if self.kind == "layernorm":
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return normalised(x, self.eps) if self.weight is None else normalised(x, self.eps) * self.weight


class TerrariumScale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class TerrariumAttention(nn.Module):
    def __init__(self, c, layer):
        super().__init__()
        self.c, self.window = c, c["window"] if c["window_pattern"][layer % len(c["window_pattern"])] == "S" else 0
        H, K, D = c["n_head"], c["n_kv_head"], c["head_width"]
        self.c_attn = nn.Linear(c["n_embd"], (H + 2 * K) * D, bias=c["qkv_bias"])
        self.c_proj = nn.Linear(H * D, c["n_embd"], bias=c["bias"])
        self.q_norm, self.k_norm = (TerrariumScale(D), TerrariumScale(D)) if c["qk_scale"] else (None, None)

    def forward(self, x, attention_mask):
        (B, T, _), c = x.shape, self.c
        H, K, D = c["n_head"], c["n_kv_head"], c["head_width"]
        q, k, v = self.c_attn(x).split([H * D, K * D, K * D], dim=-1)
        q, k, v = (part.view(B, T, -1, D).transpose(1, 2) for part in (q, k, v))  # (B, heads, T, D)
        scale = D**-0.5
        if c["qk_norm"]:
            q, k = normalised(q, c["norm_eps"]), normalised(k, c["norm_eps"])
            scale *= 1.0 if self.q_norm is not None else 1.44
        if self.q_norm is not None:
            q, k = q * self.q_norm.weight, k * self.k_norm.weight
        if c["position"] == "rope":
            q, k = self.rotated(q), self.rotated(k)
        k, v = k.repeat_interleave(H // K, dim=1), v.repeat_interleave(H // K, dim=1)
        distance = torch.arange(T, device=x.device)[:, None] - torch.arange(T, device=x.device)
        seen = (distance >= 0) & (distance < self.window if self.window else True)
        if attention_mask is not None:  # a token always sees itself, so that no row is empty
            seen = seen & (attention_mask[:, None, None, :].bool() | (distance == 0))
        y = F.scaled_dot_product_attention(q, k, v, seen, scale=scale)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, H * D))

    def rotated(self, x):
        half, T = x.shape[-1] // 2, x.shape[-2]
        rate = self.c["rope_base"] ** -(torch.arange(half, device=x.device, dtype=torch.float64) / half)
        angle = torch.outer(torch.arange(T, device=x.device, dtype=torch.float64), rate)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x[..., :half], x[..., half:]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class TerrariumFeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.kind = c["activation"]
        self.c_fc = nn.Linear(c["n_embd"], c["n_ff"] * (2 if self.kind == "swiglu" else 1), bias=c["bias"])
        self.c_proj = nn.Linear(c["n_ff"], c["n_embd"], bias=c["bias"])

    def forward(self, x):
        x = self.c_fc(x)
        if self.kind == "swiglu":
            gate, value = x.chunk(2, dim=-1)
            return self.c_proj(F.silu(gate) * value)
        if self.kind == "relu2":
            return self.c_proj(F.relu(x).square())
        return self.c_proj(F.gelu(x, approximate="tanh" if self.kind == "gelu_tanh" else "none"))


class TerrariumBlock(nn.Module):
    def __init__(self, c, layer):
        super().__init__()
        self.ln_1, self.attn = TerrariumNorm(c), TerrariumAttention(c, layer)
        self.ln_2, self.mlp = TerrariumNorm(c), TerrariumFeedForward(c)

    def forward(self, x, attention_mask):
        x = x + self.attn(self.ln_1(x), attention_mask)
        return x + self.mlp(self.ln_2(x))


class TerrariumSmear(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.share = nn.Parameter(torch.zeros(c["n_embd"]))


class TerrariumNGrams(nn.Module):
    """Tables of logits for the next id, by the last id, by the last two, and so on."""

    def __init__(self, order, vocab_size):
        super().__init__()
        self.vocab_size = vocab_size
        rows = [vocab_size**length + 1 for length in range(1, order)]
        self.tables = nn.ModuleList(nn.Embedding(count, vocab_size) for count in rows)

    def forward(self, ids):
        """ids (B, T), -1 for padding."""
        row, logits = ids, self.tables[0](ids.clamp(min=0))
        for length, table in enumerate(self.tables[1:], start=2):
            earlier = F.pad(ids, (length - 1, 0), value=-1)[:, : ids.shape[1]]
            row = row + self.vocab_size ** (length - 1) * earlier
            logits = logits + table(row.masked_fill(earlier < 0, self.vocab_size**length))
        return logits


class TerrariumForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = TerrariumConfig
    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}  # noqa: RUF012 - as transformers reads it
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        c = config.model
        parts = {"wte": nn.Embedding(config.vocab_size, c["n_embd"])}
        if c["position"] == "learned":
            parts["wpe"] = nn.Embedding(c["block_size"], c["n_embd"])
        blocks = nn.ModuleList(TerrariumBlock(c, layer) for layer in range(c["n_layer"]))
        self.transformer = nn.ModuleDict({**parts, "h": blocks, "ln_f": TerrariumNorm(c)})
        self.lm_head = nn.Linear(c["n_embd"], config.vocab_size, bias=False)
        self.smear = TerrariumSmear(c) if c["smear"] else None
        self.ngrams = TerrariumNGrams(c["ngram"], config.vocab_size) if c["ngram"] else None
        self.post_init()

    def get_input_embeddings(self):
        return self.transformer["wte"]

    def get_output_embeddings(self):
        return self.lm_head

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        block_size = self.config.model["block_size"]  # the model has learnt nothing beyond
        mask = None if attention_mask is None else attention_mask[:, -block_size:]
        return {"input_ids": input_ids[:, -block_size:], "attention_mask": mask}

    def forward(self, input_ids, attention_mask=None, labels=None, **_):
        """labels (B, T): the input ids, -100 where there is no target; they are shifted here."""
        c = self.config.model
        x = self.transformer["wte"](input_ids)
        if c["norm"] == "rmsnorm":
            x = normalised(x, c["norm_eps"])
        if attention_mask is not None and attention_mask.bool().all():
            attention_mask = None
        if attention_mask is not None:  # nothing stands before the first token
            x = x * attention_mask[:, :, None].to(x.dtype)
        if self.smear is not None:
            x = x + F.pad(x[:, :-1], (0, 0, 1, 0)) * self.smear.share
        if c["position"] == "learned":
            ones = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
            x = x + self.transformer["wpe"]((ones.cumsum(-1) - 1).clamp(min=0))
        for block in self.transformer["h"]:
            x = block(x, attention_mask)
        logits = self.lm_head(self.transformer["ln_f"](x)).float()
        if self.ngrams is not None:
            ids = input_ids if attention_mask is None else input_ids.masked_fill(attention_mask == 0, -1)
            logits = logits + self.ngrams(ids)
        if c["softcap"]:
            logits = c["softcap"] * torch.tanh(logits / c["softcap"])
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits)
