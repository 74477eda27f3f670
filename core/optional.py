"""Packages of extras: import one where it is used, or say how to install it."""

from __future__ import annotations

import importlib
from typing import Any

from core.errors import UserError


def needed(package: str, purpose: str, extra: str) -> Any:
    """Import a package of an extra. purpose: what needs it, as the start of a sentence. Raises UserError if it is not installed."""
    top = package.partition(".")[0]
    try:
        return importlib.import_module(package)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != top:
            raise  # the package is there, and something that it needs is not: its own words help more
        raise UserError(
            f"{purpose} needs the package {top}, which is not installed",
            place=f"the extra {extra}",
            remedy=f"Install it: {installing(extra)}",
        ) from None


def installing(extra: str) -> str:
    """The command that installs an extra, in Terrarium's folder."""
    return f"pip install -c constraints.txt -e '.[{extra}]'"
