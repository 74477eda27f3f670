"""An experiment with its settings, opened for work: what every command starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from core.cli.console import Console
from core.config import Config, replaced
from core.listener import Silent
from core.plugins.code import load_code
from core.plugins.discovery import Experiment, find
from core.plugins.manager import plugins
from core.toml import Settings, load_config
from core.tracking.environment import without_home
from core.tracking.run import DEFAULT, out_folder

if TYPE_CHECKING:
    from core.data.dataset import Dataset


@dataclass
class Lab:
    """experiment: the folder; config: resolved; settings: what the user gave, with places; code: its prepare.py."""

    experiment: Experiment
    config: Config
    settings: Settings
    overrides: tuple[str, ...]
    code: ModuleType | None
    console: Console
    variant: str = ""

    @classmethod
    def open(cls, name: str, variant: str, overrides: Sequence[str], console: Console) -> Lab:
        """Find the experiment, read its settings, import its prepare.py. Raises UserError for what is wrong with them."""
        experiment = find(name)
        config, settings = load_config(experiment.folder, variant, overrides)
        hide_home(config)
        code = load_code(experiment)
        plugins().add_experiment(code)
        return cls(experiment, config, settings, tuple(overrides), code, console, variant)

    @property
    def out(self) -> Path:
        """The folder of the experiment's runs."""
        return out_folder(self.experiment, self.config)

    @property
    def default_run(self) -> str:
        """The name of a run that --run does not name."""
        return self.variant if self.variant not in ("", "basic") else DEFAULT

    def prepare(self, *, force: bool = False) -> Dataset:
        """The dataset, made if it is not current."""
        from core.data.pipeline import dataset_setting, prepare

        with self.console.preparing() as progress:
            listener = Silent()
            listener.say, listener.progress = self.console.say, progress  # type: ignore[method-assign,assignment]
            dataset = prepare(self.experiment, self.config, self.settings, self.code, force=force, listener=listener)
        if dataset.folder != self.experiment.folder / Path(self.config.prepare.dataset_dir).expanduser():
            self.config = replaced(self.config, {"prepare.dataset_dir": dataset_setting(self.experiment, dataset)})
        return dataset


def hide_home(config: Config) -> None:
    """Let paths in the user's home folder start with ~: a run and its checkpoints keep its config, and must not tell whose it is."""
    places = (
        *((config.prepare, name) for name in ("dataset_dir", "raw_dir", "input", "encoder_from")),
        (config.train.runtime, "out_dir"),
        (config.train.model, "init_from"),
        (config.sample.sample, "start"),
    )
    for section, name in places:
        text = getattr(section, name)
        if text and (name != "start" or text.startswith("FILE:")):
            setattr(section, name, without_home(text))
