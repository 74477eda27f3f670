"""Write a trained run for other programs: a loaded model in; a folder for transformers, llama.cpp or PEFT, or nanoGPT's file, out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from core import durable, files
from core.errors import RunFailed, UserError
from core.lab.model import LoadedModel
from core.models.gpt import GPT
from core.models.nanogpt import export_checkpoint
from core.plugins.manager import built_in


def formats() -> list[str]:
    """What a run can be written as."""
    return ["hf", "gguf", "adapter", "nanogpt"] if "core.huggingface" in built_in() else ["nanogpt"]


def export_run(model: LoadedModel, to: str, target: Path, kind: str = "f16") -> dict[str, Any]:
    """Write a model. to: one of `formats()`. target: a folder that is not there or empty, for nanogpt a file. kind: of the
    numbers in a GGUF file. Returns the paths that were written.

    The target is whole or not there. Raises UserError for a target that is taken or cannot be written, and for a model that
    the format cannot hold.
    """
    place = resolved(target)
    refuse_taken(place, is_file=to == "nanogpt")
    try:
        paths = write_nanogpt(model, place) if to == "nanogpt" else write_folder(model, to, place, kind)
    except files.DiskFull as error:
        raise RunFailed(
            f"{target}: {error.strerror}; nothing is written.\n  Free some space, or choose another disk."
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}",
            place=str(target),
            remedy="Name a place where you may write.",
        ) from None
    model.opened.listener.say(f"{target} is {model.run.title} at step {model.step}.")
    named = {"experiment": model.run.experiment.name, "run": model.run.name, "step": model.step, "to": to}
    return named | {"target": str(place), "files": [str(path) for path in paths]}


def resolved(target: Path) -> Path:
    """The whole path, links followed, so that a link stays one. Raises UserError for links that lead in a circle."""
    try:
        return target.resolve()
    except (OSError, RuntimeError, ValueError):
        raise UserError("no path that can be followed", place=str(target), remedy="Name another folder.") from None


def write_folder(model: LoadedModel, to: str, target: Path, kind: str) -> list[Path]:
    """Fill a new or empty folder. Returns the paths of its files."""
    write = {"hf": write_for_transformers, "gguf": write_for_llama_cpp, "adapter": write_for_peft}[to]
    with files.new_folder(target) as folder:
        usage = write(model, folder, kind)
        if not (folder / "README.md").exists():
            durable.write_file(folder / "README.md", card(model, usage).encode())
    return sorted(path for path in target.iterdir() if path.is_file())


def refuse_taken(target: Path, *, is_file: bool) -> None:
    """Raise UserError if something would be overwritten, or replaced while a shell stands in it. target: the whole path."""
    remedy = "Name a file that does not exist." if is_file else "Name a folder that does not exist, or an empty one."
    try:
        if target.is_dir() and (is_file or any(target.iterdir())):
            raise UserError("is a folder" if is_file else "is not empty", place=str(target), remedy=remedy)
        if target.exists() and not target.is_dir():
            raise UserError("exists already", place=str(target), remedy=remedy)
        parent = next(each for each in target.parents if each.exists())
        in_use = target.is_dir() and (os.path.ismount(target) or target.samefile(Path.cwd()))
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", place=str(target), remedy=remedy) from None
    if not parent.is_dir():
        raise UserError("is a file, and a folder is needed here", place=str(parent), remedy=remedy)
    if in_use:
        raise UserError(
            "is the current folder or a disk, which cannot be replaced",
            place=str(target),
            remedy="Name a new folder in it.",
        )


def gpt_of(model: LoadedModel, what: str) -> GPT:
    """The module, if it is a GPT of our own. Raises UserError for another kind."""
    if not isinstance(model.module, GPT):
        raise UserError(
            f"{what} has no model of kind {model.config.train.model.kind}",
            place=model.run.title,
            remedy='Train with train.model.kind = "gpt", and a preset such as "portable", "llama" or "gpt2".',
        )
    return model.module


def write_nanogpt(model: LoadedModel, file: Path) -> list[Path]:
    """Write nanoGPT's ckpt.pt."""
    experiment = model.run.experiment.name
    module = gpt_of(model, "nanoGPT")
    durable.make_folders(file.parent)
    export_checkpoint(module, file, step=model.step, settings={"dataset": experiment})
    model.opened.listener.say(f"nanoGPT looks for data/{experiment}/meta.pkl.")
    return [file]


def write_for_transformers(model: LoadedModel, folder: Path, kind: str) -> str:
    """A model folder. A pretrained model with adapters is merged first."""
    if model.config.train.model.kind == "hf":
        from core.huggingface.merging import write_merged

        report = write_merged(model, folder)
        others = {str(each.dtype).removeprefix("torch.") for each in model.module.parameters()} - {"float32"}
        why = f"; the run has its base in {', '.join(sorted(others))}" if others else ""
        model.opened.listener.say(
            f"Merged in float32: logits differ by {report.largest:.2g} at most, KL {report.kl:.2g} nats per token, on "
            f"{report.tokens:,} validation tokens{why}."
        )
        return LOAD_HF.format(trust="")
    from core.huggingface.to_hf import OWN, write_hf

    module, sampling = gpt_of(model, "transformers"), model.config.sample.sample
    title = write_hf(module, model.encoder, folder, begin=model.trained.begin, sampling=sampling)
    if title != OWN.title:
        return LOAD_HF.format(trust="")
    model.opened.listener.say(
        'transformers has no such architecture, so its code is written along. For a model without: train.model.preset = "portable".'
    )
    return LOAD_HF.format(trust=", trust_remote_code=True")


def write_for_llama_cpp(model: LoadedModel, folder: Path, kind: str) -> str:
    """A GGUF file, and a Modelfile for Ollama."""
    from core.huggingface.to_gguf import NAME, write_gguf

    module = gpt_of(model, "llama.cpp")
    for remark in write_gguf(
        module, model.encoder, folder, begin=model.trained.begin, title=model.run.title, kind=kind
    ):
        model.opened.listener.say(remark)
    durable.write_file(folder / "Modelfile", f"FROM ./{NAME}\nPARAMETER num_ctx {module.block_size}\n".encode())
    return LOAD_GGUF


def write_for_peft(model: LoadedModel, folder: Path, kind: str) -> str:
    """The adapter of a finetuned pretrained model, in PEFT's format."""
    if model.config.train.model.kind != "hf":
        raise UserError(
            f"a model of kind {model.config.train.model.kind} has no adapter",
            place=model.run.title,
            remedy='Only runs with train.model.kind = "hf" and params.lora = true have one. Write this one as hf or gguf.',
        )
    from core.huggingface.adapters import loading_code, write_adapter

    write_adapter(model, folder)
    return f"```python\n{loading_code(model)}```\n"


LOAD_HF = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("."{trust})
tokenizer = AutoTokenizer.from_pretrained(".")
ids = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids)[0]))
```
"""
LOAD_GGUF = """With llama.cpp: `llama-cli -m model.gguf -p "Once"`

With Ollama: `ollama create my-model -f Modelfile`, then `ollama run my-model`
"""


def card(model: LoadedModel, usage: str) -> str:
    """The README.md of a written model: what it is, and how to load it."""
    module = model.module
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return (
        f"# {model.run.title}\n\nA language model that was trained with Terrarium: experiment {model.run.experiment.name}, "
        f"checkpoint at step {model.step}.\n\n- parameters: {parameters:,}\n- context: {model.block_size:,} tokens\n"
        f"- tokenizer: {model.encoder.kind}, {model.encoder.vocab_size:,} ids\n\n## How to load it\n\nIn this folder:\n\n{usage}"
    )
