"""Make a finished run from a model that another program has saved: nanoGPT's file, a folder of Hugging Face, a GGUF file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core import durable, files
from core.data.dataset import Dataset
from core.errors import UserError
from core.lab.assemble import Fresh, identity_of
from core.lab.opened import Opened, as_overrides, prepared, with_overrides
from core.lab.settle import settle
from core.lab.summaries import opening
from core.listener import Advice
from core.models.build import build_model
from core.models.foreign import ForeignModel
from core.models.nanogpt import import_checkpoint, is_padding, without_padding
from core.plugins.manager import built_in
from core.roles import flat
from core.toml import Settings, check, dump, merge
from core.tracking.run import Run, lock_file
from core.training import checkpoints
from core.training import progress as saving
from core.training.objectives import tokens
from core.training.optimizers import build_optimizer
from core.training.progress import Progress

LONGEST = 2048  # tokens of context, unless train.model.block_size asks for more: a cache has room for all of them


def sources() -> list[str]:
    """Where a model can come from."""
    return ["hf", "gguf", "nanogpt"] if "core.huggingface" in built_in() else ["nanogpt"]


def import_run(opened: Opened, source: str, path: Path, name: str, command: str = "") -> Run:
    """Make a finished run with checkpoints `best` and `last`. source: one of `sources()`.

    A model of hf or gguf brings its tokenizer: the experiment's data is prepared with it, in a folder of its own, and a variant
    with the run's name is written, to train further from it. Raises UserError if the model is none of ours, if its vocabulary
    is not that of the dataset, or if the name is taken.
    """
    read = reader(source)
    model = read(path)
    settings: dict[str, Any] = {}
    if source != "nanogpt":
        refuse_stages(opened)
        model, settings = own_data(opened, model, path, name)
        opened = with_overrides(opened, (*opened.overrides, *as_overrides(settings)))
    refuse_variant(opened, name, settings)
    opened, dataset = prepared(opened)
    model = fitted(opened, model, dataset, path)
    run = finished_run(opened, model, dataset, Run(opened.experiment, name, opened.config), path, command)
    if settings:
        write_variant(opened, model, name, settings)
    opened.listener.say(
        Advice(f"{run.title} is the model of {path}. Try it: {opened.experiment.command.format('sample')} `run={name}`")
    )
    return run


def reader(source: str) -> Callable[[Path], ForeignModel]:
    """The function that reads a model."""
    if source == "nanogpt":
        return import_checkpoint
    from core.huggingface.from_gguf import read_gguf
    from core.huggingface.from_hf import read_hf

    return read_gguf if source == "gguf" else read_hf


def refuse_stages(opened: Opened) -> None:
    """Raise UserError for an experiment with stages, whose runs have a folder for each."""
    if opened.stages:
        raise UserError(
            f"{opened.experiment.name} has stages, and an imported model is a run without",
            place=str(opened.experiment.folder / "config.toml"),
            remedy="Import it into an experiment without [[stages]]. A first stage may start from it: train.model.init_from.",
        )


def own_data(opened: Opened, model: ForeignModel, path: Path, name: str) -> tuple[ForeignModel, dict[str, Any]]:
    """The model with as long a context as is asked for, and the settings of [prepare] with which data gets its ids."""
    given = "train.model.block_size" in {text.partition("=")[0].strip() for text in opened.overrides}
    wanted = opened.config.train.model.block_size if given else LONGEST
    theirs = model.model["block_size"]
    block_size = min(theirs, wanted or theirs)
    if block_size < theirs:
        opened.listener.say(
            f"The model was made for {theirs:,} tokens of context. The run has {block_size:,}: a cache needs memory for all of "
            "them. For more: `train.model.block_size=NUMBER`"
        )
    state = dict(model.state)
    if "transformer.wpe.weight" in state:
        state["transformer.wpe.weight"] = state["transformer.wpe.weight"][:block_size]
    cut = model._replace(model=model.model | {"block_size": block_size}, state=state)
    tokenizer = {"prepare.encoder": "hf", "prepare.tokenizer": str(path.absolute())}
    return cut, tokenizer | {"prepare.dataset_dir": f"datasets/{name}"}


def fitted(opened: Opened, model: ForeignModel, dataset: Dataset, path: Path) -> ForeignModel:
    """The model with as many ids as the dataset's encoder. Raises UserError if it cannot have so many."""
    size = dataset.encoder.vocab_size
    # nanoGPT pads GPT-2's 50,257 ids to 50,304; models of Hugging Face have more rows than their tokenizers have tokens.
    if is_padding(model.vocab_size, size) or (dataset.encoder.kind == "hf" and model.vocab_size > size):
        opened.listener.say(
            f"{path} has {model.vocab_size:,} ids, and the dataset {size:,}: the last {model.vocab_size - size:,} "
            "are taken for padding and dropped."
        )
        return model._replace(state=without_padding(model.state, size), vocab_size=size)
    if model.vocab_size != size:
        raise UserError(
            f"the checkpoint has {model.vocab_size:,} ids, but the dataset of {opened.experiment.name} has {size:,}",
            place=str(path),
            remedy="Prepare the text that nanoGPT was trained on, with the same encoder, or set prepare.dataset_dir to nanoGPT's data folder.",
        )
    return model


def finished_run(opened: Opened, model: ForeignModel, dataset: Dataset, named: Run, path: Path, command: str) -> Run:
    """Write the run's folder."""
    rows = model.model["block_size"]
    if dataset.encoder.kind == "hf":
        rows = min(rows, opened.config.train.data.block_size or rows)
    given = Settings()
    given.lay(opened.settings)  # not the resolved config: its optimizer follows the experiment's own preset
    merge(given.values, {"train": {"data": {"block_size": rows}}})
    given.values["train"]["model"] = model.model
    # prepare may have found the dataset in another folder
    config = check(given).model_copy(update={"prepare": opened.config.prepare})
    settled = settle(opened.experiment, config, dataset, opened.plugins, timing=False)
    run = Run(opened.experiment, named.name, settled.config, f"imported from {path.name}")
    with files.lock(lock_file(run.folder), f"run {run.title}"):
        if run.folder.exists():
            raise UserError(
                "there is a run of this name already", place=str(run.folder), remedy="Choose another name: `run=NAME`."
            )
        # Without the experiment's own build_model: the weights are those of a GPT.
        module = build_model(run.config.train.model, dataset.encoder.vocab_size, replace(opened.plugins, code=None))
        checkpoints.put_weights(module, weights_for(module, model.state), str(path))
        optimizer = build_optimizer(module, run.config.train.optim, opened.plugins)
        durable.make_folders(run.folder)
        run.write_config()
        loss = model.best_val_loss if math.isfinite(model.best_val_loss) else None
        progress = Progress(step=model.step, best_val_loss=loss, best_step=model.step)
        for which in ("best", "last"):
            saving.copy(run, which, progress, module, optimizer, identity_of(dataset))()
        run.write_summary(
            opening(run, dataset, Fresh(settled, module, optimizer, tokens), command)
            | {"status": "completed", "steps": model.step, "best_val_loss": loss}
        )
    return run


def weights_for(module: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the weights that a checkpoint has: a tied one once."""
    return {key: tensor for key, tensor in state.items() if key in checkpoints.weights(module)}


def variant_path(opened: Opened, name: str) -> Path:
    return opened.experiment.folder / f"config.{name}.toml"


def refuse_variant(opened: Opened, name: str, settings: dict[str, Any]) -> None:
    """Raise UserError if the variant that the run gets is there already."""
    if settings and (file := variant_path(opened, name)).exists():
        raise UserError(
            "there is a variant of this name already", place=str(file), remedy="Choose another name: `run=NAME`."
        )


def write_variant(opened: Opened, model: ForeignModel, name: str, settings: dict[str, Any]) -> None:
    """Write config.NAME.toml: a run of this variant starts from the imported weights."""
    start = {"train": {"model": model.model | {"init_from": name}}}
    values: dict[str, Any] = {}
    for key, value in {**settings, **flat(start)}.items():
        merge(values, nested(key, value))
    file = variant_path(opened, name)
    files.write_text(file, f"# Training from the imported run {name}.\n{dump(values)}")
    opened.listener.say(
        Advice(f"{file.name} is a variant that goes on from it: `variant={name}` with another `run=NAME`.")
    )


def nested(key: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} from "a.b"."""
    head, dot, rest = key.partition(".")
    return {head: nested(rest, value)} if dot else {head: value}
