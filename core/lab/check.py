"""Check an experiment before training: the data, n-gram baselines, the cost of the run, suspicious settings."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from core import files
from core.chat.render import spelled
from core.config import Data, Train
from core.data.batches import packing_of
from core.data.dataset import Dataset, Side
from core.dial import rules_of
from core.encoders.base import identity
from core.errors import UserError
from core.evaluation.baselines import TRAIN_TOKENS, VAL_TOKENS, baselines
from core.evaluation.facts import facts_of, targets_of
from core.evaluation.loss import bits_per_byte
from core.evaluation.overlap import Overlap, overlaps, same_content
from core.lab.adapted import adapted_account
from core.lab.assemble import refuse_unknown, throwaway
from core.lab.cautions import cautions_of
from core.lab.no_room import step_does_not_fit
from core.lab.opened import Opened, prepared
from core.lab.pipeline import prepare_all
from core.lab.prediction import Prediction, predict
from core.lab.reward import reward_outlook
from core.lab.settle import Settled, settle
from core.lab.stages import at_stage, named
from core.models.build import build_model, parameter_count
from core.plugins.manager import Plugins
from core.roles import flat
from core.training import checkpoints, ladder, memory

TIMED_SECONDS = 5.0
SHOWN = 500  # tokens of a conversation
Account = dict[str, Any]


def account_of(opened: Opened, *, timing: bool = True) -> Account:
    """The whole account, as JSON values. timing: time real steps. Raises UserError if the experiment cannot be trained."""
    refuse_unknown(opened)
    opened, dataset = prepared(opened)
    settled = settle(opened.experiment, opened.config, dataset, opened.plugins, timing=False)
    data = settled.config.train.data
    prediction, model = timed(opened, dataset) if timing else (None, untimed(settled, dataset, opened.plugins))
    parameters = model["parameters"]
    found = [(side, overlap) for side in held_out_sides(dataset) for overlap in overlaps_of(dataset, side)]
    given = set(flat(opened.settings.values))
    facts = dataclasses.replace(
        facts_of(dataset, data),
        val_in_train=most_of("val", found),
        test_in_train=most_of("test", found),
        same=same_content(dataset.train, dataset.val),
        parameters=parameters,
        seconds=None if prediction is None else prediction.seconds,
    )
    return {
        "experiment": opened.experiment.name,
        "parameters": parameters,
        "batch_size": data.batch_size,
        "block_size": data.block_size,
        "data": dataclasses.asdict(facts),
        "overlap": [{"side": side, **dataclasses.asdict(overlap), "share": overlap.share} for side, overlap in found],
        "baselines": baseline_losses(dataset, data),
        "conversation": conversation_of(dataset),
        "packing": packing_figures(dataset, data),
        "adapters": model["adapters"],
        "reward": reward_outlook(opened, dataset),
        "kept": kept_steps_of(settled.config.train, model["weight_bytes"]),
        "dial": [dataclasses.asdict(rule) for rule in rules_of(opened.config, given, dataset.encoder.vocab_size)],
        "stop_when": opened.config.train.runtime.stop_when,
        "optimal_loss": opened.config.evaluate.optimal_loss,
        "prediction": None if prediction is None else dataclasses.asdict(prediction),
        "warnings": [dataclasses.asdict(caution) for caution in cautions_of(opened, facts)],
    }


def conversation_of(dataset: Dataset) -> Account | None:
    """The first training conversation with special tokens, piece by piece, and how many tokens are targets. None without one.

    Shows at most SHOWN tokens of it.
    """
    if not dataset.train.whole:
        return None
    ids, mask = dataset.train.document(0)
    assert mask is not None
    shown = spelled(ids[:SHOWN].tolist(), (mask[:SHOWN] != 0).tolist(), dataset.encoder)
    return {
        "pieces": [piece._asdict() for piece in shown],
        "tokens": len(ids),
        "targets": int(mask.sum()),
        "shown": min(len(ids), SHOWN),
        **{f"{side}_targets": int(dataset.info[side]["target_tokens"]) for side in ("train", *held_out_sides(dataset))},
    }


def packing_figures(dataset: Dataset, data: Data) -> Account | None:
    """What train.data.packing makes of the training side: rows, and the shares that are cropped and empty. None without it."""
    if data.packing == "none":
        return None
    packed = packing_of(dataset.train, data)
    return {"rows": packed.rows, **packed.lost}


def accounts_of(opened: Opened, stage: str = "", *, timing: bool = True) -> dict[str, Account]:
    """`account_of` each stage, or of one. Without stages, "" has the only one. Raises UserError as it does."""
    if stage:
        named(opened, stage)
    if not opened.stages:
        return {"": account_of(opened, timing=timing)}
    prepare_all(opened, stage)
    chosen = [each for each in opened.stages if stage in ("", each.name)]
    return {each.name: account_of(at_stage(opened, each), timing=timing) for each in chosen}


def across_stages(opened: Opened) -> list[Account]:
    """How many held-out prompts of each stage also occur in the training data of another one. Makes all datasets."""
    made = {
        name: dataset
        for name, dataset in prepare_all(opened).items()
        if dataset.train.starts is not None and not dataset.train.texts
    }
    found: list[Account] = []
    for name, dataset in made.items():
        for other, trained in made.items():
            if dataset.folder == trained.folder or identity(dataset.encoder) != identity(trained.encoder):
                continue
            for side in held_out_sides(dataset):
                prompts, _ = overlaps(trained.train, dataset.side(side), dataset.encoder.vocab_size)
                part = {**dataclasses.asdict(prompts), "share": prompts.share}
                found.append({"stage": name, "side": side, "train_of": other, **part})
    return found


def held_out_sides(dataset: Dataset) -> tuple[Side, ...]:
    return ("val",) if dataset.test is None else ("val", "test")


def most_of(side: Side, found: list[tuple[Side, Overlap]]) -> float | None:
    """The largest share of a side's parts that occur in train. None if there is no such side."""
    return max((overlap.share for name, overlap in found if name == side), default=None)


def overlaps_of(dataset: Dataset, side: Side) -> list[Overlap]:
    """What of a side also occurs in train. Lines are compared in texts only: the lines of a worked-out answer repeat."""
    lines = line_break(dataset) if dataset.info["kind"] == "text" else None
    return overlaps(dataset.train, dataset.side(side), dataset.encoder.vocab_size, lines)


def line_break(dataset: Dataset) -> int | None:
    """The id of a line break, if it has one of its own."""
    try:
        ids = dataset.encoder.encode("\n")
    except UserError:  # the text is one line
        return None
    return int(ids[0]) if len(ids) == 1 else None


def timed(opened: Opened, dataset: Dataset) -> tuple[Prediction, Account]:
    """Predict the cost of the run from steps of a temporary one. Returns it and what is said of the model."""
    with throwaway(opened, dataset, compiling=False) as (run, parts):
        try:
            with memory.noticing():
                return predict(run, parts, dataset, TIMED_SECONDS), of_model(parts.model)
        except memory.NoRoom as error:
            raise step_does_not_fit(run, parts.step, parts.batch(0), error) from None


def untimed(settled: Settled, dataset: Dataset, plugins: Plugins) -> Account:
    """What is said of the model."""
    with settled.machine.computing():
        return of_model(build_model(settled.config.train.model, dataset.encoder.vocab_size, plugins))


def of_model(model: nn.Module) -> Account:
    """The number of parameters that are trained, the bytes of weights in a checkpoint, and the adapters of a pretrained model."""
    return {
        "parameters": parameter_count(model),
        "weight_bytes": checkpoints.size(checkpoints.weights(model)),
        "adapters": adapted_account(model),
    }


def kept_steps_of(train: Train, weight_bytes: int) -> Account | None:
    """How many steps train.runtime.keep_checkpoints keeps at most, the bytes of their weights on the disk, and this in lines. None without any.

    steps: which, if the run has all its steps; None where it is limited by minutes.
    """
    runtime = train.runtime
    if not runtime.keep_checkpoints:
        return None
    timed = runtime.max_minutes is not None
    steps = None if timed else ladder.steps(train.schedule.max_iters, runtime.keep_checkpoints)
    count = runtime.keep_checkpoints if steps is None else len(steps)
    which = [] if steps is None else [f"{', '.join(f'{step:,}' for step in steps)}; the last one is the run's end"]
    disk = f"{count:,} x {files.megabytes(weight_bytes)} of the disk at most, besides the checkpoints best and last"
    return {"count": count, "steps": steps, "bytes": count * weight_bytes, "lines": [*which, disk]}


def baseline_losses(dataset: Dataset, data: Data) -> Account:
    """Nats per target and bits per byte of each baseline, over the targets of val_loss; and the number of tokens used."""
    train, val = dataset.train, dataset.val
    nats = baselines(
        train.ids, val.ids,
        targets_of(train, data, TRAIN_TOKENS), targets_of(val, data, VAL_TOKENS), dataset.encoder.vocab_size,
    )  # fmt: skip
    targets, text_bytes = dataset.target_size("val", masked=data.mask_prompt)
    return {
        "nats": nats,
        "bits_per_byte": {name: bits_per_byte(loss, targets, text_bytes) for name, loss in nats.items()},
        "train_tokens": min(train.tokens, TRAIN_TOKENS),
        "val_tokens": min(val.tokens, VAL_TOKENS),
    }
