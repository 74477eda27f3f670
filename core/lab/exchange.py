"""Convert nanoGPT's checkpoints to runs, and runs to nanoGPT's checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from core import durable, files
from core.errors import UserError
from core.lab.assemble import Fresh, identity_of
from core.lab.model import load_model
from core.lab.opened import Opened, prepared
from core.lab.settle import settle
from core.lab.summaries import opening
from core.listener import Advice
from core.models.build import build_model
from core.models.gpt import GPT
from core.models.nanogpt import export_checkpoint, import_checkpoint, is_padding, without_padding
from core.toml import Settings, check, merge
from core.tracking.run import Run, lock_file
from core.training import checkpoints
from core.training import progress as saving
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.training.progress import Progress


def import_run(opened: Opened, path: Path, name: str, command: str = "") -> Run:
    """Make a finished run from a ckpt.pt. Raises UserError if the vocabularies differ or the name is taken."""
    checkpoint = import_checkpoint(path)
    opened, dataset = prepared(opened)
    state, size = checkpoint.state, dataset.encoder.vocab_size
    if is_padding(checkpoint.vocab_size, size):  # nanoGPT pads GPT-2's 50,257 ids to 50,304
        state = without_padding(state, size)
        opened.listener.say(
            f"{path} has {checkpoint.vocab_size:,} ids, and the dataset {size:,}: the last {checkpoint.vocab_size - size:,} "
            "are taken for padding and dropped."
        )
    elif checkpoint.vocab_size != size:
        raise UserError(
            f"the checkpoint has {checkpoint.vocab_size:,} ids, but the dataset of {opened.experiment.name} has {size:,}",
            place=str(path),
            remedy="Prepare the text that nanoGPT was trained on, with the same encoder, or set prepare.dataset_dir to nanoGPT's data folder.",
        )
    given = Settings()
    given.lay(opened.settings)  # not the resolved config: its optimizer follows the experiment's own preset
    merge(given.values, {"train": {"data": {"block_size": checkpoint.model["block_size"]}}})
    given.values["train"]["model"] = checkpoint.model
    # prepare may have found the dataset in another folder
    config = check(given).model_copy(update={"prepare": opened.config.prepare})
    settled = settle(opened.experiment, config, dataset, opened.plugins, timing=False)
    run = Run(opened.experiment, name, settled.config, f"imported from nanoGPT's {path.name}")
    with files.lock(lock_file(run.folder), f"run {run.title}"):
        if run.folder.exists():
            raise UserError(
                "there is a run of this name already", place=str(run.folder), remedy="Choose another name: `run=NAME`."
            )
        # Without the experiment's own build_model: the weights are those of a GPT.
        model = build_model(run.config.train.model, size, replace(opened.plugins, code=None))
        weights = {key: tensor for key, tensor in state.items() if key in checkpoints.weights(model)}
        checkpoints.put_weights(model, weights, str(path))
        optimizer = build_optimizer(model, run.config.train.optim, opened.plugins)
        durable.make_folders(run.folder)
        run.write_config()
        loss = checkpoint.best_val_loss if math.isfinite(checkpoint.best_val_loss) else None
        progress = Progress(step=checkpoint.step, best_val_loss=loss, best_step=checkpoint.step)
        for which in ("best", "last"):
            saving.copy(run, which, progress, model, optimizer, identity_of(dataset))()
        run.write_summary(
            opening(run, dataset, Fresh(settled, model, optimizer, tokens), command)
            | {"status": "completed", "steps": checkpoint.step, "best_val_loss": loss}
        )
    opened.listener.say(
        Advice(f"{run.title} is the model of {path}. Try it: {opened.experiment.command.format('sample')} `run={name}`")
    )
    return run


def export_run(opened: Opened, path: Path, name: str | None) -> None:
    """Write a run's best checkpoint as ckpt.pt. Raises UserError for a model that nanoGPT does not have."""
    loaded = load_model(opened, name)
    if not isinstance(loaded.module, GPT):
        raise UserError(
            f"nanoGPT has no model of kind {loaded.config.train.model.kind}",
            place=loaded.run.title,
            remedy='Train with train.model.preset = "gpt2".',
        )
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    experiment = opened.experiment.name
    export_checkpoint(loaded.module, path, step=loaded.step, settings={"dataset": experiment})
    opened.listener.say(
        f"{path} is {loaded.run.title} at step {loaded.step}. nanoGPT looks for data/{experiment}/meta.pkl."
    )
