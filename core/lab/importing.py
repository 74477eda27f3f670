"""Make a finished run from a model that another program has saved: nanoGPT's file, a folder of Hugging Face, a GGUF file."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core import durable, files
from core.data.dataset import Dataset
from core.encoders.special import has_special
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
from core.toml import Settings, check, dump, merge, read_file, read_override
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


@dataclass(frozen=True)
class UnfinishedRun(Run):
    """A run that is written into another folder than its own, which is renamed when all is there."""

    written_to: Path = Path()

    @property
    def folder(self) -> Path:
        return self.written_to


def import_run(opened: Opened, source: str, path: Path, name: str, command: str = "") -> Run:
    """Make a finished run with checkpoints `best` and `last`. source: one of `sources()`.

    A model of hf or gguf brings its tokenizer: the experiment's data is prepared with it, in a folder of its own, and a variant
    with the run's name is written, to train further from it. Nothing is left after an error. After a kill the same import can be
    begun again. Raises UserError if the model is none of ours, if its vocabulary is not that of the dataset, for a setting that
    the model decides, and if a run, a variant or a dataset of this name is there.
    """
    named = run_named(opened, name)
    if source != "nanogpt":
        refuse_stages(opened)
    refuse_run(named)
    model = reader(source)(path)
    refuse_ignored(opened, source, model)
    if source == "nanogpt":
        with files.lock(lock_file(named.folder), f"run {named.title}"):
            refuse_run(named)
            opened, dataset = prepared(opened)
            run = finished_run(opened, fitted(opened, model, dataset, path, source), dataset, named, path, command)
    else:
        model, settings = own_data(opened, model, path, name)
        settings = given_for_data(opened) | settings
        variant = variant_of(model, name, settings)
        target = refuse_taken(opened, name, variant)
        with files.lock(lock_file(named.folder), f"run {named.title}"), removed_after_error(target, variant_path(opened, name)):  # fmt: skip
            refuse_run(named)
            # First the variant: it says whose dataset stands beside it, if this process is killed.
            if not variant_path(opened, name).exists():
                files.write_text(variant_path(opened, name), variant)
            opened, dataset = prepared(with_overrides(opened, (*opened.overrides, *as_overrides(settings))))
            run = finished_run(opened, fitted(opened, model, dataset, path, source), dataset, named, path, command)
        opened.listener.say(
            Advice(f"config.{name}.toml is a variant that goes on from it: `variant={name}` with another `run=NAME`.")
        )
    opened.listener.say(
        Advice(f"{run.title} is the model of {path}. Try it: {opened.experiment.command.format('sample')} `run={name}`")
    )
    return run


def run_named(opened: Opened, name: str) -> Run:
    """The run of this name, which is not there yet. Raises UserError for a name that a folder and a variant cannot have."""
    run = Run(opened.experiment, name, opened.config)
    if "/" in name or name == "basic":
        raise UserError(
            f"'{name}' is not a valid name for an imported run" + ": basic is config.toml itself" * (name == "basic"),
            place="run",
            remedy="Use letters, digits, - and _. The run, its dataset and its variant get this name.",
        )
    return run


def refuse_run(named: Run) -> None:
    """Raise UserError if there is a run of this name."""
    if named.folder.exists():
        raise UserError(
            "there is a run of this name already", place=str(named.folder), remedy="Choose another name: `run=NAME`."
        )


def refuse_ignored(opened: Opened, source: str, model: ForeignModel) -> None:
    """Raise UserError for an override that would change nothing, because the imported model decides it."""
    longest = model.model["block_size"]
    theirs: dict[str, Any] = {f"train.model.{key}": value for key, value in model.model.items()}
    if source == "nanogpt":
        theirs["train.data.block_size"] = longest
    else:
        theirs |= {"prepare.encoder": "hf", "prepare.tokenizer": None, "prepare.dataset_dir": None}
    for text in opened.overrides:
        for key, value in flat(read_override(text).values).items():
            if source != "nanogpt" and key in ("train.model.block_size", "train.data.block_size"):
                if isinstance(value, int) and value > longest:
                    raise UserError(
                        f"{key} = {value:,}, and the model was made for {longest:,} tokens of context",
                        place=f"`{text}`",
                        remedy=f"Ask for at most {longest}.",
                    )
            elif key in theirs or key.startswith("train.model."):
                decided = theirs.get(key)
                if value != decided:
                    raise UserError(
                        f"{key} cannot be chosen: an import takes it from the model"
                        + ("" if decided is None else f", which has {decided!r}"),
                        place=f"`{text}`",
                        remedy="Leave it out. Other settings can be chosen when the imported run is trained further.",
                    )


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


def given_for_data(opened: Opened) -> dict[str, Any]:
    """The settings of [prepare] that config.toml does not have: those of the command line and of a variant."""
    own = flat(read_file(opened.experiment.folder / "config.toml").values)
    given = flat(opened.settings.values)
    return {key: value for key, value in given.items() if key.startswith("prepare.") and own.get(key) != value}


def fitted(opened: Opened, model: ForeignModel, dataset: Dataset, path: Path, source: str) -> ForeignModel:
    """The model with as many ids as the dataset's encoder. Raises UserError if it cannot have so many."""
    size = dataset.encoder.vocab_size
    # nanoGPT pads GPT-2's 50,257 ids to 50,304; models of Hugging Face have more rows than their tokenizers have tokens.
    if is_padding(model.vocab_size, size) or (dataset.encoder.kind == "hf" and model.vocab_size > size):
        opened.listener.say(
            f"{path} has {model.vocab_size:,} ids, and the dataset {size:,}: the last {model.vocab_size - size:,} "
            "are taken for padding and dropped."
        )
        return model._replace(state=without_padding(model.state, size), vocab_size=size)
    if model.vocab_size != size and source == "nanogpt":
        raise UserError(
            f"the checkpoint has {model.vocab_size:,} ids, but the dataset of {opened.experiment.name} has {size:,}",
            place=str(path),
            remedy="Prepare the text that nanoGPT was trained on, with the same encoder, or set prepare.dataset_dir to nanoGPT's data folder.",
        )
    if model.vocab_size != size:
        raise UserError(
            f"the weights have rows for {model.vocab_size:,} ids, but the tokenizer beside them gives {size:,}",
            place=str(path),
            remedy="Weights and tokenizer are of different models. Download the model again, whole.",
        )
    return model


def finished_run(opened: Opened, model: ForeignModel, dataset: Dataset, named: Run, path: Path, command: str) -> Run:
    """Write the run's folder, which appears when it is complete. The caller holds its lock."""
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
    # Without the experiment's own build_model: the weights are those of a GPT.
    module = build_model(run.config.train.model, dataset.encoder.vocab_size, replace(opened.plugins, code=None))
    checkpoints.put_weights(module, weights_for(module, model.state), str(path))
    optimizer = build_optimizer(module, run.config.train.optim, opened.plugins)
    loss = model.best_val_loss if math.isfinite(model.best_val_loss) else None
    progress = Progress(step=model.step, best_val_loss=loss, best_step=model.step)
    identity = identity_of(dataset)
    if dataset.encoder.kind == "hf":  # it has learnt conversations elsewhere: the experiment's data need not be any
        identity["conversations"] = has_special(dataset.encoder)
    with files.new_folder(run.folder) as folder:
        unfinished = UnfinishedRun(run.experiment, run.name, run.config, run.description, folder)
        unfinished.write_config()
        for which in ("best", "last"):
            saving.copy(unfinished, which, progress, module, optimizer, identity)()
        unfinished.write_summary(
            opening(unfinished, dataset, Fresh(settled, module, optimizer, tokens), command)
            | {"status": "completed", "steps": model.step, "best_val_loss": loss}
        )
    return run


def weights_for(module: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the weights that a checkpoint has: a tied one once."""
    return {key: tensor for key, tensor in state.items() if key in checkpoints.weights(module)}


def variant_path(opened: Opened, name: str) -> Path:
    return opened.experiment.folder / f"config.{name}.toml"


def refuse_taken(opened: Opened, name: str, variant: str) -> Path:
    """The folder of the dataset. Raises UserError if the variant or the dataset is there, unless a killed import has left it.

    variant: the text that the variant will have. A killed import has left exactly this.
    """
    file, target = variant_path(opened, name), opened.experiment.folder / "datasets" / name
    remedy = "Choose another name: `run=NAME`."
    begun = file.is_file() and file.read_bytes() == variant.encode()
    if not begun and os.path.lexists(file):
        raise UserError("there is a variant of this name already", place=str(file), remedy=remedy)
    if target in datasets_of(opened, but=file):
        raise UserError("the experiment's own dataset has this name", place=str(target), remedy=remedy)
    if not begun and os.path.lexists(target):
        raise UserError("there is a dataset of this name already", place=str(target), remedy=remedy)
    return target


def datasets_of(opened: Opened, but: Path) -> list[Path]:
    """The datasets that the experiment's files name. but: the file that is left out."""
    found = [opened.experiment.path(opened.config.prepare.dataset_dir)]
    for file in sorted(opened.experiment.folder.glob("config*.toml")):
        with contextlib.suppress(UserError):  # a damaged file is reported when it is used
            named = read_file(file).values.get("prepare", {})
            if file != but and isinstance(named, dict) and isinstance(named.get("dataset_dir"), str):
                found.append(opened.experiment.path(named["dataset_dir"]))
    return found


@contextlib.contextmanager
def removed_after_error(*paths: Path) -> Iterator[None]:
    """After an exception, remove those of the files and folders that were not there before."""
    new = [path for path in paths if not path.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            durable.remove_tree(path)
        raise


def variant_of(model: ForeignModel, name: str, settings: dict[str, Any]) -> str:
    """The content of config.NAME.toml: a run of this variant starts from the imported weights."""
    start = {"train": {"model": model.model | {"init_from": name}}}
    values: dict[str, Any] = {}
    for key, value in {**settings, **flat(start)}.items():
        merge(values, nested(key, value))
    return f"# Training from the imported run {name}.\n{dump(values)}"


def nested(key: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} from "a.b"."""
    head, dot, rest = key.partition(".")
    return {head: nested(rest, value)} if dot else {head: value}
