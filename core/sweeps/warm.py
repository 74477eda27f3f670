"""Import all that training needs, in the process from which the runs of a sweep are forked."""

from __future__ import annotations

import gc
import warnings

from core import process

process.spin_briefly()

import matplotlib.backends.backend_agg  # noqa: E402
import matplotlib.backends.backend_svg  # noqa: E402
import matplotlib.figure  # noqa: E402, F401
import numpy.random  # noqa: E402, F401
import tensorboard.compat.proto.event_pb2  # noqa: E402
import tensorboard.summary.writer.record_writer  # noqa: E402, F401

import core.data.pipeline  # noqa: E402
import core.encoders.bpe  # noqa: E402
import core.encoders.gpt2  # noqa: E402
import core.lab.reporting  # noqa: E402
import core.lab.training  # noqa: E402, F401

gc.freeze()  # else garbage collection in a run would copy the memory of everything imported
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # numpy's threads, idle
