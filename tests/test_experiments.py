"""The shipped experiments refuse settings that make no data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from preparing import error_of

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize(
    ("name", "setting", "message", "remedy"),
    [
        ("insert_spaces", "alphabet=", 'alphabet = "" has no letters', "Name one at least."),
        ("insert_spaces", "max_letters=0", "max_letters = 0 leaves no words", "Set it to 1 or more."),
        ("count_by_twos", "below=0", "below = 0 leaves no number to start at", "Set it to 1 or more."),
        ("count_by_twos", "numbers=1", "numbers = 1 leaves none to answer", "Set it to 2 or more."),
        ("translate_words", "languages=['es', 'xx']", "no number words for xx", "Choose two of es, en, de."),
        ("translate_words", "below=0", "below = 0 has no words", "Choose from 1 to 1,000,000."),
        ("translate_words", "below=1000001", "below = 1000001 has no words", "Choose from 1 to 1,000,000."),
    ],
)
def test_settings_that_make_no_data(tmp_path: Path, name: str, setting: str, message: str, remedy: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for file in (*(EXPERIMENTS / name).glob("*.py"), EXPERIMENTS / name / "config.toml"):
        shutil.copy(file, folder)
    error = error_of(folder, f"prepare.params.{setting}")
    assert (error.message, error.place, error.remedy) == (
        message,
        f"prepare.params.{setting.partition('=')[0]}",
        remedy,
    )
