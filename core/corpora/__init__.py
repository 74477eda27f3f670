"""Corpora of speeches: files in, speeches and the side of each session out. A capability: prepare.py files import it, core does not."""
