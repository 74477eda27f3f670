"""The command report: a page about an experiment or one of its runs, from the files on disk, or a folder to hand in."""

from __future__ import annotations

from pathlib import Path

import click

from core.cli import completion, options


@click.command()
@options.experiment
@click.option("--run", "name", metavar="NAME", shell_complete=completion.runs, help="Report on this run only.")
@click.option(
    "--to", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write a folder to hand in."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["all", "md"]),
    help="What to hand in: all, or only Markdown and its pictures. Without --to, into the folder hand_in beside the runs.",
)
@options.as_json
@options.settings
def report(
    experiment: str,
    name: str | None,
    to: Path | None,
    form: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Write a report on all runs of an experiment, or on one run.

    A report is one HTML page, which opens from disk, and the same in Markdown. Runs and sweeps write their own reports;
    this command updates them. Of a run with stages it is one page about all stages; without --run, these pages are updated,
    too. --to writes a folder to hand in: Markdown with its pictures as files, room for your own
    conclusion, which stays when the report is written again, a page, and a PDF where a browser or WeasyPrint is there.
    --format md leaves out the page and the PDF.
    """
    from core.cli.console import Console
    from core.lab.choosing import out_of
    from core.lab.reporting import hand_in, report_named, report_of_experiment, reports_of_pipelines
    from core.plugins.discovery import find

    found, console = find(experiment), Console(quiet=quiet, json=as_json)
    out = out_of(found, variant, overrides)
    pipelines: dict[str, Path] = {}
    if to is not None or form is not None:
        written = hand_in(found, out, to or out / "hand_in", name, markdown_only=form == "md")
        console.say("\n".join(f"{kind + ':':<8}{path}" for kind, path in written.items()))
        console.say(f"Write your conclusion into {written['md']}, under My conclusion.")
        if "pdf" not in written and form != "md":
            console.say(
                "No PDF: there is no Chromium, Chrome, Edge or WeasyPrint here. Print the page from your browser."
            )
    else:
        page = report_of_experiment(found, out) if name is None else report_named(found, out, name)
        written = {"html": page, "md": page.with_suffix(".md")}
        console.say(f"report: {page}\n        {written['md']}")
        pipelines = reports_of_pipelines(found, out) if name is None else {}
        for run, of_run in pipelines.items():
            console.say(f"stages of {run}: {of_run}")
    if as_json:
        files = {kind: str(path.absolute()) for kind, path in written.items()}
        stages = {
            run: {"html": str(of_run.absolute()), "md": str(of_run.with_suffix(".md").absolute())}
            for run, of_run in pipelines.items()
        }
        options.say_json(
            {"experiment": found.name}
            | ({"run": name} if name else {})
            | {"files": files}
            | ({"stages": stages} if stages else {})
        )


COMMANDS = (report,)
