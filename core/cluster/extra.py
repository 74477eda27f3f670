"""The optional packages of this folder: import one, or say how to install it."""

from __future__ import annotations

import warnings
from typing import Any

from core import optional


def needed(package: str, extra: str) -> Any:
    """Import a package. Raises UserError if it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about their own future
        return optional.needed(package, f'"{extra}"', extra)
