"""Find short names for groups of runs, made of the settings that tell them apart, such as `n_embd=128`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.config import Config
from core.defaults import resolve
from core.report.runs import RunData
from core.roles import flat, is_setting
from core.tracking.run import DEFAULT

MOST = 3  # settings in a name; groups that differ in more are named after their first run
Facts = Mapping[str, Any]


def names_of(groups: Sequence[Sequence[RunData]]) -> list[str]:
    """A name per group, all different: its settings that are not the same in every group, or else its first run's name.

    A setting that follows from another one, as n_ff does from n_embd, is left out.
    """
    configs = [group[0].config for group in groups]
    keys = chosen_keys(configs, differing_keys(configs))
    if 0 < len(keys) <= MOST:
        shown = [
            ", ".join(f"{key.rpartition('.')[2]}={in_toml(config[key])}" for key in keys if key in config)
            for config in configs
        ]
        if all(shown) and len(set(shown)) == len(shown):
            return shown
    return [next((run.name for run in group if run.name == DEFAULT), group[0].name) for group in groups]


def in_toml(value: Any) -> str:
    """A value as config.toml has it, without quotation marks: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def differing_keys(configs: Sequence[Facts]) -> list[str]:
    """Settings that are not the same everywhere, in the order of config.toml."""
    keys = dict.fromkeys(key for config in configs for key in config if is_setting(key))
    return [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]


def chosen_keys(configs: Sequence[Facts], keys: Sequence[str]) -> list[str]:
    """The keys without those that have the same value in every config when they are not given."""
    left_out: set[str] = set()
    for key in reversed(keys):  # of two that follow from each other, drop the later one
        if all(is_whole_without(config, {*left_out, key}) for config in configs):
            left_out.add(key)
    return [key for key in keys if key not in left_out]


def is_whole_without(config: Facts, left_out: set[str]) -> bool:
    """Whether a resolved config stays the same when some of its keys are not given."""
    nested: dict[str, Any] = {}
    for key, value in config.items():
        if key in left_out:
            continue
        *path, name = key.split(".")
        section = nested
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    try:
        resolved = flat(resolve(Config.model_validate(nested)).model_dump())
    except ValueError:  # written by another version of the program
        return False
    return all(resolved.get(key) == config.get(key) for key in left_out)
