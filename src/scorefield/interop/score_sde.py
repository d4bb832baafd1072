"""Weights of score_sde_pytorch's NCSN++ and DDPM++ (Song et al. 2021): its checkpoints, its configuration, its names.

Its networks are one flat list of modules in the order in which they are applied, so a name is a position in that list.
Its average of the weights is a list without names, in the order of the parameters that require a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.errors import InputError
from scorefield.nn.affine import Affine
from scorefield.nn.ncsnpp import NCSNpp
from scorefield.nn.network import Network

FREQUENCIES = "all_modules.0.W"  # a parameter there, but fixed: it has no average
Names = dict[str, tuple[str, ...]]  # our name -> their name, or names of what is one layer here


def _layer(ours: str, *theirs: str, weight: str = "weight", bias: str = "bias") -> Names:
    return {
        _join(ours, "weight"): tuple(_join(name, weight) for name in theirs),
        _join(ours, "bias"): tuple(_join(name, bias) for name in theirs),
    }


def _matrix(ours: str, *theirs: str) -> Names:
    return _layer(ours, *theirs, weight="W", bias="b")


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


ATTENTION = (
    _layer("norm", "GroupNorm_0") | _matrix("query_key_value", "NIN_0", "NIN_1", "NIN_2") | _matrix("out", "NIN_3")
)
ITSELF = _layer("", "")
RESIDUAL = (
    _layer("norm_in", "GroupNorm_0")
    | _layer("conv_in", "Conv_0")
    | _layer("embed", "Dense_0")
    | _layer("norm_out", "GroupNorm_1")
    | _layer("conv_out", "Conv_1")
)


class Weights(NamedTuple):
    """The weights of one checkpoint under the names they have there, without wrappers' prefixes.

    Args:
        raw: as trained.
        averaged: their exponential moving average.
    """

    raw: dict[str, Tensor]
    averaged: dict[str, Tensor]


def read(path: str | Path) -> Weights:
    """Read a checkpoint without running anything that is pickled in it.

    Raises:
        InputError: if the file holds something else, or its average does not fit its weights.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        model, shadow = checkpoint["model"], checkpoint["ema"]["shadow_params"]
    except Exception as error:
        raise InputError(f"{path} is no checkpoint of score_sde_pytorch that can be read safely: {error}") from error
    raw = {name.removeprefix("module."): value for name, value in model.items()}
    raw.pop("sigmas", None)  # a table that the network never uses but to divide by σ
    trained = [name for name in raw if name != FREQUENCIES]
    if len(trained) != len(shadow):
        raise InputError(
            f"{path} averages {len(shadow)} tensors, but trains {len(trained)}: it is damaged or another network's."
        )
    return Weights(raw, {**raw, **dict(zip(trained, shadow, strict=True))})


def build(config: Mapping[str, Any]) -> Network:
    """The network of a configuration of score_sde_pytorch, with the map 2x - 1 in front if its data are in [0, 1]."""
    net = NCSNpp(**arguments(config))
    return net if config["data"]["centered"] else Affine(net)


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `NCSNpp` for a configuration of score_sde_pytorch with `model.name` "ncsnpp".

    Raises:
        InputError: if the configuration asks for something that NCSNpp has not.
    """
    model, data = config["model"], config["data"]
    fixed = {"name": "ncsnpp", "nonlinearity": "swish"} | ({"fir_kernel": [1, 3, 3, 1]} if model["fir"] else {})
    for name, value in fixed.items():
        given = list(model[name]) if name == "fir_kernel" else model[name].lower()
        if given != value:
            raise InputError(f"model.{name} is {given}: only {value} can be imported.")
    multipliers = tuple(model["ch_mult"])
    sizes = [data["image_size"] // 2**level for level in range(len(multipliers))]
    return {
        "in_channels": data["num_channels"],
        "out_channels": data["num_channels"],
        "channels": model["nf"],
        "multipliers": multipliers,
        "blocks": model["num_res_blocks"],
        "attention": tuple(level for level, size in enumerate(sizes) if size in tuple(model["attn_resolutions"])),
        "dropout": model["dropout"],
        "embedding": model["embedding_type"].lower(),
        "fourier_scale": float(model["fourier_scale"]),
        "conditional": model["conditional"],
        "resblock": model["resblock_type"].lower(),
        "filter": "fir" if model["fir"] else "box",
        "resample_with_conv": model["resamp_with_conv"],
        "progressive": model["progressive"].lower(),
        "progressive_input": model["progressive_input"].lower(),
        "combine": model["progressive_combine"].lower(),
        "skip_rescale": model["skip_rescale"],
        "init_scale": float(model["init_scale"]),
    }


def rename(weights: Mapping[str, Tensor], net: NCSNpp) -> dict[str, Tensor]:
    """Weights of the ancestor under the names of `net`, for a strict `net.load_state_dict`.

    Raises:
        InputError: if the two are not the same network.
    """
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    names = {ours: theirs for ours, theirs in _names(net) if ours in shapes}
    used = {name for theirs in names.values() for name in theirs}
    if net.embed is None:  # there, blocks carry the layer even where the network does not see the noise label
        weights = {name: value for name, value in weights.items() if ".Dense_0." not in name}
    if used != set(weights):
        raise InputError(
            f"These are another network's weights: {', '.join(sorted(used ^ set(weights))[:3])} ... do not match."
        )
    return {
        ours: torch.cat([_oriented(name, weights[name], len(shapes[ours])) for name in theirs])
        for ours, theirs in names.items()
    }


def _oriented(name: str, value: Tensor, ndim: int) -> Tensor:
    """Kernels are (out, in, *kernel) there and (out, *kernel, in) here, pointwise layers (in, out) and (out, ..., in)."""
    if name.endswith(".W") and value.ndim == 2:
        return value.T.reshape(value.shape[1], *(1,) * (ndim - 2), value.shape[0])
    return value.movedim(1, -1) if value.ndim > 2 else value


def _names(net: NCSNpp) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of our names, and some of layers that a switch leaves out, with where its values are in the flat list."""
    for index, (module, layers) in enumerate(_modules(net)):
        for ours, theirs in layers.items():
            yield _join(module, ours), tuple(f"all_modules.{index}.{name}" for name in theirs)


def _modules(net: NCSNpp) -> Iterator[tuple[str, Names]]:
    """Our modules in the order of the flat list, each with the names of its layers."""
    if "embedding.frequencies" in net.state_dict():
        yield "embedding", {"frequencies": ("W",)}
    if net.embed is not None:
        yield from (("embed.0", ITSELF), ("embed.2", ITSELF))
    yield "first", ITSELF
    for index, level in enumerate(net.down):
        yield from _stages(f"down.{index}.blocks", level.blocks, net)
        if level.downsample is not None:
            yield _resampling(f"down.{index}.downsample", net)
            if net.progressive_input == "input_skip":
                yield f"down.{index}.pyramid", _layer("convolution", "Conv_0")
            elif net.progressive_input == "residual":
                yield f"down.{index}.pyramid.downsample", _convolution(net)
    yield from _stages("middle", net.middle, net)
    for index, level in enumerate(net.up):
        yield from _stages(f"up.{index}.blocks", level.blocks, net)
        if net.progressive == "output_skip" or (net.progressive == "residual" and index == 0):
            yield from _head(f"up.{index}.pyramid.head")
        elif net.progressive == "residual":
            yield f"up.{index}.pyramid.upsample", _convolution(net)
        if level.upsample is not None:
            yield _resampling(f"up.{index}.upsample", net)
    if net.last is not None:
        yield from _head("last")


def _stages(prefix: str, stages: Any, net: NCSNpp) -> Iterator[tuple[str, Names]]:
    for index, stage in enumerate(stages):
        yield f"{prefix}.{index}.residual", _residual(net)
        if stage.attention is not None:
            yield f"{prefix}.{index}.attention", ATTENTION


def _residual(net: NCSNpp) -> Names:
    return RESIDUAL | (_layer("shortcut", "Conv_2") if net.resblock == "biggan" else _matrix("shortcut", "NIN_0"))


def _resampling(prefix: str, net: NCSNpp) -> tuple[str, Names]:
    return (f"{prefix}.residual", _residual(net)) if net.resblock == "biggan" else (prefix, _convolution(net))


def _convolution(net: NCSNpp) -> Names:
    return _layer("convolution", "Conv2d_0" if net.filter == "fir" else "Conv_0")


def _head(prefix: str) -> Iterator[tuple[str, Names]]:
    yield from ((f"{prefix}.norm", ITSELF), (f"{prefix}.convolution", ITSELF))
