"""What a run ran on: versions, processor, commit and code; no name, no address, no path."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import files


def environment(folder: Path) -> dict[str, Any]:
    """Python, torch, platform, cpu and git_commit (with "+changes" when the tree differs from it; null outside git).

    code is a hash of the experiment's own *.py files: it tells two states of prepare.py apart where no commit does.
    """
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(folder),
        "code": code_hash(folder),
    }


# What a sum's last bits depend on. The same names stand in summary.json, in `environment` and in `choices`.
DECIDES_BITS = ("torch", "cpu", "cpu_capability", "threads", "device", "dtype", "attention", "compile")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs of that on which bits depend, in words; what one side does not know differs from nothing."""
    known = [key for key in DECIDES_BITS if before.get(key) is not None and now.get(key) is not None]
    return [f"{key}: {before[key]} -> {now[key]}" for key in known if before[key] != now[key]]


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def code_hash(folder: Path) -> str | None:
    """16 hexadecimal digits of a hash over the folder's *.py files, by name and content; None where there are none."""
    found = {path.name: files.sha256(path) for path in sorted(folder.glob("*.py"))}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16] if found else None


def git_commit(folder: Path) -> str | None:
    """Commit that the experiment's folder is at."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "--untracked-files=no") else commit
