"""The functions of prepare.py that measure, train and answer in their own way: evaluate, loss, reward, answer and tools.

prepare.py may hold helpers of these names, so all but evaluate count only with the parameters that are documented.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from core.chat.own_tools import own_tools
from core.chat.tools import BUILT_IN, Tools
from core.config import Config, ObjectiveConfig
from core.data.dataset import Dataset
from core.encoders.base import Encoder
from core.errors import UserError, did_you_mean
from core.evaluation.evaluate import Evaluation, Hear
from core.lab.opened import Opened
from core.plugins.manager import Plugins
from core.reward.scoring import Scoring
from core.tracking.run import Run
from core.training.machine import Machine
from core.training.objectives import Objective, policy_gradient, tokens

PARAMETERS = {"loss": ("model", "batch"), "answer": ("text",), "reward": ("example", "completion"), "tools": ()}


@dataclass(frozen=True)
class Batch:
    """A micro-batch. inputs: token ids (B, T). targets: the next ids (B, T), -1 where the loss does not count."""

    inputs: Tensor
    targets: Tensor


def own_function(code: ModuleType | None, name: str) -> Callable[..., Any] | None:
    """prepare.py's function of this name; None if there is none. Warns of one that takes other parameters, and leaves it."""
    found, wanted = getattr(code, name, None), PARAMETERS[name]
    if not callable(found):
        return None
    given = inspect.signature(found).parameters
    if tuple(given)[: len(wanted)] == wanted and (wanted or not any(map(is_needed, given.values()))):
        function: Callable[..., Any] = found
        return function
    warnings.warn(
        f"prepare.py has a function {name}, which is not used: only `def {name}({', '.join(wanted)})` is.", stacklevel=2
    )
    return None


def evaluation(
    opened: Opened,
    config: Config,
    dataset: Dataset,
    machine: Machine,
    tools: Tools | None = None,
    hear: Hear | None = None,
) -> Evaluation:
    """What measures a model on a dataset, with prepare.py's `answer`, tools and, where it trains by it, `reward`.

    tools: of a model that has them already. hear: is given the answers while a run trains. Raises UserError as `tools_of`.
    """
    if tools is None:
        tools = tools_of(opened, conversations=dataset.train.whole)
    part, score = own_function(opened.code, "answer"), None
    if config.train.objective.kind == "reward" and (scoring := scoring_of(opened)).reward is not None:
        score = scoring.score
    return Evaluation(dataset, config, machine, part, tools, score, hear)


def is_needed(parameter: inspect.Parameter) -> bool:
    """Whether a function cannot be called without this parameter."""
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def tools_of(opened: Opened, *, conversations: bool) -> Tools:
    """The tools that a model may call: the built-in ones and, if it learns conversations with special tokens, those of
    prepare.py's `tools()`.

    `tools()` is called here only for their names. The tools run in a process of their own. Raises UserError if it does not
    return a dict of functions by names without spaces, or names a built-in tool.
    """
    own = own_function(opened.code, "tools") if conversations else None
    if own is None:
        return BUILT_IN
    place, found = str(opened.experiment.folder / "prepare.py"), own()
    if not isinstance(found, dict) or not all(callable(tool) for tool in found.values()):
        raise UserError(
            "tools did not return a dict of functions",
            place=place,
            remedy='Return a dict from names to functions that take a text and give one: {"weather": weather}.',
        )
    for name in found:
        if not isinstance(name, str) or not name or len(name.split()) != 1 or name != name.strip():
            raise UserError(
                f"tools names a tool {name!r}", place=place, remedy='Give it a name without spaces, such as "weather".'
            )
        if name in BUILT_IN:
            raise UserError(
                f"tools names a tool {name!r}, which is built in", place=place, remedy="Give it another name."
            )
    return {**BUILT_IN, **own_tools(opened.experiment.folder.absolute(), found)}


def objective_of(config: ObjectiveConfig, plugins: Plugins) -> Objective:
    """What a step minimises: that of train.objective.kind, or prepare.py's `loss(model, batch)` in place of "tokens".

    Raises UserError for an unknown kind, and for a `loss` beside another kind.
    """
    own = own_function(plugins.code, "loss")
    if config.kind == "tokens":
        return tokens if own is None else summed(own, str(getattr(plugins.code, "__file__", "prepare.py")))
    if own is not None:
        raise UserError(
            f'prepare.py has its own loss(), and kind = "{config.kind}" is another objective',
            place="train.objective.kind",
            remedy="Remove one of the two.",
        )
    if config.kind == "reward":
        return policy_gradient(config.temperature)
    registered = plugins.registered("objectives")
    if config.kind not in registered:
        raise UserError(
            f'unknown objective "{config.kind}"',
            place="train.objective.kind",
            remedy=f"{did_you_mean(config.kind, ['tokens', 'reward', *registered])} Plugins can add more: see `terrarium plugins`.",
        )
    return summed(registered[config.kind][0], f'objective "{config.kind}"')


def scoring_of(opened: Opened) -> Scoring:
    """How answers are scored: by prepare.py's `reward`, or by exact match."""
    code = opened.code
    return Scoring(
        own_function(code, "reward"), own_function(code, "answer"), str(getattr(code, "__file__", "prepare.py"))
    )


def summed(own: Callable[..., Any], place: str) -> Objective:
    """A function loss(model, batch), which returns the mean over the targets of a micro-batch, as an Objective, which sums.

    The Objective raises UserError, when it is called, if `own` returns anything but one number.
    """

    def objective(model: Callable[..., Any], inputs: Tensor, targets: Tensor) -> Tensor:
        mean = own(model, Batch(inputs, targets))
        if not isinstance(mean, Tensor) or mean.dim():
            shape = f"a tensor of shape {tuple(mean.shape)}" if isinstance(mean, Tensor) else type(mean).__name__
            raise UserError(
                f"loss returned {shape}, not one number",
                place=place,
                remedy="Return the mean loss of the batch, a tensor without dimensions: losses.mean().",
            )
        return mean * (targets >= 0).sum()

    return objective


def own_metrics(
    opened: Opened, run: Run, model: torch.nn.Module, encoder: Encoder, taken: Collection[str]
) -> dict[str, float | None]:
    """The metrics of prepare.py's `evaluate`; None for one that is not finite.

    torch's random numbers are the same afterwards, so measuring changes no training. taken: names of other metrics.
    Raises UserError for values that are not numbers, and for a name that is taken.
    """
    own = getattr(opened.code, "evaluate", None)
    if own is None:
        return {}
    place = str(run.experiment.folder / "prepare.py")
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        values = own(run, model, encoder)
    try:
        numbers = {str(name): float(value) for name, value in values.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"evaluate did not return a dict of numbers: {error}",
            place=place,
            remedy='Return a dict from metric names to numbers, such as {"words": 0.9}.',
        ) from None
    if double := sorted(numbers.keys() & set(taken)):
        raise UserError(
            f"evaluate returned {double[0]}, which is measured already", place=place, remedy="Give it another name."
        )
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
