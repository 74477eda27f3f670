"""train.runtime.backend = "jax": the same run as by torch, from its gradient to its checkpoints; and without JAX a word on how to get it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from teams import Warm
from test_team import begun_file

from core.config import Config, replaced
from core.defaults import resolve
from core.models.build import build_model
from core.process import StopRequest
from core.training import muon
from core.training.machine import Machine
from core.training.memory import fits
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.training.step import Step, accumulate_gradient
from core.training.team import ALONE

# Compiling takes most of the time of these tests: in haste, and what is compiled again comes from `compiled`.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

Terrarium = Callable[..., Result]
Arrays = tuple[Any, Any]
with_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="the extra jax is not installed")
BY_JAX = ("-s", "train.runtime.backend=jax")
DROPOUT = ("-s", "train.model.dropout=0.1")
IDS, CPU = 37, Machine(torch.device("cpu"), torch.float32)
PRESETS = ("modern", "gpt2", "llama", "portable")
RICH = [
    ("modern", {}),
    *(
        pytest.param(preset, model, marks=pytest.mark.slow)
        for preset, model in (
            ("llama", {"n_kv_head": 2, "window": 5, "window_pattern": "SL"}),
            ("gpt2", {"bias": True, "activation": "gelu_tanh"}),
            ("portable", {"n_kv_head": 2, "head_width": 8}),
            ("modern", {"position": "alibi", "n_kv_head": 2}),
        )
    ),
]


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of compiled steps. JAX looks for its place when it is imported."""
    if "jax" not in sys.modules and importlib.util.find_spec("jax"):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))


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

    return jax_step(step, config.train.runtime, ALONE, StopRequest())


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

    from core.jax.model import Gpt
    from core.jax.step import mean_gradient

    config = settings(preset, **model)
    module = made(config, stirred=True).model.double()
    module.attention = "sdpa"  # the explicit gradient takes a rotation by tables in float32 for an exact one
    (inputs, targets) = batch(1)
    total = int((targets >= 0).sum())
    accumulate_gradient(lambda *micro: tokens(module, *micro), (inputs, targets), CPU)
    with jax.enable_x64(True):
        weights = {name: jnp.asarray(each.detach().numpy()) for name, each in module.named_parameters()}
        gpt = Gpt(config.train.model, IDS, jnp.float64)
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
        gpt = model.Gpt(config.train.model, IDS)
        return jax.jit(lambda weights: mean_gradient(gpt, weights, inputs, targets, np.float32(9), np.zeros(2, np.uint32)))(weights)  # fmt: skip

    whole = found()
    monkeypatch.setattr(model, "WHOLE", 500)
    assert model.parts_of(12, 4 * 12 * IDS) == 4
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(found()), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@with_jax
@pytest.mark.usefixtures("float32_products")
def test_steps_without_a_target_or_with_figures_that_are_not_finite_change_nothing() -> None:
    config = settings("modern")
    step = by_jax(made(config), config)
    losses(step, 1)
    before = step.collected(moments=True)
    inputs, targets = batch(1)
    step.gradient(inputs, np.full_like(targets, -1))
    assert not step.update(np.full_like(targets, -1))
    after = step.collected(moments=True)
    assert all(np.array_equal(after[0][name], each) for name, each in before[0].items())
    step.state.weights["lm_head.weight"] *= np.float32("inf")
    assert not np.isfinite(step.read([step.gradient(inputs, targets)])).all()
    spoilt, name = step.collected(moments=True), "transformer.wte.weight"
    assert np.array_equal(spoilt[0][name], before[0][name])
    assert np.array_equal(spoilt[1][name]["mean"], before[1][name]["mean"])


@with_jax
@pytest.mark.usefixtures("float32_products")
def test_a_step_is_compiled_once_and_leaves_no_copy_of_the_weights() -> None:
    config = settings("modern")
    step = by_jax(made(config), config)
    losses(step, 1)
    before = step.state.weights["lm_head.weight"]
    step.gradient(*batch(1))
    assert before.is_deleted()
    assert step.program._cache_size() == 1


@with_jax
@pytest.mark.slow
def test_dropout_is_a_function_of_the_seed() -> None:
    config = settings("modern", dropout=0.5)
    step = by_jax(made(config), config)

    def seeded(seed: int) -> np.ndarray[Any, Any]:
        torch.manual_seed(seed)
        return losses(step, 2)

    one, again, other = map(seeded, (1, 1, 2))
    assert np.array_equal(one, again) and (one != other).all()


def weights_of(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    found = folder / "checkpoints" / name
    return load_file(found / "model.safetensors") | load_file(found / "optimizer.safetensors")


@with_jax
def test_a_run_has_all_that_one_by_torch_has(spaces: Path, terrarium: Terrarium) -> None:
    torchs = terrarium("train", "spaces", "--run", "torchs", *DROPOUT)
    done = terrarium("train", "spaces", "--run", "jaxs", *BY_JAX, *DROPOUT)
    assert (torchs.exit_code, done.exit_code) == (0, 0), done.output
    mine, other = (spaces / "out" / name for name in ("jaxs", "torchs"))
    assert {each.name for each in mine.iterdir()} == {each.name for each in other.iterdir()}
    a, b = weights_of(mine), weights_of(other)
    assert {name: (each.shape, each.dtype) for name, each in a.items()} == {name: (each.shape, each.dtype) for name, each in b.items()}  # fmt: skip
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in (mine, other))
    assert one.keys() == two.keys() and abs(one["best_val_loss"] - two["best_val_loss"]) < 0.05
    assert one["choices"]["backend"] == "jax" and one["environment"]["jax"]
    assert terrarium("sample", "spaces", "--run", "jaxs", "-s", "train.runtime.device=cpu").exit_code == 0


def stepped(
    terrarium: Terrarium, run: str, steps: int, optim: str, *more: str, crosses: bool = False
) -> dict[str, torch.Tensor]:
    """The state of `spaces` after some steps, with dropout. crosses: it must say that the resume is not exact."""
    flat = ("-s", "train.schedule.decay=constant", "-s", f"train.optim.name={optim}", *DROPOUT)
    done = terrarium("train", "spaces", "--run", run, "-s", f"train.schedule.max_iters={steps}", *flat, *more)
    assert done.exit_code == 0 and (" backend: " in done.output) == crosses, done.output
    return weights_of(Path("experiments") / "spaces" / "out" / run)


@with_jax
@pytest.mark.parametrize("optim", ["muon", pytest.param("adamw", marks=pytest.mark.slow)])
def test_a_resume_is_exact(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch, optim: str) -> None:
    from core.jax.step import JaxStep

    unbroken = stepped(terrarium, "unbroken", 8, optim, *BY_JAX)
    monkeypatch.setattr(JaxStep, "reads_freely", False)  # as on a TPU, where figures are read late: it changes nothing
    stepped(terrarium, "broken", 4, optim, *BY_JAX)
    resumed = stepped(terrarium, "broken", 8, optim, *BY_JAX, "--resume")
    assert all(torch.equal(each, resumed[name]) for name, each in unbroken.items())


@with_jax
@pytest.mark.slow
@pytest.mark.parametrize("optim", ["muon", "adamw"])
def test_either_goes_on_from_the_other(spaces: Path, terrarium: Terrarium, optim: str) -> None:
    stepped(terrarium, "crossing", 4, optim, *BY_JAX)
    stepped(terrarium, "crossing", 6, optim, "--resume", "-s", "train.runtime.backend=torch", crosses=True)
    crossed = stepped(terrarium, "crossing", 8, optim, "--resume", *BY_JAX, crosses=True)
    unbroken = stepped(terrarium, "unbroken", 8, optim, "-s", "train.runtime.backend=torch")
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
    done = terrarium("train", "spaces", *BY_JAX, *DROPOUT, "-s", "train.runtime.on_nan=rollback")
    assert done.exit_code == 0, done.output
    assert "\ncompiling the step\n" in done.output
    assert "step 4: the loss is nan for batch 3. Back to step 3" in done.output  # the best so far
    summary = json.loads((spaces / "out" / "default" / "summary.json").read_text())
    assert (summary["steps"], summary["skipped_batches"]) == (6, [3])


@with_jax
@pytest.mark.usefixtures("float32_products")
def test_a_step_that_does_not_fit_can_be_tried_again() -> None:
    from jax.errors import JaxRuntimeError

    config = settings("modern")
    step = by_jax(made(config), config)
    program, calls = step.program, []

    def scarce(*given: Any) -> Any:
        found = program(*given)  # weights and moments are gone
        calls.append(0)
        if len(calls) == 1:
            raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.")
        return found

    vars(step)["program"] = scarce
    assert not fits(lambda rows: step(*batch(0)), 4)
    assert fits(lambda rows: step(*batch(0)), 4)
    assert step.where == "1 x cpu"


@with_jax
@pytest.mark.slow
def test_a_step_that_does_not_fit_names_the_devices_and_the_rows_that_do(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax

    from core.jax import step

    real = step.step_program

    def scarce(of: Any) -> Any:
        program = real(of)

        def take(weights: Any, moments: Any, inputs: Any, *more: Any) -> Any:
            found = program(weights, moments, inputs, *more)  # weights and moments are gone
            if inputs.shape[1] > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
            return found

        return take

    monkeypatch.setattr(step, "step_program", scarce)
    done = terrarium("train", "spaces", *BY_JAX)
    assert done.exit_code == 2 and "does not fit into the memory of 1 x cpu" in done.output, done.output
    assert "1 row fits" in done.output


@with_jax
@pytest.mark.slow
def test_fit_times_steps_by_jax(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.jax.step import JaxStep

    calls, real = [], JaxStep.shared_gradient
    monkeypatch.setattr(JaxStep, "shared_gradient", lambda *given: calls.append(0) or real(*given))
    monkeypatch.setattr("core.lab.fit.MEASURED_SECONDS", 0.1)
    monkeypatch.setattr("core.lab.fit.FEWEST_STEPS", 1)  # on a busy machine, too
    done = terrarium("fit", "spaces", "--minutes", "0.02", *BY_JAX, "--json")
    assert done.exit_code == 0, done.output
    assert len(calls) > 2 and json.loads(done.stdout)["best"]["n_embd"] == 64
    monkeypatch.setitem(sys.modules, "jax", None)
    assert "pip install -c constraints.txt -e '.[jax]'" in terrarium("fit", "spaces", *BY_JAX).output


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


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with Warm(tmp_path_factory.mktemp("outputs")) as warm:
        yield warm


@with_jax
@pytest.mark.slow
def test_two_processes_train_what_one_does(spaces: Path, terrarium: Terrarium, warm: Warm) -> None:
    adamw = ("-s", "train.optim.name=adamw")  # Muon would make more of the rounding
    assert terrarium("train", "spaces", "--run", "one", *BY_JAX, *adamw).exit_code == 0
    one = weights_of(spaces / "out" / "one")
    for parallel in ("ddp", "fsdp"):
        more = ("--run", parallel, *BY_JAX, *adamw, "-s", f"train.runtime.parallel={parallel}")
        ended = warm.run(spaces.parent.parent, 2, "train", "spaces", *more)
        assert [code for code, _ in ended] == [0, 0], ended
        assert "on the devices of 2 processes" in ended[0][1]
        two = weights_of(spaces / "out" / parallel)
        assert max(float((each - two[name]).abs().max()) for name, each in one.items()) < 1e-5


@with_jax
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "number", "codes", "said"),
    [
        (1, signal.SIGKILL, [1, -signal.SIGKILL], "process 1 of 2 has ended"),
        (0, signal.SIGTERM, [143, 143], "interrupted, and saved"),
        (1, signal.SIGTERM, [143, 143], "interrupted, and saved"),
    ],
)
def test_the_end_of_one_process_ends_all_in_time(
    spaces: Path, warm: Warm, rank: int, number: int, codes: list[int], said: str
) -> None:
    """JAX would wait for minutes for a lost process, and it takes SIGTERM for itself."""
    endless = ("-s", "train.schedule.max_iters=1000000", "-s", "train.optim.name=adamw")
    ranks = warm.start(spaces.parent.parent, 2, "train", "spaces", *BY_JAX, *endless)
    assert begun_file(spaces / "out" / "default" / "metrics.csv", 3, 100)
    ranks.signal(rank, number)
    began = time.monotonic()
    ended = ranks.wait()
    assert time.monotonic() - began < 60
    assert [code for code, _ in ended] == codes and said in ended[0][1], ended


def test_without_jax_it_says_how_to_get_it(spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    done = terrarium("train", "spaces", *BY_JAX)
    assert done.exit_code == 2
    assert 'train.runtime.backend = "jax" needs the package jax, which is not installed' in done.output
    assert "pip install -c constraints.txt -e '.[jax]'" in done.output
    assert not (spaces / "out").exists()


@with_jax
def test_without_a_device_it_says_what_jax_says(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax

    def none() -> Any:
        raise RuntimeError("Unable to initialize backend 'tpu': the device is in use by process 7")

    monkeypatch.setattr(jax, "devices", none)
    done = terrarium("train", "spaces", *BY_JAX)
    assert done.exit_code == 2
    assert "JAX has no device: Unable to initialize backend 'tpu': the device is in use by process 7" in done.output
    assert "If another program uses the device, end it" in done.output
    assert not (spaces / "out" / "default").exists()


def test_it_costs_nothing_where_it_is_not_asked_for() -> None:
    core = Path(__file__).parent.parent / "core"
    for path in set(core.rglob("*.py")) - set((core / "jax").rglob("*.py")):
        assert not re.search(r"^(import|from) (core\.)?jax\b", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("name", ["build_model", "loss"])
def test_own_torch_code_is_refused(spaces: Path, terrarium: Terrarium, name: str) -> None:
    parameters = {"build_model": "config, vocab_size", "loss": "model, batch"}[name]
    with (spaces / "prepare.py").open("a") as file:
        file.write(f"\n\ndef {name}({parameters}):\n    raise NotImplementedError\n")
    done = terrarium("train", "spaces", *BY_JAX)
    assert done.exit_code == 2
    assert f"prepare.py has its own {name}(), which JAX cannot compute" in " ".join(done.output.split())
