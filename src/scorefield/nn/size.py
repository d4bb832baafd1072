"""Whether a network that a file describes is as large as the weights beside it, seen while it is built.

A description of a few bytes can ask for any size. So what is built from one is stopped as soon as it has more modules, or makes
more numbers, than weights of the given ones could fill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from scorefield.foundation.errors import InputError

MODULES = 4  # that a network has for each of its tensors, at most
NUMBERS = 8  # that are made for each that is stored: parameters that are replaced, complex ones, intermediate results
LEAST = 2**20  # numbers that may be made in any case, and 2¹⁰ modules
MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)
RANGES = (torch.arange, torch.linspace, torch.logspace)


@contextmanager
def limited_to(tensors: Iterable[Tensor], origin: str) -> Iterator[None]:
    """Inside, networks are built that these tensors can be the weights of.

    Args:
        tensors: all that are stored.
        origin: the file that they are in, for the message.

    Raises:
        InputError: a network that has to be larger.
    """
    sizes = [tensor.numel() for tensor in tensors]
    left = 2**10 + MODULES * len(sizes)

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(
                f"{origin} describes a network of more modules than its {len(sizes)} tensors can be the weights of: "
                "it is damaged or another network's."
            )

    handle = register_module_module_registration_hook(count)
    try:
        with _Numbers(LEAST + NUMBERS * sum(sizes), sum(sizes), origin):
            yield
    except MemoryError as error:  # of `check_layer`
        raise _too_many(sum(sizes), origin) from error
    finally:
        handle.remove()


def _too_many(stored: int, origin: str) -> InputError:
    return InputError(
        f"{origin} describes a network of more than the {stored} numbers that it holds: it is damaged or another network's."
    )


class _Numbers(TorchFunctionMode):
    """Counts the numbers that are asked for, before they are made."""

    def __init__(self, left: int, stored: int, origin: str) -> None:
        super().__init__()
        self.left, self.stored, self.origin = left, stored, origin

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        asked = 0
        if func in MAKERS:
            sizes = args[0] if args and isinstance(args[0], list | tuple) else kwargs.get("size", args)
            asked = math.prod(sizes)
        elif func in RANGES:
            asked = max((size for size in (*args, kwargs.get("steps", 0)) if isinstance(size, int)), default=0)
        self.left -= asked
        if self.left < 0:
            raise _too_many(self.stored, self.origin)
        return func(*args, **kwargs)
