"""The speed of a run: milliseconds per step, and the share of the machine's peak speed (MFU)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from core.config import Train
from core.models.build import flops_per_token
from core.training.machine import Machine
from core.training.peak import peak_or_none


@dataclass
class Speed:
    """Converts tokens per second into other figures.

    The machine's peak is looked up for the first figure, which comes after the first steps. So measuring it, once per
    machine, does not delay the first step.
    """

    machine: Machine
    tokens_per_step: int  # input tokens of an optimizer step
    flops_per_token: int  # operations of forward and backward
    measured_again: bool = False  # the peak, in this run

    @classmethod
    def of(cls, config: Train, machine: Machine, model: torch.nn.Module) -> Speed:
        """The Speed of a model on a machine."""
        assert config.data.block_size is not None
        return cls(machine, config.data.tokens_per_step, flops_per_token(model, config.data.block_size))

    @functools.cached_property
    def peak(self) -> float | None:
        """FLOP/s of matrix products in the run's precision, of all processes; None if it cannot be measured."""
        return self.measured_peak()

    def measured_peak(self, *, again: bool = False) -> float | None:
        """That of this process, times the number of processes. again: do not use what was measured before."""
        peak = peak_or_none(self.machine.device, self.machine.dtype, again=again)
        return peak and peak * self.machine.processes

    def mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOP utilisation, a share of the peak (PaLM, arXiv:2204.02311, section 4.1); None without a peak.

        More than all of it means that the machine was busy when the peak was measured, so it is measured once more. If the
        share is still impossible, the peak is of no use: None.
        """
        speed = tokens_per_second * self.flops_per_token
        if self.peak and speed > self.peak and not self.measured_again:
            self.measured_again = True
            self.peak = self.measured_peak(again=True)
        return speed / self.peak if self.peak and speed <= self.peak else None

    def milliseconds(self, tokens_per_second: float) -> float:
        """Milliseconds per step; infinite at speed 0."""
        return 1000 * self.tokens_per_step / tokens_per_second if tokens_per_second > 0 else float("inf")

    def figures(self, tokens_per_second: float, ms_per_step: float | None = None) -> dict[str, float]:
        """tokens_per_second, ms_per_step and, if the peak is known, mfu. ms_per_step: None if all steps are of one size."""
        mfu = self.mfu(tokens_per_second)
        milliseconds = self.milliseconds(tokens_per_second) if ms_per_step is None else ms_per_step
        found = {"tokens_per_second": tokens_per_second, "ms_per_step": milliseconds}
        return found if mfu is None else found | {"mfu": mfu}

    def summary(self, steps: int, tokens: int, seconds: float) -> dict[str, Any]:
        """Figures for summary.json: ms_per_step, flops (of all steps), mfu, peak_flops (FLOP/s). None before the first step."""
        if not (steps and seconds):
            return dict.fromkeys(("ms_per_step", "flops", "mfu", "peak_flops"))
        mfu = self.mfu(tokens / seconds)
        return {
            "ms_per_step": round(1000 * seconds / steps, 3),
            "flops": tokens * self.flops_per_token,
            "mfu": None if mfu is None else round(mfu, 4),
            "peak_flops": self.peak,
        }
