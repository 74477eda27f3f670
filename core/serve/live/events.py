"""Tell every viewer which runs have changed: one watcher for all of them, which works only while somebody looks."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import AsyncIterator

from core.serve.live.view import View

OFTEN, SELDOM = 1.0, 10.0  # seconds between two looks, at least and at most
SHARE = 200  # looking takes at most one part in so many of the time: runs that train here need the processor more
BEAT = 15.0  # seconds after which a viewer hears that the server is still there


SSE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Hub:
    """The viewers, each with the event that waits for it."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.viewers: dict[asyncio.Event, list[set[str]]] = {}
        self.watcher: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()
        self.said = ""

    async def events(self) -> AsyncIterator[str]:
        """The lines for one viewer: what has changed, at most once a second."""
        woken, news = asyncio.Event(), list[set[str]]()
        self.viewers[woken] = news
        if self.watcher is None or self.watcher.done():
            self.watcher = asyncio.create_task(self.watch())
        try:
            yield ": hello\n\n"
            while not self.closed.is_set():
                try:
                    await asyncio.wait_for(woken.wait(), BEAT)
                except asyncio.TimeoutError:
                    yield ": still here\n\n"
                    continue
                woken.clear()
                ids = set().union(*news)
                news.clear()
                yield said(ids)
        finally:
            del self.viewers[woken]

    async def watch(self) -> None:
        """Look for changes while there are viewers. Told is also what the first look finds: a page may have been filled before."""
        catalog = self.view.catalog
        if not catalog.version:  # nothing was shown yet
            await asyncio.to_thread(self.look)
        seen = catalog.version, self.view.jobs.version
        while self.viewers and not self.closed.is_set():
            begun = time.monotonic()
            await asyncio.to_thread(self.look)
            version, jobs = catalog.version, self.view.jobs.version
            if (version, jobs) != seen:
                ids = catalog.changed_since(seen[0]) | ({""} if jobs != seen[1] else set())
                seen = version, jobs
                for woken, news in self.viewers.items():
                    news.append(ids)
                    woken.set()
            await asyncio.sleep(min(SELDOM, max(OFTEN, SHARE * (time.monotonic() - begun))))

    def look(self) -> None:
        """Update what is known. Anything that goes wrong is said once on the terminal, and tried again at the next look."""
        try:
            self.view.catalog.update()
            self.view.jobs.look()
        except Exception as error:
            if repr(error) != self.said:
                self.said = repr(error)
                traceback.print_exception(error)

    def close(self) -> None:
        """End all streams."""
        self.closed.set()
        for woken in self.viewers:
            woken.set()


def said(ids: set[str]) -> str:
    """The event that says what has changed; "" among the ids stands for the jobs."""
    told = {"changed": sorted(ids - {""})} | ({"jobs": True} if "" in ids else {})
    return f"data: {json.dumps(told)}\n\n"
