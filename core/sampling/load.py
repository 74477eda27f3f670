"""Load a trained run from its folder: model, encoder and config, as they were when the checkpoint was saved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from core.config import Config
from core.encoders.base import Encoder
from core.encoders.special import rebuilt
from core.plugins.manager import Plugins
from core.roles import flat, role_of
from core.toml import Settings, check, completed, read_override
from core.tracking.begin import changed
from core.tracking.run import read_config
from core.training import checkpoints, ladder
from core.training.machine import Machine, choose_machine, model_on
from core.training.progress import other_settings


@dataclass(frozen=True)
class Trained:
    """A loaded run. step: of the checkpoint. data, stop, has_examples: of the dataset it was trained on, see `Dataset.is_of`.

    conversations: whether that holds conversations with special tokens. begin: the id that its documents begin with. kept: whether
    this is a step that was kept on the way, so that what is found out about it does not stand for the run.
    """

    folder: Path
    config: Config
    model: torch.nn.Module
    encoder: Encoder
    machine: Machine
    step: int
    data: dict[str, Any]
    stop: str
    has_examples: bool
    conversations: bool = False
    begin: int | None = None
    kept: bool = False


def run_config(folder: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read config.toml of a run, with overrides on top. Raises UserError."""
    settings = Settings(read_config(folder))
    for text in overrides:
        settings.lay(read_override(text))
    return check(settings)


def load_run(folder: Path, config: Config, plugins: Plugins, name: str = "best") -> Trained:
    """Load checkpoint `name` of a run for sampling and evaluation, or `last` if there is no `best` yet.

    Raises UserError if no checkpoint is whole, or if the weights do not fit the model.
    """
    available = name if name != "best" or checkpoints.candidates(folder / "checkpoints", name) else "last"
    checkpoint = checkpoints.load(folder / "checkpoints", available)
    with checkpoints.understanding(checkpoint.folder):
        state = checkpoint.state
        stored: dict[str, Any] = state["encoder"]
        kind = plugins.get("encoders", stored["kind"], "the checkpoint's encoder")
        encoder: Encoder = rebuilt(kind, stored["state"])
        differences = changed(flat(completed(state["config"])), flat(config.model_dump()))
        step, stop = int(state["step"]), str(state["stop"])
        data = {key: state.get(key) for key in ("data_hash", "dataset_fingerprint")}
        has_examples, conversations = bool(state["has_examples"]), bool(state.get("conversations"))
        begin = state.get("begin")
    if foreign := {key: values for key, values in differences.items() if role_of(key) == "model"}:
        raise other_settings(checkpoint.folder, foreign)
    runtime = config.sample.runtime
    machine = choose_machine(
        runtime.device or "auto",
        runtime.dtype or "auto",
        False,  # the cache grows by a token per call, and torch would compile again for each length
        runtime.threads or "auto",
        runtime.attention or "auto",
    )
    machine = replace(machine, cuda_graphs=config.train.runtime.cuda_graphs is True)
    model = model_on(machine, config.train.model, encoder.vocab_size, plugins)
    checkpoints.refuse_other_base(model, state, str(checkpoint.folder))
    checkpoints.put_weights(model, checkpoint.model, str(checkpoint.folder))
    kept = ladder.KEPT.fullmatch(available) is not None
    return Trained(
        folder, config, model.eval(), encoder, machine, step, data, stop, has_examples, conversations, begin, kept
    )
