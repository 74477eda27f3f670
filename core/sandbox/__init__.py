"""Programs that nobody has read, run inside bubblewrap: source code in, how it ended out. Linux only. Needs no torch.

`bubblewrap.py` starts one for each program, `inside.py` runs there, `calls.py` has the calls of the kernel that are refused there.
docs/explanation/trust.md says what this keeps in, and what it does not.
"""
