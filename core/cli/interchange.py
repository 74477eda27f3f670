"""Commands that exchange models with other programs: import-nanogpt, export-nanogpt."""

from __future__ import annotations

from pathlib import Path

import click

from core.cli import options
