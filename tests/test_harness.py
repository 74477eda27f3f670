"""lm-evaluation-harness: its requests, answered by a trained model; and one of its tasks, equal to ours."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from suites import CPU, random_task, slow_losses

from core import open_experiment
from core.errors import UserError
from core.evaluation.suites.results import measure_task
from core.evaluation.suites.rows import prompts_of
from core.lab.harness import HarnessRequests, harness_model
from core.lab.model import LoadedModel


@dataclass
class Request:
    """What the harness calls an Instance."""

    args: tuple[Any, ...]


TEXTS = """def documents(rng):
    while True:
        yield "the quick brown fox "[: rng.randint(5, 20)]
"""


@pytest.fixture
def model(spaces: Path) -> LoadedModel:
    changes = {"prepare.encoder": "bytes", "train.model.block_size": 16, "train.schedule.max_iters": 30}
    return open_experiment("spaces", changes).train().load()


def test_loglikelihood(model: LoadedModel) -> None:
    pairs = [("ab: ", "a b"), ("ab:", " a b"), ("c" * 30, " c"), ("a", "b" * 40), ("abc: ", ""), (" ", "a")]
    found = HarnessRequests(model).loglikelihood([Request(pair) for pair in pairs])
    assert found[0] == found[1]
    for (context, continuation), (likelihood, greedy) in zip(pairs, found, strict=True):
        head = context.rstrip() or context
        ids = model.encoder.encode(context[len(head) :] + continuation).tolist()
        nats, likeliest = slow_losses(model.module, model.encoder.encode(head).tolist(), ids)
        assert likelihood == pytest.approx(-sum(nats), abs=1e-4)
        assert greedy == (len(nats) == len(ids) and all(likeliest))


@pytest.mark.parametrize("encoder", ["bytes", "char"])  # with and without a token that ends documents
def test_loglikelihood_rolling(spaces: Path, encoder: str) -> None:
    model = open_experiment("spaces", {"prepare.encoder": encoder}).train().load()
    end = model.encoder.end_token
    assert (end is None) == (encoder == "char")
    texts = ["ab: a b\n", "abc" * 20, "a", ""]
    found = HarnessRequests(model).loglikelihood_rolling([Request((text,)) for text in texts])
    for text, likelihood in zip(texts, found, strict=True):
        ids, nats = [*([] if end is None else [end]), *model.encoder.encode(text).tolist()], list[float]()
        for begin in range(0, len(ids) - 1, 16):
            part = ids[begin : begin + 17]
            nats += slow_losses(model.module, part[:1], part[1:])[0]
        assert len(nats) == max(len(ids) - 1, 0) and likelihood == pytest.approx(-sum(nats), abs=1e-3)


def test_a_model_whose_documents_begin_with_a_token_is_asked_with_it(spaces: Path) -> None:
    (spaces / "prepare.py").write_text(TEXTS)
    changes = {"prepare.encoder": "bytes", "prepare.special_tokens": "chat", "train.schedule.max_iters": 30}
    model = open_experiment("spaces", changes).train().load()
    begin, ids = model.trained.begin, model.encoder.encode
    assert begin is not None
    asked = HarnessRequests(model)
    pairs = [("the quick", " fox"), ("", "fox")]
    for (context, continuation), (found, _) in zip(
        pairs, asked.loglikelihood([Request(pair) for pair in pairs]), strict=True
    ):
        slow, _ = slow_losses(model.module, [begin, *ids(context).tolist()], ids(continuation).tolist())
        assert found == pytest.approx(-sum(slow), abs=1e-4)
    slow, _ = slow_losses(model.module, [begin], ids("the quick").tolist())
    assert asked.loglikelihood_rolling([Request(("the quick",))]) == [pytest.approx(-sum(slow), abs=1e-3)]
    written = model.complete(["the "], temperature=0, max_new_tokens=9)
    assert asked.generate_until([Request(("the ", {"max_gen_toks": 9}))]) == written


def test_generate_until(model: LoadedModel) -> None:
    whole = model.complete(["ab: "], temperature=0, max_new_tokens=12, stop="\0")[0]
    requests = [
        ("ab: ", {"max_gen_toks": 12}),
        ("ab: ", {"until": [whole[3]], "max_gen_toks": 12, "do_sample": False, "temperature": 0.7}),
        ("ab: ", {"until": ["no such text", whole[4:6]], "max_gen_toks": 12}),
        ("ab: ", {"until": whole[2:], "max_gen_toks": 12}),
    ]
    found = HarnessRequests(model).generate_until([Request(request) for request in requests])
    ends = [12, whole.index(whole[3]), whole.index(whole[4:6]), whole.index(whole[2:])]
    assert found == [whole[:end] for end in ends]
    with pytest.raises(
        UserError, match="the harness asks to decode with 'beams', which is not known here\n  Known: do_s"
    ):
        HarnessRequests(model).generate_until([Request(("ab: ", {"beams": 2}))])


def test_without_lm_eval(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(
        UserError, match=r"lm-eval is not installed\n  Install it: pip install -c constraints.txt -e '.\[eval\]'"
    ):
        harness_model(model)


@pytest.mark.filterwarnings("ignore")  # of the harness and of what it imports
def test_a_task_of_the_harness_is_equal_to_ours(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same items, without shots: their log-likelihoods and the accuracy of the harness's `acc` by sum and of `acc_norm`."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask

    task = random_task(3, "multiple choice", items=40, shots=0)
    lines = [
        {"query": item.options[0][0], "choices": [choice for _, choice in item.options], "gold": item.gold}
        for item in task.items
    ]
    (tmp_path / "items.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    theirs = ConfigurableTask(
        config={
            "task": "items",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(tmp_path / "items.jsonl")}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{query}}",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc"}],
        }
    )
    found = simple_evaluate(harness_model(model), tasks=[theirs], bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"]["items"], key=lambda sample: sample["doc_id"])
    right = 0
    for number, sample in enumerate(samples):
        item = task.items[number]
        likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
        slow = []
        for prompt, continuation in prompts_of(task, number):
            ids = model.encoder.encode(" " + continuation).tolist()
            slow.append(-sum(slow_losses(model.module, model.encoder.encode(prompt).tolist(), ids)[0]))
        assert likelihoods == pytest.approx(slow, abs=1e-4)
        per_token = [value / len(text) for value, (_, text) in zip(likelihoods, ((0, " " + choice) for _, choice in item.options), strict=True)]  # fmt: skip
        right += per_token.index(max(per_token)) == item.gold
    assert measure_task(model.module, task, model.encoder, CPU).right == right
    sums = [[float(response[0]) for response in sample["filtered_resps"]] for sample in samples]
    acc = sum(values.index(max(values)) == item.gold for values, item in zip(sums, task.items, strict=True)) / len(sums)
    assert found["results"]["items"]["acc,none"] == pytest.approx(acc)
