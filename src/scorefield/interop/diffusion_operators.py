"""Weights of the diffusion operators of Lim et al. (2023): U-NOs of Fourier blocks on (cos φ, sin φ), under a random field.

Their code takes σ² for σ: data are perturbed by √σ_i ξ, ξ of the kernel exp(−r/2s²) + eps² on the unit square, and the network
gives f = −E[√σ_i ξ | x], so that x̂ = x_t + f. They draw by Langevin steps of ε (σ_i/σ_L)², which is the fourth power of what is σ
here. Those start from N(0, C); ours from N(0, σ(1)² C), as x_1 has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.interop.pickles import Settings
from scorefield.interop.specification import CheckpointSpecification, described, refuse_others
from scorefield.nn.corner_uno import CornerUNO
from scorefield.nn.network import Network

BLOCKS = ("block1", "block2", "block3", "block4", "inv2_9", "inv3", "inv4", "inv5")
CROPPED = 128  # points of an interferogram as it is stored


def ours(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights are of such a network."""
    return "init_conv.weight" in weights and "inv2_9.block1.convs.bias" in weights


def network(config: Settings, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], Network]:
    """The network of the weights, as a class with its arguments and built.

    Raises:
        InputError: if the weights or the configuration are of a network that is not ours.
    """
    if config.get("groups", default=0):
        raise InputError(f"{config.origin}: groups is {config['groups']}; only networks without norms can be imported.")
    width, channels = weights["init_conv.weight"].shape[:2]
    padding, points = int(config.number("npad")), _points(config)
    arguments: dict[str, Any] = {
        "in_channels": channels - 2,
        "out_channels": len(weights["final_conv.bias"]),
        "channels": width,
        "multipliers": [weights[f"{block}.block1.convs.bias"].shape[1] // width for block in BLOCKS[:4]],
        "points": points,
        "fraction": config.number("fmult"),
        "padding": padding / (points - padding),
        "ranks": [_ranks(weights, block) for block in BLOCKS] if _core(BLOCKS[0]) in weights else [],
    }
    return described("nn.corner_uno.CornerUNO", **arguments), CornerUNO(**arguments)


def _points(config: Settings) -> int:
    return int(config.get("resolution", default=CROPPED))


def _core(block: str) -> str:
    return f"{block}.block1.convs.weight.0.core"


def _ranks(weights: Mapping[str, Tensor], block: str) -> list[int]:
    return list(weights[_core(block)].shape[:-1])


def law(config: Settings, weights: Mapping[str, Tensor]) -> CheckpointSpecification:
    """The levels, what the network's output means, the noise, the grid and how samples are drawn."""
    levels = int(config.number("L"))
    first, last = config.number("sigma_1"), config.number("sigma_L")
    if not first > last > 0 or levels < 2:
        raise InputError(f"{config.origin}: {levels} levels from {first:g} to {last:g} are none that fall.")
    if (kind := config.word("schedule")) not in ("geometric", "linear"):
        raise InputError(f"{config.origin}: schedule is {kind}, and can be geometric or linear.")
    low, high = (math.log(last), math.log(first)) if kind == "geometric" else (last, first)
    table = torch.linspace(low, high, levels, dtype=torch.float64)
    sigmas = (table.exp() if kind == "geometric" else table).sqrt().tolist()
    side = _points(config) - int(config.number("npad"))
    steps = {"step": config.number("epsilon") / 2, "repeats": int(config.number("T")), "quiet_end": True}
    sampler = {
        "steps": levels - 1,
        "step": {"class_path": "scorefield.samplers.NoPredictor"},
        "grid": described("samplers.UniformGrid", t_min=0.0),
        "corrector": described("samplers.langevin.VarianceLangevin", **steps),
        "correct_first": False,
        "denoise": False,
    }
    found = CheckpointSpecification.tabulated([1.0] * levels, sigmas, reverse=True, power=2.0)
    found.model.update(noise=_noise(config, side), sampler=sampler, shape=[len(weights["final_conv.bias"]), side, side])
    return found


def _noise(config: Settings, side: int) -> dict[str, Any]:
    """N(0, C) of ξ, C_ij = exp(−|x_i − x_j|/2s²) + eps² δ_ij at points i/n."""
    if config.flag("white_noise"):
        return {"class_path": "scorefield.White"}
    nugget = config.number("rbf_eps") ** 2 / side**2  # of each mode, of which a point has side²
    density = described("Exponential", length=2 * config.number("rbf_scale") ** 2, nugget=nugget)
    return described("GaussianField", density=density, boundary={"class_path": "scorefield.Free"}, point=True)


def rename(weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
    """Weights of their code under the names of `net`, for a strict `net.load_state_dict`.

    An embedding of the noise level is among their weights, which their network computes and does not use.

    Raises:
        InputError: if the two are not the same network.
    """
    parts = {name: _theirs(name) for name in net.state_dict()}
    unused = {name for name in weights if name.startswith("time_mlp.") or ".mlp.1." in name}
    refuse_others(parts.values(), weights.keys() - unused)
    renamed = {}
    for name, value in net.state_dict().items():
        given = weights[parts[name]]
        renamed[name] = given.reshape(value.shape) if name.endswith("convolution.bias") else given
        if renamed[name].shape != value.shape:
            raise InputError(
                f"These are another network's weights: {parts[name]} has the unexpected shape {tuple(given.shape)}."
            )
    return renamed


def _theirs(name: str) -> str:
    """Their name of a weight of ours."""
    head, _, rest = name.partition(".")
    if head != "blocks":
        return f"{'init_conv' if head == 'first' else 'final_conv'}.{rest}"
    number, _, part = rest.partition(".")
    place = f"{BLOCKS[int(number)]}.block1"
    if part == "skip.weight":
        return f"{place}.fno_skips.0.weight"
    if part == "convolution.bias":
        return f"{place}.convs.bias"
    corner, _, leaf = part.removeprefix("convolution.corners.").partition(".")
    leaf = "tensor" if leaf == "weight" else leaf.replace("factors.", "factors.factor_")
    return f"{place}.convs.weight.{corner}.{leaf}"
