"""Tiny Shakespeare in GPT-2's tokens: 0.3 million of them, from a vocabulary of 50,257."""

# The text comes from [prepare] input, so there are no documents() to write.
