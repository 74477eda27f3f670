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
import time
from pathlib import Path

import numpy as np

MB = 1_000_000


def write_text(path: Path, megabytes: int) -> None:
    """A file of that size of made-up text, the same every time."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    odds = np.arange(30, 4, -1) / np.arange(30, 4, -1).sum()
    words = ["".join(random.choice(letters, size=length, p=odds)) for length in random.integers(1, 12, size=50_000)]
    words += [word.capitalize() for word in words[:5_000]] + ["naïve", "“So”", "—", "1999,", "it's", "end."] * 20
    table = np.array(words, dtype=object)
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * MB:
            drawn = table[(random.zipf(1.3, size=120_000) * 7919) % len(table)]
            file.write("".join(" ".join(line) + "\n" for line in drawn.reshape(-1, 12)))
        file.truncate(megabytes * MB)


def peak() -> int:
    """Largest resident set so far, bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(folder: Path, encoder: str) -> dict[str, float]:
    """Prepare the experiment in this process."""
    from core.data.pipeline import prepare
    from core.plugins.discovery import Experiment
    from core.plugins.manager import plugins
    from core.toml import load_config

    plugins().get("encoders", encoder, "").fit(["warm up"], vocab_size=1024).encode_batch(["warm", "up"])
    config, settings = load_config(folder, "", [f"prepare.encoder={encoder}"])
    size, before, start = (folder / "input.txt").stat().st_size, peak(), time.perf_counter()
    dataset = prepare(Experiment(folder), config, settings, None, force=True)
    seconds = time.perf_counter() - start
    again = time.perf_counter()
    prepare(Experiment(folder), config, settings, None)
    return {
        "megabytes_per_second": size / MB / seconds,
        "seconds": seconds,
        "peak_megabytes": (peak() - before) / MB,
        "libraries_megabytes": before / MB,
        "tokens": dataset.train.tokens + dataset.val.tokens,
        "seconds_when_current": time.perf_counter() - again,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--encoders", nargs="+", default=["char", "bpe"])
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.folder, options.measure)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import prepare, pathlib; "
                        f"prepare.write_text(pathlib.Path({str(folder / 'input.txt')!r}), {options.megabytes})"], check=True)  # fmt: skip
        (folder / "config.toml").write_text('[prepare]\ninput = "input.txt"\n')
        for encoder in options.encoders:
            command = [sys.executable, __file__, "--folder", name, "--measure", encoder]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(encoder, {key: round(value, 2) for key, value in figures.items()}, flush=True)


if __name__ == "__main__":
    main()
