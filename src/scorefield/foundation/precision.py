"""Numbers that half precision would spoil: the units of data, frequencies, noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

FLOAT32 = 4  # bytes


def wide(dtype: torch.dtype) -> torch.dtype:
    """The same precision, or float32 where it is a half one."""
    return torch.promote_types(dtype, torch.float32)


class Precise(nn.Module):
    """A module that keeps its digits when a model is converted: buffers all they have, parameters those of float32.

    In bfloat16 280.37 K would be 280 K, a frequency of 16 off by a sixteenth; there are no complex weights of half precision.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Precise:
        def precise(value: Tensor) -> Tensor:
            converted = fn(value)
            least = FLOAT32 if isinstance(value, nn.Parameter) else value.dtype.itemsize
            return value.to(converted.device) if converted.dtype.itemsize < least else converted

        return super()._apply(precise, recurse)


class Learnt(Precise):
    """A module whose buffers are empty until they are learnt: one that is new takes their shapes from the checkpoint it loads."""

    @property
    def fitted(self) -> bool:
        """Whether it can be used."""
        return all(buffer.numel() > 0 for buffer in self.buffers())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in self._buffers.items():
            stored = state_dict.get(prefix + name)
            if buffer is not None and stored is not None:
                kept = (
                    torch.promote_types(stored.dtype, buffer.dtype) if stored.dtype == torch.float64 else buffer.dtype
                )
                setattr(self, name, torch.empty_like(stored, dtype=kept, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in their own precision, in autocast as well, which would round noise and losses to half precision."""
    with torch.autocast(b.device.type, enabled=False):
        return a @ b
