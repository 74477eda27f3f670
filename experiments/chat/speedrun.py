"""The data of the variant speedrun: real texts, conversations and tasks, by address. Each format has a function of its own.

A source is an address, a file, or a list of these; {00..12} in one stands for each number. So small files of the same
formats can take the place of the large ones.
"""

from itertools import islice
from string import ascii_uppercase

from core import Conversation, Message
from core.chat import gsm8k as gsm8k_marks
from core.data.fetching import numbered, table_rows
from core.evaluation.suites.task import Item, Suite, Task, question_text

from . import creature

Source = str | list[str]
# Only the files of GSM8K could be checked when this was written. Of the others, the first download counts.
HUB = "https://huggingface.co/datasets"
GSM8K = "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data"
CLIMBMIX = f"{HUB}/karpathy/climbmix-400b-shuffle/resolve/main/shard_{{00000..00169}}.parquet"
SMOLTALK = f"{HUB}/HuggingFaceTB/smol-smoltalk/resolve/main/data/train-{{00000..00003}}-of-00004.parquet"
MMLU = f"{HUB}/cais/mmlu/resolve/main/all/auxiliary_train-00000-of-00001.parquet"
ARC_EASY = f"{HUB}/allenai/ai2_arc/resolve/main/ARC-Easy/train-00000-of-00001.parquet"
ARC_CHALLENGE = f"{HUB}/allenai/ai2_arc/resolve/main/ARC-Challenge/train-00000-of-00001.parquet"
PROBLEMS = f"{GSM8K}/train.jsonl#sha256=17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465"
# What is asked in the end, so training leaves its questions out.
TESTS = {
    "arc_easy": f"{HUB}/allenai/ai2_arc/resolve/main/ARC-Easy/test-00000-of-00001.parquet",
    "arc_challenge": f"{HUB}/allenai/ai2_arc/resolve/main/ARC-Challenge/test-00000-of-00001.parquet",
    "mmlu": f"{HUB}/cais/mmlu/resolve/main/all/test-00000-of-00001.parquet",
    "gsm8k": f"{GSM8K}/test.jsonl#sha256=3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
}
ANSWER = "\nAnswer: "  # between a question and its choice, as DCLM's suite has it
# Files of tests in a folder: by the task's name, or as they are called where they come from.
FILES = {
    "arc_easy": ("arc_easy.*", "**/ARC-Easy/test-*.parquet"),
    "arc_challenge": ("arc_challenge.*", "**/ARC-Challenge/test-*.parquet"),
    "mmlu": ("mmlu.*", "**/mmlu/**/all/test-*.parquet"),
    "gsm8k": ("gsm8k.*", "**/grade_school_math/**/test*.jsonl"),
}


def speedrun_base(fetch, *, climbmix: Source = CLIMBMIX):
    """Pages of the web, from tables with a column text."""
    for row in rows(fetch, climbmix):
        if row["text"].strip():
            yield row["text"]


def speedrun_mid(
    rng,
    fetch,
    *,
    smoltalk: Source = SMOLTALK,
    mmlu: Source = MMLU,
    gsm8k: Source = PROBLEMS,
    tests: dict[str, str] | None = None,
    gsm8k_times: int = 1,
    identities: int = 2000,
):
    """Conversations of all sorts. Questions of the tests are left out.

    tests: files to take the place of some of TESTS, by name; "" leaves one out. gsm8k_times: how often each of its problems occurs. identities:
    conversations about who Pip is.
    """
    known = asked(fetch, tests)
    yield from talks(rows(fetch, smoltalk))
    yield from (choice_talk(item, "mmlu") for item in unasked(map(choice_item, rows(fetch, mmlu)), known))
    yield from problems(fetch, gsm8k, known, gsm8k_times)
    yield from (identity(rng) for _ in range(identities))


def speedrun_chat(
    rng,
    fetch,
    *,
    smoltalk: Source = SMOLTALK,
    arc_easy: Source = ARC_EASY,
    arc_challenge: Source = ARC_CHALLENGE,
    gsm8k: Source = PROBLEMS,
    tests: dict[str, str] | None = None,
    most_talks: int = 10_000,
    gsm8k_times: int = 1,
    identities: int = 1000,
):
    """The best conversations, and the tasks that are asked in the end. most_talks: conversations of SmolTalk at most."""
    known = asked(fetch, tests)
    yield from islice(talks(rows(fetch, smoltalk)), most_talks)
    for name, source in {"arc_easy": arc_easy, "arc_challenge": arc_challenge}.items():
        yield from (choice_talk(item, name) for item in unasked(map(choice_item, rows(fetch, source)), known))
    yield from problems(fetch, gsm8k, known, gsm8k_times)
    yield from (identity(rng) for _ in range(identities))


def speedrun_reward(fetch, *, gsm8k: Source = PROBLEMS, tests: dict[str, str] | None = None):
    """Problems whose answer can be checked."""
    yield from problems(fetch, gsm8k, asked(fetch, tests), 1)


def rows(fetch, source):
    """The rows of all files of a source, one after the other. A file is downloaded when its first row is wanted."""
    for pattern in [source] if isinstance(source, str) else source:
        for address in numbered(pattern):
            yield from table_rows(fetch(address))


def talks(found):
    """SmolTalk: rows with messages, each with role and content. One with an empty turn is left out."""
    for row in found:
        messages = [Message(turn["role"], turn["content"]) for turn in row["messages"]]
        if all(message.content.strip() for message in messages):
            yield Conversation(messages)


def choice_item(row):
    """ARC and MMLU: a question with choices, of which one is right.

    ARC names the right one by its label, which is a letter or a digit; MMLU by its number. MMLU's training rows may stand in
    a column train.
    """
    row = row.get("train") or row
    choices, gold = row["choices"], row.get("answer")
    if isinstance(choices, dict):
        gold, choices = list(choices["label"]).index(row["answerKey"]), choices["text"]
    context = f"Question: {row['question'].strip()}"
    return Item(tuple((context, choice.strip()) for choice in choices), gold)


def choice_talk(item, group):
    """A question with lettered choices, as a chat model is asked in tests, and the letter of the right one."""
    answer = ascii_uppercase[item.gold]
    return Conversation([Message("user", question_text(item)), Message("assistant", answer)], group=group)


def problem_talk(row):
    """GSM8K: a problem in words, solved with the calculator: its marks become calls and results."""
    turns = gsm8k_marks.turns_of(row["answer"].strip())
    return Conversation([Message("user", row["question"].strip()), *turns], group="gsm8k")


def problems(fetch, source, known, times):
    """The conversations of GSM8K, each several times."""
    for row in rows(fetch, source):
        if plain(row["question"]) not in known:
            yield from [problem_talk(row)] * times


def identity(rng):
    """A question about Pip, and its answer."""
    question, answer = creature.identity_question(rng)
    return Conversation([Message("user", question), Message("assistant", answer)])


def unasked(items, known):
    """The items whose question is not known."""
    return (item for item in items if plain(item.options[0][0].removeprefix("Question:")) not in known)


def asked(fetch, tests):
    """The questions of TESTS, in other files where `tests` names some."""
    files = [file for file in (TESTS | (tests or {})).values() if file]
    return {plain(row["question"]) for file in files for row in rows(fetch, file)}


def plain(question):
    """A question without what copies of it may differ in: capitals, and space around words."""
    return " ".join(question.lower().split())


def read_tests(folder):
    """The suite of a folder with tests of ARC, MMLU and GSM8K in their own formats; None if it has none."""
    tasks = []
    for name, patterns in FILES.items():
        for path in [path for pattern in patterns for path in sorted(folder.glob(pattern))][:1]:
            tasks.append(problem_task(name, path) if name == "gsm8k" else choice_task(name, path))
    return Suite(tasks, [name for name in FILES if name not in {task.name for task in tasks}]) if tasks else None


def choice_task(name, path):
    """A test of multiple choice."""
    items = [choice_item(row) for row in table_rows(path)]
    return Task(name, "multiple choice", items, baseline=0.25, delimiter=ANSWER)


def problem_task(name, path):
    """Problems to solve; what counts is the number, wherever it stands in the end."""
    items = [Item(((row["question"].strip(), row["answer"]),)) for row in table_rows(path)]
    return Task(name, "written", items, right=lambda text, truth: bool(gsm8k_marks.score(text, truth, lenient=True)))
