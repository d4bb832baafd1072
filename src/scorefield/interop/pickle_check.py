"""Following a pickle without running it, to see how deep and how many its values are.

Python itself crashes where a tuple that is nested a million times becomes the key of a dictionary, and fills the memory where a
value is given a huge number.
"""

from __future__ import annotations

import pickletools
from io import BufferedIOBase

from scorefield.foundation.errors import InputError
from scorefield.foundation.limits import Budget

INSTRUCTIONS = 5_000_000
STORE = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
RECALL = ("GET", "BINGET", "LONG_BINGET")
FILL = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


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
