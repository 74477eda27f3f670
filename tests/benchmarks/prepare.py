"""How fast, and in how much memory, a text file becomes a dataset.

    python tests/benchmarks/prepare.py [--megabytes 1000] [--encoders char bpe] [--folder FOLDER]

Each encoder runs in a process of its own. Memory is the peak (VmHWM) above that of the interpreter with all
libraries loaded, so this needs Linux. The text is made up: Zipf-distributed words in lines, some of them not ASCII.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from core.bench.preparing import MB, prepare_timed, warm_up, write_experiment


def peak() -> int:
    """Largest resident set so far, bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(folder: Path, encoder: str) -> dict[str, float]:
    """Prepare the experiment in this process."""
    warm_up(encoder)
    size, before = (folder / "input.txt").stat().st_size, peak()
    dataset, seconds = prepare_timed(folder, encoder, force=True)
    _, again = prepare_timed(folder, encoder, force=False)
    return {
        "megabytes_per_second": size / MB / seconds,
        "seconds": seconds,
        "peak_megabytes": (peak() - before) / MB,
        "libraries_megabytes": before / MB,
        "tokens": dataset.train.tokens + dataset.val.tokens,
        "seconds_when_current": again,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--encoders", nargs="+", default=["char", "bpe"])
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_experiment(options.folder, options.write)
        return
    if options.measure:
        print(json.dumps(measure(options.folder, options.measure)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        subprocess.run([sys.executable, __file__, "--folder", name, "--write", str(options.megabytes)], check=True)
        for encoder in options.encoders:
            command = [sys.executable, __file__, "--folder", name, "--measure", encoder]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(encoder, {key: round(value, 2) for key, value in figures.items()}, flush=True)


if __name__ == "__main__":
    main()
