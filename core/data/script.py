"""Tell a prepare.py that is a script, such as nanoGPT's, from one with functions. A script is not imported: that would run it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from core.data.source import FUNCTIONS
from core.plugins.manager import HOOKS

WORK = (ast.For, ast.While, ast.If, ast.With, ast.Try)  # statements of a script


OTHERS = ("loss", "answer")  # functions that other parts call, besides FUNCTIONS and hooks


def is_script(path: Path) -> bool:
    """Whether a Python file does its work when it is run, and has no function that Terrarium would call.

    A file that cannot be parsed is none: importing it shows the mistake.
    """
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return False
    works = any(isinstance(node, WORK) or (isinstance(node, ast.Expr) and calls(node)) for node in body)
    return works and not {"*", *FUNCTIONS, *OTHERS, *HOOKS} & set(names(body))


def calls(node: ast.Expr) -> bool:
    """Whether an expression calls something: text alone is a docstring."""
    return any(isinstance(inner, ast.Call) for inner in ast.walk(node))


def names(body: list[ast.stmt]) -> Iterator[str]:
    """The names that statements define outside functions and classes; "*" for an import of everything."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name
            continue
        for node in ast.walk(statement):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.alias):
                yield node.asname or node.name
