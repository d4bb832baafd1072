"""Score-based generative modelling of fields: images, MR images, climate fields, functions on any grid.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorefield.denoiser import Denoiser
    from scorefield.errors import InputError
    from scorefield.loading import load
    from scorefield.model import Model
    from scorefield.noise import White
    from scorefield.sample import Sampler
    from scorefield.sde import SDE

_HOMES = {
    "SDE": "sde",
    "Denoiser": "denoiser",
    "InputError": "errors",
    "Model": "model",
    "Sampler": "sample",
    "White": "noise",
    "load": "loading",
}
_ROOMS = ("data", "denoiser", "losses", "metrics", "nn", "noise", "oracle", "sample", "schedule", "sde", "train")

__all__ = ["SDE", "Denoiser", "InputError", "Model", "Sampler", "White", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"scorefield.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return import_module(f"scorefield.{name}")
    raise AttributeError(f"module 'scorefield' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
