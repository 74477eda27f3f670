"""Files of a model on the hub: a name, a commit and patterns go in, the folder of a copy on this machine comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.huggingface.extra import needed, reason_of

ADDRESS = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # NAME, or OWNER/NAME
COMMIT = re.compile(r"[0-9a-f]{40}")
REMEDY = "Check the name and the connection, or give the path of a copy on this machine."


def fetch(name: str, revision: str, patterns: Sequence[str], place: str) -> Path:
    """The folder of a copy, named after its commit, with the files that match the patterns. place: the config key, for errors.

    revision: a commit, a branch or a tag; "": the newest. Nothing is asked of the hub if a commit is given and all of it is
    here. Raises UserError if it cannot be fetched.
    """
    hub = needed("huggingface_hub", "A model on the hub")
    if COMMIT.fullmatch(revision):
        try:
            return Path(
                hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns), local_files_only=True)
            )
        except (OSError, ValueError):
            pass  # not all of it is here
    try:
        return Path(hub.snapshot_download(name, revision=revision or None, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # of the network, the hub and the disk; and for names that cannot be
        raise UserError(
            f"{name} cannot be fetched from the hub: {reason_of(error)}", place=place, remedy=REMEDY
        ) from None
