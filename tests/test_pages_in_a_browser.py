"""Reports in a real browser: nothing in its console, nothing asked of the network, all curves drawn. Skipped without Chromium."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import CHROMIUM, OPTIONS
from click.testing import Result

Terrarium = Callable[..., Result]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def visit(page: Path, profile: Path) -> tuple[str, list[str], list[str]]:
    """The page's HTML once it is loaded, lines of the console, and addresses that the page asked for besides itself."""
    assert CHROMIUM is not None
    log = profile / "net.json"
    done = subprocess.run(
        [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", f"--log-net-log={log}", "--enable-logging=stderr",
         "--virtual-time-budget=1000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # What the browser asks for itself (its own services) has no initiator.
    asked = re.findall(r'"initiator":"[^"]*","[^}]*"url":"([^"]+)"', log.read_text()) if log.exists() else []
    asked += re.findall(r"(?:src|href)=\"((?:https?:)?//[^\"]+)\"", done.stdout)
    return done.stdout, console, [url for url in asked if not url.startswith(("file:", "data:"))]


def test_what_is_wrong_with_a_page_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<script>console.error("lost")</script><img src="http://127.0.0.1:9/x.png">')
    _, console, asked = visit(page, tmp_path / "profile")
    assert any("lost" in line for line in console)
    assert asked


def test_reports_are_quiet_and_whole(spaces: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    assert terrarium("loop", "spaces").exit_code == 0
    assert terrarium("train", "spaces", "--run", "wide", "-s", "train.model.n_embd=32").exit_code == 0
    assert terrarium("report", "spaces").exit_code == 0
    for number, page in enumerate((spaces / "out" / "default" / "report.html", spaces / "out" / "report.html")):
        shown, console, asked = visit(page, tmp_path / f"profile{number}")
        assert "<svg" in shown and "</html>" in shown
        assert (console, asked) == ([], [])
