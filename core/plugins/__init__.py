"""Plugins: `hookimpl` marks a function of a package, of a core layer or of a prepare.py as a hook of `hookspecs`."""

from __future__ import annotations

import pluggy

hookimpl = pluggy.HookimplMarker("terrarium")
