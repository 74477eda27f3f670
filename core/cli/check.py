"""The command check: data, n-gram baselines, cost and suspicious settings of an experiment, before training."""

from __future__ import annotations

from collections.abc import Iterator

import click

from core.cli import options
from core.cli.account import Account, across_lines, dial_lines, line, lines
from core.cli.status import may_colour
from core.errors import UserError


@click.command()
@options.experiment
@options.stage
@click.option("--no-timing", is_flag=True, help="Do not time any steps; leave out time and memory.")
@click.option(
    "--gpu",
    metavar="[Nx]NAME",
    default="",
    help="Only estimate the cost on another machine, from the settings alone: h100, 8xh100.",
)
@click.option(
    "--share", metavar="S", type=float, help="With --gpu: share of the published peak that is assumed.  [default: 0.38]"
)
@options.as_json
@options.settings
def check(
    experiment: str,
    stage: str,
    no_timing: bool,
    gpu: str,
    share: float | None,
    as_json: bool,
    overrides: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Check an experiment before training it.

    Shows the data (one conversation, if it has some), how much of the held-out sides also occurs in training, the loss of n-gram
    baselines, time and memory that the run will need (from five seconds of real steps), and suspicious settings. Makes the dataset
    if necessary. Changes no run. With stages, checks each, and counts held-out prompts of one in training data of another.

    With --gpu no data is made and nothing is timed: steps, tokens and operations follow from the settings, hours from the peak
    that the maker of the GPU publishes.
    """
    from core.lab.check import accounts_of, across_stages

    opened, console = options.opened(experiment, overrides, variant, quiet, as_json=as_json)
    if share is not None and not gpu:
        raise UserError(
            "--share has no effect without --gpu", place="--share", remedy="Name a GPU, such as --gpu h100."
        )
    if gpu:
        from core.lab.estimate import SHARE, estimate

        found = estimate(opened, gpu, SHARE if share is None else share, stage)
        console.say("\n".join(estimate_lines(found)))
        if as_json:
            options.say_json(found)
        return
    accounts = accounts_of(opened, stage, timing=not no_timing)
    across = across_stages(opened) if opened.stages and not stage else []
    for name, account in accounts.items():
        console.say("\n".join([*([f"\nstage {name}"] if name else []), *lines(account, may_colour(console.stream))]))
    if across:
        console.say("\n".join(across_lines(across)))
    if as_json:
        options.say_json({"stages": accounts, "across": across} if opened.stages else accounts[""])


def estimate_lines(estimate: Account) -> Iterator[str]:
    """What an experiment would cost on GPUs that are not there, stage by stage."""
    many, peak = estimate["count"], estimate["peak_flops"] / 1e12
    shared = "" if many == 1 else ", as if they shared the work evenly (training uses one GPU today)"
    gpus = f"{many} x {estimate['gpu']}"
    yield f"estimate for {gpus}: published peak {peak:,.0f} TFLOP/s in bfloat16, of which {estimate['share']:.0%} is assumed{shared}"
    for name, cost in estimate["stages"].items():
        yield from ([f"\nstage {name}"] if name else [""])
        yield from stage_lines(cost, estimate)
    if len(estimate["stages"]) > 1:
        yield from ("", "all stages", *sum_lines(estimate))
    for name in estimate["left_out"]:
        yield f"\n{f'stage {name}' if name else 'training'}: not estimated, because it depends on how long the answers are that the model writes"
    yield "\nThis counts training steps only: evaluations, saves and making the data come on top. Small models reach a smaller share."


def stage_lines(cost: Account, estimate: Account) -> Iterator[str]:
    yield from dial_lines(cost)
    yield line("parameters", f"{cost['parameters']:,}, with {cost['vocab_size']:,} ids")
    yield line("steps", f"{cost['steps']:,} of {cost['tokens_per_step']:,} tokens")
    yield from sum_lines(cost)
    if cost["state_bytes"] is not None:
        kept = f"{cost['state_bytes'] / 1e9:,.3g} of {estimate['memory_bytes'] / 1e9:,.0f} GB"
        more = f"activations of {cost['micro_batch']:,} tokens come on top"
        yield line("memory", f"{kept} for weights, gradients and the optimizer; {more}")


def sum_lines(cost: Account) -> Iterator[str]:
    from core.report.run_report import duration

    yield line("tokens", f"{cost['tokens']:,}")
    yield line("operations", f"{cost['flops']:.3g} FLOPs")
    yield line("time", f"about {duration(cost['seconds'])}")


COMMANDS = (check,)
