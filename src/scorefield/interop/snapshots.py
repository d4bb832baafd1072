"""Networks that EDM's and EDM2's programs pickle together with the source of their classes: their tensors and their arguments.

Such a pickle asks for its source to be executed. What is built in place of each object keeps the object's state, and the source
stays a string that nobody reads.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor_v2

from scorefield.foundation.errors import InputError
from scorefield.foundation.limits import Budget
from scorefield.foundation.pickles import Named, check_pickle, unpickle
from scorefield.interop.pickles import LEGACY, STANDINS, failure, plain, stored

TORCH = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle of a file that torch wrote before it wrote archives
)
VALUES = 5_000_000


class Record:
    """Stands in for an object: its class's name and its state."""

    def __init__(self, *_: object) -> None:
        self.name, self.state = "", {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class Dictionary(dict[Any, Any]):
    """Stands in for a dictionary whose keys are attributes."""


def _persistent(meta: Any) -> Record:
    record = Record()
    record.name, state = str(meta["class_name"]), meta["state"]
    record.__setstate__(state)
    return record


def _storage(data: bytes) -> Any:
    """Numbers as torch.save writes them, inside of a pickle."""
    file = io.BytesIO(data)
    for _ in range(LEGACY):
        check_pickle(file)
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    return stored(_rebuild_tensor_v2(storage, offset, tuple(size), tuple(stride), False, OrderedDict()))


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


PICKLED: dict[str, Any] = {
    **STANDINS,
    "collections.OrderedDict": OrderedDict,
    "copyreg._reconstructor": lambda standin, *_: standin(),
    "dnnlib.util.EasyDict": Dictionary,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.modules.container.ModuleDict": Record,
    "torch.nn.modules.container.ModuleList": Record,
    "torch.nn.modules.container.Sequential": Record,
    "torch.device": Named,
    **{f"torch.{name}": Named for name in ("float16", "bfloat16", "float32", "float64")},
}


def is_snapshot(path: Path) -> bool:
    """Whether a file is a pickle that torch.save did not write."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(len(TORCH))
    return head.startswith(b"\x80") and head != TORCH


def read_snapshot(path: Path) -> dict[str, Any]:
    """A snapshot as {weights: {name: tensor}, arguments: those of its network, network: its class, encoder: of the pixels}.

    Raises:
        InputError: it is damaged, holds no averaged network, or asks for other code to be run.
    """
    try:
        content = unpickle(path.read_bytes(), PICKLED)
        network = content["ema"] if isinstance(content, dict) else content
        if not isinstance(network, Record):
            raise InputError("it holds no network under `ema`")
        encoder = content.get("encoder") if isinstance(content, dict) else None
        return {
            "network": network.name,
            "encoder": encoder.name if isinstance(encoder, Record) else "",
            "arguments": plain(dict(network.state.get("_init_kwargs") or {}), Budget("its arguments")),
            "weights": dict(_tensors(network, "")),
        }
    except Exception as error:  # whatever a damaged file raises
        raise InputError(f"{path} cannot be read safely: {failure(error)}.") from error


def _tensors(module: Record, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by their dotted names."""
    for group in ("_parameters", "_buffers"):
        for name, value in (module.state.get(group) or {}).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, inner in (module.state.get("_modules") or {}).items():
        if isinstance(inner, Record):
            yield from _tensors(inner, f"{prefix}{name}.")
