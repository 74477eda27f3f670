"""What check found about an experiment, as lines for the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from core.cli.conversation import conversation_lines
from core.tracking.figures import loss_text

Account = dict[str, Any]


def across_lines(across: list[Account]) -> Iterator[str]:
    """What was counted from stage to stage."""
    yield from ("", "held-out prompts of one stage in the training data of another")
    for part in across:
        where = f"{part['stage']} ({part['side']}) in {part['train_of']}"
        yield line(where, f"{part['in_train']:,} of {part['parts']:,} ({part['share']:.1%})")


def lines(account: Account, colour: bool) -> Iterator[str]:
    """The account as text, section by section."""
    yield from ("", "data", *data_lines(account))
    if account["dial"]:
        yield from ("", "train.model.depth", *dial_lines(account))
    yield from conversation_lines(account, colour=colour)
    yield from ("", "validation in training", *overlap_lines(account, "val"))
    if any(part["side"] == "test" for part in account["overlap"]):
        yield from ("", "test in training", *overlap_lines(account, "test"))
    yield from ("", "n-gram baselines: loss in nats per target (bits per byte)", *loss_lines(account))
    if account["adapters"]:
        yield from ("", "pretrained model", *(f"  {text}" for text in account["adapters"]["lines"]))
    if account["reward"]:
        yield from ("", "training by reward", *reward_lines(account["reward"]))
    if account["prediction"]:
        yield from ("", "cost of the run", *cost_lines(account))
    if account["kept"]:
        yield from ("", "kept steps", *(f"  {text}" for text in account["kept"]["lines"]))
    yield from ("", "suspicious settings" if account["warnings"] else "no suspicious settings")
    for number, warning in enumerate(account["warnings"], 1):
        yield f"  {number}. {warning['place']}: {warning['message']}."
        yield f"     {warning['remedy']}"


def line(name: str, text: str) -> str:
    return f"  {name:<22}{text}"


def data_lines(account: Account) -> Iterator[str]:
    data, size = account["data"], account["block_size"]
    if data["train_documents"] is not None:
        documents = f"{data['train_documents']:,} to train on, {data['val_documents']:,} held out ({data['kind']})"
        yield line("documents", documents)
    else:
        yield line("documents", "running text, one stream")
    if data["train_prompts"] is not None:
        yield line("different prompts", f"{data['train_prompts']:,} to train on, {data['val_prompts']:,} held out")
    yield line("tokens", f"{data['train_tokens']:,} to train on, {data['val_tokens']:,} held out")
    yield line("vocabulary", f"{data['vocab_size']:,} ({data['encoder']})")
    if data["longest"] is not None:
        longer = f"block_size = {size:,}"
        if data["longer"]:
            longer = f"{data['longer']:,} are longer than {longer}"
        elif data["longest"] < size:
            longer += " is longer than any document, so a row has several"
        yield line("longest document", f"{data['longest']:,} tokens; {longer}")
    if data["begin"] or data["end"]:
        yield line("around documents", f"{data['begin'] or 'nothing'} before, {data['end'] or 'nothing'} behind")
    if packing := account["packing"]:
        shares = f"{packing['cropped']:.1%} of the tokens are cropped, {packing['padding']:.1%} of the rows are empty"
        yield line("packing", f"{packing['rows']:,} rows of whole documents; {shares}")
    each = f"{data['train_tokens'] / max(account['parameters'], 1):.2g} training tokens for each"
    yield line("parameters", f"{account['parameters']:,}, {each}")


def dial_lines(account: Account) -> Iterator[str]:
    """What the dial decides, with its arithmetic."""
    for rule in account["dial"]:
        name = rule["key"].rpartition(".")[2]
        own = "" if rule["given"] is None else f"; but {rule['given']:,} is given"
        yield line(name, f"{rule['value']:,} = {rule['because']}{own}")


def overlap_lines(account: Account, side: str) -> Iterator[str]:
    for part in [part for part in account["overlap"] if part["side"] == side]:
        text = f"{part['in_train']:,} of {part['parts']:,} also occur in train ({part['share']:.1%})"
        if part["searched"] < account["data"]["train_tokens"]:
            text += f", in its first {part['searched']:,} tokens"
        yield line(part["what"], text)
    if side == "val" and account["data"]["same"]:
        yield "  Both sides are the same."


def loss_lines(account: Account) -> Iterator[str]:
    found, data = account["baselines"], account["data"]
    for name, nats in found["nats"].items():
        bits = found["bits_per_byte"][name]
        yield line(name, loss_text(nats) + ("" if bits is None else f"  ({bits:.3f})"))
    if account["optimal_loss"] is not None:
        yield line("optimal", f"{loss_text(account['optimal_loss'])}  from evaluate.optimal_loss")
    if (found["train_tokens"], found["val_tokens"]) != (data["train_tokens"], data["val_tokens"]):
        yield f"  From the first {found['train_tokens']:,} training and {found['val_tokens']:,} validation tokens."
    tables = [nats for name, nats in found["nats"].items() if name != "uniform"]
    if any(longer > shorter for shorter, longer in itertools.pairwise(tables)):
        yield "  Longer n-grams that do worse have memorised the training side."
    yield "  N-grams: interpolated Kneser-Ney (Chen and Goodman 1999), counted on the training side only."


def reward_lines(outlook: Account) -> Iterator[str]:
    """Whether training by reward can work, from a few answers of the model that it starts from."""
    if "missing" in outlook:
        yield f"  Not known: {outlook['missing']}."
        return
    interval = f"{outlook['low']:.1%} to {outlook['high']:.1%}"
    yield line("answers", f"{outlook['rewarded']:.1%} of {outlook['answers']} answers are rewarded ({interval})")
    if outlook["truncated"]:
        yield line("cut", f"{outlook['truncated']:.1%} did not end within train.objective.max_new_tokens")
    signal = f"{outlook['signal']:.1%} of the groups of {outlook['group_size']} will differ in reward, at most"
    yield line("signal", f"{signal}: 1 - p^g - (1 - p)^g")
    yield f"  {outlook['verdict'][0].upper()}{outlook['verdict'][1:]}."


def cost_lines(account: Account) -> Iterator[str]:
    from core.files import megabytes
    from core.report.run_report import duration

    cost, limit = account["prediction"], account["stop_when"]
    yield line("step", f"{cost['ms_per_step']:,.1f} ms, {cost['tokens_per_second']:,.0f} tokens/s")
    shares = ", ".join(f"{name} {share:.1%}" for name, share in cost["shares"].items())
    early = f", at most: it ends earlier at {limit}" if limit else ""
    yield line("time", f"about {duration(cost['seconds'])} for {cost['steps']:,} steps{early}; share of it: {shares}")
    if not account["reward"]:  # otherwise it reads what the model writes
        yield line("data seen", seen_text(account))
    if cost["memory_bytes"] is not None:
        left = "" if cost["available_bytes"] is None else f"; {megabytes(cost['available_bytes'])} more are free"
        some = f" with {cost['rows']:,} of {account['batch_size']:,} rows" * (cost["rows"] < account["batch_size"])
        yield line("memory", f"{megabytes(cost['memory_bytes'])} at most{some}{left}")
    if cost["step_bytes"] is not None and cost["evaluation_bytes"] is not None:
        each = f"{megabytes(cost['step_bytes'])} more in steps, {megabytes(cost['evaluation_bytes'])} more in an evaluation"
        yield line("", f"{each} than with the model alone")


def seen_text(account: Account) -> str:
    """How many tokens a run reads, and how often that is the training side."""
    cost: dict[str, Any] = account["prediction"]
    seen = cost["steps"] * cost["ms_per_step"] / 1000 * cost["tokens_per_second"]
    times = seen / (account["data"]["epoch_tokens"] or account["data"]["train_tokens"])
    return f"{seen:,.0f} tokens, {times:,.{0 if times >= 10 else 1}f} times the training side"
