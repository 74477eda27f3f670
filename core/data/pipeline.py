"""Make the dataset of an experiment, unless it is up to date.

The data goes through source.py -> spool.py (documents) or text.py (a file) -> split.py -> encode.py -> dataset.json.
Everything is written into a temporary folder, which replaces the old one at the end.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable
from pathlib import Path

from core import files, process
from core.config import Config
from core.contradictions import leaves_folder
from core.data.compose import Build
from core.data.dataset import Dataset, load_dataset
from core.data.encode import Coding, encode_here
from core.data.fingerprint import Known, checksums, code_and_settings, fingerprint, opened_below, raw_files, stamp
from core.data.from_table import make_from_table
from core.data.held_out import held_out_function
from core.data.hub import hub_checksums, make_from_hub
from core.data.info import STANDARD_FILES, read_info, write_info
from core.data.job import make_by_prepare
from core.data.lines import as_examples
from core.data.make import make_from_function, make_from_pairs, make_from_text
from core.data.params import title
from core.data.script import is_script
from core.data.source import INPUT, TOKENIZER, Source, check_sum, fetch_input, own_functions
from core.data.split import GIVEN
from core.errors import RunFailed, UserError, did_you_mean
from core.listener import SILENT, Advice, Listener
from core.plugins.discovery import Experiment
from core.plugins.manager import Plugins
from core.toml import Settings


def prepare(
    experiment: Experiment,
    config: Config,
    settings: Settings,
    plugins: Plugins,
    *,
    force: bool = False,
    listener: Listener = SILENT,
    coding: Coding = encode_here,
) -> Dataset:
    """Make the experiment's dataset, or open the one that is up to date or the user's own.

    settings: where config keys were set, for errors. plugins: with its prepare.py. force: make it even if it is up to date. coding: who encodes.
    The folder of the Dataset may be another than prepare.dataset_dir says: see `dataset_setting`.
    Raises UserError for mistakes in the settings, the input or the documents, and RunFailed when the disk is full.
    Exceptions of prepare.py itself pass through.
    """
    given = frozenset(settings.values.get("prepare", {}))
    source = Source(experiment, config, plugins, settings.place_of, listener, given)
    script = experiment.folder / "prepare.py" if is_script(experiment.folder / "prepare.py") else None
    named = bool(settings.values.get("prepare", {}).get("dataset_dir"))
    try:
        own = find_own(source, named=named)
    except UserError as error:
        raise error if script is None else not_run(script, error) from None
    if script is not None and own is not None:
        listener.say(f"{script} is a script, and not run. The data is used as it is.")
    if own is not None:
        if force:
            raise UserError(
                "this dataset was not made by prepare, so `force=True` will not replace it",
                place=str(own),
                remedy="To have one made, move the folder away, or give prepare.dataset_dir another name.",
            )
        pairs = "separator" in given and "format" not in given
        chosen = config.prepare.model_copy(update={"format": "pairs"}) if pairs else config.prepare
        dataset = as_examples(load_dataset(own, plugins), chosen)
        listener.say(dataset.info.get("note", f"{experiment.name}: using the dataset in {own} as it is"))
        if note := without_test(source, dataset):
            listener.say(Advice(note))
        return dataset
    target, former = source.dataset_dir, ""
    reason = "as asked" if force else reason_to_make(source, target)
    if reason:
        if leaves_folder(config.prepare.dataset_dir):
            raise UserError(
                f'dataset_dir = "{config.prepare.dataset_dir}" is outside the experiment\'s folder, and would be written',
                place=source.place_of("prepare.dataset_dir") or "prepare.dataset_dir",
                remedy="Choose a folder inside it, or give the whole path if you mean another place.",
            )
        lock = target.parent / f".lock-{target.name}"
        with files.lock(lock, f"{experiment.name}: dataset {target.name}", waiting=listener.say):
            files.recover(target)
            reason = "as asked" if force else reason_to_make(source, target)  # another process may just have made it
            if reason:
                refuse_strangers(target)
                listener.say(f"{experiment.name}: preparing {target} ({reason})")
                by_hand = named and "prepare.dataset_dir" in settings.places  # not by the stage
                if by_hand and (note := perhaps_mistyped(source, target)):
                    listener.say(note)
                former = data_hash(target, plugins)
                make(source, target, coding)
    dataset = load_dataset(target, plugins)
    if former == dataset.data_hash:
        listener.say(f"{experiment.name}: the data is the same as before, so its runs go on")
    listener.say(f"{experiment.name}: the dataset is {'ready' if reason else 'up to date'}: {sizes(dataset)}")
    if note := without_test(source, dataset):
        listener.say(Advice(note))
    return dataset


def sizes(dataset: Dataset) -> str:
    """The sizes of a dataset in words."""
    test = f"{dataset.test.tokens:,} test tokens, " if dataset.test else ""
    return (
        f"{dataset.train.tokens:,} training tokens, {dataset.val.tokens:,} validation tokens, {test}"
        f"vocabulary {dataset.encoder.vocab_size:,}"
    )


def without_test(source: Source, dataset: Dataset) -> str:
    """A sentence about a dataset of Examples that has no test side, or ""."""
    if dataset.test or not dataset.has_examples:
        return ""
    if dataset.info.get("split", {}).get("kind") in GIVEN:
        why = "the data names none"
    elif source.config.prepare.test_fraction is None and "test_fraction" not in dataset.info.get("split", {}):
        why = "made before there was one; `force=True` makes it again with one"
    else:
        why = "test_fraction = 0" if source.config.prepare.test_fraction == 0 else "too few different prompts"
    return f"There is no test side ({why}), so the reported exact match is that of validation, which also chooses the checkpoint."


def data_hash(folder: Path, plugins: Plugins) -> str:
    """The hash of a dataset's content, or "" if it cannot be read."""
    with contextlib.suppress(UserError):
        return load_dataset(folder, plugins).data_hash
    return ""


def dataset_setting(experiment: Experiment, dataset: Dataset) -> str:
    """The value of prepare.dataset_dir that names this dataset: relative if it is inside the experiment's folder."""
    folder = dataset.folder
    return (folder.relative_to(experiment.folder) if folder.is_relative_to(experiment.folder) else folder).as_posix()


def find_own(source: Source, *, named: bool) -> Path | None:
    """The folder of a dataset that prepare must not replace, or None.

    That is one without dataset.json, or one that the user has `named` where there is nothing to make it from.
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
    if named:
        setting, known = source.config.prepare.dataset_dir, [path.relative_to(folder).as_posix() for path in others]
        raise UserError(
            f'dataset_dir = "{setting}" has no train.bin, and there is nothing to make it from',
            place=source.place_of("prepare.dataset_dir") or "prepare.dataset_dir",
            remedy=did_you_mean(setting, known) or "Name a folder with train.bin and val.bin.",
        )
    for candidate in (folder, *(others if len(others) == 1 else [])):
        if is_foreign(candidate):
            return candidate
    raise nothing_to_prepare(source, others)


def not_run(script: Path, error: UserError) -> UserError:
    """The error for a prepare.py like nanoGPT's where its data is not there yet. error: says that it is not there."""
    if error.remedy.startswith("Did you mean"):  # the folder's name is mistyped
        return error
    return UserError(
        f"there is no train.bin, and {script.name} is a script that makes data when it is run, not functions",
        place=error.place,
        remedy=f"Run it once by hand: python {shlex.quote(str(script))}. Its train.bin and val.bin are then used as they "
        "are. Or put its work into `def documents(): yield ...`.",
    )


def perhaps_mistyped(source: Source, target: Path) -> str:
    """A sentence about a new folder that the user has named, if the name is like that of another dataset; or ""."""
    if target.exists():
        return ""
    known = [path.parent.name for path in target.parent.glob("*/train.bin")]
    # basic-2 is meant to be another than basic and basic-1; a sweep names its datasets so.
    stem = target.name.partition("-")[0]
    advice = did_you_mean(target.name, [name for name in known if name.partition("-")[0] != stem])
    setting = source.config.prepare.dataset_dir
    return f'dataset_dir = "{setting}" is a new folder. {advice}' if advice.startswith("Did you mean") else ""


def is_foreign(folder: Path) -> bool:
    """Whether a folder holds a dataset that prepare did not make."""
    return (folder / "train.bin").exists() and not (folder / "dataset.json").exists()


def nothing_to_prepare(source: Source, others: list[Path]) -> UserError:
    """The error where there is no code and no input. others: folders with datasets that can be named."""
    folder = source.experiment.folder
    if source.code is not None and others:  # what once made them is gone, or has another name now
        functions = ", ".join(map(title, own_functions(source.code)))
        return UserError(
            f"prepare.py has no documents(){f', only {functions}' if functions else ''}",
            place=str(folder / "prepare.py"),
            remedy="Write `def documents(rng): yield ...`. Or, to use a dataset as it is, "
            f"name it: `prepare.dataset_dir={others[0].relative_to(folder).as_posix()}`",
        )
    names = f", or name one of {', '.join(path.name for path in others)} in prepare.dataset_dir" if others else ""
    return UserError(
        "there is nothing to prepare: no prepare.py with documents(), no prepare.input, and no train.bin",
        place=str(folder),
        remedy='Write a prepare.py with `def documents(rng): yield ...`, or set [prepare] input = "FILE" in config.toml'
        + f"{names}.",
    )


def reason_to_make(source: Source, target: Path) -> str:
    """Why the dataset must be made, or "" if it is up to date. Files of unchanged size and times are not read again."""
    if not (target / "dataset.json").exists():
        return "there is none yet"
    try:
        info = read_info(target)
    except UserError as error:
        return f"dataset.json is {error.message}"
    known_raw, known_files = info.get("raw", {}), info.get("files", {})
    raw = raw_checksums(source, known_raw, info.get("address"), info.get("opened", ()))
    if fingerprint(code_and_settings(source), raw) != info.get("fingerprint"):
        return what_changed(known_raw, raw, source.config.prepare.input)
    made = checksums({name: target / name for name in known_files if (target / name).is_file()}, known_files)
    for name, entry in known_files.items():
        if name not in made:
            return f"{name} is missing"
        if made[name]["sha256"] != entry["sha256"]:
            return f"{name} has changed since it was made"
    if (raw, made) != (known_raw, known_files):  # copied or touched: record the new times, so nothing is read again
        write_info(target, {**info, "raw": raw, "files": made})
    return ""


def what_changed(before: Known, now: Known, file: str) -> str:
    """Which input differs from the one that the dataset was made from; without one, it is the code or the settings.

    file: what prepare.input names.
    """
    content = [{name: entry["sha256"] for name, entry in raw.items()} for raw in (before, now)]
    names = [name for name in {**content[0], **content[1]} if content[0].get(name) != content[1].get(name)]
    if not names:
        return "its code or settings have changed"
    how = "is missing" if names[0] not in now else "has changed" if names[0] in before else "is new"
    which = file if names[0] == INPUT else names[0]
    return f"its input {which} {how}{f', and {len(names) - 1} more' if len(names) > 1 else ''}"


def raw_checksums(source: Source, known: Known, address: str | None, opened: Iterable[str]) -> Known:
    """Checksums of the raw files as they are now. address: where the known ones were downloaded from. opened: see `raw_files`."""
    if source.kind != "input":
        return checksums(raw_files(source, opened), known)
    if source.config.prepare.format == "datasets":
        return hub_checksums(source, known)
    if source.is_address and not source.input_file.exists() and address == source.config.prepare.input:
        raw = known  # the download was deleted, but its checksum is recorded
    else:
        raw = checksums({INPUT: fetch_input(source)}, known)
    check_sum(source, raw[INPUT]["sha256"])
    return raw


def refuse_strangers(target: Path) -> None:
    """Raise UserError if the folder to be replaced holds files that prepare did not make."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError("is a file", place=str(target), remedy="Give prepare.dataset_dir another name.")
    ours: set[str] = set()
    if (target / "dataset.json").exists():
        ours = {"dataset.json", *STANDARD_FILES}
        with contextlib.suppress(UserError):  # a damaged dataset.json is made again, too
            ours |= read_info(target).get("files", {}).keys()
    strangers = [name for name in paths_in(target) if name not in ours and not name.startswith(".")]
    if strangers:
        raise UserError(
            f"holds {', '.join(strangers[:3])}{' ...' if len(strangers) > 3 else ''}, which prepare did not make and would remove",
            place=str(target),
            remedy="Move your files out of the folder, or give prepare.dataset_dir another name.",
        )


def paths_in(folder: Path) -> dict[str, Path]:
    """Every file below a folder, by its name relative to it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def make(source: Source, target: Path, coding: Coding) -> None:
    """Fill a new folder in the way that the source has chosen, and put it in target's place. After an error target is unchanged."""
    made_by = code_and_settings(source)  # as they are before the work, which may take hours
    if source.kind != "documents":
        held_out_function(source)  # warns of one that is not used
    makers = {"prepare": make_by_prepare, "documents": make_from_function}
    of_format = {"text": make_from_text, "pairs": make_from_pairs, "datasets": make_from_hub}
    make_from_file = of_format.get(source.config.prepare.format, make_from_table)
    try:
        with files.new_folder(target) as folder:
            with process.noting_opened_files() as paths_opened:
                made = makers.get(source.kind, make_from_file)(Build(source, folder, coding=coding))
            opened = opened_below(source, paths_opened) if source.function else []
            raw = checksums(raw_files(source, opened), {}) if made.raw is None else made.raw
            paths = paths_in(folder)
            paths.pop("dataset.json", None)
            just_written = {
                name: {"stamp": stamp(paths[name]), "sha256": found} for name, found in made.checksums.items()
            }
            made.info["fingerprint"] = fingerprint(made_by, raw)
            made.info |= {"opened": opened, "raw": raw, "files": checksums(paths, just_written)}
            if source.is_address:
                made.info["address"] = source.config.prepare.input
            if name := hub_tokenizer(source):
                made.info[TOKENIZER] = name
            write_info(folder, made.info)
    except files.DiskFull as error:
        raise RunFailed(
            f"{target}: {error.strerror}; the dataset is unchanged.\n"
            "  Free some space, or put prepare.dataset_dir on another disk."
        ) from None


def hub_tokenizer(source: Source) -> str:
    """The tokenizer that was fetched from the hub, NAME@COMMIT; "" for others."""
    if source.config.prepare.encoder_from or not hasattr(source.encoder_kind, "pinned"):
        return ""
    return source.tokenizer if "@" in source.tokenizer and not Path(source.tokenizer).exists() else ""
