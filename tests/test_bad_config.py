"""200 wrong configs, one table: each ends with exit code 2, the place, what is wrong and what to do, and never a traceback."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.roles import known_keys
from core.toml import load_config

Terrarium = Callable[..., Result]
Row = tuple[str, int, str]  # a config.toml, the line that the message must name, and a part of the message
DEEP, LONG = "[" * 3000 + "]" * 3000, "7" * 5000
TEXTS = {"documents", "variant", "dataset_dir", "raw_dir", "input", "sha256", "separator", "encoder", "encoder_from", "tokenizer", "kind", "split_pattern",
         "init_from", "name", "device", "out_dir", "start", "stop"}  # fmt: skip


def in_section(key: str, value: str) -> str:
    section, _, name = key.rpartition(".")
    return f"[{section}]\n{name} = {value}\n"


def wrong_types() -> list[Row]:
    """A value of another type for every key that there is."""
    wrong = {key: "3" if key.rpartition(".")[2] in TEXTS else '"x"' for key in known_keys()}
    return [(in_section(key, value), 2, f"{key} = ") for key, value in wrong.items()]


def misspelt() -> list[Row]:
    """Keys with a letter too few, whose right names must be proposed."""
    keys = ["prepare.val_fractio", "prepare.encodr", "train.model.n_embed", "train.model.n_laye", "train.model.dropot",
            "train.data.batch_sise", "train.data.grad_acum_steps", "train.optim.weight_deca", "train.optim.lerning_rate",
            "train.schedule.max_iter", "train.schedule.warmup_iter", "train.runtime.eval_intervall", "train.runtime.devise",
            "train.runtime.tracker", "sample.sample.temperatur", "sample.sample.top_kk", "evaluate.max_prompt"]  # fmt: skip
    rows = [(in_section(key, "1"), 2, f"unknown key '{key}'\n  Did you mean '") for key in keys]
    tables = ["pepare", "trian", "samples", "eval", "train.modell", "train.dat", "train.optimizer", "sample.runtimes"]
    return rows + [(f"[{table}]\nx = 1\n", 1, "unknown key '") for table in tables]


def misplaced() -> list[Row]:
    keys = {"prepare.n_layer": "train.model.n_layer", "train.learning_rate": "train.optim.learning_rate",
            "train.optim.max_iters": "train.schedule.max_iters", "train.model.eval_iters": "train.runtime.eval_iters",
            "train.optim.min_lr": "train.schedule.min_lr", "sample.temperature": "sample.sample.temperature",
            "train.schedule.batch_size": "train.data.batch_size", "sample.out_dir": "train.runtime.out_dir",
            "train.data.encoder": "prepare.encoder", "evaluate.top_k": "sample.sample.top_k"}  # fmt: skip
    return [(in_section(key, "1"), 2, f"It belongs to another section: {right}") for key, right in keys.items()]


def out_of_range() -> list[Row]:
    values = {
        "prepare.vocab_size": "256", "prepare.size": "0", "prepare.val_fraction": "1.0", "prepare.seed": "-1",
        "prepare.sha256": '"XYZ"', "prepare.separator": '""', "train.model.n_layer": "0", "train.model.n_head": "-4",
        "train.model.n_embd": "0", "train.model.n_ff": "0", "train.model.block_size": "-1", "train.model.dropout": "1",
        "train.model.softcap": "-0.1", "train.model.ngram": "9", "train.data.batch_size": "0", "train.data.block_size": "0",
        "train.data.grad_accum_steps": "0", "train.optim.learning_rate": "0", "train.optim.embedding_lr": "-1.0",
        "train.optim.weight_decay": "-1", "train.optim.beta1": "1.0", "train.optim.beta2": "1", "train.optim.momentum": "-0.5",
        "train.optim.grad_clip": "-1", "train.schedule.max_iters": "0", "train.schedule.warmup_iters": "-1",
        "train.schedule.factor": "1", "train.schedule.interval": "0", "train.schedule.patience": "-1", "train.schedule.lr_decay_iters": "0", "train.schedule.min_lr": "-1e-9", "train.schedule.decay_fraction": "1.5",
        "train.runtime.max_minutes": "0", "train.runtime.eval_interval": "0", "train.runtime.eval_iters": "-1",
        "train.runtime.log_interval": "0", "train.runtime.checkpoint_interval": "0", "train.runtime.seed": "-1",
        "train.runtime.keep_checkpoints": "-1",
        "train.runtime.threads": "0", "train.runtime.out_dir": '""', "sample.sample.num_samples": "0",
        "sample.sample.max_new_tokens": "0", "sample.sample.temperature": "-1", "sample.sample.top_k": "-1",
        "sample.sample.top_p": "0", "evaluate.max_prompts": "-1", "evaluate.training_prompts": "-1",
        "train.runtime.dtype": '"float16"', "prepare.split": '"random"', "train.model.norm": '"batchnorm"',
        "train.data.layout": '"row"', "train.data.order": '"epoch"', "train.schedule.decay": '"exponential"', "train.model.preset": '"gpt3"',
    }  # fmt: skip
    huge = ["prepare.size", "prepare.seed", "train.model.n_embd", "train.data.batch_size", "train.runtime.seed"]
    rows = [*values.items(), *((key, str(2**63)) for key in huge)]
    return [(in_section(key, value), 2, f"{key} = ") for key, value in rows]


def not_finite() -> list[Row]:
    keys = ["train.model.dropout", "train.model.softcap", "train.optim.learning_rate", "train.optim.weight_decay",
            "train.optim.beta1", "train.schedule.min_lr", "train.runtime.max_minutes", "prepare.val_fraction",
            "sample.sample.temperature", "sample.sample.top_p"]  # fmt: skip
    rows = [(key, value) for key in keys for value in ("nan", "-inf", "1e999")]
    return [(in_section(key, value), 2, "input should be") for key, value in rows]


CONTRADICTIONS: list[Row] = [
    ("[train.schedule]\nmax_iters = 10\nwarmup_iters = 10\n", 3, "is not below max_iters = 10"),
    ("[train.schedule]\nwarmup_iters = 11\nmax_iters = 10\n", 2, "A tenth of max_iters is common: 1."),
    ("[train.schedule]\nlr_decay_iters = 5\nwarmup_iters = 10\n", 2, "lr_decay_iters = 5 is not above warmup_iters"),
    ("[train.schedule]\nmin_lr = 1.0\n", 2, "min_lr = 1 is above learning_rate = 0.02"),
    ("[train.schedule]\nmin_lr = 0.1\n[train.optim]\nlearning_rate = 0.01\n", 2, "min_lr = 0.1 is above"),
    ("[train.model]\nn_embd = 30\n", 2, "Use n_embd = 32"),
    ("[train.model]\nn_head = 3\n", 2, "n_embd = 128 is not divisible by n_head = 3"),
    ("train = {model = {n_embd = 30}}\n", 1, "Use n_embd = 32"),
    ("[train]\nmodel.n_head = 7\n", 2, "n_embd = 128 is not divisible by n_head = 7"),
    ("[train.model]\nn_embd = 12\n", 2, "rope rotates pairs of channels, but a head has 3"),
    ("[train.model]\nn_embd = 4\nn_head = 4\nposition = 'rope'\n", 2, "rope rotates pairs of channels"),
    ("[train.model]\nngram = 1\n", 2, "there is no table of 1-grams"),
    ("[train.data]\nblock_size = 128\n[train.model]\nblock_size = 64\n", 2, "do not fit the model's block_size = 64"),
    ("[train.model]\nblock_size = 64\n[train.data]\nblock_size = 65\n", 4, "rows of 65 tokens"),
    *(
        (f"[train.runtime]\nbackend = 'jax'\n{more}\n", 2, part)
        for more, part in (
            ("[train.model]\nkind = 'lstm'", 'JAX does not train with train.model.kind = "lstm"'),
            ("[train.model]\nkind = 'hf'", 'Leave backend out, or set train.model.kind = "gpt"'),
            ("[train.objective]\nkind = 'reward'", 'JAX does not train with train.objective.kind = "reward"'),
            ("[train.optim]\nname = 'sgd'", 'Leave backend out, or set train.optim.name = "muon" or "adamw"'),
            ("compile = true", "Leave compile out: JAX always compiles"),
            ("cuda_graphs = true", "Leave cuda_graphs out: JAX does not have it. Or leave backend out"),
            ("float8 = true\ndtype = 'bfloat16'", 'float8 = true is for steps by torch, and backend = "jax"'),
            ("exact_across = true", "Leave exact_across out"),
        )
    ),
]
PATHS: list[Row] = [
    ("[train.runtime]\nout_dir = '..'\n", 2, "is outside the experiment's folder"),
    ("[train.runtime]\nout_dir = '../elsewhere'\n", 2, "give an absolute path"),
    ("[train.runtime]\nout_dir = 'a/../../b'\n", 2, "is outside the experiment's folder"),
    ("[prepare]\nvariant = '../x'\n", 2, '"../x" is not a valid dataset name'),
    ("[prepare]\nvariant = 'a/b'\n", 2, '"a/b" is not a valid dataset name'),
    ("[prepare]\nvariant = ''\n", 2, '"" is not a valid dataset name'),
    ("[prepare]\nvariant = '..'\n", 2, '".." is not a valid dataset name'),
    ("[prepare]\nvariant = 'a\\b'\nvariant2 = 1\n", 3, "unknown key 'prepare.variant2'"),
    *((f'[prepare]\n{key} = "a\\u0000b"\n', 2, f"prepare.{key} contains a zero byte")
      for key in ("dataset_dir", "raw_dir", "input", "encoder_from")),
    ('[train.runtime]\nout_dir = "a\\u0000"\n', 2, "train.runtime.out_dir contains a zero byte"),
]  # fmt: skip
TABLES: list[Row] = [
    ("train = 3\n", 1, "write [train] in the file"),
    ("prepare = []\n", 1, "prepare is a table of keys"),
    ("[train]\nmodel = 'gpt'\n", 2, "write [train.model] in the file"),
    ("[train]\nmodel = 1979-05-27\n", 2, "write [train.model] in the file"),
    ("[[train]]\nx = 1\n", 1, "train is a table of keys"),
    ("\n[[train.model]]\nn_layer = 1\n", 2, "train.model is a table of keys"),
    ("[train.model.n_layer]\nx = 1\n", 1, "Give n_layer as a whole number"),
    ("sample = false\n", 1, "write [sample] in the file"),
    ("[prepare]\nparams = 'x'\n", 2, "write [prepare.params] in the file"),
    ("[train.runtime]\ntrackers = [1]\n", 2, "trackers is: where to log metrics"),
    ("[train.runtime]\ncompile = 3\n", 2, "compile is: use torch.compile"),
    ("[train.runtime]\nthreads = 1.5\n", 2, "threads is: number of CPU threads"),
    ("[train.model]\nbias = 1\n", 2, "Give bias as true or false"),
    ("[train.model]\nn_layer = true\n", 2, "a whole number, without quotes"),
    ("[train.model]\nn_layer = 2.0\n", 2, "a whole number, without quotes"),
    ("[prepare]\nsize = 1979-05-27T07:32:00Z\n", 2, "a whole number, without quotes"),
    ("'' = 1\n", 1, "unknown key ''"),
    ("'a.b' = 1\n", 1, "unknown key 'a.b'"),
    ("[train]\n'model.n_layer' = 1\n", 2, "unknown key 'train.model.n_layer'"),
    ("x.y.z = 1\n", 1, "unknown key 'x'"),
]
NO_TOML: list[Row] = [
    ("[train.model]\nn_layer = 1\nn_layer = 2\n", 3, "Write each key once"),
    ("[train.model]\nn_layer = 1\n[train.model]\nn_head = 2\n", 3, "Write each key once"),
    ("train.model.n_layer = 1\n[train.model]\nn_head = 2\n", 2, "Write each key once"),
    ("[train]\nmodel = {n_layer = 1}\nmodel.n_head = 2\n", 3, "Write each key once"),
    ("[prepare]\nsize = 1\n'size' = 2\n", 3, "Write each key once"),
    ("[train.model]\nn_layer =\n", 2, "not valid TOML"),
    ("[train.model\nn_layer = 1\n", 1, "not valid TOML"),
    ("[train.model]]\n", 1, "not valid TOML"),
    ("[]\n", 1, "not valid TOML"),
    ("n_layer\n", 1, "not valid TOML"),
    ("[prepare]\nencoder = char\n", 2, "Text needs quotes"),
    ("[prepare]\nencoder = 'char\n", 2, "not valid TOML"),
    ("[prepare]\nencoder = \"char'\n", 2, "not valid TOML"),
    ("[prepare]\nencoder = '''char\n\n", 2, "not valid TOML"),
    ("[prepare]\nsize = 1,000\n", 2, "not valid TOML"),
    ("[prepare]\nsize = 01\n", 2, "not valid TOML"),
    ("[prepare]\nsize = 1__0\n", 2, "not valid TOML"),
    ("[prepare]\nsize = 1 000\n", 2, "not valid TOML"),
    ("[prepare]\nsize: 3\n", 2, "not valid TOML"),
    ("[prepare]\nsize = None\n", 2, "not valid TOML"),
    ("[prepare]\nsize = True\n", 2, "not valid TOML"),
    ("[prepare]\ninput = 'a\x00b'\n", 2, "not valid TOML"),
    ('[prepare]\ninput = "C:\\data"\n', 2, "not valid TOML"),
    ("[prepare]\nsize = 1979-13-45\n", 2, "not valid TOML"),
    ("[prepare.params]\nx = {a = 1\n", 2, "not valid TOML"),
    ("// a note\n", 1, "not valid TOML"),
    ("[prepare]\nsize = 3 // a note\n", 2, "not valid TOML"),
    (f"\n[prepare]\nsize = {LONG}\n", 3, "not valid TOML: Exceeds the limit"),
    (f"\n\nx = {DEEP}\n", 3, "not valid TOML"),
    (f"[prepare.params]\nx = {'{a=' * 3000}1{'}' * 3000}\n", 2, "not valid TOML"),
    (f"[train.optim]\nlearning_rate = {LONG[:400]}\n", 2, "input should be a valid number"),
    ("[prepare]\nsize = 1\n\udcff\n", 3, "not UTF-8 at byte 19"),
    ("\udcfe\udcff", 1, "not UTF-8 at byte 0"),
]
FILES = [
    *wrong_types(), *misspelt(), *misplaced(), *out_of_range(), *not_finite(), *CONTRADICTIONS, *PATHS, *TABLES, *NO_TOML,
]  # fmt: skip
OVERRIDES = [
    ("nonsense", "an override must have the form section.key=value"),
    ("", "an override must have the form section.key=value"),
    ("=3", "an override must have the form section.key=value"),
    ("a..b=3", "an override must have the form section.key=value"),
    ("train.model.n_layer", "an override must have the form section.key=value"),
    ("train model.n_layer=3", "an override must have the form section.key=value"),
    ("train.optim.learning_rat=1", "Did you mean 'learning_rate'?"),
    ("train.learning_rate=1", "It belongs to another section: train.optim.learning_rate"),
    ("train.model=3", "write [train.model] in the file"),
    ("train.model.n_layer=", "Give n_layer as a whole number"),
    ("train.model.n_layer=two", "Give n_layer as a whole number"),
    ("train.model.n_layer=1\nx=2", "Give n_layer as a whole number"),
    ("train.model.n_ff.x=1", "Give n_ff as a whole number"),
    ("train.optim.learning_rate=nan", "input should be a finite number"),
    ("train.schedule.warmup_iters=1000000", "is not below max_iters = 6"),
    ("train.model.n_embd=15", "Use n_embd = 16"),
    ("train.model.n_head=5", "n_embd = 16 is not divisible by n_head = 5"),
    ("train.runtime.trackers=[tensorboard]", "input should be a valid list"),
    ("train.runtime.out_dir=../../x", "is outside"),
    ("train.optim.state_dtype=float16", "state_dtype"),
    ("train.runtime.cuda_graphs=often", "cuda_graphs"),
    ("train.runtime.float8=8", "float8"),
    ("prepare.variant=../x", "is not a valid dataset name"),
    ("prepare.params=3", "write [prepare.params] in the file"),
    (f"prepare.size={LONG}", "Give size as a whole number"),
    (f"prepare.size={DEEP}", "Give size as a whole number"),
    ("prepare.size=1979-13-45", "Give size as a whole number"),
]  # fmt: skip
# What only the machine, the data or prepare.py can tell, before anything is made
FOUND_LATER = [
    ("train.model.kind=rnn", "train.model.kind"),
    ("train.optim.name=lamb", "train.optim.name"),
    ("train.optim.name=''", "train.optim.name"),
    ("train.runtime.device=gpu", "train.runtime.device"),
    ("train.runtime.device=''", "train.runtime.device"),
    ("train.runtime.device=cuda:x", "train.runtime.device"),
    ("train.runtime.cuda_graphs=true", 'there are no CUDA graphs on device "cpu"'),
    ("train.runtime.trackers=['wandbb']", "train.runtime.trackers"),
    ("train.runtime.trackers=['']", "train.runtime.trackers"),
    ("prepare.encoder=chars", "Did you mean 'char'?"),
    ("prepare.encoder=''", "unknown encoder"),
    ("prepare.encoder_from=nowhere", "there is no dataset here"),
    ("prepare.dataset_dir=../x", "is outside the experiment's folder"),
    ("prepare.dataset_dir=.", "which prepare did not make and would remove"),
    ("prepare.dataset_dir=config.toml", "is a file"),
    ("prepare.input=nowhere.txt", "does not exist"),
    ("prepare.input=datasets", "Name one file in it."),
    ("prepare.input=http://example.org/a.txt", "is not an https address"),
    ("prepare.params.alphabet=3", "prepare.params.alphabet = 3"),
    ("prepare.params.alphabet=nan", "prepare.params.alphabet"),
    ("prepare.params.max_letters=1979-05-27", "prepare.params.max_letters"),
    ("prepare.params.max_leters=2", "Did you mean 'max_letters'?"),
    ("train.model.init_from=nothing", "has no run 'nothing'"),
    ("train.model.init_from=a/b", "no experiment is called 'a'"),
    ("train.data.block_size=5000\x00", "train.data.block_size"),
]  # fmt: skip


def told(result: Result, *parts: str) -> None:
    """One message with these parts, a remedy, and no traceback."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.stderr.startswith("error: ")
    place_and_message, _, remedy = result.stderr.rpartition("\n  ")
    assert len(remedy.strip()) > 8
    for part in parts:
        assert part in result.stderr
    assert len(place_and_message) < 1000


def test_there_are_more_than_200() -> None:
    assert len(FILES) + len(OVERRIDES) + len(FOUND_LATER) >= 200
    assert len({toml for toml, _, _ in FILES}) == len(FILES)


@pytest.mark.parametrize(("toml", "line", "part"), FILES, ids=lambda value: repr(value)[:50])
def test_a_wrong_file_is_told_with_file_and_line(
    spaces: Path, terrarium: Terrarium, toml: str, line: int, part: str
) -> None:
    (spaces / "config.toml").write_bytes(toml.encode("utf-8", "surrogateescape"))
    told(terrarium("runs", "spaces"), f"{spaces / 'config.toml'}:{line}: ", part)


@pytest.mark.parametrize(("override", "part"), OVERRIDES, ids=lambda value: repr(value)[:50])
def test_a_wrong_override_is_told_with_its_text(spaces: Path, terrarium: Terrarium, override: str, part: str) -> None:
    told(terrarium("runs", "spaces", "-s", override), f"-s {override[:100]}", part)


@pytest.mark.parametrize(("override", "part"), FOUND_LATER, ids=lambda value: repr(value)[:50])
def test_what_is_found_out_later_leaves_nothing_behind(
    spaces: Path, terrarium: Terrarium, override: str, part: str
) -> None:
    told(terrarium("train", "spaces", "-s", override), part)
    assert not (spaces / "out" / "default" / "summary.json").exists()


def test_a_config_that_is_a_folder_is_told(spaces: Path, terrarium: Terrarium) -> None:
    (spaces / "config.toml").unlink()
    (spaces / "config.toml").mkdir()
    told(terrarium("runs", "spaces"), f"{spaces / 'config.toml'}: cannot be read: Is a directory")


def test_a_byte_order_mark_is_no_mistake(spaces: Path, terrarium: Terrarium) -> None:
    (spaces / "config.toml").write_text(TINY, encoding="utf-8-sig")
    assert terrarium("runs", "spaces").exit_code == 0


def taken_or_told(folder: Path, *overrides: str) -> None:
    """Whatever the config, there is either a Config or a UserError with place and remedy."""
    try:
        config, _ = load_config(folder, "", overrides)
    except UserError as error:
        assert error.place
        assert error.remedy
        assert error.message
    else:
        assert config.train.schedule.max_iters > 0


WORDS = sorted({part for key in known_keys() for part in key.split(".")})
SCRAPS = st.sampled_from([
    *WORDS, *known_keys(), *TINY.split(), "[", "]", "[[", "]]", "{", "}", "=", ".", ",", '"', "'", '"""', "'''", "#",
    "\n", "\r\n", " ", "nan", "-inf", "1e999", "0x", "1979-05-27", "true", "\\u0000", "\\", "\x00", "\ufeff", "é", "-",
])  # fmt: skip


@settings(max_examples=250)
@given(st.lists(SCRAPS | st.text(max_size=3), max_size=30), st.sampled_from(["", " "]))
def test_scraps_of_toml_are_taken_or_told(
    tmp_path_factory: pytest.TempPathFactory, scraps: list[str], between: str
) -> None:
    folder = tmp_path_factory.mktemp("scraps")
    (folder / "config.toml").write_bytes(between.join(scraps).encode("utf-8", "replace"))
    taken_or_told(folder)


@settings(max_examples=250)
@given(st.data())
def test_a_good_file_with_a_few_changed_bytes_is_taken_or_told(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder, content = tmp_path_factory.mktemp("bytes"), bytearray(TINY.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 3))
        content[place : place + length] = data.draw(st.binary(max_size=3) | st.just(b'[{"'))
    (folder / "config.toml").write_bytes(content)
    taken_or_told(folder)


VALUES = st.text(max_size=12) | st.text(string.digits + ".-+eEinfa_xob'\"[]{},=\n", max_size=12)


@settings(max_examples=250)
@given(st.lists(st.tuples(st.sampled_from([*known_keys(), "train", "train.model", "x"]) | st.text(max_size=6), VALUES), max_size=3))  # fmt: skip
def test_any_overrides_are_taken_or_told(
    tmp_path_factory: pytest.TempPathFactory, overrides: list[tuple[str, Any]]
) -> None:
    taken_or_told(tmp_path_factory.mktemp("overrides"), *(f"{key}={value}" for key, value in overrides))
