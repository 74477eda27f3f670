"""Milliseconds of forward and backward by model and precision, against nanoGPT's model where it is given.

python -m tests.benchmarks.model_step [--nanogpt PATH] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path
from typing import Any

import torch

from core.config import Config
from core.defaults import resolve
from core.models.gpt import GPT
from core.models.loss import token_loss
from tests.benchmarks.measure import Step, medians, nanogpt_model, print_table

VOCAB = 65
SHAPES = {  # n_layer, n_head, n_embd, block_size, batch_size, repeats
    "4 x 128, batch 12 x 64": (4, 4, 128, 64, 12, 60),
    "4 x 128, batch 64 x 64": (4, 4, 128, 64, 64, 20),
    "6 x 384, batch 16 x 256": (6, 6, 384, 256, 16, 4),
}


def our_step(preset: str, shape: tuple[int, ...], dtype: torch.dtype, **more: Any) -> Step:
    n_layer, n_head, n_embd, block_size, batch_size, _ = shape
    keys = {"preset": preset, "n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "block_size": block_size, **more}
    model = GPT(resolve(Config.model_validate({"train": {"model": keys}})).train.model, VOCAB)
    x, y = torch.randint(0, VOCAB, (2, batch_size, block_size))

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = model(x)
        nats, count = token_loss(logits, y)
        (nats / count).backward()
        model.zero_grad(set_to_none=True)

    return step


def peer_step(folder: Path, shape: tuple[int, ...]) -> Step:
    n_layer, n_head, n_embd, block_size, batch_size, _ = shape
    with contextlib.redirect_stdout(io.StringIO()):
        model = nanogpt_model(
            folder, n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, vocab_size=VOCAB
        )
    x, y = torch.randint(0, VOCAB, (2, batch_size, block_size))

    def step() -> None:
        model(x, y)[1].backward()
        model.zero_grad(set_to_none=True)

    return step


def attention_step(form: str, shape: tuple[int, ...], dtype: torch.dtype) -> Step:
    from core.models.attention import Scheme, attend

    _, n_head, n_embd, block_size, batch_size, _ = shape
    scheme = Scheme(n_head, n_head, n_embd // n_head)
    qkv = torch.randn(batch_size, block_size, 3 * n_embd, dtype=dtype, requires_grad=True)

    def step() -> None:
        y = attend(qkv, scheme, None, None, form)
        torch.autograd.grad(y, qkv, torch.ones_like(y))

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--quick", action="store_true", help="the smallest shape alone")
    options = parser.parse_args()
    torch.manual_seed(0)
    models: dict[str, dict[str, str]] = {}
    attention: dict[str, dict[str, str]] = {}
    for name, shape in list(SHAPES.items())[: 1 if options.quick else None]:
        steps: dict[str, Step] = {}
        if options.nanogpt:
            steps["nanoGPT float32"] = peer_step(options.nanogpt, shape)
        for preset in ("gpt2", "modern", "llama"):
            for dtype in (torch.float32, torch.bfloat16):
                steps[f"{preset} {str(dtype).removeprefix('torch.')}"] = our_step(preset, shape, dtype)
        architectures: dict[str, dict[str, Any]] = {
            "one head of keys": {"n_kv_head": 1},
            "a window of a quarter": {"window": shape[3] // 4},
            "alibi": {"position": "alibi"},
        }
        for kind, keys in architectures.items():
            steps[f"modern float32, {kind}"] = our_step("modern", shape, torch.float32, **keys)
        times = medians(steps, shape[-1])
        reference = next(iter(times.values()))
        for model, seconds in times.items():
            models.setdefault(model, {})[name] = f"{seconds * 1e3:.1f} ms ({reference / seconds:.2f}x)"
        forms = {
            f"{form} {str(dtype).removeprefix('torch.')}": attention_step(form, shape, dtype)
            for dtype in (torch.float32, torch.bfloat16)
            for form in ("explicit", "sdpa", "sdpa32")
        }
        for form, seconds in medians(forms, shape[-1]).items():
            attention.setdefault(form, {})[name] = f"{seconds * 1e3:.2f} ms"
    print_table("forward and backward", models)
    print_table("one attention, forward and backward", attention)


if __name__ == "__main__":
    main()
