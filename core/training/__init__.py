"""Train models: the loop, optimizers, schedules, precision and checkpoints."""

from __future__ import annotations

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_optimizers(register: Register) -> None:
    """The optimizers that come with Terrarium."""
    from core.training.optimizers import adam, adamw, muon, sgd

    register("muon", muon)
    register("adamw", adamw)
    register("adam", adam)
    register("sgd", sgd)
