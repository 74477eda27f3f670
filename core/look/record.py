"""Keep what was looked at in a run's folder, look.json, and show it: pictures as files, sections of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter, ValidationError

from core import durable, files
from core.errors import UserError
from core.look.attention import AttentionMaps
from core.look.embeddings import LEAST, Embeddings
from core.look.figures import attention_figure, embeddings_figure, spectrum_figure
from core.report.document import PageSection, Paragraph, Part, Picture
from core.report.plots import png

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

FILE = "look.json"
MOST_WEIGHTS = 400_000  # numbers of attention maps that are kept: about 2 MB
MOST_ROWS = 200_000  # numbers of embeddings that are kept
MOST_LAYERS = 4  # in a report; `look` draws them all


@dataclass(frozen=True)
class Look:
    """What was seen in a model, as JSON has it. step: of its checkpoint. prompt, answer: the text.

    tokens, asked, weights: as in AttentionMaps; empty if there are no maps. labels, rows, numbers: as in Embeddings.
    remarks: what could not be shown, and why.
    """

    step: int
    prompt: str
    answer: str = ""
    tokens: list[str] = field(default_factory=list)
    asked: int = 0
    weights: list[list[list[list[float]]]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    numbers: bool = False
    remarks: list[str] = field(default_factory=list)

    @property
    def attention(self) -> AttentionMaps | None:
        return AttentionMaps(self.tokens, self.asked, np.array(self.weights)) if self.weights else None

    @property
    def embeddings(self) -> Embeddings | None:
        return Embeddings(self.labels, np.array(self.rows), self.numbers) if self.rows else None

    def figures(self, most_layers: int = 0) -> dict[str, Callable[[], Figure]]:
        """File name -> a function that draws the picture. most_layers: draw so many layers at most, evenly spaced; 0: all."""
        found: dict[str, Callable[[], Figure]] = {}
        if (maps := self.attention) is not None:
            shown = range(maps.layers)
            if 0 < most_layers < maps.layers:
                shown = np.linspace(0, maps.layers - 1, most_layers).round().astype(int).tolist()
            found |= {f"attention_{layer + 1}.png": partial(attention_figure, maps, layer) for layer in shown}
        if (embeddings := self.embeddings) is not None:
            found["embeddings.png"] = partial(embeddings_figure, embeddings)
            if embeddings.whole and len(embeddings.labels) > 3:
                found["spectrum.png"] = partial(spectrum_figure, embeddings)
        return found


def record(
    step: int, prompt: str, answer: str, maps: AttentionMaps | None, embeddings: Embeddings | None, remarks: list[str]
) -> Look:
    """What was seen, as it is kept: rounded, and without maps that are too large to keep."""
    look = Look(step, prompt, answer, remarks=remarks)
    found = asdict(look)
    if maps is not None and maps.weights.size > MOST_WEIGHTS:
        found["remarks"] = [
            *remarks,
            "The attention maps have too many numbers for the report. Look at a shorter text.",
        ]
    elif maps is not None:
        found |= {"tokens": list(maps.tokens), "asked": maps.asked, "weights": maps.weights.round(4).tolist()}
    if embeddings is not None:
        kept = max(LEAST, MOST_ROWS // embeddings.rows.shape[1])
        if kept < len(embeddings.labels):
            found["remarks"] = [
                *found["remarks"],
                f"Of {len(embeddings.labels):,} tokens the first {kept:,} are shown.",
            ]
        found |= {
            "labels": list(embeddings.labels[:kept]),
            "rows": embeddings.rows[:kept].round(5).tolist(),
            "numbers": embeddings.numbers,
        }
    return Look(**found)


def write_look(folder: Path, look: Look, most_layers: int = 0) -> list[Path]:
    """Write look.json and the pictures into a run's folder. Returns the paths of the pictures. Those of an earlier look go.

    most_layers: as in `Look.figures`.
    """
    for old in (*folder.glob("attention_*.png"), folder / "embeddings.png", folder / "spectrum.png"):
        if old.is_file():
            durable.unlink(old)
    files.write_json(folder / FILE, asdict(look))
    paths = []
    for name, draw in look.figures(most_layers).items():
        paths.append(folder / name)
        files.write_bytes(paths[-1], png(draw()))
    return paths


def read_look(folder: Path) -> Look | None:
    """What `write_look` wrote; None if it did not. Raises UserError for any other file."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found: Look = TypeAdapter(Look).validate_python(json.loads(path.read_bytes()))
        found.figures()
    except (ValueError, RecursionError, ValidationError):
        raise UserError(
            "not what `look` writes", place=str(path), remedy="Delete it; `look` writes it again."
        ) from None
    return found


def sections(folder: Path, summary: Mapping[str, object]) -> list[PageSection]:
    """The section of a report on the inside of a run's model; none if nothing was looked at since it was trained."""
    look = read_look(folder)
    if look is None or look.step != summary.get("best_step"):
        return []
    drawings = look.figures(MOST_LAYERS)
    parts: list[Part] = []
    if look.weights:
        left_out = len(look.weights) > MOST_LAYERS
        told = f"Attention after {(look.prompt + look.answer)!r}, of each layer and head: the row's token looks at the column's."
        more = f" {MOST_LAYERS} of {len(look.weights)} layers; `look` draws all." if left_out else ""
        behind = " Dashed lines end the prompt." if look.answer else ""
        parts.append(Paragraph(told + behind + more, "soft"))
    parts += [Picture(title_of(name), {title_of(name): draw}, name) for name, draw in drawings.items()]
    parts += [Paragraph(remark, "soft") for remark in look.remarks]
    return [PageSection("Inside the model", parts)] if drawings else []


def title_of(name: str) -> str:
    """The label of a picture, for those who cannot see it."""
    stem, _, layer = name.removesuffix(".png").partition("_")
    kinds = {"embeddings": "embeddings in two dimensions", "spectrum": "Fourier spectrum of the embeddings"}
    return kinds.get(stem, f"attention maps of layer {layer}")
