"""Weights of EDM (Karras et al. 2022): DDPM++ and NCSN++ of its own, under EDM's process or a retrained VP.

A snapshot holds the averaged network with the arguments that it was built with, so that no configuration is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.interop.pickles import Settings
from scorefield.interop.specification import CheckpointSpecification, described, refuse_others
from scorefield.interop.weights import Weights
from scorefield.nn.ncsnpp import NCSNpp
from scorefield.nn.network import Network

FIR = [1, 3, 3, 1]
LATENT = "StabilityVAEEncoder"
INNER = {"EDMPrecond": "model.", "VPPrecond": "model.", "Precond": "unet."}
UNUSED = "resample_filter"
RESIDUAL = {
    "norm_in": "norm0", "conv_in": "conv0", "embed": "affine", "norm_out": "norm1", "conv_out": "conv1", "shortcut": "skip",
}  # fmt: skip
ATTENTION = {"norm": "norm2", "query_key_value": "qkv", "out": "proj"}


def found(content: Mapping[str, Any], origin: str) -> Weights:
    """A snapshot of EDM or EDM2 (`interop.snapshots.read_snapshot`) as weights with a configuration.

    Raises:
        InputError: it is of another program.
    """
    kind, arguments = content["network"], content["arguments"]
    if kind not in INNER or not {"img_resolution", "img_channels"} <= arguments.keys():
        raise InputError(
            f"{origin} is a {kind or 'pickle'}: what can be read are EDMPrecond, VPPrecond and EDM2's Precond."
        )
    weights = {
        name.removeprefix(INNER[kind]): value
        for name, value in content["weights"].items()
        if name.startswith(INNER[kind]) and not name.endswith(UNUSED)
    }
    data = {"image_size": arguments["img_resolution"], "num_channels": arguments["img_channels"], "centered": True}
    config = {"edm": {"kind": kind, **arguments}, "data": data}
    return Weights(weights, weights, config=config, images=content["encoder"] != LATENT)


def network(config: Settings, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], Network]:
    """The network of a snapshot, as a class with its arguments and built.

    Raises:
        InputError: it is one that is not ours.
    """
    given = config["edm"]
    model = given.get("model_type", "DhariwalUNet" if given["kind"] == "EDMPrecond" else "SongUNet")
    if model != "SongUNet":
        raise InputError(
            f"{config.origin}: its network is a {model}; of EDM's, only SongUNet (DDPM++, NCSN++) is read."
        )
    arguments = _arguments(config)
    return described("nn.NCSNpp", **arguments), NCSNpp(**arguments)


def _arguments(config: Settings) -> dict[str, Any]:
    given = config["edm"]
    multipliers = tuple(given.get("channel_mult", [1, 2, 2, 2]))
    filter, embedding = list(given.get("resample_filter", [1, 1])), given.get("embedding_type", "positional")
    encoder, decoder = given.get("encoder_type", "standard"), given.get("decoder_type", "standard")
    width = given.get("channel_mult_noise", 1), given.get("channel_mult_emb", 4)
    if filter not in ([1, 1], FIR) or (encoder == "residual" and filter != FIR):
        raise InputError(f"{config.origin}: resample_filter {filter} of encoder_type {encoder} can not be imported.")
    if width != ((2 if embedding == "fourier" else 1), 4):
        raise InputError(
            f"{config.origin}: channel_mult_noise, channel_mult_emb {width} of {embedding} can not be imported."
        )
    return {
        "in_channels": int(given["img_channels"]),
        "out_channels": int(given["img_channels"]),
        "labels": int(given.get("label_dim") or 0),
        "labels_first": bool(given.get("label_dim")),
        "augmentations": int(given.get("augment_dim") or 0),
        "channels": int(given.get("model_channels", 128)),
        "multipliers": multipliers,
        "blocks": int(given.get("num_blocks", 4)),
        "attention": attended(given, [16], len(multipliers)),
        "dropout": float(given.get("dropout", 0.1)),
        "embedding": embedding,
        "filter": "fir" if filter == FIR else "box",
        "progressive": {"standard": "none", "skip": "output_skip"}[decoder],
        "progressive_input": {"standard": "none", "skip": "input_skip", "residual": "residual"}[encoder],
    }


def attended(given: Mapping[str, Any], default: list[int], levels: int) -> tuple[int, ...]:
    """The levels of which the sides are those that have attention."""
    size, sides = int(given["img_resolution"]), given.get("attn_resolutions", default)
    return tuple(level for level in range(levels) if size >> level in sides)


def law(config: Settings, weights: Mapping[str, Tensor]) -> CheckpointSpecification:
    """EDM's process with 18 Heun steps, 40 of images beyond 32 pixels; or the VP that it retrained, with the same."""
    given = config["edm"]
    if given["kind"] == "EDMPrecond":
        return specification(given, steps=18 if int(given["img_resolution"]) <= 32 else 40, mean=-1.2, std=1.2)
    least, slope = float(given.get("beta_min", 0.1)), float(given.get("beta_d", 19.9))
    label = described("core.denoiser.Times", scale=float(given.get("M", 1000) - 1))
    schedule = described("core.schedule.VP", beta_min=least, beta_max=least + slope)
    precondition = described("core.denoiser.EpsilonPrediction", label=label)
    return CheckpointSpecification(schedule, precondition, model={"sampler": sampler(18)})


def specification(given: Mapping[str, Any], *, steps: int, mean: float, std: float) -> CheckpointSpecification:
    """EDM's process and preconditioner, so many Heun steps, and the loss with log σ ~ N(mean, std²)."""
    scale = float(given.get("sigma_data", 0.5))
    time, weight = described("losses.LogNormal", mean=mean, std=std), described("losses.EDMWeight", sigma_data=scale)
    return CheckpointSpecification(
        described("core.schedule.EDM", sigma_min=0.002, sigma_max=80.0, rho=7.0),
        described("core.denoiser.EDMPreconditioner", sigma_data=scale),
        model={"sampler": sampler(steps)},
        loss=described("losses.Denoising", time=time, weight=weight),
    )


def sampler(steps: int) -> dict[str, Any]:
    """Heun's on EDM's grid."""
    return {"steps": steps, "step": described("samplers.Heun"), "grid": described("samplers.EDMGrid", rho=7.0)}


def rename(weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
    """Weights under the names of `net`, for a strict `net.load_state_dict`.

    Raises:
        InputError: if the two are not the same network.
    """
    weights = by_level(weights)
    names = dict(_names(net.levels, _depth(weights)))  # type: ignore[arg-type]
    if (
        bias := weights.pop("map_label.bias", None)
    ) is not None:  # what the null class, of which all entries are 0, adds
        classes = weights["map_label.weight"]
        weights["map_label.weight"] = torch.cat((classes.T * math.sqrt(classes.shape[1]) + bias, bias[None]))
    return renamed(weights, names, net, {name: 1 for name in names if ".query_key_value." in name})


def by_level(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names by the number of a level, `enc.0_conv`, in place of its size, `enc.32x32_conv`."""
    sides = {found[1] for name in weights if (found := re.match(r"(?:enc|dec)\.(\d+x\d+)_", name))}
    levels = {side: level for level, side in enumerate(sorted(sides, key=lambda side: -int(side.split("x")[0])))}
    return {
        re.sub(r"^(enc|dec)\.(\d+x\d+)_", lambda part: f"{part[1]}.{levels[part[2]]}_", name): value
        for name, value in weights.items()
    }


def _depth(weights: Mapping[str, Tensor]) -> int:
    """Blocks per level."""
    return sum(bool(re.fullmatch(r"enc\.0_block\d+\.conv0\.weight", name)) for name in weights)


def renamed(
    weights: Mapping[str, Tensor], names: Mapping[str, str], net: Network, heads: Mapping[str, int]
) -> dict[str, Tensor]:
    """Weights under our names, in our shapes: kernels (out, in, *kernel) as (out, *kernel, in), pointwise ones as matrices.

    Args:
        weights: under their names.
        names: ours to theirs, also of layers that the network lacks.
        net: ours.
        heads: of attention, by our names of query, key and value, which are mixed channel by channel there.

    Raises:
        InputError: if the two are not the same network.
    """
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    names = {ours: theirs for ours, theirs in names.items() if ours in shapes}
    refuse_others(names.values(), weights)
    found = {}
    for ours, theirs in names.items():
        value = weights[theirs]
        if ours in heads and len(value) % (3 * heads[ours]) == 0:
            value = value.unflatten(0, (heads[ours], -1, 3)).movedim(2, 0).flatten(0, 2)
        if value.ndim == 4:
            value = value.flatten(1) if len(shapes[ours]) == 2 else value.movedim(1, -1)
        if value.shape != shapes[ours]:
            raise InputError(
                f"These are another network's weights: {theirs} has the unexpected shape {tuple(weights[theirs].shape)}."
            )
        found[ours] = value
    return found


def _names(levels: int, blocks: int) -> Iterator[tuple[str, str]]:
    """Our names and theirs, of layers that a network may lack, too."""
    yield from (("embedding.frequencies", "map_noise.freqs"), ("classes.weight", "map_label.weight"))
    yield "augment.weight", "map_augment.weight"
    yield from _both("embed.0", "map_layer0")
    yield from _both("embed.2", "map_layer1")
    yield from _both("first", "enc.0_conv")
    for level in range(levels):
        for block in range(blocks):
            yield from _stage(f"down.{level}.blocks.{block}", f"enc.{level}_block{block}")
        yield from _stage(f"down.{level}.downsample", f"enc.{level + 1}_down")
        yield from _both(f"down.{level}.pyramid.convolution", f"enc.{level + 1}_aux_skip")
        yield from _both(f"down.{level}.pyramid.downsample.convolution", f"enc.{level + 1}_aux_residual")
    for block in range(2):
        yield from _stage(f"middle.{block}", f"dec.{levels - 1}_in{block}")
    for index, level in enumerate(reversed(range(levels))):
        for block in range(blocks + 1):
            yield from _stage(f"up.{index}.blocks.{block}", f"dec.{level}_block{block}")
        yield from _stage(f"up.{index}.upsample", f"dec.{level - 1}_up")
        for ours in (f"up.{index}.pyramid.head", *(["last"] if level == 0 else [])):
            yield from _both(f"{ours}.norm", f"dec.{level}_aux_norm")
            yield from _both(f"{ours}.convolution", f"dec.{level}_aux_conv")


def _stage(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for part, names in (("residual", RESIDUAL), ("attention", ATTENTION)):
        for layer, name in names.items():
            yield from _both(f"{ours}.{part}.{layer}", f"{theirs}.{name}")


def _both(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield from ((f"{ours}.weight", f"{theirs}.weight"), (f"{ours}.bias", f"{theirs}.bias"))
