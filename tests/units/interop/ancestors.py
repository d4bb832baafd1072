"""Small checkpoints in the ancestors' formats and under their names, made of our own networks by the key maps backwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.interop import ncsnv2, score_sde
from scorefield.nn import NCSN, NCSNpp, NCSNv2

NCSNV2 = {
    "data": {"image_size": [6, 10], "channels": 2},
    "model": {
        "normalization": "InstanceNorm++",
        "nonlinearity": "elu",
        "sigma_begin": 5,
        "sigma_end": 0.1,
        "num_classes": 4,
    },
}
SCORE_SDE = {
    "data": {"image_size": 8, "num_channels": 2, "centered": True},
    "model": {
        "name": "ncsnpp",
        "nf": 8,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [4],
        "dropout": 0.1,
        "conditional": True,
        "resamp_with_conv": True,
        "nonlinearity": "swish",
        "embedding_type": "fourier",
        "fourier_scale": 16,
        "fir": True,
        "fir_kernel": [1, 3, 3, 1],
        "resblock_type": "biggan",
        "progressive": "none",
        "progressive_input": "residual",
        "progressive_combine": "sum",
        "skip_rescale": True,
        "init_scale": 0.0,
        "scale_by_sigma": True,
        "sigma_min": 0.01,
        "sigma_max": 50,
        "num_scales": 20,
        "beta_min": 0.1,
        "beta_max": 20.0,
    },
    "training": {"sde": "vesde", "continuous": True},
}


def changed(config: dict[str, Any], **entries: Any) -> dict[str, Any]:
    """A copy of a configuration with `group__key=value` changed."""
    copy = json.loads(json.dumps(config))
    for path, value in entries.items():
        group, key = path.split("__")
        copy[group][key] = value
    return copy


def perturbed(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    """A network whose output depends on everything in it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def refine_names(net: NCSN | NCSNv2, depth: str) -> dict[str, Tensor]:
    """The weights of a RefineNet as ncsnv2 has them."""
    own, theirs = {name.removeprefix("body."): value for name, value in net.state_dict().items()}, {}
    for ours, name in ncsnv2._names(depth):
        if ours not in own:
            continue
        if not ours.endswith(".table"):
            theirs[name] = own[ours]
        elif isinstance(net, NCSN):
            theirs[f"{name}.embed.weight"] = own[ours].flatten(1)
        else:
            theirs |= {
                f"{name}.{part}": row for part, row in zip(("gamma", "alpha", "beta"), own[ours][0], strict=True)
            }
    return theirs


def flat_names(net: NCSNpp) -> dict[str, Tensor]:
    """The weights of NCSN++ as score_sde_pytorch has them, in its order."""
    own, theirs = net.state_dict(), {}
    for ours, names in score_sde._names(net):
        if ours in own:
            for name, value in zip(names, own[ours].chunk(len(names)), strict=True):
                turned = value.reshape(len(value), -1).T if name.endswith(".W") and value.ndim > 1 else value
                theirs[name] = turned if turned.ndim < 3 else turned.movedim(-1, 1)
    return theirs


def wrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value.clone() for name, value in weights.items()}


def save_flat(path: Path, raw: dict[str, Tensor], averaged: dict[str, Tensor], every: bool = False) -> Path:
    """score_sde_pytorch's format; with `every`, the average has the fixed frequencies, too, as the rewrite's has."""
    shadow = [value for name, value in averaged.items() if every or name != "all_modules.0.W"]
    ema = {"decay": 0.9, "num_updates": 3, "shadow_params": shadow}
    torch.save({"optimizer": {}, "model": wrapped(raw), "ema": ema, "step": 7}, path)
    return path


def save_config(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(json.dumps(config))
    return path
