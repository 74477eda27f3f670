"""Conversations: turns with roles, the ids that training, evaluation and chat give them, and tools. Needs no torch.

`conversation.py` has Message, Conversation and what makes one valid; `render.py` turns them into ids and back; `tools.py`
answers calls, `calculator.py` is the built-in tool, `own_tools.py` runs those of a prepare.py; `gsm8k.py` reads GSM8K.
"""
