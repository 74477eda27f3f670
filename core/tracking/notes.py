"""What people note about a run: notes.json in its folder. It can be changed while the run trains, which summary.json cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core import files, private
from core.errors import UserError
from core.plugins.discovery import Read

FILE = "notes.json"
KINDS: dict[str, type] = {"description": str, "starred": bool, "hidden": bool, "tags": list}
LONGEST, MOST_TAGS, LONGEST_TAG = 2000, 20, 40  # characters, tags


def read_notes(folder: Path, read: Read = Path.read_bytes) -> dict[str, Any]:
    """The notes of a run; {} where there are none. What is damaged or of another type is left out."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(read(path))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    notes = {name: found[name] for name, kind in KINDS.items() if isinstance(found.get(name), kind)}
    if "tags" in notes:
        notes["tags"] = [tag for tag in notes["tags"] if isinstance(tag, str)][:MOST_TAGS]
    return notes


def write_notes(folder: Path, changes: dict[str, Any], read: Read = Path.read_bytes) -> dict[str, Any]:
    """Change some notes of a run. Returns all of them. Raises UserError for a value that a note cannot have."""
    for name, value in changes.items():
        refuse_unfit(folder, name, value)
    with files.turn(folder):
        notes = read_notes(folder, read) | changes
        private.write_json(folder / FILE, notes)
    return notes


def refuse_unfit(folder: Path, name: str, value: object) -> None:
    """Raise UserError for a value that a note cannot have."""
    place = str(folder / FILE)
    if name not in KINDS or not isinstance(value, KINDS[name]):
        known = ", ".join(f"{key} ({kind.__name__})" for key, kind in KINDS.items())
        raise UserError(f"{name} = {value!r} is not a note of a run", place=place, remedy=f"Notes: {known}.")
    if isinstance(value, str) and len(value) > LONGEST:
        raise UserError(
            f"the description has {len(value):,} characters", place=place, remedy=f"It may have {LONGEST:,}."
        )
    if isinstance(value, list) and not (len(value) <= MOST_TAGS and all(map(fits, value))):
        raise UserError(
            f"tags = {value!r} are not tags",
            place=place,
            remedy=f"Give at most {MOST_TAGS} words, each of 1 to {LONGEST_TAG} characters without line breaks.",
        )


def fits(tag: object) -> bool:
    """Whether a value can be a tag."""
    return isinstance(tag, str) and 0 < len(tag) <= LONGEST_TAG and tag.strip() == tag and tag.isprintable()
