"""Record what a run ran on and how it was started: versions, processor, commit, code, command. No user, host or home."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import files


def environment(folder: Path) -> dict[str, Any]:
    """Python, torch, platform, cpu, git_commit (with "+changes" if files differ from it), git_dirty and code.

    code is a hash of the experiment's *.py files, which tells versions of prepare.py apart without a commit. The git
    values are None outside git. torch is not imported for this: some of its values are None if it is not loaded.
    """
    commit, dirty = git_state(folder)
    return {
        "python": platform.python_version(),
        **torch_state(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "git_commit": f"{commit}+changes" if commit and dirty else commit,
        "git_dirty": dirty,
        "code": code_hash(folder),
    }


def torch_state() -> dict[str, Any]:
    """torch's version, and the processor's features and threads that it uses."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"torch": version("torch"), "cpu_capability": None, "threads": None}
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# What can change the last bits of a result. summary.json has the same names, in `environment` and in `choices`.
DECIDES_BITS = (
    "torch", "cpu", "cpu_capability", "threads", "device", "dtype", "attention", "compile", "compiler", "processes", "parallel",
    "backend", "jax", "jax_devices",
)  # fmt: skip


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences in DECIDES_BITS, as text. Values that are unknown on one side are ignored."""
    known = [key for key in DECIDES_BITS if before.get(key) is not None and now.get(key) is not None]
    return [f"{key}: {before[key]} -> {now[key]}" for key in known if before[key] != now[key]]


def cpu_name() -> str:
    """The processor's name, from the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def code_hash(folder: Path | None, script: Path | None = None) -> str | None:
    """16 hex digits of a hash over the names and content of a folder's *.py files, and a script. None if there are none."""
    found = {path.name: files.sha256(path) for path in sorted(folder.glob("*.py"))} if folder else {}
    if script:
        found["__main__"] = files.sha256(script)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16] if found else None


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """A folder's commit, and whether a tracked file differs from it; None, None outside git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return commit or None, None if changed is None else bool(changed)


def own_script() -> Path | None:
    """The user's script that Python is running; None in a notebook and for `python -c`."""
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(name).resolve() if name and Path(name).is_file() else None


def own_command() -> list[str]:
    """How Python was started, such as `python train.py --lr 3e-4`; the script's path is relative to the current folder."""
    _, *arguments = sys.orig_argv or [""]
    if "-c" in arguments[:1]:  # the program's text may hold anything
        return ["python", "-c", "..."]
    script = own_script()
    paths = {str(script), sys.orig_argv[1] if script and len(sys.orig_argv) > 1 else ""}
    return ["python", *(from_here(argument) if argument in paths else argument for argument in arguments)]


def from_here(path: str) -> str:
    """A path relative to the current folder, if it is inside it."""
    here = Path(path)
    return str(here.relative_to(Path.cwd())) if here.is_absolute() and here.is_relative_to(Path.cwd()) else path
