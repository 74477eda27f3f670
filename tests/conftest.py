"""What tests share: a folder of experiments of their own, and the command line in this process."""

from __future__ import annotations

import base64
import functools
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from browser import Browser
    from copies import Lab
    from cutting import Forks

# A busy machine is no fault of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests compute on the CPU, also where there is a GPU: "auto" must not choose by machine. Tests marked `gpu` start processes
# that see it. This must stand before torch is imported.
# The workers of -n inherit the environment from the first process, so what it was before is kept in it.
ALL = "all"
GPUS = os.environ.setdefault("TERRARIUM_TESTS_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", ALL))
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# In the background of a script Ctrl-C is ignored, also by the programs that are started from there. Tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PREPARE = '''"""Put a space between the letters of a word."""

from core import Example


def documents(rng, *, alphabet: str = "abc", max_letters: int = 2):
    while True:
        letters = rng.choices(alphabet, k=rng.randint(1, max_letters))
        yield Example(prompt="".join(letters) + ": ", completion=" ".join(letters) + "\\n")
'''
TINY = """[prepare]
size = 2000
val_fraction = 0.3

[train.model]
n_layer = 1
n_head = 2
n_embd = 16
block_size = 16

[train.data]
batch_size = 4

[train.schedule]
max_iters = 6

[train.runtime]
eval_interval = 3
log_interval = 2
checkpoint_interval = 2
dtype = "float32"
device = "cpu"
trackers = []
"""


# What pictures are in tests that do not look at them: drawing takes most of the time of a tiny run.
DOT = {
    "png": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    ),
    "svg": b'<svg viewBox="0 0 1 1" xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>',
}


def nested(values: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """A dict of dicts from one with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        inner = result
        *path, name = key.split(separator)
        for part in path:
            inner = inner.setdefault(part, {})
        inner[name] = value
    return result


def with_gpus() -> dict[str, str]:
    """The environment for a process that may use the machine's GPUs."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return environment if GPUS == ALL else environment | {"CUDA_VISIBLE_DEVICES": GPUS}


@functools.cache
def has_gpu() -> bool:
    """Whether torch finds a GPU on this machine. It is asked in a process of its own."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], env=with_gpus(), capture_output=True).returncode == 0


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave what thousands of collected tests hold out of every collection of garbage: each took half a second."""
    gc.freeze()


class Drawing:
    """Whether pictures are drawn: in tests marked `pictures`."""

    real = True


@pytest.fixture(scope="session", autouse=True)
def pictures_are_dots() -> Iterator[None]:
    """In this process pictures are dots, except in tests marked `pictures`."""
    from matplotlib.figure import Figure

    whole = Figure.savefig

    def savefig(figure: Figure, file: Any, **options: Any) -> None:
        dot = None if Drawing.real else DOT.get(options.get("format", ""))
        if dot is None:
            whole(figure, file, **options)
        else:
            file.write(dot)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Figure, "savefig", savefig)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is none, and draw pictures only for those who look at them."""
    Drawing.real = item.get_closest_marker("pictures") is not None
    if item.get_closest_marker("gpu") and not has_gpu():
        pytest.skip("needs a GPU that torch can use")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own: they neither use nor leave figures that were measured for the user."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("cache")
        monkeypatch.setenv("TERRARIUM_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def signals_stay() -> Iterator[None]:
    """Signals are handled and held back after a test as they were before it: what a test leaves, later ones inherit."""
    before = handled_signals()
    yield
    assert handled_signals() == before


def handled_signals() -> tuple[Any, ...]:
    """The handlers of SIGINT and SIGTERM, and the signals that this thread holds back."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ()) if hasattr(signal, "pthread_sigmask") else set()
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), held


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium for the tests of a file. Without one, these are skipped."""
    from browser import CHROMIUM, browser

    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of experiments, which is the current one's."""
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TERRARIUM_EXPERIMENTS", raising=False)
    return tmp_path / "experiments"


@pytest.fixture
def spaces(lab: Path) -> Path:
    """A tiny experiment named `spaces`: Examples, and a model that trains in a moment."""
    folder = lab / "spaces"
    folder.mkdir()
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "config.toml").write_text(TINY)
    return folder


@pytest.fixture
def text(lab: Path) -> Path:
    """A tiny experiment named `text`: running text from a file, without a prepare.py."""
    folder = lab / "text"
    (folder / "datasets" / "raw").mkdir(parents=True)
    (folder / "datasets" / "raw" / "input.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    (folder / "config.toml").write_text(TINY.replace("size = 2000", 'input = "datasets/raw/input.txt"'))
    return folder


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A warm process that runs commands in forks of itself."""
    from copies import write
    from cutting import Forks

    with Forks(write(tmp_path_factory.mktemp("warm"), steps=4)) as forks:
        yield forks


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Lab:
    """Four steps: the saves of `last` after each, of which the third is the first to remove one, and one of `best`."""
    from copies import Lab, tiny

    return Lab(tiny(tmp_path_factory.mktemp("short"), 4), forks)


@pytest.fixture
def terrarium() -> Callable[..., Result]:
    """Run a command in this process: terrarium("train", "spaces") -> exit_code, stdout, stderr."""

    def run(*arguments: str) -> Result:
        from core.cli.main import cli

        return CliRunner().invoke(cli, arguments)

    return run
