"""What stands between a command and its first step: nothing that training does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch._dynamo", "torch.distributed.fsdp", "tensorboard", "matplotlib", "rich")
SCRIPT = f"""
import sys
from core.training import step

first = step.accumulate_gradient

def watched(*arguments):
    result = first(*arguments)
    if "saw" not in globals():
        globals()["saw"] = [name for name in {HEAVY!r} if name in sys.modules]
        print("before the second step:", saw, file=sys.stderr)
    return result

step.accumulate_gradient = watched
from core.cli.main import cli
given = ("dtype='float32'", "attention='sdpa'", "threads=1", "trackers=['tensorboard']")  # no rehearsal: the first step is the run's
cli(["train", "spaces", *(part for setting in given for part in ("-s", "train.runtime." + setting))])
"""


def test_nothing_heavy_is_imported_before_the_first_step(spaces: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=spaces.parent.parent)
    assert done.returncode == 0, done.stderr
    assert "before the second step: []" in done.stderr
    assert list((spaces / "out" / "default" / "logs" / "tb").iterdir())
