"""A log of `loop` in, docs/images/loop.svg out: the words of a real run, as they stood on the terminal.

python -m core.cli loop insert_spaces | tee LOG.txt
python -m docs.picture LOG.txt
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent / "images" / "loop.svg"
PROMPT = "$ python -m core.cli loop insert_spaces"
COLUMNS = 108
STYLES = {"ok ": "green", "WRONG": "red", "step": "cyan", "error": "red"}


def drawing(log: str) -> str:
    """An SVG of a terminal that shows the prompt and the log. Paths are shown from the folder of experiments on."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False, color_system="truecolor")
    console.print(Text(PROMPT, style="bold"))
    for line in log.rstrip().splitlines():
        style = next((style for start, style in STYLES.items() if line.startswith(start)), "")
        console.print(Text(from_experiments(line), style=style))
    svg = console.export_svg(title="Terrarium")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # no fonts from the network
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines())


def from_experiments(line: str) -> str:
    """A line without the part of a path that is this machine's."""
    words = (
        f"experiments/{word.partition('/experiments/')[2]}" if "/experiments/" in word else word
        for word in line.split(" ")
    )
    return " ".join(words)


def main() -> None:
    """Draw the log whose path is given."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawing(Path(sys.argv[1]).read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
