"""Draw from prepare.py's held_out(): Examples that no other side may contain, such as longer sums than training shows."""

from __future__ import annotations

import contextlib
import inspect
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from core.chat.conversation import Conversation
from core.data.documents import Example
from core.data.fetching import fetched
from core.data.info import HELD_OUT
from core.data.params import POSITIONAL, bind, keyword_only, source_of, title
from core.data.source import Source
from core.data.spool import Spool
from core.errors import UserError

if TYPE_CHECKING:
    from core.data.compose import Build

Function = Callable[..., Any]
OFFERED = ("rng", "raw_dir", "dataset_dir", "folder", "fetch")  # what held_out() may ask for by name, as documents()
MOST = 100_000  # Examples: more would only make every evaluation slower
SPOOL = ".spool-held-out"


def held_out_function(source: Source) -> Function | None:
    """prepare.py's held_out(); None if there is none.

    prepare.py may hold a helper of this name. One that takes other positional parameters is not used, nor is one that does
    not stand beside the documents() that makes the data; a warning says so.
    """
    found = getattr(source.code, HELD_OUT, None)
    if not callable(found):
        return None
    positional = [each.name for each in inspect.signature(found).parameters.values() if each.kind in POSITIONAL]
    if source.kind != "documents" or not set(positional) <= set(OFFERED):
        why = "only `def held_out(*, ...)` is" if source.kind == "documents" else "documents() does not make the data"
        warnings.warn(f"prepare.py has a function held_out, which is not used: {why}.", stacklevel=2)
        return None
    function: Function = found
    return function


def own_params(function: Function, other: Function | None, params: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of [prepare.params] for one of two functions that share them: all but those that only the other one has."""
    if other is None:
        return dict(params)
    foreign = keyword_only(other) - keyword_only(function)
    return {name: value for name, value in params.items() if name not in foreign}


@contextlib.contextmanager
def draw_held_out(build: Build, function: Function) -> Iterator[Spool | None]:
    """The Examples of held_out(), in a spool that lasts as long as the context; None if it yields nothing, which is told.

    It has random numbers of its own. Raises UserError if it yields anything but Examples, or more than MOST.
    """
    settings, source = build.config.prepare, build.source
    known = keyword_only(function)
    values: dict[str, Any] = {
        "rng": random.Random(f"{settings.seed} {HELD_OUT}"),
        "raw_dir": source.raw_dir,
        "dataset_dir": build.folder,
        "folder": source.experiment.folder,
        "fetch": partial(fetched, source),
    }
    arguments = bind(
        function, values, {name: value for name, value in settings.params.items() if name in known}, source.place_of
    )
    yielded = function(*arguments.args, **arguments.kwargs)
    if isinstance(yielded, (str, Example, Conversation)) or not isinstance(yielded, Iterable):
        raise UserError(
            f"{title(function)} returned {type(yielded).__name__}, which yields no Examples",
            place=source_of(function),
            remedy="Write `yield Example(prompt, completion)` for each.",
        )
    with Spool(build.folder / SPOOL, settings.seed, title(function)) as spool:
        for document in yielded:
            if not isinstance(document, Example):
                raise UserError(
                    f"{title(function)} yielded {type(document).__name__}, not an Example",
                    place=source_of(function),
                    remedy="Its prompts are answered and compared with the truth: yield Example(prompt, completion).",
                )
            spool.add(document)
            if len(spool) > MOST:
                raise UserError(
                    f"{title(function)} yields more than {MOST:,} Examples",
                    place=source_of(function),
                    remedy="It must end: all of its Examples are kept. Draw as many as you want to ask.",
                )
        if not len(spool):
            source.listener.say(f"{title(function)} yields nothing, so nothing is held out beside validation and test.")
            yield None
            return
        spool.close()
        yield spool


def check_held_out(build: Build, held_out: Spool, spool: Spool) -> None:
    """Raise UserError if the Examples of held_out() do not fit the documents, and tell how many documents were left out."""
    place = source_of(getattr(build.source.code, HELD_OUT))
    if spool.kind != "examples":
        raise UserError(
            f"held_out() yields Examples, but documents() yields {spool.kind}",
            place=place,
            remedy="Take held_out() out, or yield Examples from documents().",
        )
    if spool.ending and held_out.ending != spool.ending:
        raise UserError(
            f"completions of held_out() must end as those of documents() do: with {spool.ending!r}, and have it nowhere else",
            place=place,
            remedy="A model that was trained on these documents writes no other end.",
        )
    many = f"{len(held_out):,} Examples of held_out(), which training never shows"
    if spool.left_out:
        many += f"; {spool.left_out:,} document{'s' * (spool.left_out != 1)} with their prompts left out"
    build.source.listener.say(many)
