"""The command line: the group of commands, and how errors end the process."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from core import files
from core.durable import FULL
from core.errors import Interrupted, RunFailed, UserError

INTERRUPTED = 128 + signal.SIGINT
# The machine refuses: no bug of ours, so no traceback.
ENVIRONMENT = (errno.EACCES, errno.EPERM, errno.EROFS, *FULL)
# A thread that waits for another spins for a moment, then sleeps. Spinning on, as OpenMP would, starves whoever shares
# the machine; sleeping at once halves the speed of small models (docs/LOG.md). Read once, when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "6000")


class Signalled(KeyboardInterrupt):
    """As Ctrl-C; of a plain KeyboardInterrupt inside an import Python would die at its end, whatever the exit code."""


IMPORTING, IMPORTS = 1.0, 5  # a signal waits for an import, seconds at most, so many times at most


def is_importing(frame: FrameType | None) -> bool:
    """Whether packages are being imported; a prepare.py is none."""
    found = False
    while frame is not None and frame.f_code.co_name != "load_code":
        found = found or frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return found and frame is None


def is_here(frame: FrameType | None) -> bool:
    """Whether this module's own answer to a dropped signal is at work, in which an exception would be dropped again."""
    while frame is not None and (frame.f_code.co_filename, frame.f_code.co_name) != (__file__, "dropped"):
        frame = frame.f_back
    return frame is not None


class Waiting(threading.Thread):
    """Sends this process a signal again when its main thread can take it: an exception in torch's own start may abort it."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.number, self.sent = number, False

    def run(self) -> None:
        main, patience = threading.main_thread().ident or 0, time.monotonic() + IMPORTING
        while time.monotonic() < patience:
            frame = sys._current_frames().get(main)
            if not (is_importing(frame) or is_here(frame)):
                break
            time.sleep(0.002)
        self.sent = True
        os.kill(os.getpid(), self.number)


class Stopped(Exception):
    """A signal ended the work outside training, where there is nothing to save. number: the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM unwind the stack, so that temporary files go; a second one ends the process at once.

    Raises Stopped then. A signal that is ignored or another program's own, and one outside the main thread, stays as it is.
    """
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    in_main = threading.current_thread() is threading.main_thread()
    ours = [number for number, handler in usual.items() if in_main and signal.getsignal(number) == handler]
    came: list[int] = []
    waiting: list[Waiting] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        second = bool(waiting) and not waiting[-1].sent
        if not second and is_importing(frame) and len(waiting) < IMPORTS:
            waiting.append(Waiting(number))
            waiting[-1].start()
            return
        for either in ours:
            signal.signal(either, signal.SIG_DFL)
        if second:
            os.kill(os.getpid(), number)
        raise Signalled

    def dropped(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Signalled):
            usual_hook(unraisable)
            return
        for number in ours:
            signal.signal(number, end)
        waiting.append(Waiting(came[-1]))
        waiting[-1].start()

    for number in ours:
        signal.signal(number, end)
    # Python drops what is raised while an object or a generator is thrown away: the signal is sent once more.
    usual_hook, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield
    except Interrupted:
        raise
    except (Exception, KeyboardInterrupt):
        if came:  # also where an import has swallowed the interrupt and another one fails on its ruins
            raise Stopped(came[0]) from None
        raise
    finally:
        sys.unraisablehook = usual_hook
        for number in ours:
            signal.signal(number, usual[number])


class Commands(click.Group):
    """A group whose errors are one message: exit code 2 for the user's mistakes, 1 for a failed run, 130 for Ctrl-C, 143 for SIGTERM.

    The commands of core and of plugins are put in when they are first looked for.
    """

    filled = False

    def fill(self) -> None:
        """Put in the commands of core, then those of plugins; a plugin that fails is skipped."""
        if self.filled:
            return
        self.filled = True
        from core.cli import bench, check, compare, experiments, fit, inspect, interchange, report, runs, sweep, work
        from core.plugins.manager import plugins

        for module in (work, sweep, inspect, compare, report, runs, experiments, check, bench, fit, interchange):
            for command in module.COMMANDS:
                self.add_command(command)
        plugins().call_each("register_commands", cli=self)
        for plugin in plugins().failures():
            click.echo(f"warning: plugin '{plugin.name}' of {plugin.package} is skipped: {plugin.error}", err=True)

    def list_commands(self, context: click.Context) -> list[str]:
        self.fill()
        return list(self.commands)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        self.fill()
        return super().get_command(context, name)

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        """Run a command and exit; a bug keeps its traceback."""
        try:
            with ending_on_signals():
                code = super().main(args, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except UserError as error:
            click.secho(f"error: {error}", fg="red" if sys.stderr.isatty() else None, err=True)
            sys.exit(2)
        except RunFailed as error:
            click.echo(f"failed: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            if error.errno not in ENVIRONMENT:
                raise
            if error.errno in FULL:
                error = files.disk_full(error, Path(error.filename or "."))
            click.echo(
                f"failed: {error.filename or 'a file'}: {error.strerror}. What was there before is whole.", err=True
            )
            sys.exit(1)
        except Interrupted as stop:
            click.echo(f"interrupted, and saved. {stop.remedy}", err=True)
            sys.exit(128 + stop.number)
        except Stopped as stop:
            click.echo("interrupted. What was saved before is whole; the same command goes on from there.", err=True)
            sys.exit(128 + stop.number)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


def underscores_too(name: str) -> str:
    """--num_samples is --num-samples: nanoGPT's users type it so."""
    return name.replace("_", "-")


@click.group(
    cls=Commands, context_settings={"token_normalize_func": underscores_too, "help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="terrarium-lab", prog_name="terrarium")
def cli() -> None:
    """A lab for small language models: an experiment is a folder, and these commands run it."""


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning on one line, without the place in the code that it comes from."""
    click.echo(f"warning: {message}", err=True)


def main() -> None:
    """Entry point of `terrarium`."""
    warnings.showwarning = show_warning
    cli(prog_name="python -m core.cli")
