"""NumPy arrays, numbers and text out of what others pickled, without ever running it.

Two of numpy's names are let through, as stand-ins that keep what they are given; anything else that a pickle asks for is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from typing import Any

import numpy as np

from scorefield.foundation.errors import InputError, brief


class _Named:
    """Stands in for a class that is mentioned and never called."""

    def __init__(self, *_: object) -> None: ...


class _ElementType:
    """Stands in for numpy.dtype, of numbers alone."""

    def __init__(self, code: Any = "", *_: object) -> None:
        self.code, self.order = _text(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if _text(state[1]) == ">" else "<"

    def dtype(self) -> np.dtype:
        if not re.fullmatch(r"[fiub]\d", self.code):
            raise ValueError(f"an array of {self.code} is no array of numbers")
        return np.dtype(self.order + self.code)


class _Array:
    """Stands in for a numpy array."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        _, shape, kind, fortran, data = self.state
        if not isinstance(kind, _ElementType) or not isinstance(data, bytes):
            raise ValueError("an array lacks its type or its numbers")
        flat = np.frombuffer(data, kind.dtype())
        if math.prod(shape) != len(flat):
            raise ValueError(f"an array of shape {tuple(shape)} has {len(flat)} numbers")
        return flat.reshape(shape, order="F" if fortran else "C")


class _ArraysOnly(pickle.Unpickler):
    """Finds the stand-ins and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}".replace("numpy._core", "numpy.core")
        if full == "_codecs.encode":  # how Python 3 writes bytes for Python 2
            return lambda text, *_: str.encode(text, "latin1")
        known = {"numpy.core.multiarray._reconstruct": _Array, "numpy.ndarray": _Named, "numpy.dtype": _ElementType}
        if full not in known:
            raise pickle.UnpicklingError(f"it asks for {full} to be called, and pickled code is not run")
        return known[full]


def read_arrays(data: bytes, origin: str) -> dict[str, Any]:
    """A pickled dictionary of arrays, lists, numbers and text, as Python 2 or 3 wrote it; its text may be bytes.

    Args:
        data: the pickle.
        origin: what to call it in an error.

    Raises:
        InputError: it is damaged, is no dictionary, or needs code to be run.
    """
    try:
        content = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        return {_text(key): value.array() if isinstance(value, _Array) else value for key, value in content.items()}
    except Exception as error:
        raise InputError(f"{origin} cannot be read safely: {brief(error)}. Download it anew.") from error


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
