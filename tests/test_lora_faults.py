"""The faults that users of LoRA tools have met, each with a test that would catch it here.

| fault | where its test is |
| --- | --- |
| 1 masks from a chat template are all zero | here; those of conversations in tests/test_hf_encoder.py |
| 2 the end token is masked with the padding | tests/test_hf_encoder.py |
| 3 two beginnings of text | tests/test_hf_encoder.py, tests/test_frames.py |
| 4 labels shifted twice | here |
| 5 micro-batches weighed alike, whatever they hold | here |
| 6 an adapter lost, or trained beside the one that counts | here, and a killed run in tests/test_pretrained.py |
| 7 the wrong checkpoint is the best | here |
| 8 an adapter as large as the model | here |
| 9 a merge that rounds, or into the wrong base | here, and into four bits in tests/test_quantized.py |
| 10 target modules that match nothing, or dead weights | here, and in tests/test_pretrained.py |
| 11 float16 overflows | here |
| 12 memory runs out at the first evaluation | here, and in tests/test_chunked_loss.py |
| 13 a merge that is wrong for some layers; no resume | here, and a killed run in tests/test_pretrained.py |
| 14 other prompts at inference than in training | tests/test_hf_encoder.py, tests/test_frames.py |
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import Result
from pretrained import IDS, make_base, make_experiment, needs
from safetensors.torch import load_file

from core import open_experiment
from core.config import Model
from core.models import loss
from core.models.loss import next_token_loss
from core.training.machine import Machine
from core.training.objectives import tokens
from core.training.step import accumulate_gradient

needs("transformers", "peft")

Terrarium = Callable[..., Result]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture
def fine(lab: Path, base: Path) -> Path:
    return make_experiment(lab, base)


def built(base: Path, **params: Any) -> Any:
    from core.huggingface.pretrained import Pretrained

    torch.manual_seed(0)
    model = Pretrained(Model(kind="hf", block_size=32), IDS, name=str(base), **params)
    with torch.no_grad():
        for name, each in model.named_parameters():  # an adapter begins at zero, where everything is right
            if ".lora_B." in name:
                each.copy_(0.05 * torch.randn(each.shape, generator=torch.Generator().manual_seed(len(name))))
    return model


def ids(rows: int, size: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, IDS, (rows, size), generator=torch.Generator().manual_seed(seed))


def test_1_and_2_only_targets_count_and_each_does(base: Path) -> None:
    """The gradient is that of the targets alone, wherever they are and whatever id they have; without one it is zero."""
    model, inputs = built(base), ids(1, 8)
    targets = torch.full((1, 8), -1)
    assert next_token_loss(model, inputs, targets)[0] == 0
    for place in (0, 7):  # a last token that is also the padding's id counts, if it is a target
        one = targets.clone()
        one[0, place] = 0
        assert torch.isclose(next_token_loss(model, inputs, one)[0], -model(inputs)[0, place].log_softmax(-1)[0])


def test_4_labels_are_shifted_once(base: Path, fine: Path, terrarium: Terrarium) -> None:
    """Our loss of a row is transformers' own for the same text, which shifts its labels itself. A batch's targets are the next ids."""
    model, row = built(base), ids(1, 9)
    nats, count = next_token_loss(model, row[:, :-1], row[:, 1:])
    assert torch.isclose(nats / count, model.model(input_ids=row, labels=row, use_cache=False).loss)
    assert terrarium("train", "fine", "-q", "-s", "train.data.mask_prompt=false").exit_code == 0
    loaded = open_experiment("fine").run().load()
    from core.data.batches import batch

    inputs, targets = batch(loaded.dataset.train, loaded.config.train.data, 0, 0)
    told = targets[0][:, :-1] >= 0
    assert told.any() and np.array_equal(inputs[0][:, 1:][told], targets[0][:, :-1][told])


def test_5_micro_batches_count_by_their_targets(base: Path) -> None:
    """Two micro-batches, of which one has a single target, give the gradient of all rows at once."""
    model, machine = built(base), Machine(torch.device("cpu"), torch.float32)
    inputs, targets = ids(4, 8, 1).numpy(), ids(4, 8, 2).numpy().copy()
    targets[:2, :7], targets[0] = -1, -1
    found = []
    for shape in ((1, 4, 8), (2, 2, 8)):
        model.zero_grad()
        mean = accumulate_gradient(
            lambda x, y: tokens(model, x, y), (inputs.reshape(shape), targets.reshape(shape)), machine
        )
        found.append([mean, *(each.grad.clone() for each in model.parameters() if each.requires_grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_6_a_run_goes_on_with_the_adapter_of_another(fine: Path, terrarium: Terrarium) -> None:
    """Started from a trained run, with a rate of almost 0, the first validation loss is that run's, and not the base's."""
    assert terrarium("train", "fine", "-q").exit_code == 0
    still = ("-s", "train.optim.learning_rate=1e-12", "-s", "train.model.init_from=default")
    assert terrarium("train", "fine", "-q", "--run", "second", *still).exit_code == 0
    first = json.loads((fine / "out/default/summary.json").read_text())["best_val_loss"]
    second = json.loads((fine / "out/second/summary.json").read_text())["best_val_loss"]
    untrained = ("-s", "train.optim.learning_rate=1e-12")
    assert terrarium("train", "fine", "-q", "--run", "third", *untrained).exit_code == 0
    third = json.loads((fine / "out/third/summary.json").read_text())["best_val_loss"]
    assert math.isclose(first, second, rel_tol=1e-6) and third > first + 0.01


def test_7_the_best_adapter_is_that_of_the_lowest_loss(lab: Path, base: Path, terrarium: Terrarium) -> None:
    """A rate that ruins the model later: best is the earlier state, last and final are the later one; evaluate says which it took."""
    folder = make_experiment(lab, base)
    ruin = (
        "-s",
        "train.optim.learning_rate=0.5",
        "-s",
        "train.runtime.eval_interval=1",
        "-s",
        "train.optim.grad_clip=0.0",
        "-s",
        "train.schedule.warmup_iters=5",
    )
    assert terrarium("train", "fine", "-q", *ruin).exit_code == 0
    with (folder / "out/default/metrics.csv").open() as file:
        losses = {int(row["step"]): float(row["val_loss"]) for row in csv.DictReader(file) if row["val_loss"]}
    best = min(losses, key=lambda step: losses[step])
    steps = {
        name: json.loads((folder / "out/default/adapters" / name / "origin.json").read_text())["step"]
        for name in ("best", "last", "final")
    }
    assert steps == {"best": best, "last": 6, "final": 6} and best < 6
    assert f"evaluated fine/default at step {best}" in terrarium("evaluate", "fine").output


def test_8_an_adapter_holds_adapters_alone(fine: Path, base: Path, terrarium: Terrarium) -> None:
    """No embedding goes along, also where the head or the embedding is as large as everything else."""
    assert terrarium("train", "fine", "-q").exit_code == 0
    adapter = load_file(fine / "out/default/adapters/final/adapter_model.safetensors")
    assert all(
        name.startswith("base_model.model.model.layers.") and (".lora_A.weight" in name or ".lora_B.weight" in name)
        for name in adapter
    )
    config = json.loads((fine / "out/default/adapters/final/adapter_config.json").read_text())
    assert not config["modules_to_save"] and not config["trainable_token_indices"]
    kept = load_file(fine / "out/default/checkpoints/last/model.safetensors")
    assert sum(each.numel() for each in adapter.values()) == sum(each.numel() for each in kept.values())


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], r"model\.layers\.1\.mlp\.(up|down)_proj"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_9_and_13_a_merge_is_exact_for_every_layer(tmp_path: Path, kind: str, targets: Any) -> None:
    """W + alpha / r B A in float32, also for layers that are stored transposed, and on a base that was used in bfloat16."""
    from core.huggingface.merging import merged_model

    if kind == "gpt2" and targets != "all-linear":
        targets = ["c_attn"] if isinstance(targets, list) else r"transformer\.h\.1\.mlp\.c_(fc|proj)"
    base = make_base(tmp_path / kind, kind)
    model = built(base, target_modules=targets, alpha=24.0, r=4).eval()
    merged = merged_model(model).eval()
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids(2, 9)).logits, model(ids(2, 9)), rtol=1e-4, atol=1e-4)
        plain = built(base).model.eval()
    assert all(each.dtype == torch.float32 for each in merged.parameters()) and type(merged) is type(plain)
    half = merged_model(built(base, target_modules=targets, alpha=24.0, r=4, weights="bfloat16"))
    for name, each in half.named_parameters():
        torch.testing.assert_close(each, merged.get_parameter(name), rtol=0.02, atol=1e-3)
    untouched = [
        name for name in merged.state_dict() if not any(name.startswith(f"{layer}.") for layer in model.adapted)
    ]
    own = load_file(base / "model.safetensors")
    assert untouched and all(torch.equal(merged.state_dict()[name], own[name]) for name in untouched if name in own)


def test_10_a_wrong_target_ends_before_anything_is_made(fine: Path, terrarium: Terrarium) -> None:
    result = terrarium("train", "fine", "-s", 'train.model.params.target_modules=["q_proj", "key"]')
    assert result.exit_code == 2 and "no layer of the base model is called 'key'" in result.stderr
    assert "Its layers end in: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head." in result.stderr
    assert not (fine / "out/default").exists()


def test_11_there_is_no_float16(fine: Path, base: Path, terrarium: Terrarium) -> None:
    for key in ("train.model.params.weights", "train.runtime.dtype"):
        result = terrarium("train", "fine", "-s", f"{key}=float16")
        assert result.exit_code == 2 and "float32" in result.stderr and "bfloat16" in result.stderr
    model = built(base, weights="bfloat16")
    nats, _ = next_token_loss(model, ids(2, 9), ids(2, 9, 2))
    nats.backward()
    trained = [each for each in model.parameters() if each.requires_grad]
    assert nats.isfinite() and all(each.dtype == torch.float32 and each.grad.isfinite().all() for each in trained)


def test_12_no_step_and_no_evaluation_keeps_all_logits(
    fine: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run: what the head ever computes at once is a chunk, or the last token of each row that is written."""
    from core.huggingface.pretrained import Pretrained

    monkeypatch.setattr(loss, "WHOLE", 0)
    monkeypatch.setattr(loss, "LOGITS", 5 * IDS)
    sizes: list[int] = []
    head = Pretrained.head

    def noted(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(hidden.numel() // hidden.shape[-1])
        return head(self, hidden)

    whole: list[tuple[int, ...]] = []
    forward = Pretrained.forward

    def counted(self: Any, tokens: torch.Tensor, cache: Any = None) -> torch.Tensor:
        logits = forward(self, tokens, cache)
        whole.append(tuple(logits.shape[:2]))
        return logits

    # `cut_at_head` belongs to `forward`: a class that changes one of them alone is not cut
    monkeypatch.setattr(Pretrained, "head", noted)
    monkeypatch.setattr(Pretrained, "forward", counted)
    chunked = terrarium("train", "fine", "-q")
    assert chunked.exit_code == 0, chunked.stderr
    assert len(sizes) > 50 and max(sizes) == 5
    assert all(
        tokens == 1 or rows * tokens <= 2 for rows, tokens in whole
    )  # the first two tokens, to see that it can be cut
    monkeypatch.undo()


def test_12_the_loss_of_chunks_is_the_loss_of_the_run(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, targets = built(base), ids(3, 9), ids(3, 9, 2)
    found = []
    for most in (1 << 26, 0):
        monkeypatch.setattr(loss, "WHOLE", most)
        monkeypatch.setattr(loss, "LOGITS", 4 * IDS)
        model.zero_grad()
        nats, _ = next_token_loss(model, inputs, targets)
        nats.backward()
        found.append([nats.detach(), *(each.grad.clone() for each in model.parameters() if each.requires_grad)])
    assert torch.isclose(found[0][0], F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum"))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
