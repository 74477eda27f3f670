"""Suites of tasks: questions with given answers, by which language models are compared.

`task.py` has Item, Task and Suite; `dclm.py` reads them from a folder, `kinds.py` from single lines,
`humaneval.py` from a file of programming problems, `code.py` makes programs of their answers; `rows.py` makes ids of
them; `scoring.py` measures ids with a model; `results.py` has the accuracy of a task; `chat.py` asks chat models.
"""
