"""Finetune any pretrained language model with LoRA on speeches or on text files of your own.

The data is made by core/corpora/finetuning.py. Write your own `prepare` here to change it.
"""

from core.corpora.finetuning import inputs, prepare

__all__ = ["inputs", "prepare"]
