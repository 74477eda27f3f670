"""Measure the machine's peak speed: FLOP/s of its matrix products.

Model FLOP utilisation (MFU; PaLM, arXiv:2204.02311, section 4.1) compares a model's speed with it.
"""

from __future__ import annotations

import time

import torch

from core.training.measured import machine_key, recall, remember

SECONDS = 0.2  # for measuring, roughly
# Rows of square matrices. Large ones reach the peak. We go from small to large and stop before one that takes too long.
SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}


def matmul_peak(device: torch.device, dtype: torch.dtype, *, again: bool = False) -> float:
    """FLOP/s of the fastest product of two square matrices, with torch's current threads and float32 precision.

    Measured once per machine, then stored. again: measure now and store the larger value, because a machine that was
    busy the first time looks too slow. Raises RuntimeError or TypeError if the device does not support the product.
    """
    name = str(dtype).removeprefix("torch.")
    parts = ["matmul_peak", machine_key(), str(device), f"{torch.get_num_threads()} threads", name]
    if dtype == torch.float32:
        parts.append(torch.get_float32_matmul_precision())
    key = "; ".join(parts)
    known = recall(key)
    former = float(known) if isinstance(known, int | float) and known > 0 else 0.0
    if former and not again:
        return former
    found = max(former, measure_peak(device, dtype))
    remember(key, found)
    return found


def peak_or_none(device: torch.device, dtype: torch.dtype, *, again: bool = False) -> float | None:
    """`matmul_peak`, or None if it cannot be measured: a missing figure must not end a run."""
    try:
        return matmul_peak(device, dtype, again=again)
    except (RuntimeError, TypeError):
        return None


@torch.inference_mode()
def measure_peak(device: torch.device, dtype: torch.dtype, seconds: float = SECONDS) -> float:
    """FLOP/s of the fastest of several products (2 n^3 operations each), measured for about `seconds`."""
    sizes = SIZES.get(device.type, SIZES["cpu"])
    generator = torch.Generator(device).manual_seed(0)  # a separate one: measuring must not change a run's draws
    numbers = torch.randn(sizes[-1] ** 2, generator=generator, device=device).to(dtype)
    out = torch.empty_like(numbers)
    best, end = 0.0, None
    for size in sizes:
        matrix, result = (place[: size * size].view(size, size) for place in (numbers, out))
        timed_product(matrix, result)  # the first product of a size also selects the kernel
        end = end or time.perf_counter() + seconds
        last = float("inf")
        for _ in range(20):
            last = min(last, timed_product(matrix, result))
            if time.perf_counter() + last > end:
                break
        best = max(best, 2 * size**3 / last)
        if time.perf_counter() + 2 * 8 * last > end:  # twice the next size takes eight times as long
            break
    return best


def timed_product(matrix: torch.Tensor, result: torch.Tensor) -> float:
    """Seconds of one product, including the wait for the device."""
    synchronise(matrix.device)
    begin = time.perf_counter()
    torch.matmul(matrix, matrix, out=result)
    synchronise(matrix.device)
    return max(time.perf_counter() - begin, 1e-9)


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work. A CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
