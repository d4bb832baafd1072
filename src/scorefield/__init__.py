"""Score-based generative modelling of fields: images, MR images, climate fields, functions on any grid.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorefield.core.denoiser import Denoiser
    from scorefield.core.noise import White
    from scorefield.core.sde import SDE
    from scorefield.foundation.errors import InputError
    from scorefield.model import Model
    from scorefield.run.loading import load
    from scorefield.samplers import Sampler

_HOMES = {
    "SDE": "core.sde",
    "Denoiser": "core.denoiser",
    "InputError": "foundation.errors",
    "Model": "model",
    "Sampler": "samplers",
    "White": "core.noise",
    "load": "run.loading",
}
_ROOMS = ("core", "data", "losses", "metrics", "nn", "samplers", "training")

__all__ = ["SDE", "Denoiser", "InputError", "Model", "Sampler", "White", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"scorefield.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return import_module(f"scorefield.{name}")
    raise AttributeError(f"module 'scorefield' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
