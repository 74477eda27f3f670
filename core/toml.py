"""Read config.toml, a variant and overrides into one checked Config. Errors name the file, line and key."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from core.config import Config
from core.contradictions import Contradiction
from core.defaults import resolve
from core.dial import DECIDED, with_shape
from core.errors import UserError, did_you_mean
from core.nanogpt_keys import ANSWERS
from core.roles import flat, is_section, known_keys

STAGES = "stages"  # a list of tables beside the sections of the config
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(#.*)?$")
ASSIGNMENT = re.compile(r"\s*([A-Za-z0-9_\"'.\- ]+?)\s*=")
WINDOWS_PATH = re.compile(r"([^=#]+)=\s*\"([^\"']*\\[^\"']*)\"")  # text in double quotes with a backslash
TRIPLE_QUOTES = re.compile(r'"""|\'\'\'')


@dataclass
class Settings:
    """Nested values, and the place where each dotted key was set."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def place_of(self, key: str) -> str:
        """Where a dotted key was set; else a key inside it, or the closest table around it; "" if nowhere."""
        inside = [place for known, place in self.places.items() if known.startswith(f"{key}.")]
        if inside and key not in self.places:
            return inside[0]
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, "")

    def drop(self, key: str) -> None:
        """Forget a dotted key, if it was set."""
        inner: Any = self.values
        *path, name = key.split(".")
        for part in path:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(name, None)
            self.places.pop(key, None)

    def lay(self, above: Settings) -> None:
        """Override these settings with others, key by key. A list of stages replaces the whole list."""
        if STAGES in above.values:
            self.places = {key: place for key, place in self.places.items() if not key.startswith(f"{STAGES}.")}
        merge(self.values, above.values)
        self.places.update(above.places)


def merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Merge one nested dict into another, in place. Tables are merged, other values replaced. `above` is not changed later."""
    for key, value in above.items():
        if isinstance(value, dict):
            own = below.get(key)
            below[key] = merged = dict(own) if isinstance(own, dict) else {}
            merge(merged, value)
        else:
            below[key] = value


def load_config(folder: Path, variant: str = "", overrides: Sequence[str] = ()) -> tuple[Config, Settings]:
    """Load the config of an experiment: config.toml, overridden by config.<variant>.toml, then by `overrides`.

    Returns the resolved Config, and the settings as given, for the places in later errors. They may have `stages`: those
    and overrides of them are left to core/stages.py.
    Raises UserError for unreadable TOML, unknown keys, wrong types, contradictions and unknown variants.
    """
    settings = file_settings(folder, variant)
    lay_overrides(settings, [text for text in overrides if not is_of_stage(text)])
    return check(settings), settings


def file_settings(folder: Path, variant: str = "") -> Settings:
    """What config.toml and config.<variant>.toml say. Raises UserError where they cannot be read.

    A variant with a depth has the shape, batch and steps that follow from it, not those of config.toml.
    """
    settings = Settings()
    if (folder / "config.toml").exists():
        settings.lay(read_file(folder / "config.toml"))
    if variant:
        settings.lay(Settings({"prepare": {"variant": variant}}))
        if variant != "basic":
            above = read_file(variant_file(folder, variant))
            if "train.model.depth" in flat(above.values):
                for key in DECIDED:
                    settings.drop(key)
            settings.lay(above)
    return settings


def is_of_stage(override: str) -> bool:
    """Whether an override is for one stage: stages.NAME.section.key=value."""
    return override.lstrip().startswith(f"{STAGES}.")


def lay_overrides(settings: Settings, overrides: Sequence[str]) -> None:
    """Lay overrides over settings, in place."""
    for text in overrides:
        settings.lay(read_override(text))
    by_hand = {key for key, place in settings.places.items() if place.startswith("`")}
    if "prepare.input" in by_hand and "prepare.sha256" not in by_hand:  # the checksum in the file is of another input
        settings.values["prepare"].pop("sha256", None)


def variant_file(folder: Path, variant: str) -> Path:
    """The path of config.<variant>.toml. Raises UserError with the existing variants if there is none."""
    path = folder / f"config.{variant}.toml"
    if Path(variant).name != variant:
        raise UserError(
            f"'{variant}' is not a valid variant name", place="variant", remedy="Use letters, digits, - and _."
        )
    if not path.is_file():
        known = [file.name[len("config.") : -len(".toml")] for file in folder.glob("config.*.toml")]
        raise UserError(
            f"no variant '{variant}'",
            place=str(folder),
            remedy=did_you_mean(variant, ["basic", *known])
            + f" To add a variant, create {path.name} next to config.toml.",
        )
    return path


def read_file(path: Path) -> Settings:
    """Read one TOML file: its values, and their line numbers as places."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        values = parsed(text)
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", place=str(path), remedy="It must be a text file. Move this away."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"not UTF-8 at byte {error.start}", place=f"{path}:{line}", remedy="Save the file as UTF-8."
        ) from None
    except NoToml as error:
        line = line_of(error, text)
        raise UserError(
            f"not valid TOML: {error}",
            place=f"{path}:{line}",
            remedy=advice_on_line(text.splitlines()[line - 1 : line]),
        ) from None
    return Settings(values, {key: f"{path}:{line}" for key, line in key_lines(text)})


class NoToml(ValueError):
    """A text is not valid TOML."""


def parsed(text: str) -> dict[str, Any]:
    """Parse TOML. Raises NoToml for any mistake."""
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:  # such as a number of thousands of digits, or deeply nested brackets
        raise NoToml(str(error)) from None


def line_of(error: NoToml, text: str) -> int:
    """The line, from 1, of the mistake: from the error's text, else the first line that raises the same error alone."""
    if found := re.search(r"line (\d+)", str(error)):
        return int(found[1])
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            parsed(line)
        except NoToml as alone:
            if str(alone) == str(error):
                return number
    return max(len(lines), 1)  # "at end of document"


def advice_on_line(lines: Sequence[str]) -> str:
    """What to do about a line that is no TOML. lines: that line, or nothing."""
    found = WINDOWS_PATH.match(lines[0]) if lines else None
    if found:
        return (
            f"In double quotes, a backslash starts an escape such as \\U. Write the path in single quotes: "
            f"{found[1].strip()} = '{found[2]}'"
        )
    return "Write each key once, as `key = value`, under its [section]. Text needs quotes."


def key_lines(text: str) -> Iterator[tuple[str, int]]:
    """Dotted key and line (from 1) of each table and assignment in a TOML text, as far as single lines show it.

    Keys of the tables in a list have their number in it: stages.0.name.
    """
    table, inside_string = "", False
    lists: dict[str, int] = {}  # [[name]] -> how many there were
    for number, line in enumerate(text.splitlines(), 1):
        starts_inside = inside_string
        if len(TRIPLE_QUOTES.findall(line)) % 2:
            inside_string = not inside_string
        if starts_inside:
            continue
        if header := HEADER.match(line):
            table = dotted(header[1])
            if line.lstrip().startswith("[["):
                lists[table] = lists.get(table, -1) + 1
            name, dot, rest = table.partition(".")
            if name in lists:
                table = f"{name}.{lists[name]}{dot}{rest}"
            yield table, number
        elif assignment := ASSIGNMENT.match(line):
            yield f"{table}.{dotted(assignment[1])}".lstrip("."), number


def dotted(key: str) -> str:
    """A TOML key without quotes and spaces."""
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def read_override(text: str) -> Settings:
    """Read one override, section.key=value. The value is TOML; anything that is not valid TOML is a string."""
    key, equals, raw = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(BARE_KEY.fullmatch(part) for part in path):
        raise UserError(
            "an override must have the form section.key=value",
            place=f"`{shortened(text)}`",
            remedy="For example: `train.optim.learning_rate=3e-4`",
        )
    try:
        found = parsed(f"value = {raw}")
    except NoToml:
        found = {}
    value: Any = found["value"] if len(found) == 1 else raw  # several keys: it is text with line breaks
    for part in reversed(path):
        value = {part: value}
    return Settings(value, {key.strip(): f"`{shortened(text)}`"})


def check(settings: Settings) -> Config:
    """Check the types and resolve. Raises UserError for the first mistake."""
    try:
        values = {key: value for key, value in settings.values.items() if key != STAGES}
        return resolve(Config.model_validate(with_shape(values)))
    except ValidationError as error:
        raise user_error(error.errors(), settings) from None
    except Contradiction as error:
        exact = [settings.places[key] for key in error.keys if key in settings.places]
        by_hand = [place for place in exact if place.startswith("`")]  # an override is the likelier mistake
        places = by_hand or exact or [place for key in error.keys if (place := settings.place_of(key))]
        raise UserError(error.message, place=places[0] if places else error.keys[0], remedy=error.remedy) from None


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run from an older version, with newer keys at their defaults.

    Settings that this version does not understand, such as those of a Tracker, are returned as they are.
    """
    try:
        return resolve(Config.model_validate(values)).model_dump()
    except (ValidationError, Contradiction):
        return dict(values)


def user_error(errors: Sequence[ErrorDetails], settings: Settings) -> UserError:
    """Turn pydantic's first error into a UserError."""
    error = errors[0]
    path, info = field_of(error["loc"])
    key = ".".join(path)
    place = settings.place_of(key)
    if error["type"] == "extra_forbidden":
        return UserError(f"unknown key '{key}'", place=place, remedy=advice_on_unknown(path) + others(errors[1:]))
    found = shortened(json.dumps(error["input"], default=str, ensure_ascii=False))
    # A key that may have several types has one error for each type.
    said = ", or ".join(lowered(other["msg"]) for other in errors if field_of(other["loc"]) == (path, info))
    remedy = about(path[-1], info)
    if said != lowered(error["msg"]) or len(error["loc"]) > len(path):
        pass  # a value with several types, or inside a list: the description of the key says more than a type
    elif error["type"] == "literal_error":
        choices = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        remedy = f"Choose one of {', '.join(choices)}. {did_you_mean(found.strip(chr(34)), choices)}"
    elif error["type"] == "string_type":
        remedy = f"Write text in quotes: {path[-1]} = {toml_string(str(error['input']))}"
    elif error["type"] in ("model_type", "dict_type"):
        known = next((known for known in known_keys() if known.startswith(f"{key}.")), f"{key}.KEY")
        remedy = f"{key} is a table of keys: write [{key}] in the file, or set one of its keys, such as {known}."
    elif error["type"] in ("int_type", "float_type", "bool_type"):
        kind = {"int_type": "a whole number", "float_type": "a number", "bool_type": "true or false"}[error["type"]]
        remedy = f"Give {path[-1]} as {kind}, without quotes."
    return UserError(f"{key} = {found}: {said}", place=place, remedy=remedy)


def field_of(location: Sequence[int | str]) -> tuple[list[str], FieldInfo | None]:
    """The path of the key that an error is about, without parts inside its value, and its field; None if unknown."""
    section: type[BaseModel] = Config
    for depth, part in enumerate(location, 1):
        info = section.model_fields.get(str(part))
        if info is None or not is_section(info.annotation) or depth == len(location):
            return [str(part) for part in location[:depth]], info
        section = info.annotation
    return [], None


def about(name: str, info: FieldInfo | None) -> str:
    """A sentence with a key's description and default."""
    if info is None or not info.description:
        return f"Give {name} another value."
    default = info.get_default(call_default_factory=True)
    return f"{name} is: {info.description}. Default: {'none' if default is None else toml_value(default)}."


def shortened(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def others(errors: Sequence[ErrorDetails]) -> str:
    """A line for each further unknown key at the top, as in a file that was written for nanoGPT."""
    keys = [str(error["loc"][0]) for error in errors if error["type"] == "extra_forbidden" and len(error["loc"]) == 1]
    return "".join(f"\n  {key}: {advice_on_unknown([key])}" for key in keys)


def advice_on_unknown(path: list[str]) -> str:
    """Suggest the sections that have a key of this name, or the most similar key of the section. Answer nanoGPT's keys."""
    if path[-1] in ANSWERS and path[0] != "prepare":
        return ANSWERS[path[-1]]
    elsewhere = [key for key in known_keys() if key.rpartition(".")[2] == path[-1]]
    elsewhere.sort(key=lambda key: key.startswith("train.objective."))  # what is rarely meant comes last
    if elsewhere:
        return f"It belongs to another section: {' or '.join(elsewhere)}."
    section: type[BaseModel] = Config
    for part in path[:-1]:
        annotation = section.model_fields[part].annotation
        assert is_section(annotation)
        section = annotation
    advice = did_you_mean(path[-1], section.model_fields)
    if "params" in section.model_fields:
        advice += f" A key of your own function goes under [{'.'.join([*path[:-1], 'params'])}]."
    return advice


def dump(values: Mapping[str, Any], table: str = "") -> str:
    """Write a nested dict as TOML, tables after plain keys. None is left out, because TOML has no null."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping) and value is not None}
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    lines = [f"{toml_key(key)} = {toml_value(value)}\n" for key, value in plain.items()]
    head = f"[{table}]\n" if table and (lines or not tables) else ""
    parts = ["".join([head, *lines])] if lines or head else []
    parts += [dump(value, f"{table}.{toml_key(key)}".lstrip(".")) for key, value in tables.items()]
    return "\n".join(parts)


def toml_key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else toml_string(key)


def toml_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_value(value: Any) -> str:
    """Write a value as TOML, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date, too
        return value.isoformat()
    return repr(value)
