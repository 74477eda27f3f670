"""train.runtime.backend = "jax": the same run as by torch, from its gradient to its checkpoints; and without JAX a word on how to get it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file

from core.config import Config, replaced
from core.defaults import resolve
from core.models.build import build_model
from core.process import StopRequest
from core.training import muon
from core.training.machine import Machine
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.training.step import Step, accumulate_gradient
from core.training.team import ALONE

# Compiling takes most of the time of these tests: in haste, and what is compiled again comes from the cache.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

Terrarium = Callable[..., Result]
Arrays = tuple[Any, Any]
with_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="the extra jax is not installed")
BY_JAX = ("-s", "train.runtime.backend=jax")
IDS, CPU = 37, Machine(torch.device("cpu"), torch.float32)
PRESETS = ("modern", "gpt2", "llama", "portable")
RICH = [
    ("modern", {}),
    ("llama", {"n_kv_head": 2, "window": 5, "window_pattern": "SL"}),
    *(
        pytest.param(preset, model, marks=pytest.mark.slow)
        for preset, model in (
            ("gpt2", {"bias": True, "activation": "gelu_tanh"}),
            ("portable", {"n_kv_head": 2, "head_width": 8}),
            ("modern", {"position": "alibi", "n_kv_head": 2}),
        )
    ),
]


def settings(preset: str, optim: str = "", **model: Any) -> Config:
    shape = {"preset": preset, "n_layer": 1, "n_head": 4, "n_embd": 16, "block_size": 12, **model}
    data = {"batch_size": 4, "grad_accum_steps": 2}
    return resolve(Config.model_validate({"train": {"model": shape, "data": data, "optim": {"name": optim or None}}}))


def batch(number: int, G: int = 2) -> Arrays:
    """Inputs and targets (G, 4, 12) that can be learnt, some of which are no targets."""
    random = np.random.default_rng(number)
    inputs = random.integers(0, IDS, (G, 4, 12))
    return inputs, np.where(random.random(inputs.shape) < 0.3, -1, (3 * inputs + 1) % IDS)


def made(config: Config, *, stirred: bool = False) -> Step:
    """torch's step of a fresh model. stirred: with weights that leave no part of it at zero."""
    torch.manual_seed(0)
    model = build_model(config.train.model, IDS)
    if stirred:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    optimizer = build_optimizer(model, config.train.optim)
    model.train()
    return Step(model, optimizer, CPU, config.train.optim.grad_clip, tokens)


def by_jax(step: Step, config: Config) -> Any:
    from core.jax.step import jax_step

    return jax_step(step, config.train, ALONE, StopRequest())


def losses(step: Any, count: int) -> np.ndarray[Any, Any]:
    """Loss and norm of some steps."""
    step.share_state()
    found = []
    for number in range(count):
        inputs, targets = batch(number)
        found += step.read([step.gradient(inputs, targets)])
        step.update(targets)
    return np.array(found)


def compared(preset: str, optim: str, count: int) -> float:
    """The largest difference of the losses of torch and JAX from the same weights on the same batches.

    Muon trains at a tenth of its rates: at those by default, torch differs from itself by more if its weights are changed by 1e-7.
    """
    config = settings(preset, optim)
    if optim == "muon":
        rates = ("learning_rate", "embedding_lr", "head_lr")
        config = replaced(config, {f"train.optim.{rate}": getattr(config.train.optim, rate) / 10 for rate in rates})
    mine, other = losses(made(config), count), losses(by_jax(made(config), config), count)
    return float(np.abs(mine - other)[:, 0].max())


@pytest.fixture
def float32_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon multiplies in float32, also where bfloat16 is fast."""
    monkeypatch.setattr(muon, "product_dtype", lambda device: torch.float32)
    monkeypatch.setattr("core.jax.step.product_dtype", lambda device: torch.float32)


@with_jax
@pytest.mark.parametrize(("preset", "model"), RICH)
def test_gradients_are_those_of_torch(preset: str, model: dict[str, Any]) -> None:
    import jax
    import jax.numpy as jnp

    from core.jax.model import gpt_of
    from core.jax.step import mean_gradient

    config = settings(preset, **model)
    module = made(config, stirred=True).model.double()
    module.attention = "sdpa"  # the explicit gradient takes a rotation by tables in float32 for an exact one
    (inputs, targets) = batch(1)
    total = int((targets >= 0).sum())
    accumulate_gradient(lambda *micro: tokens(module, *micro), (inputs, targets), CPU)
    with jax.enable_x64(True):
        weights = {name: jnp.asarray(each.detach().numpy()) for name, each in module.named_parameters()}
        gpt = gpt_of(config.train.model, IDS, "float64")
        _, found = jax.jit(lambda weights: mean_gradient(gpt, weights, inputs, targets, jnp.float64(total), jnp.zeros(2, jnp.uint32)))(weights)  # fmt: skip
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
            assert np.abs(np.asarray(found[name]) - parameter.grad.numpy()).max() < 1e-10, name


@with_jax
@pytest.mark.usefixtures("float32_products")
def test_losses_are_those_of_torch() -> None:
    assert compared("modern", "muon", 30) < 1e-4


@with_jax
@pytest.mark.slow
@pytest.mark.usefixtures("float32_products")
@pytest.mark.parametrize("optim", ["muon", "adamw"])
@pytest.mark.parametrize("preset", PRESETS)
def test_losses_are_those_of_torch_after_100_steps(preset: str, optim: str) -> None:
    assert compared(preset, optim, 100) < 1e-4


@with_jax
@pytest.mark.slow
def test_a_loss_in_parts_is_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    from core.jax import model
    from core.jax.step import mean_gradient

    config, (inputs, targets) = settings("gpt2"), batch(0, G=1)
    weights = {name: each.detach().numpy() for name, each in made(config).model.named_parameters()}

    def found() -> Any:
        gpt = model.gpt_of(config.train.model, IDS, "float32")
        return jax.jit(lambda weights: mean_gradient(gpt, weights, inputs, targets, np.float32(9), np.zeros(2, np.uint32)))(weights)  # fmt: skip

    whole = found()
    monkeypatch.setattr(model, "WHOLE", 500)
    assert model.parts_of(12, 4 * 12 * IDS) == 4
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(found()), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@with_jax
def test_steps_without_a_target_or_with_figures_that_are_not_finite_change_nothing() -> None:
    config = settings("gpt2")
    step = by_jax(made(config), config)
    losses(step, 1)
    before = step.collected(moments=True)
    inputs, targets = batch(1)
    step.gradient(inputs, np.full_like(targets, -1))
    assert not step.update(np.full_like(targets, -1))
    after = step.collected(moments=True)
    assert all(np.array_equal(after[0][name], each) for name, each in before[0].items())
    step.state.weights["transformer.ln_f.weight"] *= np.float32("inf")
    assert not np.isfinite(step.read([step.gradient(inputs, targets)])).all()
    spoilt = step.collected(moments=True)
    assert np.array_equal(spoilt[0]["transformer.wpe.weight"], before[0]["transformer.wpe.weight"])
    assert np.array_equal(
        spoilt[1]["transformer.wpe.weight"]["exp_avg"], before[1]["transformer.wpe.weight"]["exp_avg"]
    )


@with_jax
def test_dropout_is_a_function_of_the_seed() -> None:
    config = settings("modern", dropout=0.5)
    one, two = (losses(by_jax(made(config), config), 2) for _ in range(2))
    assert np.array_equal(one, two)
    torch.manual_seed(1)
    inputs, targets = batch(0)
    step = by_jax(made(config), config)
    assert step.read([step.gradient(inputs, targets)]) != step.read([step.gradient(inputs, targets)])


def weights_of(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    found = folder / "checkpoints" / name
    return load_file(found / "model.safetensors") | load_file(found / "optimizer.safetensors")


@with_jax
def test_a_run_has_all_that_one_by_torch_has(spaces: Path, terrarium: Terrarium) -> None:
    torchs = terrarium("loop", "spaces", "--run", "torchs")
    done = terrarium("loop", "spaces", "--run", "jaxs", *BY_JAX)
    assert (torchs.exit_code, done.exit_code) == (0, 0), done.output
    mine, other = (spaces / "out" / name for name in ("jaxs", "torchs"))
    assert {each.name for each in mine.iterdir()} == {each.name for each in other.iterdir()}
    a, b = weights_of(mine), weights_of(other)
    assert {name: (each.shape, each.dtype) for name, each in a.items()} == {name: (each.shape, each.dtype) for name, each in b.items()}  # fmt: skip
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in (mine, other))
    assert one.keys() == two.keys() and abs(one["best_val_loss"] - two["best_val_loss"]) < 0.05
    assert one["choices"]["backend"] == "jax" and one["environment"]["jax"]
    assert terrarium("sample", "spaces", "--run", "jaxs", "-s", "train.runtime.device=cpu").exit_code == 0


@with_jax
@pytest.mark.parametrize("optim", ["muon", pytest.param("adamw", marks=pytest.mark.slow)])
def test_a_resume_is_exact_and_either_goes_on_from_the_other(spaces: Path, terrarium: Terrarium, optim: str) -> None:
    flat = ("-s", "train.schedule.decay=constant", "-s", f"train.optim.name={optim}", "-s", "train.model.dropout=0.1")

    def trained(run: str, steps: int, *more: str) -> dict[str, torch.Tensor]:
        done = terrarium("train", "spaces", "--run", run, "-s", f"train.schedule.max_iters={steps}", *flat, *more)
        assert done.exit_code == 0, done.output
        assert (" backend: " in done.output) == (run == "crossing" and steps > 4), done.output
        return weights_of(spaces / "out" / run)

    unbroken = trained("unbroken", 8, *BY_JAX)
    trained("broken", 4, *BY_JAX)
    resumed = trained("broken", 8, *BY_JAX, "--resume")
    assert all(torch.equal(each, resumed[name]) for name, each in unbroken.items())
    trained("crossing", 4, *BY_JAX)
    trained("crossing", 6, "--resume", "-s", "train.runtime.backend=torch")
    crossed = trained("crossing", 8, "--resume", *BY_JAX)
    assert crossed.keys() == unbroken.keys()


@with_jax
def test_a_rollback_goes_back_to_the_checkpoint(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.jax.step import JaxStep

    real, calls = JaxStep.shared_gradient, []

    def poisoned(self: Any, batch: Any, seed: int) -> Any:
        calls.append(seed)
        found = real(self, batch, seed)
        return found * float("nan") if len(calls) == 4 else found

    monkeypatch.setattr(JaxStep, "shared_gradient", poisoned)
    done = terrarium("train", "spaces", *BY_JAX, "-s", "train.runtime.on_nan=rollback")
    assert done.exit_code == 0, done.output
    assert "step 4: the loss is nan for batch 3. Back to step 3" in done.output  # the best so far
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert (summary["steps"], summary["skipped_batches"]) == (6, [3])


@with_jax
@pytest.mark.slow
def test_check_and_bench_take_steps_by_jax(spaces: Path, terrarium: Terrarium) -> None:
    for command in (("check", "spaces"), ("bench", "spaces")):
        done = terrarium(*command, *BY_JAX)
        assert done.exit_code == 0, done.output


DEVICES = """
import sys
sys.path.insert(0, {tests!r})
import jax, numpy as np
from jax.sharding import Mesh
from core.jax.layout import Placement
from test_jax import by_jax, losses, made, settings
config = settings("modern", "adamw")
for count, divided in ((1, False), (2, False), (8, False), (8, True)):
    step = by_jax(made(config), config)
    vars(step)["placement"] = Placement(Mesh(np.array(jax.devices()[:count]), ("data",)), divided)
    found = losses(step, 10)
    pieces = max(len({{str(each.index) for each in array.addressable_shards}}) for array in step.state.weights.values())
    with step.whole():
        print(count, pieces, *found[-1], float(sum(each.detach().double().abs().sum() for each in step.model.parameters())))
"""


@with_jax
@pytest.mark.slow
def test_1_2_and_8_devices_agree() -> None:
    """Losses of ten steps within 1e-6, also with weights in pieces; four rows are padded for eight devices."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    script = DEVICES.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=Path(__file__).parent.parent)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = np.array([line.split() for line in done.stdout.splitlines()], dtype=float)
    assert found[:, :2].tolist() == [[1, 1], [2, 1], [8, 1], [8, 8]]
    assert np.abs(found[:, 2:4] - found[0, 2:4]).max() < 1e-6
    assert np.abs(found[:, 4] / found[0, 4] - 1).max() < 1e-6


@with_jax
@pytest.mark.slow
def test_two_processes_train_what_one_does(spaces: Path, terrarium: Terrarium) -> None:
    adamw = ("-s", "train.optim.name=adamw")  # Muon would make more of the rounding
    assert terrarium("train", "spaces", "--run", "one", *BY_JAX, *adamw).exit_code == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "core.cli", "train", "spaces", "--run", "two", *BY_JAX, *adamw]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    for parallel in ("ddp", "fsdp"):
        more = ["-s", f"train.runtime.parallel={parallel}", "--fresh"]
        done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        one, two = (weights_of(spaces / "out" / run) for run in ("one", "two"))
        assert max(float((each - two[name]).abs().max()) for name, each in one.items()) < 1e-5


def test_without_jax_it_says_how_to_get_it(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    done = terrarium("train", "spaces", *BY_JAX)
    assert done.exit_code == 2
    assert 'train.runtime.backend = "jax" needs the package jax, which is not installed' in done.output
    assert "pip install -c constraints.txt -e '.[jax]'" in done.output
    assert not (spaces / "out").exists()


def test_it_costs_nothing_where_it_is_not_asked_for() -> None:
    code = "import sys, core, core.lab.training, core.cli.main; assert not {'jax', 'core.jax'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("train.model.kind=lstm",), 'JAX does not train with train.model.kind = "lstm"'),
        (("train.objective.kind=reward",), 'JAX does not train with train.objective.kind = "reward"'),
        (("train.optim.name=sgd",), 'JAX does not train with train.optim.name = "sgd"'),
        (("train.runtime.compile=true",), "Leave compile out: JAX always compiles"),
        (("train.runtime.cuda_graphs=true",), "Leave cuda_graphs out: JAX does not have it"),
        (("train.runtime.float8=true", "train.runtime.dtype=bfloat16"), "Leave float8 out"),
        (("train.runtime.exact_across=true",), "Leave exact_across out"),
    ],
)
def test_what_jax_does_not_do_is_refused(
    spaces: Path, terrarium: Terrarium, changes: tuple[str, ...], message: str
) -> None:
    done = terrarium("train", "spaces", *BY_JAX, *(part for change in changes for part in ("-s", change)))
    assert done.exit_code == 2 and "train.runtime.backend" in done.output
    assert message in " ".join(done.output.split()), done.output


@pytest.mark.parametrize("name", ["build_model", "loss"])
def test_own_torch_code_is_refused(spaces: Path, terrarium: Terrarium, name: str) -> None:
    parameters = {"build_model": "config, vocab_size", "loss": "model, batch"}[name]
    with (spaces / "prepare.py").open("a") as file:
        file.write(f"\n\ndef {name}({parameters}):\n    raise NotImplementedError\n")
    done = terrarium("train", "spaces", *BY_JAX)
    assert done.exit_code == 2
    assert f"prepare.py has its own {name}(), which JAX cannot compute" in " ".join(done.output.split())
