"""Load plugins, and look up the encoders, models, optimizers, objectives, trackers, suites and launchers that they register."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from core.errors import UserError, did_you_mean
from core.plugins import hookspecs

PROJECT = "terrarium"
CORE = Path(__file__).parents[1]
PACKAGE = "terrarium-lab"
HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{PROJECT}_spec")]
EXPERIMENT_MODULE = "terrarium_experiment_"  # prefix of the module names of prepare.py files
KINDS = ("encoders", "models", "optimizers", "objectives", "trackers", "suites", "launchers")
YIELDING = ("adam", "sgd")  # built-in optimizers that plugins may be older than: a plugin of that name goes before them


@dataclass
class Plugin:
    """A built-in package or an entry point. error: why it failed to load."""

    name: str
    package: str
    module: Any = None
    error: str = ""


OWN = Plugin("prepare.py", "this experiment")


@dataclass(frozen=True)
class Plugins:
    """The loaded plugins and the prepare.py of one experiment. Experiments do not see each other's hooks.

    folder: of the experiment, where the relative paths of its settings start; None without one.
    """

    manager: pluggy.PluginManager
    loaded: list[Plugin] = field(default_factory=list)
    code: ModuleType | None = None
    folder: Path | None = None

    def failures(self) -> list[Plugin]:
        """Plugins that failed to load, or whose hooks failed."""
        return [plugin for plugin in self.loaded if plugin.error]

    def package_of(self, function: Any) -> str:
        """The package that a function belongs to; "?" if it is of no plugin."""
        module = str(getattr(function, "__module__", "")).partition(".")[0]
        for plugin in self.loaded:
            if getattr(plugin.module, "__name__", "").partition(".")[0] == module:
                return plugin.package
        return "?"

    def package_offering(self, folder: Path) -> str:
        """The package whose plugin provides an experiment's folder or its parent; "" for the user's own folder."""
        for implementation in self.manager.hook.experiment_folders.get_hookimpls():
            succeeded, folders, package = self.call(implementation)
            if succeeded and any(Path(offered).absolute() in (folder, folder.parent) for offered in folders):
                return package
        return ""

    def call(self, implementation: pluggy.HookImpl, **arguments: Any) -> tuple[bool, Any, str]:
        """Call one plugin's hook. Returns whether it succeeded, its result and its package.

        If a third-party package raises, it is noted as a failure. Errors of core and of prepare.py are raised.
        """
        plugin = next((plugin for plugin in self.loaded if plugin.module is implementation.plugin), OWN)
        accepted = {name: arguments[name] for name in implementation.argnames}
        try:
            return True, implementation.function(**accepted), plugin.package
        except Exception as error:
            if plugin.package in (PACKAGE, OWN.package):
                raise
            plugin.error = one_line(error)
            return False, None, plugin.package

    def call_each(self, hook: str, **arguments: Any) -> list[Any]:
        """Call a hook of every plugin, and return the results of those that did not fail."""
        calls = [self.call(found, **arguments) for found in getattr(self.manager.hook, hook).get_hookimpls()]
        return [result for succeeded, result, _ in calls if succeeded]

    def registered(self, kind: str) -> dict[str, tuple[Any, str]]:
        """Everything registered for one of KINDS: name -> (value, package). Raises UserError for a name that occurs twice,
        unless the built-in one is YIELDING."""
        found: dict[str, tuple[Any, str]] = {}
        for implementation in getattr(self.manager.hook, f"register_{kind}").get_hookimpls():
            entries: list[tuple[str, Any]] = []
            succeeded, _, package = self.call(
                implementation, register=lambda name, value, to=entries: to.append((name, value))
            )
            for name, value in entries if succeeded else []:
                if name in found and kind == "optimizers" and name in YIELDING:
                    if package == PACKAGE:
                        continue
                    if found[name][1] == PACKAGE:
                        del found[name]
                if name in found:
                    raise UserError(
                        f"'{name}' is registered twice in {kind}: by {found[name][1]} and by {package}",
                        remedy="Uninstall one of the packages, or rename one of the two.",
                    )
                found[name] = (value, package)
        return found

    def get(self, kind: str, name: str, key: str) -> Any:
        """Look up one registered value. Raises UserError at `key`, a config key, if it is unknown."""
        values = self.registered(kind)
        if name not in values:
            raise UserError(
                f'unknown {kind[:-1]} "{name}"',
                place=key,
                remedy=f"{did_you_mean(name, values)} Plugins can add more: see `terrarium plugins`.",
            )
        return values[name][0]


class Manager(pluggy.PluginManager):
    """pluggy's manager. In a prepare.py, functions with the name of a hook are hooks without a decorator."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        marked = super().parse_hookimpl_opts(plugin, name)
        by_name = getattr(plugin, "__name__", "").startswith(EXPERIMENT_MODULE) and name in HOOKS
        if marked is None and by_name and inspect.isfunction(getattr(plugin, name)):
            pluggy.HookimplMarker(PROJECT)(getattr(plugin, name))
            marked = super().parse_hookimpl_opts(plugin, name)
        return marked


def check_hooks(manager: pluggy.PluginManager, plugin: Any) -> None:
    """Raise UserError if a package marks a function as a hook that does not exist. pluggy would ignore it."""
    for name in dir(plugin):
        if getattr(getattr(plugin, name), f"{PROJECT}_impl", None) is not None and name not in HOOKS:
            manager.unregister(plugin)
            raise UserError(f"no hook is called '{name}'", remedy=did_you_mean(name, HOOKS))


def one_line(error: Exception) -> str:
    """An exception's type and message."""
    return "".join(traceback.format_exception_only(error)).strip()


def built_in() -> list[str]:
    """The packages of core. They register through the same hooks as plugins."""
    return [f"core.{found.name}" for found in pkgutil.iter_modules([str(CORE)]) if found.ispkg]


@functools.cache
def plugins() -> Plugins:
    """Load the packages of core and all entry points of the group `terrarium`, once per process.

    If a plugin fails, its error is kept and the others are still loaded.
    """
    manager = Manager(PROJECT)
    manager.add_hookspecs(hookspecs)
    loaded = []
    for name in built_in():
        module = importlib.import_module(name)
        manager.register(module, name)
        loaded.append(Plugin(name, PACKAGE, module))
    for entry in importlib.metadata.entry_points(group=PROJECT):
        package = entry.dist.name if entry.dist else "an unknown package"
        plugin = Plugin(entry.name, package)
        try:
            plugin.module = entry.load()
            manager.register(plugin.module, f"{package}:{entry.name}")
            check_hooks(manager, plugin.module)
        except Exception as error:  # whatever a third-party import raises, the others must still load
            plugin.error = one_line(error)
        loaded.append(plugin)
    return Plugins(manager, loaded)


def plugins_with(code: ModuleType | None) -> Plugins:
    """All plugins, plus the hooks of an experiment's prepare.py: plain functions with the name of a hook.

    Raises UserError for a function whose name is almost that of a hook.
    """
    everyone = plugins()
    if code is None:
        return everyone
    for name, value in vars(code).items():
        near = difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.85)
        if inspect.isfunction(value) and value.__module__ == code.__name__ and near and name not in HOOKS:
            raise UserError(f"no hook is called '{name}'", place=str(code.__file__), remedy=did_you_mean(name, HOOKS))
    manager = Manager(PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, module in everyone.manager.list_name_plugin():
        if module is not None:
            manager.register(module, name)
    manager.register(code)
    return Plugins(manager, everyone.loaded, code)
