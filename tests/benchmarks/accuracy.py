"""What measuring exact match costs while insert_spaces trains with default intervals, as a share of the training time.

    python tests/benchmarks/accuracy.py [EXPERIMENT] [-s key=value ...]

A model is trained to its end first, because a fresh one does not end its answers. Step, validation loss and answers are then
timed in turn, so that another process on the machine affects all of them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from core import open_experiment
from core.config import Runtime
from core.evaluation.evaluate import Evaluation
from core.lab.assemble import throwaway
from core.training import checkpoints

ROUNDS = 7
DEFAULT = Runtime().eval_interval


def seconds_of(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main(name: str, settings: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        given = dict(pair.split("=", 1) for pair in settings)
        changes = {key: int(value) if value.isdigit() else value for key, value in given.items()}
        exp = open_experiment(name, {"train.runtime.trackers": [], "train.runtime.out_dir": folder, **changes})
        run = exp.train("accuracy")
        opened = exp.opened
        dataset = exp.prepare()
        config = opened.config
        with throwaway(opened, dataset) as (_, parts):
            best = checkpoints.load(run.folder / "checkpoints", "best")
            checkpoints.put_weights(parts.model, best.model, "best")
            for prompts in (100, config.evaluate.training_prompts):
                evaluate = config.evaluate.model_copy(update={"training_prompts": prompts})
                measured = Evaluation(dataset, config.model_copy(update={"evaluate": evaluate}), parts.machine)
                asked = sum(len(examples) for examples in measured.examples.values())
                times: dict[str, list[float]] = {"step": [], "loss": [], "all": []}
                for _ in range(ROUNDS):
                    parts.model.train()
                    batch = parts.batch(0)
                    times["step"].append(seconds_of(lambda batch=batch: [parts.step(*batch) for _ in range(20)]) / 20)
                    parts.model.eval()
                    checkpoints.put_weights(parts.model, best.model, "best")
                    times["loss"].append(seconds_of(lambda measured=measured: measured.losses(parts.model, 0)))
                    times["all"].append(seconds_of(lambda measured=measured: measured.while_training(parts.model)))
                step, loss, everything = (statistics.median(values[1:]) for values in times.values())
                answers = max(everything - loss, 0.0)
                print(
                    f"{asked} prompts: {1000 * answers:.0f} ms for the answers, {1000 * loss:.0f} ms for the loss, "
                    f"{1000 * step:.2f} ms a step"
                )
                for interval in (DEFAULT, config.train.runtime.eval_interval):
                    total = interval * step + loss + answers
                    print(
                        f"  every {interval} steps: accuracy takes {answers / total:.1%}, the loss {loss / total:.1%}"
                    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "insert_spaces", [part for part in sys.argv[2:] if part != "-s"])
