"""Runs from and to nanoGPT's checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

from core import durable, files
from core.cli.lab import Lab
from core.cli.settle import settle
from core.cli.trained import Work
from core.cli.training import identity_of, opening
from core.errors import UserError
from core.models.build import build_model
from core.models.gpt import GPT
from core.models.nanogpt import export_checkpoint, import_checkpoint
from core.toml import Settings, check, merge
from core.tracking.run import Run, lock_file
from core.training import checkpoints
from core.training import progress as saving
from core.training.optimizers import build_optimizer
from core.training.progress import Progress


def import_run(lab: Lab, path: Path, name: str) -> Run:
    """A finished run with a ckpt.pt's weights. Raises UserError where the vocabularies differ or the name is taken."""
    checkpoint = import_checkpoint(path)
    dataset = lab.prepare()
    state, size = checkpoint.state, dataset.encoder.vocab_size
    if dataset.encoder.kind == "gpt2" and checkpoint.vocab_size > size:  # nanoGPT pads GPT-2's 50,257 ids to 50,304
        state = {
            key: tensor[:size] if key in ("transformer.wte.weight", "lm_head.weight") else tensor
            for key, tensor in state.items()
        }
    elif checkpoint.vocab_size != size:
        raise UserError(
            f"the checkpoint has {checkpoint.vocab_size:,} ids, but the dataset of {lab.experiment.name} has {size:,}",
            place=str(path),
            remedy="Prepare the text that nanoGPT was trained on, with the same encoder, or point prepare.dataset_dir at nanoGPT's data folder.",
        )
    given = Settings()
    given.lay(lab.settings)  # not the resolved config: its optimizer would be that of the experiment's own preset
    merge(given.values, {"train": {"data": {"block_size": checkpoint.model["block_size"]}}})
    given.values["train"]["model"] = checkpoint.model
    config = check(given)
    config.prepare = lab.config.prepare  # prepare may have found the dataset in another folder
    run = Run(lab.experiment, name, config, f"imported from nanoGPT's {path.name}")
    with files.lock(lock_file(run.folder), f"run {run.title}"):
        if run.folder.exists():
            raise UserError(
                "there is a run of this name already",
                place=str(run.folder),
                remedy="Choose another one with --run NAME.",
            )
        settle(run, dataset, None, timing=False)
        model = build_model(run.config.train.model, size)
        weights = {key: tensor for key, tensor in state.items() if key in checkpoints.weights(model)}
        checkpoints.put_weights(model, weights, str(path))
        optimizer = build_optimizer(model, run.config.train.optim)
        durable.make_folders(run.folder)
        run.write_config()
        loss = checkpoint.best_val_loss if math.isfinite(checkpoint.best_val_loss) else None
        progress = Progress(step=checkpoint.step, best_val_loss=loss, best_step=checkpoint.step)
        for which in ("best", "last"):
            saving.copy(run, which, progress, model, optimizer, identity_of(dataset))()
        run.write_summary(
            opening(run, dataset, model, {}) | {"status": "completed", "steps": checkpoint.step, "best_val_loss": loss}
        )
    lab.console.say(
        f"{run.title} is the model of {path}. Try it: {lab.experiment.command.format('sample')} --run {name}"
    )
    return run


def export_run(lab: Lab, path: Path, name: str | None) -> None:
    """Write a run's best checkpoint as ckpt.pt. Raises UserError for a model that nanoGPT has no equal of."""
    work = Work.open(lab, name)
    model = work.trained.model
    if not isinstance(model, GPT):
        raise UserError(
            f"nanoGPT has no model of kind {work.config.train.model.kind}",
            place=work.run.title,
            remedy='Train with train.model.preset = "gpt2".',
        )
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    export_checkpoint(model, path, step=work.trained.step, settings={"dataset": lab.experiment.name})
    lab.console.say(
        f"{path} is {work.run.title} at step {work.trained.step}. nanoGPT looks for data/{lab.experiment.name}/meta.pkl."
    )
