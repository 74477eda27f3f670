"""The optional packages of the extra hf: import one where it is used, and keep it quiet."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from core import optional


def needed(package: str, purpose: str) -> Any:
    """Import a package. purpose: what needs it, as the start of a sentence. Raises UserError if it is not installed."""
    remarks = logging.getLogger("bitsandbytes")  # which peft imports: it tells of a faster kernel that it could fetch
    level = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        return optional.needed(package, purpose, "hf")
    finally:
        remarks.setLevel(level)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """A context in which transformers and its friends print no progress bars and no remarks. What matters is checked by us."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.ERROR)
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        # Reading a .gguf file shows a bar whatever it is told.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]


def reason_of(error: BaseException) -> str:
    """The first line of an error's text that is not a mere heading; the error's kind if it has no text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
