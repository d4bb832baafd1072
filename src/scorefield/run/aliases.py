"""Import paths of before: a stored run, checkpoint or recipe that names them means what is called otherwise now.

Written down once, here; new code never names an old path. What is public is stored by its public name, `scorefield.VP`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scorefield import HOMES

# Rooms that moved, below `scorefield.`; the longest name that fits counts.
ROOMS = {
    "cosine": "foundation.cosine",
    "fourier": "foundation.fourier",
    "schedule": "core.schedule",
    "noise": "core.noise",
    "sde": "core.sde",
    "denoiser": "core.denoiser",
    "classifier": "core.classifier",
    "mean": "core.residual",
    "oracle": "core.oracle",
    "spectrum": "core.spectrum",
    "wiener": "core.wiener",
    "sample": "samplers",
    "train": "training",
    "data.crop": "data.decode",
    "data.climate": "climate",
    "data.climate.clock": "climate.time_features",
    "data.mri": "mri",
    "data.mri.combined": "mri.sources",
    "data.mri.scanned": "mri.sources",
    "data.mri.undersampled": "mri.simulated",
    "mri.coil_combined": "mri.sources",
    "mri.raw_kspace": "mri.sources",
    "mri.undersampled": "mri.simulated",
    "data.terrain": "datasets.terrain",
    "data.volcano": "datasets.volcano",
    "data.vorticity": "datasets.vorticity",
    "data.channels": "datasets.channels",
    "data.interferograms": "datasets.interferograms",
    "data.windows": "functions.windows",
    "jobs.baselines": "climate.baselines",
    "operators.coils": "operators.kspace",
    "operators.fourier": "operators.kspace",
    "operators.parts": "operators.masks",
    "nn.affine": "nn.wrappers",
    "nn.blind": "nn.wrappers",
    "nn.located": "nn.wrappers",
    "nn.output_convolution": "nn.wrappers",
    "nn.projected": "nn.wrappers",
}

# Classes that left their room, or have another name, by the last room of their old path.
CLASSES = {
    "data.Channels": "datasets.Channels",
    "data.Climate": "climate.Climate",
    "data.Digits": "datasets.Digits",
    "data.source.Digits": "datasets.Digits",
    "data.Interferograms": "datasets.Interferograms",
    "data.NavierStokes": "datasets.NavierStokes",
    "data.Terrain": "datasets.Terrain",
    "data.Volcano": "datasets.Volcano",
    "data.Windows": "functions.Windows",
    "denoiser.Epsilon": "core.denoiser.EpsilonPrediction",
    "denoiser.Flow": "core.denoiser.FlowPrediction",
    "denoiser.Identity": "core.denoiser.DataPrediction",
    "denoiser.Karras": "core.denoiser.EDMPreconditioner",
    "denoiser.Score": "core.denoiser.ScorePrediction",
    "denoiser.Velocity": "core.denoiser.VelocityPrediction",
    "losses.Important": "losses.ImportanceSampled",
    "losses.ImportantLikelihood": "losses.ImportanceSampledLikelihood",
    "losses.KarrasWeight": "losses.EDMWeight",
    "losses.Plain": "losses.Unweighted",
    "losses.Precision": "losses.Mahalanobis",
    "losses.Squares": "losses.SquaredError",
    "nn.Blind": "nn.Deterministic",
    "nn.Located": "nn.LearnedPositionMaps",
    "nn.projected.Projected": "nn.wrappers.OutputConvolution",
    "sample.Carry": "samplers.NoPredictor",
    "sample.DPM2M": "samplers.DPMSolverPP2M",
}

# Short names, where only one class ever had them and a class is what stands there.
SHORT = {old.rpartition(".")[2]: f"scorefield.{new}" for old, new in CLASSES.items()}
for ambiguous in ("Identity", "Projected"):
    del SHORT[ambiguous]
KINDS = ("class_path", "data", "net", "norm", "precondition", "source", "step", "time", "weight")


def public_path(path: str) -> str:
    """The public name of what is at a path of today, if it has one: `scorefield.core.schedule.VP` is `scorefield.VP`."""
    room, _, name = path.removeprefix("scorefield.").rpartition(".")
    home = HOMES.get(name)
    if home is None or not path.startswith("scorefield.") or not f"{room}.".startswith(f"{home}."):
        return path
    return f"scorefield.{name}"


def current_path(path: str) -> str:
    """What is called so today: `scorefield.denoiser.Karras` is `scorefield.EDMPreconditioner`."""
    return public_path(_moved(path))


def _moved(path: str) -> str:
    """Where what was at a path is at home today."""
    room, _, name = path.removeprefix("scorefield.").rpartition(".")
    if not room or not path.startswith("scorefield."):
        return path
    for known in (f"{room}.{name}", f"{room.rpartition('.')[0]}.{name}"):
        if known in CLASSES:
            return f"scorefield.{CLASSES[known]}"
    words = room.split(".")
    for count in range(len(words), 0, -1):
        if (found := ROOMS.get(".".join(words[:count]))) is not None:
            return ".".join(["scorefield", found, *words[count:], name])
    return path


def renewed(config: Any, key: str = "") -> Any:
    """The same configuration with every class by the path that it has now.

    Args:
        config: what a recipe or a checkpoint holds.
        key: the name that it has there.
    """
    if isinstance(config, Mapping):
        return {name: renewed(value, str(name)) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [renewed(value) for value in config]
    if not isinstance(config, str):
        return config
    return public_path(SHORT.get(config, config)) if key in KINDS and "." not in config else current_path(config)
