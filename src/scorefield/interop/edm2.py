"""Weights of EDM2 (Karras et al. 2024), whose U-Net keeps magnitudes; `scorefield.interop.edm.found` reads its snapshots, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.interop.edm import attended, by_level, renamed, specification
from scorefield.interop.pickles import Settings
from scorefield.interop.specification import CheckpointSpecification, described
from scorefield.nn.magnitude import MagnitudeUNet
from scorefield.nn.network import Network

BLOCK = {
    "gain": "emb_gain", "conv_in.weight": "conv_res0.weight", "embed.weight": "emb_linear.weight",
    "conv_out.weight": "conv_res1.weight", "shortcut.weight": "conv_skip.weight",
    "query_key_value.weight": "attn_qkv.weight", "out.weight": "attn_proj.weight",
}  # fmt: skip
OUTER = {
    "waves.frequencies": "emb_fourier.freqs", "waves.phases": "emb_fourier.phases", "embed.weight": "emb_noise.weight",
    "classes.weight": "emb_label.weight", "first.weight": "enc.0_conv.weight", "last.weight": "out_conv.weight",
    "gain": "out_gain",
}  # fmt: skip


def network(config: Settings, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], Network]:
    """The network of a snapshot, as a class with its arguments and built.

    Raises:
        InputError: it is one that is not ours.
    """
    arguments = _arguments(config)
    return described("nn.MagnitudeUNet", **arguments), MagnitudeUNet(**arguments)


def _arguments(config: Settings) -> dict[str, Any]:
    given = config["edm"]
    multipliers = tuple(given.get("channel_mult", [1, 2, 3, 4]))
    channels, balance = int(given.get("model_channels", 192)), float(given.get("res_balance", 0.3))
    if float(given.get("attn_balance", 0.3)) != balance or list(given.get("resample_filter", [1, 1])) != [1, 1]:
        raise InputError(
            f"{config.origin}: an attn_balance other than res_balance, or resample_filter, can not be imported."
        )
    if (clip := given.get("clip_act", 256)) is None:
        raise InputError(f"{config.origin}: clip_act null can not be imported.")
    return {
        "in_channels": int(given["img_channels"]),
        "out_channels": int(given["img_channels"]),
        "labels": int(given["label_dim"]),
        "channels": channels,
        "multipliers": multipliers,
        "blocks": int(given.get("num_blocks", 3)),
        "attention": attended(given, [16, 8], len(multipliers)),
        "head": int(given.get("channels_per_head", 64)),
        "features": channels * int(given.get("channel_mult_noise") or 0),
        "embedding": channels * int(given.get("channel_mult_emb") or 0),
        "label_balance": float(given.get("label_balance", 0.5)),
        "skip_balance": float(given.get("concat_balance", 0.5)),
        "balance": balance,
        "dropout": float(given.get("dropout", 0)),
        "clip": float(clip),
    }


def law(config: Settings, weights: Mapping[str, Tensor]) -> CheckpointSpecification:
    """EDM's process with 32 Heun steps, and the loss of table 6 without its learnt weight."""
    return specification(config["edm"], steps=32, mean=-0.4, std=1.0)


def rename(weights: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
    """Weights under the names of `net`, for a strict `net.load_state_dict`.

    Raises:
        InputError: if the two are not the same network.
    """
    names = dict(_names(net.levels, len(net.down)))  # type: ignore[arg-type]
    places = (
        (part, index, block) for part in ("down", "middle", "up") for index, block in enumerate(getattr(net, part))
    )
    heads = {f"{part}.{index}.query_key_value.weight": block.heads for part, index, block in places if block.heads}
    return renamed(by_level(weights), names, net, heads)


def _names(levels: int, down: int) -> Iterator[tuple[str, str]]:
    """Our names and theirs, of layers that a network may lack, too."""
    yield from OUTER.items()
    blocks = (down + 1) // levels - 1  # each level but the first begins with a change of size
    enc = [f"{level}_{part}" for level in range(levels) for part in _parts("down", blocks, level > 0)]
    dec = [
        f"{level}_{part}" for level in reversed(range(levels)) for part in _parts("up", blocks + 1, level < levels - 1)
    ]
    for ours, theirs in (("down", enc), ("up", dec), ("middle", [f"{levels - 1}_in0", f"{levels - 1}_in1"])):
        for index, place in enumerate(theirs):
            for layer, name in BLOCK.items():
                yield f"{ours}.{index}.{layer}", f"{'enc' if ours == 'down' else 'dec'}.{place}.{name}"


def _parts(change: str, blocks: int, resampled: bool) -> list[str]:
    return [*([change] if resampled else []), *(f"block{block}" for block in range(blocks))]
