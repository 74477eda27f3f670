"""The command look: pictures of the inside of a trained model."""

from __future__ import annotations

import click

from core.cli import options


@click.command()
@options.experiment
@options.run
@options.stage
@click.option("--prompt", metavar="TEXT", help="The text to look at.  [default: a validation prompt]")
@click.option(
    "--over-time", is_flag=True, help="Answer the prompt at every step that the run has kept. Writes no pictures."
)
@options.as_json
@options.settings
def look(
    experiment: str,
    name: str | None,
    stage: str,
    prompt: str | None,
    over_time: bool,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Look inside a run's model: write pictures into the run's folder, and say where they are.

    attention_1.png and on: what each token of the prompt, and of the model's answer, looks at, for every layer and head.
    embeddings.png: the numbers of the vocabulary in two dimensions. spectrum.png: how periodic their embeddings are. The
    run's report shows the same pictures.

    --over-time: what the model answered at each step that train.runtime.keep_checkpoints has kept; * where it differs from
    the step before. With --json also attention and embeddings of each.
    """
    from core.lab.looking import look as look_inside
    from core.lab.model import load_model
    from core.lab.moments import Moments
    from core.lab.reporting import report_of_run
    from core.lab.stages import trained_as

    opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    options.tell_of_no_effect("look", overrides)
    trained = trained_as(opened, name, stage)
    if over_time:
        way = Moments(*trained).over_time(prompt, opened.listener.say)
        if as_json:
            options.say_json({"experiment": experiment} | way.as_json())
        return
    model = load_model(*trained)
    found = look_inside(model, prompt)
    report_of_run(model.run.folder)
    if as_json:
        files = [str(path) for path in found.paths]
        about = {"experiment": experiment, "run": model.run.name, "step": model.step}
        told = {"prompt": found.look.prompt, "answer": found.look.answer, "remarks": found.look.remarks, "files": files}
        options.say_json(about | told)


COMMANDS = (look,)
