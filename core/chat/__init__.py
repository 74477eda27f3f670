"""Conversations: turns with roles, and the ids that training, evaluation and chat give them. Needs no torch.

`conversation.py` has Message, Conversation and what makes one valid; `render.py` turns them into ids and back.
"""
