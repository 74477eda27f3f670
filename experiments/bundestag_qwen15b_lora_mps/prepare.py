"""Qwen2.5 with 1.5 billion parameters learns to speak in the German Bundestag, with LoRA.

The data is made by core/corpora/finetuning.py. Write your own `prepare` here to change it.
"""

from core.corpora.finetuning import inputs, prepare

__all__ = ["inputs", "prepare"]
