"""The small failing inputs of ../shared/field: each does what its README.md calls right."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FIELD = ROOT.parent / "shared" / "field"
Terrarium = Callable[..., Any]

pytestmark = pytest.mark.skipif(not FIELD.is_dir(), reason="../shared/field is not here")


@pytest.fixture
def field(lab: Path) -> Callable[[str], Path]:
    """Copy one of the folders into the lab."""
    return lambda name: shutil.copytree(FIELD / name, lab / name)


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("masked-verdict", "train.data.mask_prompt", ("true", "false")),
        ("eval-iters-verdict", "train.runtime.eval_iters", ("0", "1")),
    ],
)
def test_verdicts_on_losses_that_are_measured_differently(
    field: Callable[[str], Path], terrarium: Terrarium, name: str, key: str, values: tuple[str, str]
) -> None:
    """None is given: exact match is compared, and no setting is marked as best by its loss."""
    folder = field(name)
    small = ("-s", "prepare.size=4000", "-s", "train.schedule.max_iters=4", "-s", "train.runtime.device=cpu")
    done = terrarium("sweep", name, "--seeds", "0..2", "--grid", f"{key}={','.join(values)}", *small)
    assert done.exit_code == 0, done.output
    assert f"The losses of these settings cannot be compared ({key} is {values[0]} and {values[1]})" in done.output
    told = terrarium("compare", name).stdout
    assert told.startswith("No evidence of a difference: exact match")
    assert re.search(rf"No verdict on val loss: .* do not measure it alike \({key} is \w+ and \w+\)\.", told)
    [report] = folder.glob("out/sweeps/*/report.md")
    for said in (done.output, told, report.read_text()):
        assert "better" not in said and "val loss of" not in said
