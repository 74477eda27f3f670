"""Open an experiment with its settings: the start of every command and notebook."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from core.config import Config, replaced
from core.dial import rules_of
from core.errors import UserError
from core.listener import SILENT, Listener
from core.plugins.code import load_code
from core.plugins.discovery import Experiment, find
from core.plugins.manager import Plugins, plugins_with
from core.roles import flat
from core.stages import Stage, read_stages, refuse_unknown_stages
from core.toml import Settings, check, load_config, read_override, toml_value
from core.tracking.run import DEFAULT, out_folder
from core.tracking.values import unwrapped

if TYPE_CHECKING:
    from core.data.dataset import Dataset
    from core.data.encode import Coding


@dataclass(frozen=True)
class Opened:
    """An open experiment.

    experiment: the folder. config: resolved. settings: what the user gave, with places. overrides: `section.key=value`,
    on top of config.toml. plugins: with the hooks of prepare.py. listener: receives messages and progress. stages: those
    that its config lists. stage: the one that this is open as, with its settings; None: the experiment as a whole.
    """

    experiment: Experiment
    config: Config
    settings: Settings
    overrides: tuple[str, ...]
    plugins: Plugins
    listener: Listener = SILENT
    variant: str = ""
    stages: tuple[Stage, ...] = ()
    stage: Stage | None = None

    @property
    def code(self) -> ModuleType | None:
        """The module prepare.py."""
        return self.plugins.code

    @property
    def out(self) -> Path:
        """The folder of the experiment's runs."""
        return out_folder(self.experiment, self.config)

    @property
    def default_run(self) -> str:
        """The name of a run if none is given."""
        return run_of_variant(self.variant)

    def having(self, changes: Mapping[str, Any]) -> Opened:
        """A copy with new values for some dotted config keys. The values are not checked."""
        return replace(self, config=replaced(self.config, changes))


def run_of_variant(variant: str) -> str:
    """The name of a run if only a variant is given."""
    return variant if variant not in ("", "basic") else DEFAULT


def open_folder(name: str, variant: str = "", overrides: Sequence[str] = (), listener: Listener = SILENT) -> Opened:
    """Find an experiment by name or path, read its settings, and import its prepare.py, unless that is a script.

    Raises UserError for an unknown experiment, wrong settings, and functions in prepare.py with almost the name of a hook.
    """
    from core.data.script import is_script

    experiment = find(name)
    config, settings = load_config(experiment.folder, variant, overrides)
    code = None if is_script(experiment.folder / "prepare.py") else load_code(experiment)
    plugins = replace(plugins_with(code), folder=experiment.folder)
    stages = read_stages(settings)
    refuse_unknown_stages(overrides, stages)
    return Opened(experiment, config, settings, tuple(overrides), plugins, listener, variant, stages)


def with_overrides(opened: Opened, overrides: Sequence[str]) -> Opened:
    """A copy with other overrides, which are checked. prepare.py is not imported again."""
    config, settings = load_config(opened.experiment.folder, opened.variant, overrides)
    refuse_unknown_stages(overrides, opened.stages)
    return replace(opened, config=config, settings=settings, overrides=tuple(overrides))


def as_overrides(values: Mapping[str, Any]) -> tuple[str, ...]:
    """`section.key=value` for each key of a dict, dotted or nested. None keeps a key at its default.

    Raises UserError for a value that config.toml cannot hold.
    """
    return tuple(f"{key}={toml_value(plain(key, value))}" for key, value in flat(values).items())


def plain(key: str, value: Any) -> Any:
    """A value as config.toml can hold it: numbers of numpy as Python's, paths as text. Raises UserError for anything else."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [plain(key, item) for item in value]
    value = unwrapped(value)
    if not isinstance(value, (str, bool, int, float, datetime.date, datetime.time)):
        raise UserError(
            f"{key} is {type(value).__name__}, which config.toml cannot hold",
            place=key,
            remedy="Give text, a number, true or false, or a list of these.",
        )
    return value


def prepared(opened: Opened, *, force: bool = False, coding: Coding | None = None) -> tuple[Opened, Dataset]:
    """Make the dataset if it is not current. Returns the experiment, with the dataset's folder set, and the dataset.

    coding: who encodes; None: this process.
    """
    from core.data.encode import encode_here
    from core.data.pipeline import prepare

    dataset = prepare(
        opened.experiment,
        opened.config,
        opened.settings,
        opened.plugins,
        force=force,
        listener=opened.listener,
        coding=coding or encode_here,
    )
    return as_read(opened, dataset), dataset


def dialled(opened: Opened, vocab_size: int) -> Opened:
    """The experiment with the batch and the steps that train.model.depth decides for a vocabulary of this size.

    Raises UserError if prepare.py builds a model of its own, whose size the dial does not know.
    """
    given = set(flat(opened.settings.values))
    rules = rules_of(opened.config, given, vocab_size)
    if not rules:
        return opened
    if hasattr(opened.code, "build_model"):
        raise UserError(
            "depth shapes models of kind gpt, and prepare.py builds a model of its own",
            place=opened.settings.places.get("train.model.depth", "train.model.depth"),
            remedy="Leave depth out, and give batch and steps yourself.",
        )
    settings = Settings()
    settings.lay(opened.settings)
    for rule in rules:
        if rule.key not in given:
            settings.lay(read_override(f"{rule.key}={rule.value}"))
    return replace(opened, config=check(settings))


def as_read(opened: Opened, dataset: Dataset) -> Opened:
    """The experiment with settings that say where its dataset is and how it was read, for a run's config."""
    from core.data.pipeline import dataset_setting
    from core.data.source import TOKENIZER

    opened = dialled(opened, dataset.encoder.vocab_size)
    changes = {"prepare.format": "pairs"} if "separator" in dataset.info else {}
    if opened.experiment.path(opened.config.prepare.dataset_dir) != dataset.folder:
        changes["prepare.dataset_dir"] = dataset_setting(opened.experiment, dataset)
    name, _, commit = str(dataset.info.get(TOKENIZER, "")).partition("@")
    params = opened.config.train.model.params
    if commit and params.get("name") == name and params.get("revision", "auto") in ("auto", ""):
        changes["train.model.params.revision"] = commit  # weights and tokenizer of one commit
    return opened.having(changes) if changes else opened
