"""Options that say where a command's work is done: here, or on a cluster."""

from __future__ import annotations

import click

from core.cli.options import together

cluster = together(
    click.option(
        "--on",
        metavar="ray|slurm",
        default="",
        help="Work on a cluster.  [default: on this machine]",
    ),
    click.option(
        "--address",
        metavar="HOST:PORT",
        default="",
        help="With --on ray: the cluster to use, or auto for this machine's.  [default: RAY_ADDRESS, else one is started here and stopped at the end]",
    ),
)
