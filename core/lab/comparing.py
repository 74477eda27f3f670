"""Compare runs from Python: folders of runs, of ours or of a user's own loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core import durable, files
from core.errors import UserError
from core.report.comparison import Comparison, Group, compare
from core.report.comparison_forms import as_form, form_of
from core.report.overlay import overlay, picture
from core.report.runs import read_run


def compare_experiments(
    folders: Sequence[str | Path | Sequence[str | Path]],
    output_path: str | Path | None = None,
    experiment_names: Sequence[str] = (),
) -> Comparison:
    """Compare run folders, each with the first one: figures, what differed, and whether the difference is real.

    folders: of runs, two at least; those that a Tracker wrote, too. A list of folders in place of one is a group of
    seeds. output_path: a picture (.png, .svg), or a table (.txt, .md, .csv, .tex, .json, .html) with the picture beside
    it. experiment_names: one for each folder. Raises UserError for a folder that is no run, and for too few or too many
    names.
    """
    groups = [[Path(each) for each in (entry if isinstance(entry, (list, tuple)) else [entry])] for entry in folders]
    if len(groups) < 2:
        raise UserError("a comparison needs two runs", place="folders", remedy="Name the folders of two runs or more.")
    if experiment_names and len(experiment_names) != len(groups):
        raise UserError(
            f"{len(experiment_names)} names for {len(groups)} runs",
            place="experiment_names",
            remedy="Give one name for each folder, or leave them out.",
        )
    runs = [[read_run(folder) for folder in group] for group in groups]
    names = experiment_names or [group[0].title for group in runs]
    comparison = compare([Group(name, group) for name, group in zip(names, runs, strict=True)])
    if output_path is not None:
        write_comparison(comparison, Path(output_path))
    return comparison


def write_comparison(comparison: Comparison, path: Path) -> dict[str, Path]:
    """Write the picture, or a table with the picture beside it. Returns what was written: "written", "curves".

    Raises UserError for an unknown suffix, and for a place that cannot be written to.
    """
    form = form_of(path)
    drawing = path.with_suffix(".png") if form else path
    try:
        durable.make_folders(drawing.parent)
        files.write_bytes(drawing, picture(overlay(comparison.groups), drawing.suffix.lower()))
        if form is None:
            return {"curves": drawing}
        shown = as_form(comparison, "document" if form == "markdown" else form, drawing.name)
        files.write_text(path, shown.rstrip("\n") + "\n")
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"cannot be written: {error.strerror}",
            place=f"`output_path={path}`",
            remedy="Name a file in a folder that can be written to.",
        ) from None
    return {"written": path, "curves": drawing}
