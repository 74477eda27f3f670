"""How good a model is: loss, bits per byte, exact match, suites of tasks; and baselines."""

from __future__ import annotations

from core.plugins import hookimpl
from core.plugins.hookspecs import Register


@hookimpl
def register_suites(register: Register) -> None:
    """The readers of suites that come with Terrarium."""
    from core.evaluation.suites.dclm import read_dclm
    from core.evaluation.suites.humaneval import read_humaneval

    register("dclm", read_dclm)
    register("humaneval", read_humaneval)
