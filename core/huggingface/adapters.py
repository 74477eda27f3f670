"""Adapters in PEFT's own format, a folder with adapter_config.json and adapter_model.safetensors: made from a checkpoint or a model.

`peft.PeftModel.from_pretrained(base, folder)` reads it. The run's checkpoints stay what a resume needs.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from core import durable, files, shards
from core.errors import UserError
from core.huggingface.extra import needed
from core.huggingface.lora import ADAPTER, ALPHA, RANK
from core.private import hidden

FOLDER = "adapters"  # of a run
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ORIGIN = "origin.json"  # ours: the step, and what tells the base and the weights from others
OURS, THEIRS = "model.", "base_model.model."  # what a parameter's name begins with in our module, and in PEFT's files
MATRIX = re.compile(rf"(.+)\.lora_([AB])\.{ADAPTER}\.weight")


def adapter_of_checkpoint(run: Any, checkpoint: Path, name: str) -> None:
    """Write out/<run>/adapters/<name> from a checkpoint of the run, if there is one, and the folder is not that already.

    Until it is complete, what was there stays. Warns of a damaged checkpoint, and reads nothing of it.
    """
    if not (checkpoint / "state.json").is_file():
        return
    try:
        state = files.unsealed((checkpoint / "state.json").read_bytes())
    except ValueError as error:
        warnings.warn(f"{checkpoint / 'state.json'}: {error}: no adapter is made of it", stacklevel=2)
        return
    folder: Path = run.folder / FOLDER / name
    # Not the step: a resume on another machine comes to the same step with other weights.
    weights = shards.checksum_of_weights(state["files"])
    if weights_of(folder) != weights:
        if wrong := files.changed(checkpoint, state["files"]):
            warnings.warn(f"{wrong}: no adapter is made of it", stacklevel=2)
            return
        if shards.is_of_pieces(state["files"]):
            (tensors,) = shards.read_whole(checkpoint, prefixes=[shards.MODEL])
        else:
            tensors = load_file(checkpoint / "model.safetensors")
        origin = {"step": int(state["step"]), "base": state["base"], "weights": weights}
        where = base_place(origin["base"]["name"], run.experiment.folder)
        with files.new_folder(folder.absolute()) as temporary:
            fill_folder(temporary, run.config.train.model.params, where, origin, tensors)


def catch_up(run: Any, *, ended: bool = False) -> None:
    """Write the adapters of the checkpoints that are there, and are not written yet. ended: the last one is the final one."""
    for name, checkpoint in [("best", "best"), ("last", "last"), *([("final", "last")] if ended else [])]:
        adapter_of_checkpoint(run, run.checkpoints / checkpoint, name)


def write_adapter(loaded: Any, folder: Path) -> None:
    """Write the adapter of a loaded model of a run (`core.lab.model.LoadedModel`) into an empty folder.

    Raises UserError for a model without adapters.
    """
    module = loaded.module
    refuse_without_adapter(module, loaded.run.title)
    tensors = {name: each.cpu() for name, each in adapter_tensors(module).items()}
    where = base_place(module.pretrained_base["name"], loaded.run.experiment.folder)
    origin = {"step": loaded.step, "base": module.pretrained_base}
    fill_folder(folder, loaded.config.train.model.params, where, origin, tensors)


def refuse_without_adapter(module: Any, title: str) -> None:
    """Raise UserError if a model has no adapters."""
    if getattr(module, "lora", None) is None:
        raise UserError(
            f"{title} has no adapter",
            place=title,
            remedy='Only runs of train.model.kind = "hf" with lora = true have one.',
        )


def fill_folder(
    folder: Path, params: Mapping[str, Any], where: str, origin: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write the files of an adapter into an empty folder.

    params: of [train.model.params]. where: the base is. origin: step of the run, the base's identity, and the checksum of the checkpoint's weights.
    tensors: by their names in our module.
    """
    renamed = {peft_name(name): tensor.contiguous() for name, tensor in tensors.items()}
    config = config_of(params, where, origin["base"]["revision"], list(tensors))
    durable.write_file(folder / ADAPTER_CONFIG, json.dumps(config, indent=2, sort_keys=True).encode())
    durable.write_file(folder / ADAPTER_WEIGHTS, save(renamed, {"format": "pt"}))
    durable.write_file(folder / ORIGIN, json.dumps(origin, indent=2).encode())


def base_place(name: str, folder: Path) -> str:
    """Where a base is, for readers in any folder: a whole path, with ~ for the home folder; a name on the hub as it is.

    folder: where relative paths start.
    """
    path = folder / Path(name).expanduser()
    return str(hidden(str(path.absolute()))) if path.exists() else name


def config_of(params: Mapping[str, Any], where: str, revision: str, names: Sequence[str]) -> dict[str, Any]:
    """The content of adapter_config.json. Layers are listed by their whole names, so that PEFT can match no other."""
    peft = needed("peft", "Writing an adapter")
    layers = sorted({found[1].removeprefix(OURS) for name in names if (found := MATRIX.fullmatch(name))})
    config = peft.LoraConfig(
        r=params.get("r", RANK),
        lora_alpha=params.get("alpha", ALPHA),
        lora_dropout=params.get("dropout", 0.0),
        target_modules=layers,
        base_model_name_or_path=where,
        revision=revision or None,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    return {name: plain(value) for name, value in config.to_dict().items()}


def plain(value: Any) -> Any:
    """A value as JSON has it: sets as sorted lists, enumerations by their value."""
    if isinstance(value, set):
        return sorted(value)
    return getattr(value, "value", value)


def peft_name(name: str) -> str:
    """The name of a parameter in PEFT's files, which leave out the adapter's own name."""
    return f"{THEIRS}{name.removeprefix(OURS)}".replace(f".{ADAPTER}.weight", ".weight")


def weights_of(folder: Path) -> str:
    """The checksum of the checkpoint's weights that an adapter was made from; "" if there is none, or it is another program's."""
    try:
        return str(json.loads((folder / ORIGIN).read_bytes())["weights"])
    except (OSError, LookupError, TypeError, ValueError):
        return ""


def adapter_tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """The parameters of a model's adapters, by their names in it."""
    return {name: each.detach() for name, each in module.named_parameters() if each.requires_grad}


def loading_code(loaded: Any) -> str:
    """Python code that loads an adapter, in its folder, onto the base that it was trained on."""
    base, where = loaded.module.base, base_place(loaded.module.base.name, loaded.run.experiment.folder)
    lines = ["from peft import PeftModel", "from transformers import AutoModelForCausalLM"]
    place, choices = repr(where), f", revision={base.revision!r}"
    if not base.revision:
        lines.insert(0, "from pathlib import Path\n")
        place = f"Path({(str(Path(where).parent) if base.is_gguf else where)!r}).expanduser()"
        choices = f", gguf_file={base.path.name!r}" if base.is_gguf else ""
    if loaded.module.is_quantised:
        lines[-1] += ", BitsAndBytesConfig"
        lines += [
            "",
            'four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)',
        ]
        choices += ", quantization_config=four"
    lines += ["", f"base = AutoModelForCausalLM.from_pretrained({place}{choices})"]
    return "\n".join([*lines, 'model = PeftModel.from_pretrained(base, ".")', ""])
