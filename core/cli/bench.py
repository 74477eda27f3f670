"""The command bench: the speed of this machine, or of an experiment on it. Figures appear as they are measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from core.cli import completion, options
from core.errors import UserError
from core.process import Program

if TYPE_CHECKING:
    from core.bench.cases import Case
    from core.lab.opened import Opened
    from core.training.machine import Machine

# The figures in the table: header and format of their column. --json has more.
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "flops": ("GFLOP/s", lambda value: f"{value / 1e9:,.0f}"),
    "ms_per_step": ("ms/step", lambda value: f"{value:,.1f}"),
    "fastest_ms": ("fastest", lambda value: f"{value:,.1f}"),
    "slowest_ms": ("slowest", lambda value: f"{value:,.1f}"),
    "tokens_per_second": ("tokens/s", lambda value: f"{value:,.0f}"),
    "mfu": ("MFU", lambda value: f"{value:.1%}"),
    "dtype": ("dtype", str),
    "megabytes_per_second": ("MB/s", lambda value: f"{value:,.1f}"),
    "seconds": ("seconds", lambda value: f"{value:.3g}"),
    "share": ("share", lambda value: f"{value:.1%}"),
}
NAME_WIDTH, CELL_WIDTH = 44, 10


@click.command()
@click.argument("experiment", metavar="[EXP]", required=False, shell_complete=completion.experiments)
@click.option("--full", is_flag=True, help="Also measure GPT-2 with 124M parameters. Takes minutes on a CPU.")
@click.option(
    "--threads", metavar="N", type=click.IntRange(min=1), help="Number of CPU threads.  [default: torch's choice]"
)
@options.as_json
@options.settings
def bench(
    experiment: str | None,
    full: bool,
    threads: int | None,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Measure the speed of this machine, or of EXP on it.

    Without EXP: matrix products, training, sampling and prepare at fixed sizes, and the time to the first step. The
    presets use the precision that is usually fastest on this hardware. With EXP: its training step and sampling, with the
    settings of a real run, and the share of time that evaluations and checkpoints take. The dataset is made if necessary;
    the runs are not changed. MFU is a model's speed as a share of the fastest matrix product's.
    """
    from core.cli.console import Console

    console = Console(quiet=quiet, json=as_json)
    refuse(experiment, full, overrides, variant)
    with contextlib.ExitStack() as stack:
        if experiment:
            opened, _ = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
            head, cases = stack.enter_context(of_experiment(opened, threads))
        else:
            head, cases = stack.enter_context(of_machine(threads, full))
        console.say("; ".join(f"{value}" for value in head.values()))
        rows, section, shown = [], "", ""
        for case in cases:
            figures = case.measure()
            rows.append({"section": case.section, "name": case.name, **figures})
            header = line(case.section, [COLUMNS[key][0] for key in figures if key in COLUMNS])
            if (case.section, header) != (section, shown):
                console.say(("" if case.section == section else "\n") + header)
            section, shown = case.section, header
            console.say(line(f"  {case.name}", [cell(key, figures[key]) for key in figures if key in COLUMNS]))
    if as_json:
        options.say_json(head | {"rows": rows})


def refuse(experiment: str | None, full: bool, overrides: tuple[str, ...], variant: str) -> None:
    """Raise UserError for options that have no effect here."""
    if not experiment and (overrides or variant):
        raise UserError(
            "there is no config to change without an experiment",
            place="-s" if overrides else "--variant",
            remedy=f"Name an experiment: {Program.name()} bench EXP",
        )
    if experiment and full:
        raise UserError(
            "only works for the machine's table, not for an experiment",
            place="--full",
            remedy="Leave out either this option or the experiment.",
        )


@contextlib.contextmanager
def of_machine(threads: int | None, full: bool) -> Iterator[tuple[dict[str, Any], list[Case]]]:
    """A description of the machine, and its cases."""
    from core.bench import cases
    from core.training.machine import choose_machine

    machine = choose_machine("auto", "auto", False, threads or "auto")
    with machine.computing():
        yield account(machine), cases.machine_cases(machine, threads or 0, full=full)


@contextlib.contextmanager
def of_experiment(opened: Opened, threads: int | None) -> Iterator[tuple[dict[str, Any], list[Case]]]:
    """A description of the experiment and the machine, and the cases."""
    from core.bench import cases
    from core.lab.assemble import refuse_unknown, throwaway
    from core.lab.opened import prepared
    from core.models.build import parameter_count

    refuse_unknown(opened)
    opened, dataset = prepared(opened)
    if threads:
        opened = opened.having({"train.runtime.threads": threads})
    with throwaway(opened, dataset) as (run, parts):
        named = {"experiment": f"{opened.experiment.name}, {parameter_count(parts.model):,} parameters"}
        yield named | account(parts.machine), cases.experiment_cases(run, parts)


def account(machine: Machine) -> dict[str, str]:
    """A description of the machine."""
    from core.training.measured import machine_key

    threads = f"{machine.threads} thread{'s' * (machine.threads != 1)}"
    return {"machine": machine_key(), "device": f"{machine.device}, {threads}"}


def cell(key: str, value: Any) -> str:
    """A figure, or a dash if it could not be measured."""
    return "-" if value is None else COLUMNS[key][1](value)


def line(name: str, cells: list[str]) -> str:
    """A line of the table: a name and cells."""
    return (name.ljust(NAME_WIDTH) + "".join(text.rjust(CELL_WIDTH) for text in cells)).rstrip()


COMMANDS = (bench,)
