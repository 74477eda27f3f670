"""prepare: an experiment in, its dataset folder out; nothing is done if the folder is what it would be made again.

The way of the data: source.py -> spool.py (documents) or text.py (a file) -> split.py -> encode.py ->
dataset.json. All is written into a temporary folder that takes the old one's place at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from core import files
from core.config import Config
from core.contradictions import leaves_folder
from core.data.compose import Made, Work
from core.data.dataset import Dataset, load_dataset
from core.data.fingerprint import Known, checksums, code_and_settings, fingerprint, raw_files, stamp
from core.data.info import STANDARD_FILES, read_info, write_info
from core.data.job import make_by_prepare
from core.data.make import make_from_function, make_from_pairs, make_from_text
from core.data.params import title
from core.data.source import Progress, Source, check_sum, fetch_input, own_functions
from core.errors import RunFailed, UserError
from core.plugins.discovery import Experiment
from core.toml import Settings


def silent(*_: object) -> None:
    """Shows nothing."""


def prepare(
    experiment: Experiment,
    config: Config,
    settings: Settings,
    code: ModuleType | None,
    *,
    force: bool = False,
    say: Callable[[str], None] = silent,
    progress: Progress = silent,
) -> Dataset:
    """Make the experiment's dataset, or find that it is current or the user's own.

    settings: where config keys were set, for errors. code: its prepare.py. say(sentence); progress(what, done, total).
    config.prepare.dataset_dir becomes the folder of a dataset that was found elsewhere in the experiment's folder.
    Raises UserError for whatever is wrong with the settings, the input or the documents, RunFailed when
    the disk is full; what prepare.py itself raises goes through.
    """
    source = Source(experiment, config, code, settings.place_of)
    own = find_own(source, named=bool(settings.values.get("prepare", {}).get("dataset_dir")))
    if own is not None:
        if force:
            raise UserError(
                "this dataset was not made by prepare, so --force will not replace it",
                place=str(own),
                remedy="Move the folder away, or give prepare.dataset_dir another name, to have one made.",
            )
        if own != source.dataset_dir:
            config.prepare.dataset_dir = own.relative_to(experiment.folder).as_posix()
        dataset = load_dataset(own)
        say(dataset.info.get("note", f"{experiment.name}: the dataset in {own} is used as it is"))
        return dataset
    target = source.dataset_dir
    stale = "--force" if force else reason_to_make(source, target)
    if stale:
        if leaves_folder(config.prepare.dataset_dir):
            raise UserError(
                f'dataset_dir = "{config.prepare.dataset_dir}" lies outside the experiment\'s folder, and would be written',
                place=source.place_of("prepare.dataset_dir") or "prepare.dataset_dir",
                remedy="Choose a folder inside it, or give the whole path if you mean another place.",
            )
        with files.lock(target.parent / f".lock-{target.name}", f"dataset {target.name}"):
            files.recover(target)
            stale = "--force" if force else reason_to_make(source, target)  # another process may just have made it
            if stale:
                refuse_strangers(target)
                say(f"{experiment.name}: preparing {target} ({stale})")
                make(Work(source, target, progress), target)
    dataset = load_dataset(target)
    say(
        f"{experiment.name}: the dataset {'is made' if stale else 'is current'}: {dataset.train.tokens:,} tokens to train on, "
        f"{dataset.val.tokens:,} held out, vocabulary {dataset.encoder.vocab_size:,}"
    )
    return dataset


def find_own(source: Source, *, named: bool) -> Path | None:
    """The folder of a dataset that is the user's: without dataset.json; or `named` by the user, who has nothing to make it from.

    Raises UserError where there is neither such a dataset nor anything to make one from.
    """
    folder, target = source.experiment.folder, source.dataset_dir
    if is_foreign(target):
        return target
    if source.kind:
        return None
    if named and (target / "train.bin").exists():
        return target
    others = sorted(path.parent for path in (folder / "datasets").glob("*/train.bin"))
    for candidate in (folder, *(others if len(others) == 1 else [])):
        if is_foreign(candidate):
            return candidate
    raise nothing_to_prepare(source, others)


def is_foreign(folder: Path) -> bool:
    """Whether a folder holds a dataset that no prepare made."""
    return (folder / "train.bin").exists() and not (folder / "dataset.json").exists()


def nothing_to_prepare(source: Source, others: list[Path]) -> UserError:
    """There is no code and no input. others: folders with datasets that can be named."""
    folder = source.experiment.folder
    if source.code is not None and others:  # what once made them is gone, or is called otherwise now
        functions = ", ".join(map(title, own_functions(source.code)))
        return UserError(
            f"prepare.py has no documents(){f', only {functions}' if functions else ''}",
            place=str(folder / "prepare.py"),
            remedy="Write `def documents(rng): yield ...`; or, to use a dataset as it is, "
            f"name it: -s prepare.dataset_dir={others[0].relative_to(folder).as_posix()}",
        )
    return UserError(
        "there is nothing to prepare: no prepare.py with documents(), no prepare.input, and no train.bin",
        place=str(folder),
        remedy="Write a prepare.py with `def documents(rng): yield ...`, or set [prepare] input = \"FILE\" in config.toml"
        + (f", or name one of {', '.join(path.name for path in others)} in prepare.dataset_dir." if others else "."),
    )  # fmt: skip


def reason_to_make(source: Source, target: Path) -> str:
    """Why the dataset is not what prepare would make now, or ""; files of unchanged size and times are not read again."""
    if not (target / "dataset.json").exists():
        return "there is none yet"
    try:
        info = read_info(target)
    except UserError as error:
        return f"dataset.json is {error.message}"
    known_raw, known_files = info.get("raw", {}), info.get("files", {})
    raw = raw_checksums(source, known_raw, info.get("address"))
    if fingerprint(code_and_settings(source), raw) != info.get("fingerprint"):
        return "its code, settings or input have changed"
    made = checksums({name: target / name for name in known_files if (target / name).is_file()}, known_files)
    for name, entry in known_files.items():
        if name not in made:
            return f"{name} is missing"
        if made[name]["sha256"] != entry["sha256"]:
            return f"{name} has changed since it was made"
    if (raw, made) != (known_raw, known_files):  # copied or touched: spare the next look the reading
        write_info(target, {**info, "raw": raw, "files": made})
    return ""


def raw_checksums(source: Source, known: Known, address: str | None) -> Known:
    """Checksums of the raw files as they are now. address: where the known ones were downloaded from."""
    if source.kind != "input":
        return checksums(raw_files(source), known)
    if source.is_address and not source.input_file.exists() and address == source.config.prepare.input:
        raw = known  # the download was deleted; what the address gave is on record
    else:
        raw = checksums({"input": fetch_input(source)}, known)
    check_sum(source, raw["input"]["sha256"])
    return raw


def refuse_strangers(target: Path) -> None:
    """Raise UserError if the folder to be replaced holds files that no prepare made."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError("is a file", place=str(target), remedy="Give prepare.dataset_dir another name.")
    ours: set[str] = set()
    if (target / "dataset.json").exists():
        ours = {"dataset.json", *STANDARD_FILES}
        with contextlib.suppress(UserError):  # a damaged dataset.json is made again, too
            ours |= read_info(target).get("files", {}).keys()
    paths = (path.relative_to(target).as_posix() for path in sorted(target.rglob("*")) if path.is_file())
    strangers = [name for name in paths if name not in ours and not name.startswith(".")]
    if strangers:
        raise UserError(
            f"holds {', '.join(strangers[:3])}{' ...' if len(strangers) > 3 else ''}, which prepare did not make and would remove",
            place=str(target),
            remedy="Move what is yours out of the folder, or give prepare.dataset_dir another name.",
        )


def make(work: Work, target: Path) -> None:
    """Fill a new folder and put it in target's place. After any error target is what it was."""
    made_by = code_and_settings(work.source)  # as they are before the work, which may take hours
    try:
        with files.new_folder(target) as folder:
            made = fill(replace(work, folder=folder))
            raw = checksums(raw_files(work.source), {}) if made.raw is None else made.raw
            paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
            paths.pop("dataset.json", None)
            just_written = {
                name: {"stamp": stamp(paths[name]), "sha256": found} for name, found in made.checksums.items()
            }
            made.info["fingerprint"] = fingerprint(made_by, raw)
            made.info |= {"raw": raw, "files": checksums(paths, just_written)}
            if work.source.is_address:
                made.info["address"] = work.config.prepare.input
            write_info(folder, made.info)
    except files.DiskFull as error:
        raise RunFailed(
            f"{target}: {error.strerror}; the dataset is what it was before.\n"
            "  Make room, or put prepare.dataset_dir on another disk."
        ) from None


def fill(work: Work) -> Made:
    """Make the dataset in whichever way the source has chosen."""
    if work.source.kind == "prepare":
        return make_by_prepare(work)
    if work.source.kind == "documents":
        return make_from_function(work)
    return make_from_pairs(work) if work.config.prepare.format == "pairs" else make_from_text(work)
