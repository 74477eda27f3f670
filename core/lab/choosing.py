"""Find the groups of runs for a comparison: EXP, EXP/RUN, EXP/RUN/STAGE, EXP/RUN,RUN, EXP/PATTERN*, or the path of a run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from core.errors import UserError, did_you_mean
from core.plugins.discovery import Experiment, find, is_experiment
from core.report.comparison import Group
from core.report.naming import names_of
from core.report.runs import RunData, by_settings, read_run
from core.toml import load_config
from core.tracking.run import DEFAULT, find_run, name_of, out_folder, run_folders


def choose(arguments: Sequence[str], variant: str, overrides: Sequence[str]) -> tuple[list[Group], Path]:
    """Groups of runs, and the folder in which the first one's runs are. An argument may be the path of a run folder, too.

    A single EXP, or a single folder of runs, means all its groups of settings: at least two, or one of several runs.
    variant, overrides: settings of the experiments, which have the folder of runs. Raises UserError for unknown names, and
    for fewer than two groups.
    """
    if len(arguments) == 1 and (found := alone(arguments[0], variant, overrides)):
        return found
    chosen = [chosen_by(argument, variant, overrides) for argument in arguments]
    groups = [Group(argument.rstrip("/"), runs) for argument, (runs, _) in zip(arguments, chosen, strict=True)]
    if len(groups) == 1:
        raise UserError(
            f"{arguments[0]} is one group of runs, and a comparison needs two",
            remedy="Name another: EXP, EXP/RUN, EXP/RUN,RUN or EXP/PATTERN*, in quotation marks.",
        )
    refuse_twice(groups)
    return without_common_prefix(groups), chosen[0][1]


def alone(argument: str, variant: str, overrides: Sequence[str]) -> tuple[list[Group], Path] | None:
    """All groups of the only argument, if it is an experiment or a folder of runs. Raises UserError where they are one run."""
    if folders := inside(Path(argument)):
        return grouped([read_run(folder) for folder in folders]), Path(argument)
    if run_folders_at(argument):
        return None
    experiment, runs = split(argument)
    if runs is not None:
        return None
    out = out_of(experiment, variant, overrides)
    groups = every_group(experiment, out)
    if not groups:
        raise no_runs(experiment, experiment.folder)
    if len(groups) == 1 and len(groups[0].runs) == 1:
        raise UserError(
            f"{experiment.name} has one run, and a comparison needs two",
            place=str(experiment.folder),
            remedy=f"Train another: {experiment.command.format('train')} `run=NAME` `KEY=VALUE`. "
            "Or name single runs: EXP/RUN EXP/RUN.",
        )
    return groups, out


def chosen_by(argument: str, variant: str, overrides: Sequence[str]) -> tuple[list[RunData], Path]:
    """The runs of one argument among several, and the folder that they are in."""
    if folders := run_folders_at(argument):
        return [read_run(folder) for folder in folders], folders[0].parent
    experiment, runs = split(argument)
    out = out_of(experiment, variant, overrides)
    return named(experiment, out, runs), out


def run_folders_at(path: str) -> list[Path]:
    """Run folders that a path names; its last part may be a pattern. [] if it names none."""
    given = Path(path)
    candidates = [given] if given.exists() else sorted(given.parent.glob(given.name))
    return [folder for folder in candidates if (folder / "summary.json").is_file()]


def inside(folder: Path) -> list[Path]:
    """The run folders in a folder that is neither a run nor an experiment."""
    if is_experiment(folder.resolve()) or not folder.is_dir():
        return []
    return sorted(path.parent for path in folder.glob("*/summary.json") if not path.parent.name.startswith("."))


def split(argument: str) -> tuple[Experiment, str | None]:
    """Split EXP or EXP/RUNS into the experiment and the runs, which may be RUN/STAGE. EXP may also be a path. Raises UserError."""
    whole = argument.rstrip("/")
    parts = whole.split("/")
    for length in range(len(parts), 1, -1):  # a path of an experiment has slashes of its own
        if is_experiment(Path("/".join(parts[:length])).resolve()):
            return find("/".join(parts[:length])), "/".join(parts[length:]) or None
    if whole.startswith((".", "/", "~")):
        return find(whole.rpartition("/")[0]), parts[-1]
    return find(parts[0]), "/".join(parts[1:]) or None


def out_of(experiment: Experiment, variant: str, overrides: Sequence[str]) -> Path:
    """The folder of an experiment's runs, from its settings."""
    config, _ = load_config(experiment.folder, variant, overrides)
    return out_folder(experiment, config)


def named(experiment: Experiment, out: Path, asked: str | None) -> list[RunData]:
    """The runs of one argument."""
    if asked is None:
        return like_default(experiment, out)
    folders = run_folders(experiment, out)
    if asked in {name_of(folder) for folder in folders}:  # a run's name can look like a pattern
        return [read_run(out / asked)]
    found: dict[Path, None] = {}
    for part in filter(None, asked.split(",")):
        if set("*?[") & set(part):
            found |= dict.fromkeys(matching(experiment, part, folders, out))
        else:
            found[find_run(experiment, out, part)] = None
    return [read_run(folder) for folder in found]


def matching(experiment: Experiment, pattern: str, folders: Sequence[Path], out: Path) -> list[Path]:
    """Run folders whose names match a pattern. Raises UserError if there are none."""
    matches = [folder for folder in folders if fnmatchcase(name_of(folder), pattern)]
    if not matches:
        known = did_you_mean(pattern, [name_of(folder) for folder in folders])
        remedy = f"{known} `{experiment.command.format('runs')}` lists them." if known else train_one(experiment)
        raise UserError(f"no run of {experiment.name} matches '{pattern}'", place=str(out), remedy=remedy)
    return matches


def like_default(experiment: Experiment, out: Path) -> list[RunData]:
    """The runs that differ from the run `default` only in their seed, or the only group of runs. Raises UserError."""
    groups = by_settings(map(read_run, run_folders(experiment, out)))
    if not groups:
        raise no_runs(experiment, out)
    if len(groups) == 1:
        return groups[0]
    for group in groups:
        if any(run.name == DEFAULT for run in group):
            return group
    names = ", ".join(group[0].title for group in groups[:6])
    raise UserError(
        f"{experiment.name} has runs with {len(groups)} different settings, and none of them is called {DEFAULT}",
        place=str(out),
        remedy=f"Choose one: {names}{' ...' if len(groups) > 6 else ''}.",
    )


def every_group(experiment: Experiment, out: Path) -> list[Group]:
    """All groups of an experiment's runs, named by the settings in which they differ.

    The group of `default` is first, which the others are compared with. If it has one seed and another group has several,
    groups of several seeds come before it, because nothing can be concluded from one seed.
    """
    return grouped([read_run(folder) for folder in run_folders(experiment, out)])


def groups_of_seeds(folders: Sequence[Path]) -> list[Group]:
    """`grouped` for run folders. A run whose settings cannot be read is left out."""
    runs = []
    for folder in folders:
        with contextlib.suppress(UserError):
            runs.append(read_run(folder))
    return grouped(runs)


def grouped(runs: Sequence[RunData]) -> list[Group]:
    """Runs in groups that differ only in their seed, as `every_group` has them."""
    found = by_settings(runs)
    found.sort(key=lambda group: (len({run.seed for run in group}) < 2, all(run.name != DEFAULT for run in group)))
    return [Group(name, group) for name, group in zip(names_of(found), found, strict=True)]


def refuse_twice(groups: Sequence[Group]) -> None:
    """Raise UserError if two arguments name the same runs."""
    seen: dict[frozenset[Path], str] = {}
    for group in groups:
        runs = frozenset(run.folder for run in group.runs)
        if runs in seen:
            raise UserError(
                f"{seen[runs]} and {group.name} are the same {'run' if len(runs) == 1 else 'runs'}",
                remedy="Name runs that differ, each group once.",
            )
        seen[runs] = group.name


def no_runs(experiment: Experiment, place: Path) -> UserError:
    """The error for an experiment without runs."""
    return UserError(f"{experiment.name} has no runs yet", place=str(place), remedy=train_one(experiment))


def train_one(experiment: Experiment) -> str:
    return f"Train one: {experiment.command.format('train')}"


def without_common_prefix(groups: Sequence[Group]) -> list[Group]:
    """Remove `EXP/` from the names if all have the same."""
    heads = {group.name.rpartition("/")[0] for group in groups}
    if len(heads) > 1 or heads == {""}:
        return list(groups)
    return [Group(group.name.rpartition("/")[2], group.runs) for group in groups]
