"""Where an experiment's dataset and runs are, without checking its config: for lists, which must be fast and never break."""

from __future__ import annotations

from pathlib import Path

import tomli

from core.plugins.discovery import Experiment, Read


def places(experiment: Experiment, read: Read = Path.read_bytes) -> tuple[Path, Path]:
    """The folders of the dataset and of the runs, from config.toml. Raises what reading and parsing it may raise."""
    path = experiment.folder / "config.toml"
    values = tomli.loads(read(path).decode()) if path.is_file() else {}
    prepare = values.get("prepare", {})
    dataset = prepare.get("dataset_dir") or f"datasets/{prepare.get('variant', 'basic')}"
    out = values.get("train", {}).get("runtime", {}).get("out_dir") or "out"
    return experiment.path(dataset), experiment.path(out)
