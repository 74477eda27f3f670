"""Models and tokenizers of Hugging Face and llama.cpp: export of our own models, and import of theirs (extra hf)."""
