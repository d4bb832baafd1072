"""Weights of diffusers' UNet2DModel, with the scheduler beside them: DDPM's U-Net on a table of levels.

A pipeline is a folder with `unet/config.json`, `unet/diffusion_pytorch_model.safetensors` and `scheduler/scheduler_config.json`,
or with all of them at its top. A key that is not known, or has a value that is not, is refused by its name: what it would change
is not known either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scorefield.foundation.errors import InputError, brief
from scorefield.interop.pickles import Settings, read_checkpoint, read_config
from scorefield.interop.specification import CheckpointSpecification, described, refuse_others
from scorefield.interop.weights import Weights, find
from scorefield.nn.ddpm import DDPMUNet
from scorefield.nn.network import Network
from scorefield.nn.wrappers import Affine

NAME = "diffusion_pytorch_model"
PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
BLOCKS = {"DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True}
NETWORK: dict[str, Any] = {  # what there is, as UNet2DModel has it where its configuration does not say
    "sample_size": None, "in_channels": 3, "out_channels": 3, "center_input_sample": False, "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3], "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896], "layers_per_block": 2, "downsample_padding": 1, "dropout": 0.0,
    "attention_head_dim": 8, "norm_num_groups": 32, "norm_eps": 1e-5, "add_attention": True, "num_class_embeds": None,
    "time_embedding_dim": None, "attn_norm_num_groups": None, "num_train_timesteps": None,
}  # fmt: skip
ONLY: dict[str, tuple[Any, ...]] = {  # keys with the values that the network below has
    "time_embedding_type": ("positional",), "mid_block_type": ("UNetMidBlock2D",), "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",), "upsample_type": ("conv",), "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default",), "class_embed_type": (None,),
}  # fmt: skip
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "trained_betas": None,
    "prediction_type": "epsilon", "predict_epsilon": True, "variance_type": "fixed_small", "clip_sample": True,
    "thresholding": False,
}  # fmt: skip
ONLY_SCHEDULE: dict[str, tuple[Any, ...]] = {
    "rescale_betas_zero_snr": (False,), "timestep_values": (None,), "prediction_type": ("epsilon", "v_prediction", "sample"),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}  # fmt: skip
DRAWING = (  # how steps are placed and x̂ is clipped: of the program's own sampler, not of the law
    "clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value", "set_alpha_to_one", "skip_prk_steps",
    "steps_offset", "tensor_format", "timestep_spacing",
)  # fmt: skip
RESIDUAL = {
    "norm_in": "norm1", "conv_in": "conv1", "embed": "time_emb_proj", "norm_out": "norm2", "conv_out": "conv2",
    "shortcut": "conv_shortcut",
}  # fmt: skip
QUERY_KEY_VALUE = ("to_q", "to_k", "to_v")
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # their names of attention before 2023


def is_theirs(path: Path) -> bool:
    """Whether a path is that of a pipeline or a network: a folder, or the file of weights in it."""
    return path.is_dir() or path.suffix == ".safetensors" or path.name == f"{NAME}.bin"


def file_of(path: Path) -> Path:
    """The file of weights of a folder. Raises InputError where there is none."""
    if not path.is_dir():
        return path
    places = (folder / f"{NAME}{suffix}" for folder in (path / "unet", path) for suffix in (".safetensors", ".bin"))
    for file in places:
        if file.is_file():
            return file
    raise InputError(
        f"{path} holds no {NAME}.safetensors or .bin, alone or in unet/: give a pipeline of diffusers, whole."
    )


def read(path: Path, scheduler: Path | None = None) -> Weights:
    """The weights of a network, its configuration and that of its scheduler.

    Args:
        path: the folder of a pipeline or of a network, or its file of weights.
        scheduler: `scheduler_config.json`, where it is not with them.

    Raises:
        InputError: a part is missing or damaged.
    """
    file = file_of(path)
    top = file.parent.parent if file.parent.name == "unet" else file.parent
    index = top / "model_index.json"
    if index.is_file() and (pipeline := read_config(index).get("_class_name")) not in PIPELINES:
        raise InputError(f"{index}: _class_name is {brief(pipeline)}; what can be imported is {', '.join(PIPELINES)}.")
    found = [
        part for part in (top / "scheduler" / "scheduler_config.json", top / "scheduler_config.json") if part.is_file()
    ]
    if scheduler is None and not found:
        raise InputError(f"{top} holds no scheduler_config.json: give the one that it was trained with by --config.")
    network, plan = file.parent / "config.json", scheduler or found[0]
    given, table = read_config(network), read_config(plan)
    _check(given, str(network), "UNet2DModel", NETWORK, ONLY)
    _check(table, str(plan), SCHEDULERS, SCHEDULE, ONLY_SCHEDULE, DRAWING)
    weights = _tensors(file)
    channels = given.get("out_channels", 3)
    data = {"image_size": given.get("sample_size"), "num_channels": channels, "centered": True}
    config = {"unet": NETWORK | given, "scheduler": SCHEDULE | table, "data": data}
    return Weights(weights, weights, config=config, images=channels in (1, 3))


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".bin":
        weights = find(read_checkpoint(file), str(file)).raw
    else:
        try:
            weights = load_file(file)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file} is not a whole safetensors file ({brief(error)}).") from error
    return {".".join(OLD.get(part, part) for part in name.split(".")): value for name, value in weights.items()}


def _check(
    given: Mapping[str, Any],
    origin: str,
    kinds: str | tuple[str, ...],
    known: Mapping[str, Any],
    only: Mapping[str, tuple[Any, ...]],
    unused: tuple[str, ...] = (),
) -> None:
    """Refuse a class, a key or a value that is not known."""
    if (kind := given.get("_class_name")) not in ((kinds,) if isinstance(kinds, str) else kinds):
        names = kinds if isinstance(kinds, str) else ", ".join(kinds)
        raise InputError(f"{origin}: _class_name is {brief(kind)}; what can be imported is {names}.")
    for key, value in given.items():
        if key in only and value not in only[key]:
            values = ", ".join(str(one) for one in only[key])
            raise InputError(f"{origin}: {key} is {brief(value)}; what can be imported is {values}.")
        if key not in only and key not in known and key not in unused and not key.startswith("_"):
            raise InputError(f"{origin}: {key} is {brief(value)}, which is not known and can not be imported.")


def network(config: Settings, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], Network]:
    """The network of a configuration, as a class with its arguments and built.

    Raises:
        InputError: it is one that is not ours.
    """
    arguments = _arguments(config)
    net, given = DDPMUNet(**arguments), described("nn.DDPMUNet", **arguments)
    if config.flag("unet.center_input_sample"):
        return described("nn.wrappers.Affine", net=given), Affine(net)
    return given, net


def _arguments(config: Settings) -> dict[str, Any]:
    given, origin = config["unet"], config.origin
    widths = tuple(given["block_out_channels"])
    down, up = given["down_block_types"], given["up_block_types"]

    def refuse(key: str) -> None:
        raise InputError(f"{origin}: {key} is {brief(given[key])}, which can not be imported beside the rest.")

    for key, types, kind in (("down_block_types", down, "DownBlock2D"), ("up_block_types", up, "UpBlock2D")):
        if wrong := [name for name in types if name not in (kind, f"Attn{kind}")]:
            raise InputError(f"{origin}: {key} has {brief(wrong[0])}; what can be imported is {kind} and Attn{kind}.")
        if len(types) != len(widths):
            refuse(key)
    if given["in_channels"] != given["out_channels"]:
        raise InputError(
            f"{origin}: in_channels is {given['in_channels']} and out_channels {given['out_channels']}; "
            "only as many out as in can be imported."
        )
    if given["time_embedding_dim"] not in (None, 4 * widths[0]):
        refuse("time_embedding_dim")
    if given["attn_norm_num_groups"] not in (None, given["norm_num_groups"]):
        refuse("attn_norm_num_groups")
    for key, values in (("freq_shift", (0, 1)), ("downsample_padding", (0, 1))):
        if given[key] not in values:
            refuse(key)
    return {
        "in_channels": int(given["in_channels"]),
        "out_channels": int(given["out_channels"]),
        "labels": int(given["num_class_embeds"] or 0),
        "widths": widths,
        "blocks": int(given["layers_per_block"]),
        "attention": tuple(level for level, name in enumerate(down) if BLOCKS[name]),
        "attention_up": tuple(level for level, name in enumerate(reversed(up)) if BLOCKS[name]),
        "attention_middle": bool(given["add_attention"]),
        "head": int(given["attention_head_dim"] or 0),
        "dropout": float(given["dropout"]),
        "groups": int(given["norm_num_groups"]),
        "epsilon": float(given["norm_eps"]),
        "centred": given["downsample_padding"] == 1,
        "closed": given["freq_shift"] == 1,
        "cosines_first": bool(given["flip_sin_to_cos"]),
    }


def law(config: Settings, weights: Mapping[str, Tensor]) -> CheckpointSpecification:
    """The table of levels, what the network gives there, and how its program draws: DDPM's steps or 50 of DDIM.

    Raises:
        InputError: betas of a kind that is not known.
    """
    given = config["scheduler"]
    kept = torch.cumprod(1 - betas(given, config.origin), dim=0)  # in float32, as they are learnt with
    alphas, sigmas = kept.sqrt().tolist(), (1 - kept).sqrt().tolist()
    label = described("core.denoiser.Index", levels=len(alphas))
    kind = given["prediction_type"] if given["predict_epsilon"] else "sample"
    name = {"epsilon": "EpsilonPrediction", "v_prediction": "VelocityPrediction", "sample": "DataPrediction"}[kind]
    weight = {
        "class_path": f"scorefield.losses.{'EDMWeight' if kind == 'v_prediction' else 'SNR'}"
    }  # ‖v̂ − v‖², ‖ε̂ − ε‖²
    steps, step = 50, described("samplers.DDIM", eta=0.0)
    if given["_class_name"] == "DDPMScheduler":
        steps, step = len(alphas), described("samplers.Ancestral", upper="large" in given["variance_type"])
    sampler = {
        "steps": min(steps, len(alphas)),
        "step": step,
        "grid": described("samplers.UniformGrid", t_min=0.0),
        "denoise": True,
    }
    bounds = [key for key in ("clip_sample", "thresholding") if given[key]]
    remark = f"its sampler bounds x̂ ({', '.join(bounds)}), and here it is not bounded"
    return CheckpointSpecification(
        described("core.schedule.Tabulated", alphas=alphas, sigmas=sigmas),
        described(f"core.denoiser.{name}", label=label),
        len(alphas),
        model={"sampler": sampler},
        loss=described("losses.Denoising", time=described("losses.UniformLevels", levels=len(alphas)), weight=weight),
        remarks=(remark,) if bounds else (),
    )


def betas(given: Mapping[str, Any], origin: str) -> Tensor:
    """β of each level in float32: linear, linear in its root, Nichol's cosine, sigmoid, or as they are listed.

    Raises:
        InputError: a kind that is not known, or a β that is not within (0, 1).
    """
    low, high, levels = float(given["beta_start"]), float(given["beta_end"]), int(given["num_train_timesteps"])
    kind, listed = given["beta_schedule"], given["trained_betas"]
    if listed is not None:
        kind, found = "trained_betas", torch.tensor(listed, dtype=torch.float32)
    elif kind == "linear":
        found = torch.linspace(low, high, levels, dtype=torch.float32)
    elif kind == "scaled_linear":
        found = torch.linspace(low**0.5, high**0.5, levels, dtype=torch.float32) ** 2
    elif kind == "squaredcos_cap_v2":
        place = torch.linspace(0, 1, levels + 1, dtype=torch.float64)
        kept = ((place + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        found = (1 - kept[1:] / kept[:-1]).clamp(max=0.999).float()
    elif kind == "sigmoid":
        found = torch.sigmoid(torch.linspace(-6, 6, levels)) * (high - low) + low
    else:
        kinds = "linear, scaled_linear, squaredcos_cap_v2, sigmoid"
        raise InputError(f"{origin}: beta_schedule is {brief(kind)}; what can be imported is {kinds}.")
    if not bool(((found > 0) & (found < 1)).all()):
        raise InputError(
            f"{origin}: {kind} from beta_start {low:g} to beta_end {high:g} has betas that are not within (0, 1)."
        )
    return found


def rename(weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
    """Weights under the names of `net`, for a strict `net.load_state_dict`.

    Raises:
        InputError: if the two are not the same network.
    """
    if isinstance(net, Affine):
        return {f"net.{name}": value for name, value in rename(weights, net.net).items()}
    own = net.state_dict()
    names = {ours: theirs for ours, theirs in _names(cast(DDPMUNet, net)) if ours in own}
    refuse_others({name for theirs in names.values() for name in theirs}, weights)
    found = {}
    for ours, theirs in names.items():
        value = torch.cat([weights[name] for name in theirs])
        value = value.movedim(1, -1) if value.ndim > 2 else value
        if ours == "classes.weight":  # the null class, which they have not
            value = torch.cat((value, value.new_zeros(1, value.shape[1])))
        if value.shape != own[ours].shape:
            shape = tuple(weights[theirs[0]].shape)
            raise InputError(f"These are another network's weights: {theirs[0]} has the unexpected shape {shape}.")
        found[ours] = value
    return found


def _names(net: DDPMUNet) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Our names and theirs, of layers that a network may lack, too."""
    yield "classes.weight", ("class_embedding.weight",)
    outer = {"first": "conv_in", "last.norm": "conv_norm_out", "last.convolution": "conv_out"}
    outer |= {"embed.0": "time_embedding.linear_1", "embed.2": "time_embedding.linear_2"}
    for ours, theirs in outer.items():
        yield from _both(ours, theirs)
    for way, change in (("down", "downsample"), ("up", "upsample")):
        for index, level in enumerate(getattr(net, way)):
            yield from _stages(f"{way}.{index}.blocks", f"{way}_blocks.{index}", len(level.blocks))
            yield from _both(f"{way}.{index}.{change}.convolution", f"{way}_blocks.{index}.{change}rs.0.conv")
    yield from _stages("middle", "mid_block", 2)


def _stages(ours: str, theirs: str, count: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    for index in range(count):
        for layer, name in RESIDUAL.items():
            yield from _both(f"{ours}.{index}.residual.{layer}", f"{theirs}.resnets.{index}.{name}")
        attention, place = f"{ours}.{index}.attention", f"{theirs}.attentions.{index}"
        yield from _both(f"{attention}.norm", f"{place}.group_norm")
        yield from _both(f"{attention}.query_key_value", *(f"{place}.{name}" for name in QUERY_KEY_VALUE))
        yield from _both(f"{attention}.out", f"{place}.to_out.0")


def _both(ours: str, *theirs: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for leaf in ("weight", "bias"):
        yield f"{ours}.{leaf}", tuple(f"{name}.{leaf}" for name in theirs)
