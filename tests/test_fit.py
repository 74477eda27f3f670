"""fit: of the sizes that are measured, the one that sees the right number of tokens in the time is proposed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from core.cli.fit import span
from core.lab.fit import FEWEST_STEPS, STEPPING, TOKENS_PER_PARAMETER, best, fits

Terrarium = Callable[..., Result]
SETTINGS = ("-s", "train.model.n_layer=1")


def measured(n_embd: int, n_head: int) -> tuple[int, float]:
    """Parameters and seconds grow with the square of the width."""
    return 12 * n_embd**2, 1e-6 * n_embd**2


def test_sizes_grow_until_one_is_too_slow() -> None:
    found = list(fits(budget=60, tokens_per_step=1000, measure=measured))
    assert [fit.n_embd for fit in found] == [64, 128, 192, 256, 384]
    assert [fit.n_head for fit in found] == [1, 2, 3, 4, 6]
    narrow = found[0]
    assert narrow.steps == int(STEPPING * 60 / (1e-6 * 64**2)) and narrow.tokens == 1000 * narrow.steps
    assert narrow.tokens_per_parameter == narrow.tokens / (12 * 64**2)


@pytest.mark.parametrize("budget", [20, 60, 180, 600])
def test_the_best_one_sees_the_right_number_of_tokens(budget: float) -> None:
    found = list(fits(budget, 1000, measured))
    chosen = best(found)
    assert chosen is not None
    for fit in found:
        if fit.n_embd > chosen.n_embd:
            assert fit.tokens_per_parameter < TOKENS_PER_PARAMETER
        if fit.n_embd < chosen.n_embd:
            assert fit.tokens_per_parameter > TOKENS_PER_PARAMETER


def test_more_time_never_proposes_a_narrower_model() -> None:
    widths = [chosen.n_embd for budget in (5, 20, 60, 180, 600) if (chosen := best(list(fits(budget, 1000, measured))))]
    assert widths == sorted(widths) and len(set(widths)) > 2


def test_too_little_time_fits_nothing() -> None:
    found = list(fits(0.1, 1000, measured))
    assert [fit.n_embd for fit in found] == [64] and found[0].steps < FEWEST_STEPS
    assert best(found) is None


def test_fit_proposes_a_command_that_trains(
    spaces: Path, terrarium: Terrarium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.lab.fit.FEWEST_STEPS", 1)  # on a busy machine, too
    result = terrarium("fit", "spaces", "--minutes", "0.05", *SETTINGS, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["minutes"] == 0.05 and answer["best"] in answer["sizes"]
    assert answer["set"] == [
        f"train.model.n_embd={answer['best']['n_embd']}",
        f"train.model.n_head={answer['best']['n_head']}",
        "train.runtime.max_minutes=0.05",
    ]
    assert not (spaces / "out").exists()
    shown = terrarium("fit", "spaces", "--minutes", "0.05", *SETTINGS).stdout
    assert "tokens/param" in shown
    command = next(line for line in shown.splitlines() if "core.cli train" in line).split()[3:]
    assert command[:4] == ["train", "spaces", "--run", "fit-0.05-minutes"] and command[4:6] == list(SETTINGS)
    assert terrarium(*command).exit_code == 0
    assert (spaces / "out" / "fit-0.05-minutes" / "summary.json").is_file()


def test_fit_says_when_there_is_no_time(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("fit", "spaces", "--minutes", "0.0001", *SETTINGS)
    assert result.exit_code == 2
    assert "0.0001 minutes are not enough for 1 layers of any width" in result.output
    assert "Give more time" in result.output


def test_one_minute_is_no_minutes() -> None:
    assert [span(minutes) for minutes in (1.0, 0.5, 2.0)] == ["1 minute", "0.5 minutes", "2 minutes"]


def test_fit_knows_gpts_only(spaces: Path, terrarium: Terrarium) -> None:
    result = terrarium("fit", "spaces", "-s", "train.model.kind='lstm'")
    assert result.exit_code == 2
    assert "fit only works for models of kind gpt" in result.output and "bench" in result.output
