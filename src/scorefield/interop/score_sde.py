"""Weights of score_sde_pytorch's NCSN++, DDPM++ and DDPM (Song et al. 2021), of its rewrite, and of mlde's conditional NCSN++.

Their networks are one flat list of modules in the order in which they are applied, so a name is a position in that list.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.interop.pickles import Settings
from scorefield.interop.specification import CheckpointSpecification, described, refuse_others
from scorefield.nn.ncsnpp import NCSNpp
from scorefield.nn.network import Network
from scorefield.nn.wrappers import Affine, OutputConvolution

NETWORKS = ("ncsnpp", "ddpm", "cncsnpp")
DDPM: dict[str, Any] = {
    "embedding": "positional",
    "resblock": "ddpm",
    "filter": "box",
    "progressive": "none",
    "progressive_input": "none",
    "skip_rescale": False,
    "init_scale": 0.0,
    "group": 1,
}
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


def network(config: Settings, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], Network]:
    """The network of a configuration, as a class with its arguments and built, for weights under the names they have there.

    Where the data are in [0, 1], the map 2x - 1 stands in front of it.

    Raises:
        InputError: if the configuration asks for something that NCSNpp has not.
    """
    name = config.word("model.name")
    if name not in NETWORKS:
        raise InputError(f"{config.origin}: model.name is {name}; what can be imported is {', '.join(NETWORKS)}.")
    given = arguments(config)
    described: dict[str, Any] = {"class_path": "scorefield.nn.NCSNpp", "init_args": given}
    net: Network = NCSNpp(**given)
    if name == "cncsnpp":
        last = f"all_modules.{_length(weights) - 1}.weight"
        if last not in weights:
            raise InputError(f"{config.origin}: the weights lack {last}.")
        out_channels, inner = weights[last].shape[:2]
        given |= {"in_channels": out_channels, "cond_channels": inner - out_channels, "out_channels": inner}
        net = OutputConvolution(NCSNpp(**given), inner, out_channels)
        init = {"net": described, "channels": inner, "out_channels": out_channels}
        return {"class_path": "scorefield.nn.wrappers.OutputConvolution", "init_args": init}, net
    if not config.flag("data.centered"):
        return {"class_path": "scorefield.nn.wrappers.Affine", "init_args": {"net": described}}, Affine(net)
    return described, net


def _length(weights: Mapping[str, Tensor]) -> int:
    """The length of the flat list of modules."""
    return 1 + max((int(name.split(".")[1]) for name in weights if name.startswith("all_modules.")), default=-1)


def arguments(config: Settings) -> dict[str, Any]:
    """The arguments of `NCSNpp` for a configuration whose `model.name` is one of `NETWORKS`.

    Raises:
        InputError: if the configuration asks for something that NCSNpp has not.
    """
    if (activation := config.word("model.nonlinearity")) != "swish":
        raise InputError(f"{config.origin}: model.nonlinearity is {activation}; only swish can be imported.")
    multipliers = tuple(config["model.ch_mult"])
    size = config["data.image_size"]
    width = int(size[-1] if isinstance(size, list) else size)
    attended = config["model.attn_resolutions"]
    attended = attended if isinstance(attended, list) else [attended]
    channels = int(config.get("data.num_channels", "data.color_channels", "data.channels", default=1))
    common = {
        "in_channels": channels,
        "out_channels": channels,
        "channels": int(config["model.nf"]),
        "multipliers": multipliers,
        "blocks": int(config["model.num_res_blocks"]),
        "attention": tuple(level for level in range(len(multipliers)) if width // 2**level in attended),
        "dropout": float(config["model.dropout"]),
        "conditional": bool(config["model.conditional"]),
        "resample_with_conv": bool(config["model.resamp_with_conv"]),
    }
    return common | (DDPM if config.word("model.name") == "ddpm" else _switches(config))


def _switches(config: Settings) -> dict[str, Any]:
    """What NCSN++ and DDPM++ differ in."""
    fir = bool(config["model.fir"])
    if fir and (kernel := list(config["model.fir_kernel"])) != [1, 3, 3, 1]:
        raise InputError(f"{config.origin}: model.fir_kernel is {kernel}; only [1, 3, 3, 1] can be imported.")
    embedding = config.word("model.embedding_type")
    return {
        "embedding": embedding,
        "fourier_scale": config.number("model.fourier_scale") if embedding == "fourier" else 16.0,
        "resblock": config.word("model.resblock_type"),
        "filter": "fir" if fir else "box",
        "progressive": config.word("model.progressive"),
        "progressive_input": config.word("model.progressive_input"),
        "combine": config.word("model.progressive_combine"),
        "skip_rescale": bool(config["model.skip_rescale"]),
        "init_scale": config.number("model.init_scale"),
    }


def law(config: Settings, weights: Mapping[str, Tensor]) -> CheckpointSpecification:
    """The forward process, and what the network's output means there.

    Raises:
        InputError: if the original code has no such process.
    """
    sde, continuous = (
        config.word("training.sde", "model.sde_type"),
        config.flag("training.continuous", "model.continuous"),
    )
    if config.get("training.sde") is None and not continuous:
        raise InputError(
            f"{config.origin}: the rewrite gives its discrete models t itself as label, which they ignore."
        )
    scaled = config.flag("model.scale_by_sigma")
    fourier = config.word("model.name") != "ddpm" and config.word("model.embedding_type") == "fourier"
    if sde == "vesde" and not continuous:
        table = (weights["sigmas"] if "sigmas" in weights else geometric(config)).flip(0).tolist()
        return CheckpointSpecification.tabulated([1.0] * len(table), table, reverse=True, power=1.0 if scaled else 0.0)
    if sde == "vesde":
        schedule = {name: config.number(f"model.{name}") for name in ("sigma_min", "sigma_max")}
        if scaled and not fourier:
            raise InputError(f"{config.origin}: model.scale_by_sigma of a continuous VE SDE needs a Fourier embedding.")
        label = described("core.denoiser.LogNoise", scale=1.0) if fourier else described("core.denoiser.NoiseRatio")
        return CheckpointSpecification(
            described("core.schedule.VE", **schedule),
            described("core.denoiser.ScorePrediction", label=label, power=float(scaled)),
        )
    if sde not in ("vpsde", "subvpsde"):
        raise InputError(f"{config.origin}: training.sde is {sde}; there are vesde, vpsde and subvpsde.")
    if scaled or fourier:
        name = "model.scale_by_sigma" if scaled else "model.embedding_type fourier"
        raise InputError(f"{config.origin}: {name} belongs to VE SDEs, and the SDE is {sde}.")
    schedule = {name: config.number(f"model.{name}") for name in ("beta_min", "beta_max")}
    if sde == "vpsde" and not continuous:
        return CheckpointSpecification.tabulated(
            *ddpm_table(**schedule, levels=int(config["model.num_scales"])), reverse=False, power=None
        )
    times = described("core.denoiser.EpsilonPrediction", label=described("core.denoiser.Times", scale=999.0))
    return CheckpointSpecification(
        described("core.schedule.VP" if sde == "vpsde" else "core.schedule.SubVP", **schedule), times
    )


def geometric(config: Settings) -> Tensor:
    """The levels of a VE table in falling order, where the weights do not hold them."""
    ends = (config.number("model.sigma_max"), config.number("model.sigma_min"))
    logarithms = torch.linspace(
        math.log(ends[0]), math.log(ends[1]), int(config["model.num_scales"]), dtype=torch.float64
    )
    return logarithms.exp()


def ddpm_table(beta_min: float, beta_max: float, levels: int) -> tuple[list[float], list[float]]:
    """DDPM's α and σ as the original code has them, in float32, 8e-5 off at the first level: what it learnt with."""
    betas = torch.linspace(beta_min / levels, beta_max / levels, levels)
    kept = torch.cumprod(1 - betas, dim=0)
    return kept.sqrt().tolist(), (1 - kept).sqrt().tolist()


def rename(weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
    """Weights of the original code under the names of `net`, for a strict `net.load_state_dict`.

    Raises:
        InputError: if the two are not the same network.
    """
    if isinstance(net, Affine):
        return {f"net.{name}": value for name, value in rename(weights, net.net).items()}
    if isinstance(net, OutputConvolution):
        last = f"all_modules.{_length(weights) - 1}."
        inner = {name: value for name, value in weights.items() if not name.startswith(last)}
        renamed = {f"net.{name}": value for name, value in rename(inner, net.net).items()}
        return renamed | {f"last.{name}": _oriented("", weights[last + name], 4) for name in ("weight", "bias")}
    if not isinstance(net, NCSNpp):
        raise TypeError(f"{type(net).__name__} is none of the networks that `network` builds")
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    names = {ours: theirs for ours, theirs in _names(net) if ours in shapes}
    used = {name for theirs in names.values() for name in theirs}
    weights = {name: value for name, value in weights.items() if name != "sigmas"}  # of use to divide by σ alone
    if net.embed is None:  # there, blocks carry the layer even where the network does not see the noise label
        weights = {name: value for name, value in weights.items() if ".Dense_0." not in name}
    refuse_others(used, weights)
    renamed = {
        ours: torch.cat([_oriented(name, weights[name], len(shapes[ours])) for name in theirs])
        for ours, theirs in names.items()
    }
    for ours, value in renamed.items():
        if value.shape != shapes[ours]:
            theirs = tuple(weights[names[ours][0]].shape)
            raise InputError(
                f"These are another network's weights: {names[ours][0]} has the unexpected shape {theirs}."
            )
    return renamed


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
