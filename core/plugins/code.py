"""Import an experiment's prepare.py."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from core.plugins.discovery import Experiment
from core.plugins.manager import EXPERIMENT_MODULE


def load_code(experiment: Experiment) -> ModuleType | None:
    """Import prepare.py as it is on disk now. Returns None if the experiment has none.

    The module is a package of its own, so it can import files next to it (`from .words import NUMBERS`), and sys.path
    does not change. An exception in prepare.py is the experiment's own bug and is raised as it is.
    """
    path = experiment.folder / "prepare.py"
    if not path.is_file():
        return None
    # The module name has the folder's whole path, because two experiments of one name must not share a module.
    name = f"{EXPERIMENT_MODULE}{experiment.folder.resolve().as_posix().encode().hex()}"
    for stale in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[stale]
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(experiment.folder)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
