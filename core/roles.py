"""Look up the role of a config key, which is part of its Field. `core.config.ROLES` explains the roles."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, cast

from pydantic import BaseModel

from core.config import Config, Role

# What a study varies. Runs with the same settings agree in all of these.
SETTINGS: tuple[Role, ...] = ("model", "data", "learning", "steering")
# What a resume may change.
RESUMABLE: tuple[Role, ...] = ("steering", "seed", "machine", "place", "shown")


def is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Whether a field is a table of keys."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of config.toml."""
    for name, info in section.model_fields.items():
        if is_section(info.annotation):
            yield from known_keys(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


@functools.cache
def roles() -> dict[str, Role]:
    """Dotted key -> its role."""
    found: dict[str, Role] = {}
    for key in known_keys():
        section: type[BaseModel] = Config
        *path, name = key.split(".")
        for part in path:
            section = cast("type[BaseModel]", section.model_fields[part].annotation)
        extra = cast("dict[str, Any]", section.model_fields[name].json_schema_extra)
        found[key] = extra["role"]
    return found


def role_of(key: str) -> Role:
    """The role of a dotted key. A key inside a table such as prepare.params has the table's; an unknown key: "learning"."""
    while key and key not in roles():
        key = key.rpartition(".")[0]
    return roles().get(key, "learning")


def is_setting(key: str) -> bool:
    """Whether a study varies this key. Seeds, paths and choices of the machine do not count."""
    return role_of(key) in SETTINGS


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested dict to dotted keys. None is left out, because TOML has no null."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            result[f"{prefix}{key}"] = value
    return result
