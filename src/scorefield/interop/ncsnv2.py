"""Weights of ncsnv2's NCSNv2 and NCSN in their depths (Song & Ermon 2019, 2020), as score-diffusion-training has them, too.

The depth, the widths and the number of levels are read off the weights; the configuration says how data are scaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.interop.pickles import Settings
from scorefield.interop.specification import CheckpointSpecification, refuse_others
from scorefield.nn.ncsn import NCSN
from scorefield.nn.ncsnv2 import NCSNv2
from scorefield.nn.network import Network
from scorefield.nn.wrappers import Affine

STAGES = {
    "low": ("res1", "res2", "res3", "res4"),
    "medium": ("res1", "res2", "res3", "res4", "res5"),
    "large": ("res1", "res2", "res3", "res31", "res4", "res5"),
}
REFINEMENTS = {
    "low": ("refine1", "refine2", "refine3", "refine4"),
    "medium": ("refine1", "refine2", "refine3", "refine4", "refine5"),
    "large": ("refine1", "refine2", "refine31", "refine3", "refine4", "refine5"),
}


def network(config: Settings, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], Network]:
    """The network of the weights, as a class with its arguments and built.

    Where data in [0, 1] are neither rescaled nor mapped to the real line, the map 2x - 1 stands in front of it.

    Raises:
        InputError: if the weights or the configuration are of a network that is not ours.
    """
    for key, ours in (("model.normalization", "InstanceNorm++"), ("model.interpolation", "bilinear")):
        if (given := config.get(key, default=ours)) != ours:
            raise InputError(f"{config.origin}: {key} is {given}; only {ours} can be imported.")
    if spectral := [name for name in weights if name.endswith("weight_orig")]:
        raise InputError(f"{spectral[0]} is normalised by its spectrum (model.spec_norm), which cannot be imported.")
    for name in ("begin_conv.weight", "end_conv.weight"):
        if name not in weights:
            raise InputError(f"These are another network's weights: they lack {name}.")
    (channels, in_channels), out_channels = weights["begin_conv.weight"].shape[:2], len(weights["end_conv.weight"])
    arguments: dict[str, Any] = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "channels": channels,
        "depth": _depth(weights),
        "activation": config.get("model.nonlinearity", default="elu").lower(),
    }
    table = weights.get("normalizer.embed.weight")
    if table is not None:
        arguments["levels"] = len(table)
    kind = NCSNv2 if table is None else NCSN
    described = {"class_path": f"scorefield.nn.{kind.__name__}", "init_args": arguments}
    if any(config.flag(key) for key in ("data.logit_transform", "data.rescaled", "data.centered")):
        return described, kind(**arguments)
    return {"class_path": "scorefield.nn.wrappers.Affine", "init_args": {"net": described}}, Affine(kind(**arguments))


def _depth(weights: Mapping[str, Tensor]) -> str:
    stages = {name.split(".")[0] for name in weights}
    return "large" if "res31" in stages else "medium" if "res5" in stages else "low"


def law(config: Settings, weights: Mapping[str, Tensor]) -> CheckpointSpecification:
    """The table of levels, and what the network's output means: σ times the score (NCSNv2), or the score (NCSN)."""
    sigmas = weights.get("sigmas")
    table = (_levels(config) if sigmas is None else sigmas).double().flip(0).tolist()
    power = 1.0 if sigmas is not None or "normalizer.embed.weight" not in weights else 0.0
    return CheckpointSpecification.tabulated([1.0] * len(table), table, reverse=True, power=power)


def _levels(config: Settings) -> Tensor:
    """The levels in falling order, in float32 as the original code has them."""
    first = config.number("model.sigma_begin", "model.sigma_max")
    last = config.number("model.sigma_end", "model.sigma_min")
    levels = int(config.number("model.num_classes", "model.num_scales"))
    if config.get("model.sigma_dist", default="geometric") == "uniform":
        return torch.linspace(first, last, levels, dtype=torch.float64).float()
    return torch.linspace(math.log(first), math.log(last), levels, dtype=torch.float64).exp().float()


def rename(weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
    """Weights of the original code under the names of `net`, for a strict `net.load_state_dict`.

    Raises:
        InputError: if the two are not the same network.
    """
    if isinstance(net, Affine):
        return {f"net.{name}": value for name, value in rename(weights, net.net).items()}
    if not isinstance(net, NCSNv2 | NCSN):
        raise TypeError(f"{type(net).__name__} is none of the networks that `network` builds")
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    names = {f"body.{ours}": theirs for ours, theirs in _names(_depth(weights)) if f"body.{ours}" in shapes}
    parts = {
        ours: [theirs] if not ours.endswith(".table") else _norm(theirs, isinstance(net, NCSN))
        for ours, theirs in names.items()
    }
    refuse_others([name for given in parts.values() for name in given], weights.keys() - {"sigmas"})
    renamed = {}
    for ours, theirs in parts.items():
        values = [weights[name] for name in theirs]
        value = values[0] if len(values) == 1 else torch.stack(values)
        renamed[ours] = value.reshape(shapes[ours]) if value.numel() == shapes[ours].numel() else value
        if renamed[ours].shape != shapes[ours] or (len(theirs) == 1 and value.ndim > 2 and value.shape != shapes[ours]):
            raise InputError(
                f"These are another network's weights: {theirs[0]} has the unexpected shape {tuple(value.shape)}."
            )
    return renamed


def _norm(theirs: str, conditional: bool) -> list[str]:
    """γ, α, β in our order, which is also theirs within a row of an embedding."""
    return [f"{theirs}.embed.weight"] if conditional else [f"{theirs}.{name}" for name in ("gamma", "alpha", "beta")]


def _names(depth: str) -> Iterator[tuple[str, str]]:
    """Each of our names, and some of layers that one of the networks leaves out, with theirs."""
    yield from _layer("first", "begin_conv")
    yield from _layer("last", "end_conv")
    yield "norm.table", "normalizer"
    for stage, theirs in enumerate(STAGES[depth]):
        pooled = 0 < stage < len(STAGES[depth]) - 2  # the last two are dilated
        for block in range(2):
            ours, place = f"stages.{stage}.{block}", f"{theirs}.{block}"
            inner = ".conv" if pooled and block == 0 else ""
            yield f"{ours}.norm_in.table", f"{place}.normalize1"
            yield f"{ours}.norm_out.table", f"{place}.normalize2"
            yield from _layer(f"{ours}.conv_in", f"{place}.conv1")
            yield from _layer(f"{ours}.conv_out", f"{place}.conv2{inner}")
            yield from _layer(f"{ours}.shortcut", f"{place}.shortcut{inner}")
    for index, theirs in enumerate(REFINEMENTS[depth]):
        for chain in range(2):
            yield from _chain(f"refine.{index}.adapt.{chain}", f"{theirs}.adapt_convs.{chain}")
        yield from _chain(f"refine.{index}.finish", f"{theirs}.output_convs")
        for ours, place in (("pool", "crp"), ("fuse", "msf")):
            for part in range(2):
                yield from _layer(f"refine.{index}.{ours}.convolutions.{part}", f"{theirs}.{place}.convs.{part}")
                yield f"refine.{index}.{ours}.norms.{part}.table", f"{theirs}.{place}.norms.{part}"


def _layer(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for name in ("weight", "bias"):
        yield f"{ours}.{name}", f"{theirs}.{name}"


def _chain(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for step in range(6):
        place = f"{theirs}.{step // 2 + 1}_{step % 2 + 1}"
        yield from _layer(f"{ours}.convolutions.{step}", f"{place}_conv")
        yield f"{ours}.norms.{step}.table", f"{place}_norm"
