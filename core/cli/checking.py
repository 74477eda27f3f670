"""What `check` finds out: an experiment, opened, goes in; an account of its data, its baselines, its cost and its traps comes out."""

from __future__ import annotations

import dataclasses
from typing import Any

from core.bench.predict import Prediction, predict
from core.cli.bench import throwaway
from core.cli.caution import warnings_of
from core.cli.fitting import does_not_fit
from core.cli.lab import Lab
from core.cli.settle import settle
from core.cli.training import refuse_unknown
from core.config import Data
from core.data.dataset import Dataset
from core.evaluation.baselines import TRAIN_TOKENS, VAL_TOKENS, baselines
from core.evaluation.facts import facts_of, targets_of
from core.evaluation.loss import bits_per_byte
from core.evaluation.overlap import overlaps, same_content
from core.models.build import build_model, parameter_count
from core.tracking.run import Run
from core.training import memory

TIMED_SECONDS = 5.0
Account = dict[str, Any]


def account_of(lab: Lab, *, timing: bool) -> Account:
    """Everything, as JSON values. timing: take steps of the real run. Raises UserError where it could not train."""
    refuse_unknown(lab)
    dataset = lab.prepare()
    prediction, parameters = timed(lab, dataset) if timing else (None, untimed(lab, dataset))
    data = lab.config.train.data
    found = overlaps(dataset.train, dataset.val, dataset.encoder.vocab_size)
    facts = dataclasses.replace(
        facts_of(dataset, data),
        val_in_train=max(overlap.share for overlap in found),
        same=same_content(dataset.train, dataset.val),
        parameters=parameters,
        seconds=None if prediction is None else prediction.seconds,
    )
    return {
        "experiment": lab.experiment.name,
        "parameters": parameters,
        "batch_size": data.batch_size,
        "block_size": data.block_size,
        "data": dataclasses.asdict(facts),
        "overlap": [dataclasses.asdict(overlap) | {"share": overlap.share} for overlap in found],
        "baselines": baseline_losses(dataset, data),
        "optimal_loss": lab.config.evaluate.optimal_loss,
        "prediction": None if prediction is None else dataclasses.asdict(prediction),
        "warnings": [dataclasses.asdict(warning) for warning in warnings_of(lab, facts)],
    }


def timed(lab: Lab, dataset: Dataset) -> tuple[Prediction, int]:
    """The cost of the run, and the model's parameters, from steps of a run that is thrown away."""
    with throwaway(lab, dataset) as (run, parts):
        try:
            with memory.noticing():
                return predict(run, parts, dataset, TIMED_SECONDS), parameter_count(parts.model)
        except memory.NoRoom as error:
            raise does_not_fit(run, parts, error) from None


def untimed(lab: Lab, dataset: Dataset) -> int:
    """The model's parameters; the layout is settled."""
    settle(Run(lab.experiment, "check", lab.config), dataset, lab.code, timing=False)
    return parameter_count(build_model(lab.config.train.model, dataset.encoder.vocab_size, lab.code))


def baseline_losses(dataset: Dataset, data: Data) -> Account:
    """nats per target and bits per byte by name, of the targets that val_loss is over; and how many tokens were looked at."""
    train, val = dataset.train, dataset.val
    nats = baselines(
        train.ids, val.ids,
        targets_of(train, data, TRAIN_TOKENS), targets_of(val, data, VAL_TOKENS), dataset.encoder.vocab_size,
    )  # fmt: skip
    targets, text_bytes = dataset.target_size(masked=data.mask_prompt)
    return {
        "nats": nats,
        "bits_per_byte": {name: bits_per_byte(loss, targets, text_bytes) for name, loss in nats.items()},
        "train_tokens": min(train.tokens, TRAIN_TOKENS),
        "val_tokens": min(val.tokens, VAL_TOKENS),
    }
