"""Tell a prepare.py that is a script, such as nanoGPT's, from one with functions. A script is not imported: that would run it."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path

from core.data.source import FUNCTIONS
from core.plugins.manager import HOOKS

WORK = (ast.For, ast.While, ast.If, ast.With, ast.Try)  # statements of a script
OTHERS = ("loss", "answer")  # functions that other parts call, besides FUNCTIONS and hooks


def is_script(path: Path) -> bool:
    """Whether a Python file does its work when it is run, and has no function that Terrarium would call.

    A file that cannot be parsed is none: importing it shows the mistake. Nor is one with a function whose name is almost
    one of those that are called.
    """
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return False
    works = any(isinstance(node, WORK) or (isinstance(node, ast.Expr) and calls(node)) for node in body)
    called = ["*", *FUNCTIONS, *OTHERS, *HOOKS]
    return works and not any(difflib.get_close_matches(name, called, n=1, cutoff=0.85) for name in names(body))


def calls(node: ast.Expr) -> bool:
    """Whether an expression calls something: text alone is a docstring."""
    return any(isinstance(inner, ast.Call) for inner in ast.walk(node))


def names(body: list[ast.stmt]) -> Iterator[str]:
    """The names of functions and classes that statements define or import; "*" for an import of everything.

    A variable counts if its value may be a function: a name, an attribute or a lambda.
    """
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name
            continue
        for node in ast.walk(statement):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield node.name
            elif isinstance(node, ast.Assign) and isinstance(node.value, (ast.Name, ast.Attribute, ast.Lambda)):
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.alias):
                yield node.asname or node.name
