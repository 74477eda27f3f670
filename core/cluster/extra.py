"""The optional packages of this folder: import one, or say how to install it."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from core.errors import UserError


def needed(package: str, extra: str) -> Any:
    """Import a package. Raises UserError if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about their own future
            return importlib.import_module(package)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != package.partition(".")[0]:
            raise
        raise UserError(
            f'"{extra}" needs the package {package}, which is not installed',
            place=f"the extra {extra}",
            remedy=f"Install it: pip install -c constraints.txt -e '.[{extra}]'",
        ) from None
