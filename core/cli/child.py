"""Runs of a sweep as processes that end with it: `python -m core.cli.child PARENT ARGUMENTS...`, or a warm process that forks.

Killed with SIGKILL, a sweep can tell its runs nothing; on Linux the system then sends them SIGTERM, of which they save and
end. Elsewhere they go on to their end, and the lock of each tells the next sweep to wait for it.

Without ARGUMENTS it imports all that `train` needs, then reads requests from stdin, one JSON object a line, one after
another: arguments, and log, the file for what the run prints. It forks for each, and answers with two lines: pid, then code,
negative for a signal. So a run need not import anything (docs/LOG.md). It itself computes nothing and starts no thread.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path

from core.cli.main import main
from core.sweeps.workers import hide_home

PR_SET_PDEATHSIG = 1  # of prctl(2)
WARM = (
    "core.cli.training", "core.data.pipeline", "core.report.run_report", "core.report.plots", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "tensorboard.compat.proto.event_pb2",
    "tensorboard.summary.writer.event_file_writer", "core.encoders.bpe", "core.encoders.gpt2", "numpy.random",
)  # fmt: skip


def end_with(parent: int) -> None:
    """Have the system send SIGTERM to this process when its parent ends."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has ended just before
        os._exit(128 + signal.SIGTERM)


def serve() -> None:
    """Answer requests until stdin ends."""
    for name in WARM:
        importlib.import_module(name)
    gc.freeze()  # else a run would copy the memory of all that is imported when it collects
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # numpy's threads, idle
    for line in sys.stdin:
        request, server = json.loads(line), os.getpid()
        process = os.fork()
        if not process:
            os._exit(run(request, server))
        print(json.dumps({"pid": process}), flush=True)
        _, status = os.waitpid(process, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def run(request: dict[str, str], server: int) -> int:
    """One command in this process, a fork of the server. Returns its exit code."""
    end_with(server)
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(source, descriptor)
    sys.argv[1:] = request["arguments"]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        hide_home(Path(request["log"]))  # here, as a sweep that has been killed cannot
    return code


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))
    if sys.argv[1:]:
        main()
    else:
        serve()
