"""Work on other machines: the launchers "ray" (extra: ray) and "slurm" (extra: slurm).

Their packages are imported where they are used, never here.
"""

from __future__ import annotations

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_launchers(register: Register) -> None:
    """A cluster of Ray, and SLURM."""
    from core.cluster.ray_launcher import open_ray
    from core.cluster.slurm import open_slurm

    register("ray", open_ray)
    register("slurm", open_slurm)
