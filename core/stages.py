"""Stages of an experiment: [[stages]] in config.toml, each with settings that are laid over the experiment's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import UserError, did_you_mean
from core.roles import flat, role_of
from core.toml import STAGES, Settings, check, file_settings, is_of_stage, lay_overrides, merge

OWN_KEYS = ("name", "from", "checkpoint")
SECTIONS = ("prepare", "train", "sample", "evaluate")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
# What a dataset of all stages has in common: a stage that goes on with weights cannot change it.
VOCABULARY = (
    "prepare.encoder", "prepare.vocab_size", "prepare.split_pattern", "prepare.encoder_from", "prepare.special_tokens",
    "prepare.tokenizer",
)  # fmt: skip
COMMON = ("prepare.variant", "train.runtime.out_dir")  # of all stages


@dataclass(frozen=True)
class Stage:
    """name: of the stage and of its folders. origin: the stage whose weights it starts from; "" for fresh weights.
    checkpoint: of the origin. settings: laid over the experiment's, with their places. place: of the stage."""

    name: str
    origin: str
    checkpoint: str
    settings: Settings
    place: str


def read_stages(settings: Settings) -> tuple[Stage, ...]:
    """The stages that an experiment's files list, in their order. () if they list none. Raises UserError."""
    listed = settings.values.get(STAGES, [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise UserError(
            "stages is no list of tables", place=settings.place_of(STAGES), remedy="Write [[stages]] above each stage."
        )
    stages: list[Stage] = []
    for number, entry in enumerate(listed):
        stages.append(read_stage(entry, f"{STAGES}.{number}", settings, [stage.name for stage in stages]))
    return tuple(stages)


def read_stage(entry: Mapping[str, Any], key: str, settings: Settings, before: Sequence[str]) -> Stage:
    """One table of the list. before: the stages above it. Raises UserError."""
    place = settings.place_of(key)

    def place_of(name: str) -> str:
        return settings.places.get(f"{key}.{name}", place)

    name = entry.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(
            "a stage has no name" if name is None else f"{name!r} is not a valid name of a stage",
            place=place_of("name"),
            remedy='Write a name of letters, digits, - and _, such as name = "base". Its folders get this name.',
        )
    if name in before:
        raise UserError(f"two stages are called '{name}'", place=place_of("name"), remedy="Rename one of them.")
    origin = entry.get("from", before[-1] if before else "")
    if origin != "" and origin not in before:
        raise UserError(
            f"from = {origin!r} is no stage before '{name}'",
            place=place_of("from"),
            remedy=f'{did_you_mean(str(origin), before)} Leave it out for the stage before, or write "" for fresh weights.'.strip(),
        )
    checkpoint = entry.get("checkpoint", "best")
    if checkpoint not in ("best", "last"):
        raise UserError(
            f"checkpoint = {checkpoint!r} is none", place=place_of("checkpoint"), remedy='Write "best" or "last".'
        )
    for other in entry:
        if other not in (*OWN_KEYS, *SECTIONS):
            raise UserError(
                f"unknown key '{other}' of a stage",
                place=place_of(other),
                remedy=f"{did_you_mean(other, OWN_KEYS)} A stage has {', '.join(OWN_KEYS)}, and keys with their section, "
                "such as train.schedule.max_iters.",
            )
    values = {section: entry[section] for section in SECTIONS if section in entry}
    places = {
        known.removeprefix(f"{key}."): where for known, where in settings.places.items() if known.startswith(f"{key}.")
    }
    stage = Stage(name, origin, checkpoint, Settings(values, places), place)
    refuse_fixed(stage)
    return stage


def refuse_fixed(stage: Stage) -> None:
    """Raise UserError for settings that a stage cannot have: those of all stages, and those that its weights have decided."""
    for key in flat(stage.settings.values):
        place = stage.settings.place_of(key) or stage.place
        if key in COMMON:
            raise UserError(
                f"{key} is the same for all stages", place=place, remedy="Set it above the first [[stages]]."
            )
        if not stage.origin:
            continue
        if role_of(key) == "model" or key in VOCABULARY:
            what = "the shape of the model" if role_of(key) == "model" else "the vocabulary"
            raise UserError(
                f"stage '{stage.name}' goes on with the weights of '{stage.origin}', so it cannot change {what} ({key})",
                place=place,
                remedy='Set it above the first [[stages]], for all stages. Or write from = "", for fresh weights.',
            )


def stage_config(
    folder: Path, variant: str, overrides: Sequence[str], stage: Stage, fixed: Mapping[str, Any]
) -> tuple[Config, Settings]:
    """The config of one stage: the files, then the stage, then overrides of all stages, then those of this one.

    fixed: nested values that follow from the other stages. They are laid over everything. Raises UserError.
    """
    settings = file_settings(folder, variant)
    settings.values.pop(STAGES, None)
    settings.lay(stage.settings)
    lay_overrides(settings, [text for text in overrides if not is_of_stage(text)])
    head = f"{STAGES}.{stage.name}."
    own = [text.lstrip().removeprefix(head) for text in overrides if text.lstrip().startswith(head)]
    above = Settings()
    lay_overrides(above, own)
    refuse_fixed(Stage(stage.name, stage.origin, stage.checkpoint, above, stage.place))
    settings.lay(above)
    merge(settings.values, fixed)
    return check(settings), settings


def refuse_unknown_stages(overrides: Sequence[str], stages: Sequence[Stage]) -> None:
    """Raise UserError for an override of a stage that does not exist."""
    known = [stage.name for stage in stages]
    for text in filter(is_of_stage, overrides):
        name = text.lstrip().removeprefix(f"{STAGES}.").partition(".")[0]
        if name not in known:
            raise UserError(
                f"there is no stage '{name}'",
                place=f"`{text}`",
                remedy=did_you_mean(name, known) if known else "This experiment has no stages.",
            )
