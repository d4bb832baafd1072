"""Numbers as people type them: `--resolution 64,64`, `[64, 64]` and `64 64` are one, and -3e-1 is a number and no option."""

from __future__ import annotations

from collections.abc import Container, Sequence
from decimal import Decimal, InvalidOperation

from scorefield.foundation.errors import InputError, brief


def spelled(words: Sequence[str], listed: Container[str]) -> list[str]:
    """A command line with several numbers as one word each, and none with an exponent, as the parser takes them.

    Args:
        words: the command line.
        listed: the names of the options that take several numbers.

    Raises:
        InputError: for numbers with a gap between their commas.
    """
    found, name = list[str](), ""
    for word in words:
        head, given, values = word.partition("=") if word.startswith("--") else ("", "", word)
        name = head or ("" if word.startswith("-") and not is_number(word.strip("[]").partition(",")[0]) else name)
        if name not in listed or (head and not given):
            found.append(_plain(word))
        else:
            found += [head] * bool(head) + _numbers(name, values)
    return found


def is_number(word: str) -> bool:
    """Whether a word is a number, however it is written."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def _numbers(name: str, word: str) -> list[str]:
    parts = [part.strip() for part in word.strip("[]() ").split(",")]
    parts = parts[:1] if len(parts) == 2 and not parts[1] else parts  # of `0.3, 1.2`, which are two words
    if len(parts) > 1 and not all(parts):
        raise InputError(f"{name} {brief(word)} has a gap between its commas: give a number for each, such as 0.3,1.2.")
    return [_plain(number) for part in parts for number in part.split()] or [word]


def _plain(word: str) -> str:
    """A negative number without an exponent, as the parser takes one with it for an option."""
    if not word.startswith("-") or not is_number(word):
        return word
    try:
        exact = Decimal(word)
    except InvalidOperation:
        return word
    return format(exact, "f") if exact.is_finite() and abs(exact.adjusted()) < 400 else word
