"""config.toml, variants and -s: what they mean together, and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli
from conftest import nested
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.conditions import read_condition
from core.config import ROLES, Config, Data, Model, Optim, Train, replaced
from core.defaults import resolve
from core.errors import UserError
from core.roles import is_setting, known_keys, role_of, roles
from core.toml import completed, dump, key_lines, load_config, merge


def write(folder: Path, text: str, name: str = "config.toml") -> Path:
    (folder / name).write_text(text)
    return folder


def error_of(folder: Path, *overrides: str, variant: str = "") -> str:
    with pytest.raises(UserError) as caught:
        load_config(folder, variant, overrides)
    return str(caught.value)


def test_an_empty_folder_has_every_default(tmp_path: Path) -> None:
    config, settings = load_config(tmp_path)
    assert config.prepare.dataset_dir == "datasets/basic"
    assert config.train.model.norm == "rmsnorm"
    assert config.train.data.block_size == config.train.model.block_size == 64
    assert config.sample.runtime.device == "auto"
    assert settings.place_of("train.model.norm") == ""


def test_resolving_twice_changes_nothing(tmp_path: Path) -> None:
    config, _ = load_config(tmp_path)
    assert resolve(config.model_copy(deep=True)) == config


def test_layers_lie_over_each_other(tmp_path: Path) -> None:
    write(tmp_path, "[train.model]\nn_layer = 2\nn_embd = 64\n[prepare.params]\na = 1\nb = 2\n")
    write(tmp_path, "[train.model]\nn_layer = 3\n[prepare.params]\nb = 3\n", "config.long.toml")
    config, settings = load_config(tmp_path, "long", ["train.optim.learning_rate=3e-4", "prepare.input=/a/b.txt"])
    assert (config.train.model.n_layer, config.train.model.n_embd) == (3, 64)
    assert config.prepare.params == {"a": 1, "b": 3}
    assert (config.prepare.variant, config.prepare.dataset_dir) == ("long", "datasets/long")
    assert config.train.optim.learning_rate == 3e-4
    assert config.prepare.input == "/a/b.txt"
    assert settings.place_of("train.model.n_layer") == f"{tmp_path}/config.long.toml:2"
    assert settings.place_of("prepare.params.a") == f"{tmp_path}/config.toml:5"


def test_what_lies_below_keeps_its_values() -> None:
    """Nested tables are copied: who merges into the result does not change the settings that it came from."""
    above = {"train": {"model": {"n_layer": 2}}}
    below: dict[str, Any] = {}
    merge(below, above)
    merge(below, {"train": {"model": {"n_layer": 3}}})
    below["train"]["model"]["n_embd"] = 64
    assert above == {"train": {"model": {"n_layer": 2}}}


@pytest.mark.parametrize("preset", ["modern", "gpt2", "llama", "portable"])
def test_single_keys_override_a_preset(tmp_path: Path, preset: str) -> None:
    given_keys = ["train.model.activation=gelu", "train.optim.name=adamw", "train.optim.beta2=0.5"]
    config, _ = load_config(tmp_path, overrides=[f"train.model.preset={preset}", *given_keys])
    assert config.train.model.activation == "gelu"
    assert (config.train.optim.name, config.train.optim.beta2) == ("adamw", 0.5)
    assert config.train.optim.learning_rate == 1e-3


def test_block_size_of_one_section_is_followed_by_the_other(tmp_path: Path) -> None:
    for section in ("model", "data"):
        config, _ = load_config(tmp_path, overrides=[f"train.{section}.block_size=32"])
        assert config.train.model.block_size == config.train.data.block_size == 32
    config, _ = load_config(tmp_path, overrides=["train.model.block_size=64", "train.data.block_size=16"])
    assert (config.train.model.block_size, config.train.data.block_size) == (64, 16)


@pytest.mark.parametrize(
    ("toml", "parts"),
    [
        ("[train.optim]\nlearning_rat = 1\n", ["config.toml:2", "unknown key 'train.optim.learning_rat'", "Did you mean 'learning_rate'?"]),
        ("[train.optim]\n\nn_layer = 1\n", ["config.toml:3", "belongs to another section: train.model.n_layer"]),
        ("[training]\nn_layer = 1\n", ["config.toml:1", "unknown key 'training'", "Did you mean 'train'?"]),
        ("[train.model]\nn_layer = '4'\n", ["config.toml:2", 'train.model.n_layer = "4"', "a whole number, without quotes"]),
        ("[train.model]\nn_layer = true\n", ["config.toml:2", "a whole number"]),
        ("[train.model]\nn_layer = 0\n", ["config.toml:2", "greater than or equal to 1"]),
        ("[train.model]\ndropout = nan\n", ["config.toml:2", "finite"]),
        ("[train.model]\npreset = 'moden'\n", ["config.toml:2", "Choose one of modern, gpt2, llama, portable", "Did you mean 'modern'?"]),
        ("[train.runtime]\ndevice = 3\n", ["config.toml:2", 'Write text in quotes: device = "3"']),
        ("train = 3\n", ["config.toml:1", "train = 3"]),
        ("[train.model]\nn_layer = 1\nn_layer = 2\n", ["config.toml:3", "not valid TOML", "Write each key once"]),
        ("[train.model]\nn_layer =\n", ["config.toml:2", "not valid TOML"]),
        ("[train.model]\nn_embd = 30\n", ["config.toml:2", "n_embd = 30 is not divisible by n_head = 4", "Use n_embd = 32"]),
        ("[train.model]\nhead_width = 5\n", ["config.toml:2", "rope rotates pairs of channels, but a head has 5", "position"]),
        ("[train.model]\nqk_norm = false\nqk_scale = true\n", ["config.toml:3", "qk_norm is off", "Set qk_norm = true"]),
        ("[train.model]\nn_embd = 12\n", ["config.toml:2", "rope rotates pairs of channels, but a head has 3"]),
        ("[train.data]\nblock_size = 128\n[train.model]\nblock_size = 64\n", ["config.toml:2", "do not fit the model's block_size = 64"]),
        ("[train.schedule]\nmax_iters = 10\nwarmup_iters = 10\n", ["config.toml:3", "is not below max_iters = 10"]),
        ("[train.schedule]\nlr_decay_iters = 5\nwarmup_iters = 10\n", ["config.toml:2", "lr_decay_iters = 5 is not above warmup_iters = 10"]),
        ("[train.runtime]\nmax_minutes = 0\n", ["config.toml:2", "train.runtime.max_minutes = 0", "greater than 0"]),
        ("[train.runtime]\nmax_minutes = -3\n", ["config.toml:2", "greater than 0"]),
        ("[train.runtime]\nmax_minutes = inf\n", ["config.toml:2", "finite"]),
        ("[train.runtime]\nmax_minutes = '3'\n", ["config.toml:2", "Give max_minutes as a number, without quotes"]),
        ("[train.schedule]\nmax_minutes = 3\n", ["config.toml:2", "belongs to another section: train.runtime.max_minutes"]),
        ("[train.schedule]\nmin_lr = 1.0\n", ["config.toml:2", "min_lr = 1 is above learning_rate = 0.02"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_with_place_value_and_remedy(tmp_path: Path, toml: str, parts: list[str]) -> None:
    message = error_of(write(tmp_path, toml))
    for part in parts:
        assert part in message


def test_a_budget_in_time_asks_nothing_of_the_steps(tmp_path: Path) -> None:
    steps = ["train.schedule.max_iters=5", "train.schedule.lr_decay_iters=3", "train.schedule.warmup_iters=10"]
    assert "is not below max_iters = 5" in error_of(tmp_path, *steps)
    config, _ = load_config(tmp_path, overrides=[*steps, "train.runtime.max_minutes=3"])
    assert config.train.runtime.max_minutes == 3.0
    assert "max_minutes" not in dump(load_config(tmp_path)[0].model_dump())


def test_wrong_overrides_and_variants_are_told(tmp_path: Path) -> None:
    assert "`nonsense`: an override must have the form section.key=value" in error_of(tmp_path, "nonsense")
    assert "`train.optim.learning_rat=1`: unknown key" in error_of(tmp_path, "train.optim.learning_rat=1")
    write(tmp_path, "", "config.reverse.toml")
    message = error_of(tmp_path, variant="revers")
    assert "no variant 'revers'" in message
    assert "Did you mean 'reverse'?" in message


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"[train]\n\xff")
    assert "not UTF-8 at byte 8" in error_of(tmp_path)


def test_lines_of_keys_in_every_notation() -> None:
    text = '[a]\nx = 1\n"y z" = 2\nb.c = 3\n\n[a.d] # note\ns = """\nq = 1\n"""\nt = 4\n'
    assert dict(key_lines(text)) == {"a": 1, "a.x": 2, "a.y z": 3, "a.b.c": 4, "a.d": 6, "a.d.s": 7, "a.d.t": 10}


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def test_a_windows_path_whose_escapes_are_valid(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[prepare]\ninput = "C:\\new\\text.txt"\n')
    with pytest.raises(UserError) as error:
        load_config(tmp_path)
    assert error.value.message == (
        r"prepare.input = 'C:\new\text.txt' contains '\n': in double quotes, a backslash starts an escape."
    )
    assert error.value.remedy == r"Write the path in single quotes, such as 'C:\new\text.txt', or with slashes."


def test_keys_of_nanogpt_are_answered_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[train.runtime]\nwandb_log = true\n")
    with pytest.raises(UserError) as error:
        load_config(tmp_path)
    assert error.value.remedy == 'Set train.runtime.trackers = ["tensorboard", "wandb"].'
    (tmp_path / "config.toml").write_text("wandb_log = true\ngradient_accumulation_steps = 5\nmax_iters = 10\n")
    with pytest.raises(UserError) as error:
        load_config(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'config.toml'}:1: unknown key 'wandb_log'"
        '\n  Set train.runtime.trackers = ["tensorboard", "wandb"].'
        "\n  gradient_accumulation_steps: It is train.data.grad_accum_steps; its default is 1, not 40."
        "\n  max_iters: It belongs to another section: train.schedule.max_iters."
    )


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_what_dump_writes_is_what_toml_reads(values: dict[str, Any]) -> None:
    assert tomli.loads(dump(values)) == values


@given(st.dictionaries(st.sampled_from(sorted(known_keys())), VALUES, min_size=1, max_size=3))
def test_any_value_of_any_key_is_taken_or_told(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("config")
    write(folder, dump(nested(values)))
    try:
        config, _ = load_config(folder)
    except UserError as error:
        assert error.remedy
        assert "config.toml" in error.place or error.place in values
    else:
        assert tomli.loads(dump(config.model_dump()))


@pytest.mark.parametrize(
    ("batch_size", "grad_accum_steps", "block_size", "scale"),
    [
        (4, 1, 64, 1.0),
        (24, 1, 64, 1.0),
        (192, 1, 64, 2.0),
        (24, 8, 64, 2.0),
        (24, 1, 512, 2.0),
        (10_000, 1, 64, (16384 / 1536) ** (1 / 3)),
    ],
)
def test_default_rates_grow_with_the_cube_root_of_the_batch(
    batch_size: int, grad_accum_steps: int, block_size: int, scale: float
) -> None:
    data = Data(batch_size=batch_size, grad_accum_steps=grad_accum_steps, block_size=block_size)
    config = resolve(Config(train=Train(data=data, optim=Optim(head_lr=0.1))))
    optim = config.train.optim
    assert (optim.learning_rate, optim.embedding_lr, optim.ngram_lr, optim.head_lr) == pytest.approx(
        (0.02 * scale, 0.3 * scale, 0.05 * scale, 0.1), rel=0.005
    )
    assert config.train.schedule.min_lr == pytest.approx(0.02 * 0.02 * scale, rel=0.005)
    assert resolve(config).train.optim == optim


def test_rates_of_adamw_are_those_of_nanogpt_whatever_the_batch() -> None:
    config = Config(train=Train(model=Model(preset="gpt2"), data=Data(batch_size=512)))
    assert resolve(config).train.optim.learning_rate == 1e-3


def test_a_config_cannot_be_changed() -> None:
    config = resolve(Config())
    with pytest.raises(ValidationError, match="frozen"):
        config.train.model.n_layer = 2
    with pytest.raises(ValidationError, match="frozen"):
        config.train = Train()


def test_replaced_gives_a_new_config_and_leaves_the_old_one() -> None:
    config = resolve(Config())
    other = replaced(config, {"train.model.n_layer": 2, "train.runtime.device": "cpu", "prepare.variant": "x"})
    assert (other.train.model.n_layer, other.train.runtime.device, other.prepare.variant) == (2, "cpu", "x")
    assert (config.train.model.n_layer, config.train.runtime.device, config.prepare.variant) == (4, "auto", "basic")
    assert other.train.optim is config.train.optim
    assert replaced(config, {}) == config


def test_every_key_has_a_role() -> None:
    assert set(roles()) == set(known_keys()) and set(roles().values()) == set(ROLES)


@pytest.mark.parametrize(
    ("key", "role", "setting"),
    [
        ("train.model.n_layer", "model", True),
        ("train.model.dropout", "learning", True),
        ("train.optim.learning_rate", "learning", True),
        ("train.schedule.max_iters", "steering", True),
        ("train.runtime.stop_when", "steering", True),
        ("train.runtime.seed", "seed", False),
        ("train.runtime.threads", "machine", False),
        ("train.runtime.out_dir", "place", False),
        ("sample.sample.temperature", "shown", False),
        ("prepare.size", "data", True),
        ("prepare.params.alphabet", "data", True),
        ("prepare.input", "place", False),
        ("lr", "learning", True),
    ],
)
def test_roles(key: str, role: str, setting: bool) -> None:
    assert role_of(key) == role and is_setting(key) is setting


@pytest.mark.parametrize(
    ("text", "row", "holds"),
    [
        ("val_accuracy >= 0.99", {"val_accuracy": 0.99}, True),
        ("val_accuracy >= 0.99", {"val_accuracy": 0.98}, False),
        ("val_loss<1e-2", {"val_loss": 0.009}, True),
        ("val_loss < 1", {"val_loss": 1.0}, False),
        ("bits_per_byte <= 2", {"bits_per_byte": 2.0}, True),
        ("train_accuracy/3 letters > 0.5", {"train_accuracy/3 letters": 0.6}, True),
        ("val_accuracy >= 0.5", {"val_loss": 1.0}, False),
    ],
)
def test_conditions_on_a_row_of_metrics(text: str, row: dict[str, float], holds: bool) -> None:
    assert read_condition(text).holds(row) is holds


@pytest.mark.parametrize(
    "text", ["", "x", "acc >= 1", "val_loss = 1", "val_loss/a > 1", "val_accuracy >= x", "1 < val_loss"]
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(ValueError):
        read_condition(text)


def test_settings_of_an_older_version_get_the_keys_that_have_come_since() -> None:
    now = resolve(Config()).model_dump()
    former = {
        **now,
        "train": {
            **now["train"],
            "model": {
                k: v
                for k, v in now["train"]["model"].items()
                if k not in ("n_kv_head", "rope_base", "window", "norm_eps")
            },
        },
    }
    assert completed(former) == now
    assert completed({"lr": 3e-4}) == {"lr": 3e-4}
