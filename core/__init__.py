"""Terrarium: a lab for small language models. What a prepare.py needs is here; importing it is cheap."""

from __future__ import annotations

from typing import Any

from core.data.documents import Conversation, Example, Message
from core.errors import UserError

__all__ = ["Conversation", "Example", "Message", "UserError", "hookimpl"]


def __getattr__(name: str) -> Any:
    if name == "hookimpl":  # pluggy costs 15 ms, which a prepare.py without hooks need not spend
        from core.plugins import hookimpl

        return hookimpl
    raise AttributeError(f"module 'core' has no attribute '{name}'")
