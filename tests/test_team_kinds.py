"""What a team had not trained before: pretrained models with adapters, compiled steps, training by reward."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import teams
from conftest import PREPARE
from pretrained import make_base, make_experiment
from safetensors.torch import load_file
from teams import Warm
from test_team import SHARED, losses, out, trained

WAYS = ("ddp", "fsdp")
REWARD = """
[train.objective]
kind = "reward"
group_size = 4
prompts_per_step = 3
max_new_tokens = 6
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with Warm(tmp_path_factory.mktemp("outputs")) as warm:
        yield warm


def experiment(root: Path, config: str, prepare: str = PREPARE) -> Path:
    folder = root / "experiments" / "tiny"
    folder.mkdir(parents=True)
    (folder / "prepare.py").write_text(prepare)
    (folder / "config.toml").write_text(config)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lora", ["true", "false"])
def test_a_pretrained_model(tmp_path: Path, warm: Warm, way: str, lora: str) -> None:
    """Losses and adapters are those of one process up to rounding; the frozen base is not in the checkpoints."""
    for package in ("transformers", "peft"):
        pytest.importorskip(package, reason=f"needs the extra hf: {package}")
    (tmp_path / "experiments").mkdir()
    folder = make_experiment(tmp_path / "experiments", make_base(tmp_path / "llama"), f"params.lora = {lora}\n", "tiny")
    with (folder / "config.toml").open("a") as config:
        config.write('name = "adamw"\n')
    found, adapters = [], []
    for world in (1, 2):
        trained(warm, tmp_path, world, "--run", f"on{world}", "-s", f"train.runtime.parallel={way}", "-s", "train.runtime.dtype=float32")  # fmt: skip
        run = out(tmp_path, f"on{world}")
        found.append(losses(run))
        if lora == "true":
            adapters.append({name: load_file(run / "adapters" / name / "adapter_model.safetensors") for name in ("best", "last", "final")})  # fmt: skip
    np.testing.assert_allclose(*found, rtol=1e-4)
    if adapters:
        for name, one in adapters[0].items():
            assert one.keys() == adapters[1][name].keys()
            assert max(float((one[key] - adapters[1][name][key]).abs().max()) for key in one) < 1e-3
    [(code, printed)] = warm.run(tmp_path, 1, "evaluate", "tiny", "--run", "on2")
    assert code == 0, printed


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_step(tmp_path: Path, warm: Warm, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("g++"):
        pytest.skip("needs the compiler g++")
    monkeypatch.setattr(teams, "LONGEST", 900.0)
    experiment(tmp_path, SHARED.replace("max_iters = 12", "max_iters = 3"))
    found = []
    for compiled in ("true", "false"):
        trained(
            warm, tmp_path, 2, "--run", compiled, "-s", f"train.runtime.parallel={way}", "-s", f"train.runtime.compile={compiled}",
            "-s", "train.model.dropout=0.0", "-s", "train.optim.name=adamw",
        )  # fmt: skip
        found.append(losses(out(tmp_path, compiled)))
    np.testing.assert_allclose(*found, rtol=1e-4)


@pytest.mark.slow
def test_training_by_reward_with_divided_weights(tmp_path: Path, warm: Warm) -> None:
    """The main process writes answers with all weights, which it has collected."""
    reward = "\n\ndef reward(example, completion):\n    return float(len(set(completion) & set(example.completion)))\n"
    experiment(tmp_path, SHARED.replace("dropout = 0.1", "dropout = 0.0") + REWARD, PREPARE + reward)
    found = []
    for world in (1, 2):
        trained(
            warm,
            tmp_path,
            world,
            "--run",
            f"on{world}",
            "-s",
            "train.runtime.parallel=fsdp",
            "-s",
            "train.optim.name=adamw",
        )
        found.append(losses(out(tmp_path, f"on{world}")))
    np.testing.assert_allclose(found[0][:3], found[1][:3], rtol=1e-4)
    assert np.isfinite(found[1]).all()
