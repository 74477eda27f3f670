"""Read and write nanoGPT's meta.pkl: the vocabulary of a char dataset, {vocab_size, itos, stoi}.

A pickle is a program. This reader checks every opcode before anything is loaded, and accepts only those that
plain dicts, lists, tuples, strings and numbers need, so no class is resolved and no code runs. Limits on memo
numbers, tuples and repeated references bound memory and time too (a pickle of 20 bytes can otherwise ask for
gigabytes). Tests: tests/test_meta_pkl.py.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from core.errors import UserError
from core.files import write_bytes

MIB = 1 << 20
LIMIT = "TERRARIUM_META_MIB"  # in the environment: the largest meta.pkl that is read, MiB, instead of 1
FRAMING = {"PROTO", "FRAME", "STOP", "MARK"}
TEXT = {"BINUNICODE", "SHORT_BINUNICODE", "UNICODE"}
SCALARS = {"NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
CONTAINERS = {"EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"} | TUPLES
STORE = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
RECALL = {"GET", "BINGET", "LONG_BINGET"}
ALLOWED = FRAMING | TEXT | SCALARS | CONTAINERS | STORE | RECALL
MOST_TUPLES = 1000  # hashing nested tuples recurses; nanoGPT writes none


class PlainUnpickler(pickle.Unpickler):
    """Builds plain values, and never a class."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for a persistent object")


def read_meta(path: Path, *, limit: int | None = None) -> dict[str, Any]:
    """The dict of a meta.pkl. limit: largest size read, bytes; None: 1 MiB, or the value of $TERRARIUM_META_MIB.

    Raises UserError where the file is larger, damaged, or holds anything but plain containers.
    """
    limit = usual_limit() if limit is None else limit
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        remedy = f"A vocabulary is smaller. Move the file away if it is not one, or raise the limit: {LIMIT}=N, in MiB."
        raise refusal(path, f"larger than {limit / MIB:g} MiB", remedy)
    try:
        check(data)
        value = PlainUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a damaged pickle may raise nearly anything, MemoryError and IndexError included
        raise refusal(path, str(error) or type(error).__name__, "Run the prepare.py that wrote it again.") from None
    if not isinstance(value, dict):
        raise refusal(path, f"{type(value).__name__} instead of dict", "Run the prepare.py that wrote it again.")
    return value


def usual_limit() -> int:
    """The largest meta.pkl that is read, bytes. Raises UserError where the environment variable is not a number."""
    text = os.environ.get(LIMIT) or "1"
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 4096):
        raise UserError(f"{text!r} is not a number of MiB", place=LIMIT, remedy="Give a whole number from 1 to 4096.")
    return int(text) * MIB


def check(data: bytes) -> None:
    """Raise UnpicklingError (or what pickletools raises) for the first opcode that a plain dict does not need."""
    is_text: list[bool] = []  # by memo number
    previous, tuples = "", 0
    for opcode, operand, position in pickletools.genops(data):
        name, argument = opcode.name, operand if isinstance(operand, int) else -1
        if name not in ALLOWED:
            raise pickle.UnpicklingError(
                f"{name} at byte {position}: only plain dicts, lists, text and numbers are read"
            )
        if name in STORE:
            number = len(is_text) if name == "MEMOIZE" else argument
            if not 0 <= number <= len(is_text):  # a pickler counts up; the C loader reserves memory for any number
                raise pickle.UnpicklingError(f"memo number {number} out of turn at byte {position}")
            is_text[number : number + 1] = [previous in TEXT]
        elif name in RECALL and not (0 <= argument < len(is_text) and is_text[argument]):
            # Picklers repeat text. A repeated container can grow exponentially.
            raise pickle.UnpicklingError(f"a container is used twice at byte {position}")
        tuples += name in TUPLES
        if tuples > MOST_TUPLES:
            raise pickle.UnpicklingError(f"more than {MOST_TUPLES} tuples")
        previous = name


def refusal(path: Path, found: str, remedy: str) -> UserError:
    return UserError(f"not a plain vocabulary: {found}", place=str(path), remedy=remedy)


def write_meta(path: Path, itos: Sequence[str]) -> None:
    """Write a vocabulary, the text of each id, as nanoGPT's prepare.py does."""
    numbers = {text: number for number, text in enumerate(itos)}
    meta = {"vocab_size": len(itos), "itos": dict(enumerate(itos)), "stoi": numbers}
    write_bytes(path, pickle.dumps(meta, protocol=4))
