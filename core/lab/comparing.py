"""Compare run folders from Python. A Tracker's run folders work too."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from core import durable, files
from core.errors import UserError
from core.report.comparison import Comparison, Group, as_dict, compare
from core.report.comparison_forms import as_form, form_of, sentences
from core.report.overlay import overlay, picture
from core.report.runs import read_run

# A run's folder, or what stands for it, such as a TrainedRun; or several, as one group of seeds.
Runs: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"


@dataclass(frozen=True)
class Compared:
    """The result of a comparison. files: what was written, by name. A notebook shows it as a page."""

    comparison: Comparison
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def verdicts(self) -> list[str]:
        """Whether each difference is real and how large it is, then warnings."""
        return sentences(self.comparison)

    def as_dict(self) -> dict[str, Any]:
        """Every figure, as JSON values."""
        return as_dict(self.comparison)

    def __repr__(self) -> str:
        return f"Compared({', '.join(self.comparison.names)})"

    def __str__(self) -> str:
        return as_form(self.comparison, "text")

    def _repr_html_(self) -> str:
        return framed(as_form(self.comparison, "html"))


def framed(page: str, height: int = 560) -> str:
    """Embed a page in a notebook's cell, without the notebook's styles."""
    return f'<iframe srcdoc="{html.escape(page)}" style="width:100%;height:{height}px;border:0"></iframe>'


def compare_experiments(
    folders: Sequence[Runs],
    output_path: str | Path | None = None,
    experiment_names: Sequence[str] = (),
) -> Compared:
    """Compare run folders, each with the first one: figures, differences in settings, and whether the difference is real.

    folders: at least two run folders; a Tracker's work too. A list in place of a folder is a group of seeds. output_path:
    a plot (.png, .svg), or a table (.txt, .md, .csv, .tex, .json, .html) plus the plot. experiment_names: one for each
    folder. Raises UserError for a folder that is not a run, and for a wrong number of names.
    """
    groups = [[Path(entry)] if isinstance(entry, (str, os.PathLike)) else [*map(Path, entry)] for entry in folders]
    if len(groups) < 2:
        raise UserError("a comparison needs two runs", place="folders", remedy="Name the folders of two runs or more.")
    if experiment_names and len(experiment_names) != len(groups):
        raise UserError(
            f"{len(experiment_names)} names for {len(groups)} runs",
            place="experiment_names",
            remedy="Give one name for each folder, or leave them out.",
        )
    for folder in (folder for group in groups for folder in group):
        if not (folder / "summary.json").is_file():
            raise UserError(
                "is not a run folder", place=str(folder), remedy="Give EXPERIMENT/out/RUN, or a TrainedRun."
            )
    runs = [[read_run(folder) for folder in group] for group in groups]
    names = experiment_names or [group[0].title for group in runs]
    comparison = compare([Group(name, group) for name, group in zip(names, runs, strict=True)])
    written = {} if output_path is None else write_comparison(comparison, Path(output_path))
    return Compared(comparison, written)


def write_comparison(comparison: Comparison, path: Path) -> dict[str, Path]:
    """Write the plot, or a table plus the plot. Returns the paths of the table ("written") and the plot ("curves").

    Raises UserError for an unknown suffix, and for a path that cannot be written.
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
            remedy="Choose a file in a folder that you can write to.",
        ) from None
    return {"written": path, "curves": drawing}
