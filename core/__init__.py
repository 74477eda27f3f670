"""Terrarium: a lab for small language models. What a prepare.py needs is here; importing it is cheap."""

from core.data.documents import Conversation, Example, Message

__all__ = ["Conversation", "Example", "Message"]
