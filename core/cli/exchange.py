"""The commands import and export."""

from __future__ import annotations

from pathlib import Path

import click

from core.cli import options, outcome

PATH = click.Path(path_type=Path)


@click.command("import")
@options.experiment
@click.option("--from", "source", metavar="hf|gguf|nanogpt", required=True, help="What the model was saved as.")
@click.argument("path", metavar="PATH", type=PATH)
@options.run
@options.as_json
@options.settings
def import_model(
    experiment: str,
    source: str,
    path: Path,
    name: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Make a run of EXP from a model of another program, to sample, evaluate, chat, serve or train further.

    hf: a folder with config.json and safetensors. gguf: a file of llama.cpp. Both bring their tokenizer, and EXP's data is
    prepared with it. nanogpt: its ckpt.pt, which must have the vocabulary of EXP's dataset. The run is called after the format
    unless --run names it.
    """
    from core.lab.importing import import_run, sources

    chosen = one_of("--from", source, sources())
    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    run = import_run(opened, chosen, path, name or chosen, options.this_command())
    if as_json:
        options.say_json(outcome.run_as_json(run.folder))


@click.command("export")
@options.experiment
@click.option("--to", metavar="hf|gguf|adapter|nanogpt", required=True, help="What to write.")
@click.argument("target", metavar="DIR", type=PATH)
@options.run
@options.stage
@options.checkpoint
@click.option("--type", "kind", metavar="f32|f16|bf16|q8_0", default="f16", show_default=True, help="Numbers of gguf.")
@options.as_json
@options.settings
def export_model(
    experiment: str,
    to: str,
    target: Path,
    name: str | None,
    stage: str,
    checkpoint: str,
    kind: str,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Write a run for other programs into DIR, a new folder.

    hf: transformers. gguf: llama.cpp and Ollama. adapter: PEFT, for a finetuned pretrained model. nanogpt: DIR is a file, for
    its sample.py and train.py.
    """
    from core.lab.exporting import export_run, formats
    from core.lab.model import load_model
    from core.lab.stages import trained_as

    chosen = one_of("--to", to, formats())
    numbers = one_of("--type", kind, ["f32", "f16", "bf16", "q8_0"])
    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    model = load_model(*trained_as(opened, name, stage), checkpoint=checkpoint)
    written = export_run(model, chosen, target, numbers)
    if as_json:
        options.say_json(written)


def one_of(option: str, value: str, known: list[str]) -> str:
    """The value, if it is known. Raises UserError that names the nearest one."""
    from core.errors import UserError, did_you_mean

    if value not in known:
        raise UserError(f"'{value}' is not known", place=option, remedy=did_you_mean(value, known) or "")
    return value


COMMANDS = (import_model, export_model)
