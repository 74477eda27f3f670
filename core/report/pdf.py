"""Print a page as PDF, with WeasyPrint if it is installed, else with a browser that is there."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

from core import files

BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)  # fmt: skip
OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--no-sandbox",
    "--no-first-run",
    "--no-pdf-header-footer",
)  # our own page, offline
PATIENCE = 60  # seconds


def write_pdf(page: Path, target: Path) -> bool:
    """Write a page (.html) as PDF. Returns whether there was a program that could do it."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "page.pdf"
        if importlib.util.find_spec("weasyprint"):
            importlib.import_module("weasyprint").HTML(filename=str(page)).write_pdf(str(made))
        elif browser := next(filter(None, map(shutil.which, BROWSERS)), None):
            command = [
                browser,
                *OPTIONS,
                f"--user-data-dir={folder}/profile",
                f"--print-to-pdf={made}",
                page.resolve().as_uri(),
            ]
            try:
                subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
            except (OSError, subprocess.TimeoutExpired):
                return False
        if not made.is_file() or not made.read_bytes().startswith(b"%PDF"):
            return False
        files.write_bytes(target, made.read_bytes())
    return True
