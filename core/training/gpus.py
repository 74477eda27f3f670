"""GPUs by name, with what their makers publish: the peak of dense bfloat16 products, and memory. For estimates without one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.errors import UserError, did_you_mean

COUNT = re.compile(r"(?:(\d+)x)?(.+)")


@dataclass(frozen=True)
class Gpu:
    """name: as it is called on a command line. peak: FLOP/s. memory: bytes."""

    name: str
    peak: float
    memory: float


# From the data sheets of NVIDIA (l4, l40s, a100, h100, h200, DGX B200), its whitepapers of the architectures Ampere, Ada and
# Blackwell (rtx3090, rtx4090, rtx5090: with sums in float32), and AMD's data sheet (mi300x). Without sparsity. h100 and h200
# are the SXM forms.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("rtx3090", 71e12, 24e9),
        Gpu("rtx4090", 165.2e12, 24e9),
        Gpu("rtx5090", 209.5e12, 32e9),
        Gpu("l4", 121e12, 24e9),
        Gpu("l40s", 362e12, 48e9),
        Gpu("a100", 312e12, 80e9),
        Gpu("h100-pcie", 756e12, 80e9),
        Gpu("h100", 989.4e12, 80e9),
        Gpu("h200", 989.4e12, 141e9),
        Gpu("b200", 2250e12, 180e9),
        Gpu("mi300x", 1307.4e12, 192e9),
    )
}


def gpus_named(text: str) -> tuple[Gpu, int]:
    """The GPU and the number of them that a text such as h100 or 8xh100 means. Raises UserError for an unknown one."""
    found = COUNT.fullmatch(text.strip().lower())
    count, name = (int(found[1] or 1), found[2]) if found else (1, text)
    if name not in GPUS or count < 1:
        raise UserError(
            f"unknown GPU '{text}'",
            place="gpu",
            remedy=f"{did_you_mean(name, GPUS)} Several are written as in 8xh100.",
        )
    return GPUS[name], count
