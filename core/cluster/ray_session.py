"""A connection to Ray: to a cluster that is there, or to one on this machine, which is started for the command and ends with it.

Our own cluster can be reached from this machine alone, and only with its token; it has no dashboard and reports nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from core.cluster.extra import needed
from core.cluster.task import unseen
from core.errors import UserError

LOOPBACK = "127.0.0.1"
STORE = 256 << 20  # bytes of shared memory for our own cluster; groups of documents need a few MB each
ANSWER, CONNECT = 10.0, 90.0  # seconds that an address has to answer, and a cluster to take us in
OWN = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Makes Ray keep the address 127.0.0.1 instead of looking up the machine's. Then its servers listen there and nowhere else.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
TRIAL = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='error')"
PARTNER = "Leave the address out to have a cluster started on this machine."


class Session:
    """A context manager. number: how often it has connected. is_own: the cluster is ours."""

    def __init__(self, address: str, cpus: int) -> None:
        """address: HOST:PORT of a cluster, "auto" for the one of this machine, or "" to start one. cpus: of our own.

        Raises UserError if Ray is not installed, or if the address is wrong.
        """
        self.ray = needed("ray", "ray")
        self.address, self.cpus, self.number = address, cpus, 0
        self.is_borrowed = bool(self.ray.is_initialized())  # by the user's own script
        self.is_own = not self.is_borrowed and address in ("", "local")
        self.folder = ""
        self.settings = contextlib.ExitStack()
        if not self.is_own and not self.is_borrowed:
            refuse_unreachable(address)

    def __enter__(self) -> Session:
        if self.is_own:
            self.settings.enter_context(own_settings())
        if not self.is_borrowed:
            self.settings.enter_context(without_remarks())
        with self.settings.pop_all() as settings:
            self.connect()
            self.settings = settings.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with self.settings:
            self.disconnect()

    def connect(self) -> None:
        """Connect, and start our own cluster first. Raises UserError if that fails."""
        self.number += 1
        if self.is_borrowed:
            return
        given: dict[str, Any] = {"address": self.address}
        if self.is_own:
            self.folder = tempfile.mkdtemp(prefix="terrarium-ray-")
            given = {
                "address": "local",
                "num_cpus": self.cpus,
                "include_dashboard": False,
                "object_store_memory": STORE,
                "_node_ip_address": LOOPBACK,
                "_temp_dir": self.folder,
            }
        try:
            with keeping_signals():
                self.ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **given)
        except Exception as error:  # that a machine is too slow, Ray says by an exception of no class of its own
            self.disconnect()
            raise UserError(
                f"Ray does not start: {first_line(str(error))}" if self.is_own else f"no connection: {first_line(str(error))}",
                place="ray" if self.is_own else self.address,
                remedy="Free memory and disk space in the folder for temporary files, or wait until the machine is less busy." if self.is_own else PARTNER,
            ) from None  # fmt: skip

    def disconnect(self) -> None:
        """Disconnect, and end our own cluster."""
        if self.is_borrowed:
            return
        with keeping_signals():
            self.ray.shutdown()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def again(self) -> None:
        """Connect again, after this machine's part of Ray has died."""
        self.disconnect()
        self.connect()

    def resources(self) -> tuple[int, int, int]:
        """CPUs of the cluster, CPUs of its largest machine, and GPUs of the cluster."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        return sum(cpus), max(cpus), int(sum(node.get("GPU", 0) for node in nodes))

    def check_machines(self, folders: tuple[str, ...]) -> None:
        """Raise UserError if a machine of the cluster cannot run our code, or does not see the folders."""
        pinned = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        looking = self.ray.remote(num_cpus=0, max_retries=0)(unseen)
        for node in self.ray.nodes():
            if not node["Alive"]:
                continue
            there = looking.options(scheduling_strategy=pinned(node["NodeID"], soft=False)).remote(folders)
            place = f"the machine {node['NodeManagerAddress']} of the cluster"
            try:
                missing = self.ray.get(there, timeout=CONNECT)
            except self.ray.exceptions.RayError as error:
                raise UserError(
                    f"Terrarium does not run there: {last_line(str(error))}",
                    place=place,
                    remedy="Install the same versions of Python, Ray and Terrarium on all machines.",
                ) from None
            if missing:
                raise UserError(
                    f"it does not see {', '.join(missing)}",
                    place=place,
                    remedy="Put the experiment into a folder that all machines share, under the same path.",
                )


def refuse_unreachable(address: str) -> None:
    """Raise UserError, in bounded time, if no cluster takes us in at an address. Ray itself would wait for minutes, or abort."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or "/" in host or int(port) > 65_535:
            raise UserError(
                f"'{address}' is not HOST:PORT, and not \"auto\"",
                place="address",
                remedy="It is what `ray start` prints, such as 10.0.0.1:6379.",
            )
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
        except OSError as error:
            raise UserError(
                f"nothing answers at {address}: {error.strerror or error}",
                place="address",
                remedy=f"Is the cluster running, and can this machine reach it? {PARTNER}",
            ) from None
    try:
        tried = subprocess.run(
            [sys.executable, "-c", TRIAL, address], capture_output=True, text=True, errors="replace", timeout=CONNECT
        )
        reason = last_line(tried.stderr) if tried.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"it does not take us in within {CONNECT:.0f} s"
    if reason:
        raise UserError(
            f"no cluster of Ray takes us in at {address}: {reason}",
            place="address",
            remedy="The command must run on a machine of the cluster, with the cluster's version of Ray, and with its token "
            f"in RAY_AUTH_TOKEN if it asks for one. {PARTNER}",
        )


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Set what our own cluster needs. Its processes inherit it; this one has its environment back at the end."""
    from ray._private import ray_constants

    token = os.environ.get("RAY_AUTH_TOKEN") or OwnToken.text
    former = {name: os.environ.get(name) for name in (*OWN, "RAY_AUTH_TOKEN", "RAY_ADDRESS")}
    before = ray_constants.ENABLE_RAY_CLUSTER  # from the variable, when Ray was imported
    os.environ.update(OWN, RAY_AUTH_TOKEN=token)
    os.environ.pop("RAY_ADDRESS", None)
    ray_constants.ENABLE_RAY_CLUSTER = False
    read_variables()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        for name, value in former.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        read_variables()


def read_variables() -> None:
    """Have Ray read its variables again. Otherwise it does so once, when it is imported, and starts without a token."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Keep Ray from printing what happens to its processes, on stdout. What it means for a run, the sweep says."""
    from ray._private import worker

    former = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *arguments, **more: None
    try:
        yield
    finally:
        worker.print_to_stdstream = former


class OwnToken:
    """The token of the clusters that this process starts."""

    text = secrets.token_hex(32)


@contextlib.contextmanager
def keeping_signals() -> Iterator[None]:
    """Keep this process's signal handlers, in place of Ray's, and be quiet about Ray's plans for its future."""
    in_main = threading.current_thread() is threading.main_thread()
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if in_main}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason is given")


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason is given")
