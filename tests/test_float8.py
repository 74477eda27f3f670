"""Products in float8: the values and gradients of a linear layer within the format's spacing; refused where the hardware has none.

torch multiplies float8 on a CPU too, slowly, so the numbers can be tested here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from core.config import Config, replaced
from core.contradictions import Contradiction
from core.defaults import resolve
from core.errors import UserError
from core.models.build import build_model
from core.models.float8 import FORWARD, Float8Linear, Float8Product, refuse_without_float8, scaled, use_float8
from core.models.gpt import GPT
from core.training.machine import Machine, choose_machine
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.training.step import Step

# torch's compiler makes an object of an autograd function, which torch itself warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
PRESETS = ("modern", "gpt2", "llama", "portable")


def config_of(**keys: Any) -> Config:
    small = {"model.n_layer": 2, "model.n_head": 2, "model.n_embd": 32, "model.block_size": 16}
    return resolve(replaced(Config(), {f"train.{key}": value for key, value in (small | keys).items()}))


def model_of(**keys: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model(config_of(**keys).train.model, 17)


def test_the_largest_number_becomes_the_formats_largest() -> None:
    x = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)) * 1e5
    low, scale = scaled(x, FORWARD)
    assert low.float().abs().max() == torch.finfo(FORWARD).max
    assert ((low.float() * scale - x).abs() <= x.abs() / 16 + scale * 2**-9).all()  # half of the spacing of 3 bits
    assert scaled(torch.zeros(2, 2), FORWARD)[0].float().abs().max() == 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_values_and_gradients_are_near_those_of_the_layer(scale: float) -> None:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(32, 48, generator=random, dtype=torch.bfloat16).requires_grad_()
    weight = (scale * torch.randn(64, 48, generator=random)).requires_grad_()
    grad = torch.randn(32, 64, generator=random, dtype=torch.bfloat16)
    y = Float8Product.apply(x, weight)  # type: ignore[no-untyped-call]
    expected = nn.functional.linear(x.float(), weight)
    found = [y.float(), *torch.autograd.grad(y, (x, weight), grad)]
    wanted = [expected, *torch.autograd.grad(expected, (x, weight), grad.float())]
    for one, other in zip(found, wanted, strict=True):
        assert (one.float() - other.float()).norm() <= 0.08 * other.float().norm()
    assert (found[0] - wanted[0]).norm() >= 0.005 * wanted[0].norm(), "it is not bfloat16"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_models_blocks_are_replaced_and_share_its_parameters(preset: str) -> None:
    model = model_of(**{"model.preset": preset})
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    use_float8(model)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    replaced_layers = [name for name, layer in model.named_modules() if isinstance(layer, Float8Linear)]
    assert len(replaced_layers) == 2 * 4 and "lm_head" not in replaced_layers
    assert isinstance(model, GPT) and model.has_own_blocks, "the decoder may still stand in for them"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_is_near_that_in_bfloat16_and_evaluation_is_the_same(preset: str) -> None:
    ids = torch.randint(17, (2, 1, 4, 16), generator=torch.Generator().manual_seed(0)).numpy()
    machine, found, logits = Machine(CPU, torch.bfloat16), [], []
    for low in (False, True):
        model = model_of(**{"model.preset": preset})
        if low:
            use_float8(model)
        step = Step(
            model, build_optimizer(model, config_of(**{"model.preset": preset}).train.optim), machine, 1.0, tokens
        )
        found.append(step.gradient(*ids))
        with torch.no_grad(), machine.autocast():
            logits.append(model.eval()(torch.from_numpy(ids[0, 0])))
    assert not torch.equal(found[0][1], found[1][1]), "something is in float8"
    torch.testing.assert_close(found[0], found[1], rtol=0.1, atol=0.05)
    assert torch.equal(logits[0], logits[1])


def test_a_compiler_sees_it_as_one_graph() -> None:
    torch.compiler.reset()
    model = model_of()
    use_float8(model)
    ids = torch.randint(17, (4, 16))
    step = torch.compile(lambda *batch: tokens(model, *batch), backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nats = step(ids, ids)
    nats.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_odd_numbers_of_tokens_are_multiplied_as_ever() -> None:
    layer = Float8Linear(16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.randn(3, 5, 16)
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_widths_that_cannot_be_multiplied_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        use_float8(model_of(**{"model.n_embd": 24}))
    assert str(caught.value) == (
        "train.runtime.float8: float8 multiplies multiples of 16, and a layer has 24 and 72 channels\n"
        "  Make n_embd, n_ff and the heads' widths together multiples of 16, or leave float8 out."
    )


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"train.runtime.float8: the model has no blocks of a GPT to multiply in float8"
    ):
        use_float8(nn.Sequential(nn.Linear(16, 16)))


def test_hardware_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    for device in (CPU, GPU):
        with pytest.raises(UserError) as caught:
            refuse_without_float8(device)
        assert str(caught.value) == (
            f'train.runtime.float8: device "{device}" does not multiply in float8\n'
            "  That needs an NVIDIA GPU from Ada or Hopper on (RTX 40, L4, H100). Leave float8 out."
        )
    with pytest.raises(UserError, match="does not multiply in float8"):
        choose_machine("cpu", "bfloat16", False, 1, float8=True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    refuse_without_float8(GPU)


@pytest.mark.parametrize("keys", [{"runtime.dtype": "float32"}, {"model.kind": "lstm"}], ids=str)
def test_what_it_does_not_go_with_is_told(keys: dict[str, Any]) -> None:
    with pytest.raises(Contradiction, match=r"float8 is for models of kind gpt with dtype bfloat16. Leave float8 out"):
        config_of(**{"runtime.float8": True}, **keys)
