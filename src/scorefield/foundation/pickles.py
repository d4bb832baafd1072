"""NumPy arrays, numbers and text out of what others pickled, without ever running it.

Some names are let through, as stand-ins that keep what they are given; anything else that a pickle asks for is refused. A pickle
is followed before it is read: Python itself crashes where a tuple that is nested a million times becomes the key of a
dictionary, and fills the memory where a value is given a huge number.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Mapping
from io import BufferedIOBase
from typing import Any

import numpy as np

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.limits import Budget

INSTRUCTIONS = 5_000_000
STORE = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
RECALL = ("GET", "BINGET", "LONG_BINGET")
FILL = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


class Named:
    """Stands in for a class or function that is mentioned and never called."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class ElementType:
    """Stands in for numpy.dtype, of numbers alone."""

    def __init__(self, code: Any = "", *_: object) -> None:
        self.code, self.order = _text(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if _text(state[1]) == ">" else "<"

    def array(self, data: Any) -> np.ndarray:
        """Bytes as numbers, in one dimension."""
        if not (re.fullmatch(r"[fiub]\d{1,2}", self.code) and isinstance(data, bytes | bytearray)):
            raise InputError(f"A numpy array of type {self.code} is no array of numbers.")
        return np.frombuffer(bytes(data), np.dtype(self.order + self.code))


class Number:
    """Stands in for a numpy scalar."""

    def __init__(self, kind: Any = None, data: Any = b"") -> None:
        self.kind, self.data = kind, data

    def content(self) -> Any:
        """The number, or None for anything else."""
        return self.kind.array(self.data)[0].item() if isinstance(self.kind, ElementType) else None


class Array:
    """Stands in for a numpy array."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def content(self) -> np.ndarray | None:
        """The array, or None for anything else."""
        if not self.state or not isinstance(self.state[2], ElementType):
            return None
        _, shape, kind, fortran, data = self.state
        flat = kind.array(data)
        if math.prod(shape) != len(flat):
            raise InputError(f"An array of shape {tuple(shape)} has {len(flat)} numbers.")
        return flat.reshape(shape, order="F" if fortran else "C")


NUMPY: Mapping[str, Any] = {
    "numpy.ndarray": Named,
    "numpy.dtype": ElementType,
    **{f"{core}.multiarray.scalar": Number for core in ("numpy.core", "numpy._core")},
    **{f"{core}.multiarray._reconstruct": Array for core in ("numpy.core", "numpy._core")},
}


class _Unpickler(pickle.Unpickler):
    """Finds stand-ins and nothing else."""

    def __init__(self, data: bytes, standins: Mapping[str, Any], encoding: str) -> None:
        super().__init__(io.BytesIO(data), encoding=encoding)
        # How Python 3 writes bytes in old protocols.
        self.standins = {"_codecs.encode": lambda text, *_: str.encode(text, "latin1"), **standins}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self.standins:
            raise pickle.UnpicklingError(f"it asks for {full} to be called, and pickled code is not run")
        return self.standins[full]


def unpickle(data: bytes, standins: Mapping[str, Any], encoding: str = "ASCII") -> Any:
    """What a pickle holds, made of stand-ins; whatever a damaged one raises.

    Args:
        data: the pickle.
        standins: what is built for the names that it may ask for.
        encoding: of text that Python 2 wrote; "bytes" leaves it as it is.
    """
    check_pickle(io.BytesIO(data))
    return _Unpickler(data, standins, encoding).load()


def read_arrays(data: bytes, origin: str) -> dict[str, Any]:
    """A pickled dictionary of arrays, lists, numbers and text, as Python 2 or 3 wrote it; its text may be bytes.

    Args:
        data: the pickle.
        origin: what to call it in an error.

    Raises:
        InputError: it is damaged, is no dictionary, or needs code to be run.
    """
    try:
        content = unpickle(data, NUMPY, encoding="bytes")
        return {_text(key): _array(value) if isinstance(value, Array) else value for key, value in content.items()}
    except Exception as error:
        raise InputError(f"{origin} cannot be read safely: {brief(error)}. Download it again.") from error


def _array(value: Array) -> np.ndarray:
    if (found := value.content()) is None:
        raise InputError("an array lacks its type or its numbers")
    return found


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def check_pickle(file: BufferedIOBase) -> None:
    """Read a pickle up to its end. Raises InputError where its values lie too deep or are too many, and ValueError or IndexError
    where it is none.
    """
    budget = Budget("a pickle in it", INSTRUCTIONS)
    stack: list[int] = []  # how deep each value is nested; the marks are in a list of their own
    marks: list[int] = []
    memo: dict[int, int] = {}
    for code, argument, _ in pickletools.genops(file):  # pyright: ignore[reportArgumentType] - it reads and reads lines
        if code.name == "MARK":
            marks.append(len(stack))
        elif code.name in STORE:
            number = len(memo) if argument is None else int(argument)
            if not 0 <= number < INSTRUCTIONS:
                raise InputError("a pickle in it numbers its values as no program does")
            memo[number] = stack[-1]
        elif code.name in RECALL:
            stack.append(memo.get(int(argument), 0))  # pyright: ignore[reportArgumentType] - it has one
        else:
            start = _start(code, stack, marks)
            taken, stack[start:] = stack[start:], []
            inner = 1 + max(taken[1:] if code.name in FILL else taken, default=-1)
            depth = max(taken[0], inner) if code.name in FILL else taken[0] if code.name == "DUP" else inner
            stack += [depth] * len(code.stack_after)
            budget.spend(depth)


def _start(code: pickletools.OpcodeInfo, stack: list[int], marks: list[int]) -> int:
    """The place in the stack from which on an instruction takes its values."""
    before = code.stack_before
    if pickletools.markobject not in before:
        return len(stack) - len(before)
    return marks.pop() - before.index(pickletools.markobject)
