"""The shipped experiments: each runs, tiny, from data to report, and refuses settings that make no data."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result
from preparing import error_of

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SHIPPED = (
    "addition", "arithmetic", "bundestag_char", "bundestag_finetuning_mps", "bundestag_qwen15b_lora_mps", "bundestag_tiktoken", "chat",
    "count_by_twos", "insert_spaces", "parity", "shakespeare", "shakespeare_char", "speakger", "strings", "tinystories", "translate_words",
)  # fmt: skip
TINY = ("n_layer=1", "n_head=2", "n_embd=16")
MINUTE = ["-s", "train.runtime.max_minutes=0.01"]
LITTLE_TEXT = [
    "-s",
    "prepare.vocab_size=300",
    "-s",
    "prepare.val_fraction=0.1",
    "-s",
    "train.model.block_size=32",
    "-s",
    "train.model.n_ff=32",
]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("addition", []),
        ("addition", ["--variant", "formats", "-s", "prepare.params.format=detailed"]),
        ("addition", ["--variant", "shin"]),
        ("arithmetic", []),
        ("arithmetic", ["--variant", "division"]),
        ("arithmetic", ["--variant", "lstm"]),
        ("arithmetic", ["--variant", "orders"]),
        ("bundestag_char", []),
        ("bundestag_char", ["--variant", "small", "-s", "prepare.params.ngram_size=2"]),
        ("bundestag_finetuning_mps", ["-s", "prepare.vocab_size=300"]),
        ("bundestag_qwen15b_lora_mps", ["-s", "prepare.vocab_size=300"]),
        ("bundestag_tiktoken", [*MINUTE, "-s", "prepare.vocab_size=300", "-s", "prepare.params.own=true"]),
        ("bundestag_tiktoken", ["--variant", "small", *MINUTE, "-s", "prepare.vocab_size=300"]),
        ("speakger", [*MINUTE, "-s", "prepare.vocab_size=300"]),
        ("chat", ["-s", "evaluate.max_prompts=5", "-s", "stages.reward.train.objective.prompts_per_step=1"]),
        ("parity", ["-s", "prepare.params.bits=4", "-s", "stages.reward.train.objective.prompts_per_step=1"]),
        ("strings", []),
        ("strings", ["-s", "prepare.params.task=sort"]),
        ("count_by_twos", []),
        pytest.param("insert_spaces", [], marks=pytest.mark.pictures),
        ("insert_spaces", ["--variant", "long"]),
        ("translate_words", []),
        ("translate_words", ["-s", "prepare.params.languages=['de', 'es']"]),
        ("shakespeare", ["-s", "prepare.encoder=bpe", "-s", "prepare.vocab_size=300"]),
        ("shakespeare_char", []),
        ("tinystories", LITTLE_TEXT),
        ("tinystories", ["--variant", "small", "-s", "train.runtime.max_minutes=0.01", *LITTLE_TEXT]),
    ],
)
def test_a_shipped_experiment_runs(lab: Path, terrarium: Callable[..., Result], name: str, more: list[str]) -> None:
    assert terrarium("new", "tiny", "--from", str(EXPERIMENTS / name)).exit_code == 0
    settings = [part for key in TINY for part in ("-s", f"train.model.{key}")]
    settings += [
        "-s",
        "train.schedule.max_iters=2",
        "-s",
        "prepare.size=20000",
        "-s",
        "sample.sample.max_new_tokens=20",
    ]
    if name.startswith(("shakespeare", "tinystories")):
        (lab.parent / "play.txt").write_text("First Citizen:\nBefore we proceed any further, hear me speak.\n\n" * 200)
        settings += ["-s", f"prepare.input={lab.parent / 'play.txt'}"]
    result = terrarium("loop", "tiny", *settings, *more)
    assert result.exit_code == 0, result.output
    variant = more[more.index("--variant") + 1] if "--variant" in more else "default"
    run = lab / "tiny" / "out" / variant / ("reward" if name in ("chat", "parity") else "")
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    assert (run / "report.html").exists()
    if name == "shakespeare_char":
        assert 0 <= json.loads((run / "evaluation.json").read_text())["known_words"] <= 1


def test_the_shipped_experiments_are_these() -> None:
    found = {folder.name for folder in EXPERIMENTS.iterdir() if (folder / "prepare.py").is_file()}
    assert set(SHIPPED) <= found


@pytest.fixture
def numbers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("number_words", EXPERIMENTS / "translate_words" / "numbers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("number", "spanish", "english", "german"),
    [
        (0, "cero", "zero", "null"),
        (21, "veintiuno", "twenty-one", "einundzwanzig"),
        (31, "treinta y uno", "thirty-one", "einunddreißig"),
        (100, "cien", "one hundred", "einhundert"),
        (101, "ciento uno", "one hundred one", "einhunderteins"),
        (342, "trescientos cuarenta y dos", "three hundred forty-two", "dreihundertzweiundvierzig"),
        (1001, "mil uno", "one thousand one", "eintausendeins"),
        (21_000, "veintiún mil", "twenty-one thousand", "einundzwanzigtausend"),
        (31_000, "treinta y un mil", "thirty-one thousand", "einunddreißigtausend"),
    ],
)
def test_number_words(numbers: ModuleType, number: int, spanish: str, english: str, german: str) -> None:
    assert [numbers.spell(number, language) for language in ("es", "en", "de")] == [spanish, english, german]


@pytest.mark.parametrize("language", ["es", "en", "de"])
def test_no_two_numbers_have_the_same_words(numbers: ModuleType, language: str) -> None:
    assert len({numbers.spell(number, language) for number in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    ("name", "setting", "message", "remedy"),
    [
        (
            "addition",
            "min_digits=5",
            "there is no number of 5 to 4 digits",
            "Set 1 <= min_digits <= max_digits.",
        ),
        (
            "addition",
            "examples=100000001",
            "examples = 100000001, but 1 to 4 digits make 100,000,000 different sums",
            "Choose from 1 to 100,000,000, or 0 for an endless stream.",
        ),
        ("arithmetic", "p=1", "p = 1 leaves one number", "Set it to 2 or more."),
        (
            "arithmetic",
            "orders=[2, 4]",
            "orders = [2, 4] has an operation order other than 2 and 3, or none",
            "Choose [2], [3] or [2, 3].",
        ),
        (
            "arithmetic",
            "orders=[]",
            "orders = [] has an operation order other than 2 and 3, or none",
            "Choose [2], [3] or [2, 3].",
        ),
        (
            "strings",
            "alphabet=a b",
            "alphabet = 'a b' has no letter, or white space",
            "Give letters: a line break ends an answer.",
        ),
        (
            "strings",
            "min_letters=0",
            "there is no string of 0 to 8 letters",
            "Set 1 <= min_letters <= max_letters.",
        ),
        ("parity", "bits=0", "bits = 0 is impossible", "Give 1 to 1,000."),
        ("parity", "long=1.5", "long = 1.5 is not a share", "Give a number from 0 to 1."),
        ("insert_spaces", "alphabet=", "there are no such words", "Give a letter and max_letters >= 1."),
        ("insert_spaces", "max_letters=0", "there are no such words", "Give a letter and max_letters >= 1."),
        ("count_by_twos", "below=0", "below = 0 leaves no number to start at", "Set it to 1 or more."),
        ("count_by_twos", "numbers=1", "numbers = 1 leaves none to answer", "Set it to 2 or more."),
        ("translate_words", "languages=['es', 'xx']", "no number words for xx", "Choose two of es, en, de."),
        ("translate_words", "below=0", "below = 0 has no words", "Choose from 1 to 1,000,000."),
        ("translate_words", "below=1000001", "below = 1000001 has no words", "Choose from 1 to 1,000,000."),
    ],
)
def test_settings_that_make_no_data(tmp_path: Path, name: str, setting: str, message: str, remedy: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for file in (*(EXPERIMENTS / name).glob("*.py"), EXPERIMENTS / name / "config.toml"):
        shutil.copy(file, folder)
    error = error_of(folder, f"prepare.params.{setting}")
    assert (error.message, error.place, error.remedy) == (
        message,
        "prepare.params" if name == "insert_spaces" else f"prepare.params.{setting.partition('=')[0]}",
        remedy,
    )


@pytest.mark.parametrize(
    ("name", "stages"), [("addition", ["two_digits", "four_digits"]), ("strings", ["short", "long"])]
)
def test_a_shipped_curriculum_runs(lab: Path, terrarium: Callable[..., Result], name: str, stages: list[str]) -> None:
    assert terrarium("new", "tiny", "--from", str(EXPERIMENTS / name)).exit_code == 0
    settings = [*(f"train.model.{key}" for key in TINY), "max_iters=2", "prepare.size=20000"]
    result = terrarium("loop", "tiny", "--variant", "curriculum", *settings)
    assert result.exit_code == 0, result.output
    found = json.loads((lab / "tiny/out/curriculum/pipeline.json").read_text())
    assert found["stages"] == stages and found["table"]["val_loss"].keys() == set(stages)
