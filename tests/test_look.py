"""Look inside a model: attention maps, embeddings of numbers, their spectrum; the command look, and reports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from preparing import write

from core.encoders.char import CharEncoder
from core.encoders.words import WordsEncoder
from core.errors import UserError
from core.look import (
    AttentionMaps,
    Embeddings,
    attention_figure,
    attention_maps,
    embeddings_figure,
    fourier_spectrum,
    principal_plane,
    spectrum_figure,
    token_embeddings,
)
from core.look.record import read_look, record, sections, write_look
from core.models.build import build_model
from core.report.plots import png
from core.toml import load_config

Terrarium = Callable[..., Result]
pytestmark = pytest.mark.pictures
ENCODER = CharEncoder.fit(["0123456789+= \n"])
SUMS = (
    "from core import Example\n\ndef documents(rng):\n    while True:\n"
    "        a, b = rng.randrange(20), rng.randrange(20)\n        yield Example(f'{a}+{b}=', f'{a + b}\\n')\n"
)


def clipped(figure: Figure) -> list[str]:
    """The axes of a figure that, with their texts, reach beyond its paper."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = {ax.get_title(loc="left"): ax.get_tightbbox(renderer) for ax in figure.axes}
    return [title for title, box in boxes.items() if min(box.x0, box.y0) < 0 or box.x1 > width or box.y1 > height]


def model(folder: Path, **settings: Any) -> torch.nn.Module:
    """A model with fresh weights. settings: of [train.model]."""
    given = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 16} | settings
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())
    config, _ = load_config(write(folder, "", f"[train.model]\n{lines}"), "", ())
    torch.manual_seed(0)
    built = build_model(config.train.model, ENCODER.vocab_size)
    for parameter in built.parameters():  # some start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return built


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "modern"},
        {"preset": "gpt2"},
        {"position": "alibi"},
        {"position": "learned"},
        {"n_kv_head": 2},
        {"window": 3, "window_pattern": "SL"},
        {"ngram": 3, "smear": True},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_maps_of_every_kind_of_attention(tmp_path: Path, settings: dict[str, Any]) -> None:
    built = model(tmp_path, **settings)
    built.train()
    maps = attention_maps(built, ENCODER, "12+34=", "46\n")
    assert built.training and maps.asked == 6 and maps.layers == 2
    assert list(maps.tokens) == [*"12+34=46", "\u21b5"]
    assert maps.weights.shape == (2, 4, 9, 9)
    assert np.allclose(maps.weights.sum(-1), 1, atol=1e-5) and not np.triu(maps.weights, 1).any()
    if "window" in settings:
        assert not np.tril(maps.weights[0], -3).any() and np.tril(maps.weights[1], -3).any()
    assert (attention_maps(built, ENCODER, "12+34=", "46\n").weights == maps.weights).all()


def test_of_a_long_text_the_end_is_shown(tmp_path: Path) -> None:
    maps = attention_maps(model(tmp_path), ENCODER, "1" * 14 + "+2=", "3\n")
    assert len(maps.tokens) == 16 and "".join(maps.tokens) == "1" * 11 + "+2=3\u21b5" and maps.asked == 14


def test_models_without_maps_say_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="An LSTM has no attention"):
        attention_maps(model(tmp_path, kind="lstm"), ENCODER, "1")
    with pytest.raises(ValueError, match="Linear has no method `trace`"):
        attention_maps(torch.nn.Linear(1, 1), ENCODER, "1")
    with pytest.raises(ValueError, match="the text has no tokens"):
        attention_maps(model(tmp_path), ENCODER, "")
    with pytest.raises(UserError, match="x"):
        attention_maps(model(tmp_path), ENCODER, "x")


def test_embeddings_of_the_numbers_in_their_order(tmp_path: Path) -> None:
    found = token_embeddings(model(tmp_path), ENCODER)
    assert found is not None and found.numbers and found.whole and list(found.labels) == list("0123456789")
    table = model(tmp_path, kind="lstm").wte.weight.detach().numpy()
    found = token_embeddings(model(tmp_path, kind="lstm"), ENCODER)
    assert found is not None and np.allclose(found.rows[3], table[ENCODER.encode("3")[0]])
    words = WordsEncoder.fit(["10 9 8 + = 007 11\n"])
    table = torch.nn.Embedding(words.vocab_size, 4)
    found = token_embeddings(table, words)
    assert found is not None and list(found.labels) == ["8", "9", "10", "11"] and not found.whole


def test_without_numbers_all_tokens_and_without_a_table_nothing() -> None:
    letters = CharEncoder.fit(["ab c\n"])
    found = token_embeddings(torch.nn.Embedding(letters.vocab_size, 4), letters)
    assert found is not None and not found.numbers and set(found.labels) == {"\u21b5", "\u2423", "a", "b", "c"}
    assert token_embeddings(torch.nn.Linear(2, 2), letters) is None
    two = CharEncoder.fit(["ab"])
    assert token_embeddings(torch.nn.Embedding(2, 4), two) is None


def test_numbers_on_a_circle_have_one_frequency_and_a_ring() -> None:
    n = np.arange(31)
    rows = np.stack([np.cos(2 * np.pi * 5 * n / 31), np.sin(2 * np.pi * 5 * n / 31), 0 * n], axis=1)
    shares = fourier_spectrum(rows)
    assert len(shares) == 15 and shares[4] == pytest.approx(1) and shares.sum() == pytest.approx(1)
    points, of_variance = principal_plane(rows)
    assert np.allclose(np.linalg.norm(points, axis=1), 1) and of_variance == pytest.approx([0.5, 0.5])
    assert points[0].min() >= -1e-9


def test_a_spectrum_is_the_variance(tmp_path: Path) -> None:
    for N in (8, 9):  # an even number of numbers has a frequency without a sine
        shares = fourier_spectrum(np.random.default_rng(0).normal(size=(N, 5000)))
        even = np.full(N // 2, 2 / (N - 1))
        if N % 2 == 0:
            even[-1] /= 2
        assert shares.sum() == pytest.approx(1) and shares == pytest.approx(even, abs=0.02)
    assert not fourier_spectrum(np.ones((5, 2))).any()
    assert not principal_plane(np.ones((5, 2)))[1].any()
    assert principal_plane(np.arange(3.0)[:, None])[1] == pytest.approx([1, 0])


def test_pictures_name_the_tokens_and_show_any_text() -> None:
    tokens = ["$a$", "_", "\u4e2d", "internationally", "<b>"]
    weights = np.tril(np.ones((1, 5, 5, 5))) / np.arange(1, 6)[:, None]
    figure = attention_figure(AttentionMaps(tokens, 2, weights), 0)
    png(figure)  # a missing letter would warn
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown == ["$a$", "_", "U+4E2D", "interna\u2026", "<b>"]
    assert [ax.get_title(loc="left") for ax in figure.axes[:5]] == [f"head {head}" for head in range(1, 6)]
    assert figure.axes[-1].get_ylabel() == "weight"
    assert not clipped(figure)


@pytest.mark.parametrize("N", [3, 10, 97, 500])
def test_pictures_of_embeddings_fit_on_their_paper(N: int) -> None:
    found = Embeddings([str(n) for n in range(N)], np.random.default_rng(1).normal(size=(N, 6)), numbers=True)
    for figure in (embeddings_figure(found), spectrum_figure(found)):
        assert not clipped(figure)


@pytest.fixture
def sums(lab: Path, terrarium: Terrarium) -> Path:
    """A trained experiment with prompts `a+b=`."""
    from conftest import TINY

    write(lab / "sums", SUMS, TINY)
    assert terrarium("loop", "sums", "-q").exit_code == 0
    return lab / "sums"


def test_look_writes_pictures_into_the_folder_of_the_run(sums: Path, terrarium: Terrarium) -> None:
    folder = sums / "out" / "default"
    result = terrarium("look", "sums", "--prompt", "12+5=")
    assert result.exit_code == 0, result.output
    files = [folder / f"{name}.png" for name in ("attention_1", "embeddings", "spectrum")]
    assert "looked inside sums/default at step" in result.stdout and "'12+5='" in result.stdout
    for file in files:
        assert f"  {file}\n" in result.stdout and file.read_bytes()[:4] == b"\x89PNG"
    found = json.loads(terrarium("look", "sums", "--prompt", "1+1=", "--json").stdout)
    assert found["files"] == [str(file) for file in files] and found["prompt"] == "1+1="
    assert (found["experiment"], found["run"], found["remarks"]) == ("sums", "default", [])
    default = json.loads(terrarium("look", "sums", "--json").stdout)
    assert re.fullmatch(r"\d+\+\d+=", default["prompt"])


@pytest.mark.slow
def test_look_at_a_stage(lab: Path, terrarium: Terrarium) -> None:
    from conftest import TINY

    stages = '\n[[stages]]\nname = "first"\n[[stages]]\nname = "second"\n'
    write(lab / "sums", SUMS, TINY + stages)
    assert terrarium("loop", "sums", "-q").exit_code == 0
    for more, stage in (("--stage first", "first"), ("", "second"), ("--run default/first", "first")):
        found = json.loads(terrarium("look", "sums", "--json", *more.split()).stdout)
        assert found["run"] == f"default/{stage}"
        assert Path(found["files"][0]).parent == lab / "sums/out/default" / stage


def test_reports_show_the_pictures(sums: Path, terrarium: Terrarium, tmp_path: Path) -> None:
    folder = sums / "out" / "default"
    assert terrarium("look", "sums", "--prompt", "12+5=", "-q").exit_code == 0
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert 'aria-label="attention maps of layer 1"' in page and "Inside the model" in page
    for name in ("attention_1.png", "embeddings.png", "spectrum.png"):
        assert f"({name})" in text
    assert terrarium("report", "sums", "--to", str(tmp_path / "hand_in")).exit_code == 0
    handed = (tmp_path / "hand_in" / "report.md").read_text()
    for name in re.findall(r"\]\((\w+\.png)\)", handed):
        assert (tmp_path / "hand_in" / name).is_file()
    assert "(attention_1.png)" in handed and "(answers.png)" in handed
    (folder / "look.json").write_text("[]")
    result = terrarium("report", "sums", "--run", "default")
    assert result.exit_code == 2 and "not what `look` writes" in result.stderr and "Delete it" in result.stderr
    (folder / "look.json").unlink()
    assert terrarium("report", "sums", "--run", "default").exit_code == 0
    assert "Inside the model" not in (folder / "report.md").read_text()


def test_pictures_of_other_weights_are_not_shown(sums: Path) -> None:
    folder = sums / "out" / "default"
    look = read_look(folder)
    assert look is not None
    assert sections(folder, {"best_step": look.step}) and not sections(folder, {"best_step": look.step + 1})


@pytest.mark.parametrize(
    ("prompt", "told", "remedy"),
    [("x", "'x'", "was trained without it"), ("", "the prompt is empty", "Give some text")],
)
def test_a_prompt_that_cannot_be_looked_at(
    sums: Path, terrarium: Terrarium, prompt: str, told: str, remedy: str
) -> None:
    result = terrarium("look", "sums", "--prompt", prompt)
    assert result.exit_code == 2 and told in result.stderr and remedy in result.stderr
    assert "--prompt" in result.stderr


def test_a_run_that_is_not_there(sums: Path, terrarium: Terrarium) -> None:
    assert terrarium("look", "sums", "--run", "defualt").exit_code == 2
    told = terrarium("look", "sums", "-q", "-s", "train.optim.learning_rate=1.0").stderr
    assert told == "warning: -s train.optim.learning_rate=1.0 has no effect on look\n"


def test_an_lstm_shows_its_embeddings_and_says_that_it_has_no_maps(lab: Path, terrarium: Terrarium) -> None:
    from conftest import TINY

    write(lab / "sums", SUMS, TINY.replace("[train.model]", '[train.model]\nkind = "lstm"'))
    assert terrarium("loop", "sums", "-q").exit_code == 0
    result = terrarium("look", "sums")
    assert "An LSTM has no attention, so there are no maps of it." in result.stdout
    assert "embeddings.png" in result.stdout and "attention_" not in result.stdout
    assert "An LSTM has no attention" in (lab / "sums" / "out" / "default" / "report.md").read_text()


def test_an_own_model_says_what_is_missing(lab: Path, terrarium: Terrarium) -> None:
    from conftest import TINY

    own = (
        "\n\ndef build_model(config, vocab_size):\n    import torch\n    return torch.nn.Sequential(\n"
        "        torch.nn.Embedding(vocab_size, 8), torch.nn.Linear(8, vocab_size))\n"
    )
    write(lab / "sums", SUMS + own, TINY)
    assert terrarium("train", "sums", "-q").exit_code == 0
    told = terrarium("look", "sums").stdout
    assert "Sequential has no method `trace`" in told and "list of weights (B, H, T, T)" in told
    assert "embeddings.png" in told


def test_running_text_shows_what_the_model_wrote(text: Path, terrarium: Terrarium) -> None:
    assert terrarium("loop", "text", "-q").exit_code == 0
    look = read_look(text / "out" / "default")
    assert look is not None and look.answer == "" and look.weights and not look.numbers
    result = terrarium("look", "text")
    assert result.exit_code == 2 and "running text has no prompts" in result.stderr
    told = terrarium("look", "text", "--prompt", "the quick").stdout
    assert "Fewer than 3 tokens are numbers" in told and "attention_1.png" in told


def test_maps_that_are_too_large_are_not_kept() -> None:
    weights = np.zeros((20, 20, 40, 40))
    look = record(3, "a", "", AttentionMaps(["a"] * 40, 40, weights), None, [])
    assert not look.weights and "too many numbers" in look.remarks[0]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, core.look; assert not {'torch', 'matplotlib', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    import core.look

    with pytest.raises(AttributeError, match="no attribute 'maps'"):
        core.look.maps  # noqa: B018


def test_of_many_layers_and_tokens_a_report_shows_some(tmp_path: Path) -> None:
    weights = np.tril(np.ones((9, 1, 3, 3))) / np.arange(1, 4)[:, None]
    rows = np.random.default_rng(0).normal(size=(300, 1000))
    numbers = Embeddings([str(n) for n in range(300)], rows, numbers=True)
    look = record(3, "abc", "", AttentionMaps(list("abc"), 3, weights), numbers, [])
    assert len(look.labels) == len(look.rows) == 200 and look.remarks == ["Of 300 tokens the first 200 are shown."]
    assert len(write_look(tmp_path, look)) == 11
    paths = [path.name for path in write_look(tmp_path, look, 4)]
    assert paths == [*(f"attention_{layer}.png" for layer in (1, 4, 6, 9)), "embeddings.png", "spectrum.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*paths, "look.json"])  # the others are gone
    [section] = sections(tmp_path, {"best_step": 3})
    assert "4 of 9 layers; `look` draws all." in str(section.parts[0])
