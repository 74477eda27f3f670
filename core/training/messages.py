"""A message of a team of processes: JSON values and arrays <-> bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Values = dict[str, Any]  # as JSON holds them
Arrays = tuple[npt.NDArray[Any], ...]
HEAD = 16  # bytes at the beginning: the lengths of the whole and of its JSON


def packed(values: Values, arrays: Sequence[npt.NDArray[Any]]) -> bytearray:
    """A message: its length and that of its JSON, the JSON, the arrays."""
    shapes = [[array.dtype.str, array.shape] for array in arrays]
    head = json.dumps([values, shapes]).encode()
    body = b"".join([head, *(np.ascontiguousarray(array).tobytes() for array in arrays)])
    lengths = (HEAD + len(body)).to_bytes(HEAD // 2, "little") + len(head).to_bytes(HEAD // 2, "little")
    return bytearray(lengths + body)


def unpacked(data: bytes) -> tuple[Values, Arrays]:
    """Undo `packed`."""
    place = HEAD + int.from_bytes(data[HEAD // 2 : HEAD], "little")
    values, shapes = json.loads(data[HEAD:place])
    arrays = []
    for kind, shape in shapes:
        count = int(np.prod(shape))
        arrays.append(np.frombuffer(data, kind, count, place).reshape(shape).copy())
        place += arrays[-1].nbytes
    return values, tuple(arrays)
