"""Many runs of one experiment: seeds, grids and searches."""

from __future__ import annotations

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_launchers(register: Register) -> None:
    """This machine."""
    from core.sweeps.launching import HERE, local

    register(HERE, local)
