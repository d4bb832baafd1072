"""Importing weights: a checkpoint of another program becomes a run folder, which is used like one of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from torch import Tensor

from scorefield.data.batch import Conditions
from scorefield.data.loader import Sequential
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import write_text
from scorefield.interop import (
    diffusers,
    diffusion_operators,
    edm,
    edm2,
    mlde,
    ncsnv2,
    pickles,
    score_sde,
    snapshots,
    weights,
)
from scorefield.interop.pickles import Settings
from scorefield.interop.specification import CheckpointSpecification, described
from scorefield.interop.weights import Weights
from scorefield.nn import LearnedPositionMaps, Network
from scorefield.nn.size import limited_to
from scorefield.run import loading
from scorefield.run.aliases import renewed
from scorefield.run.configuration import read_recipe
from scorefield.run.recipe import build, data_parser, normaliser_parser
from scorefield.run.runner import WholeJob, check_out, made_by_folder, record_in, run_job
from scorefield.run.verb import Verb, log, positional
from scorefield.training import checkpoint as checkpoints
from scorefield.training.loop import versions

IMAGE_SCALE = 255.0  # our images count from 0 to 255, the original programs' from 0 to 1


@dataclass(frozen=True, kw_only=True)
class Import(Verb):
    """Make a run of a checkpoint that another program wrote: score_sde_pytorch, its rewrite, mlde, ncsnv2,
    score-diffusion-training, DiffusionOperators, EDM, EDM2 or diffusers (UNet2DModel). What it is follows from its weights and
    its configuration; nothing in it is executed.

    Args:
        checkpoint: the file with the weights, or the folder of a pipeline of diffusers.
        out: run folder to write.
        config: its configuration (JSON, YAML or pickled), if the checkpoint holds none or another; of diffusers the scheduler's.
        data: recipe with the data trained on: mlde's transforms are fitted to them again.
    """

    checkpoint: Path = positional()
    out: Path
    config: Path | None = None
    data: Path | None = None

    def check(self) -> None:
        check_out(self.out, folder=True)

    def run(self) -> Path:
        data = None if self.data is None else read_recipe(self.data).get("data")
        tensors, facts = converted(self.checkpoint, self.config, data)
        identity = {"imported": facts["imported"], "content": checkpoints.digest(tensors, json.dumps(facts))}
        job = WholeJob(self.out, identity, lambda out: written(out, tensors, facts, identity), made_by_folder)
        run_job(job, unit="file", title="import")
        draws = f"scorefield sample {self.out} -n 16 --out DIR"
        if channels := loading.load(self.out).denoiser.net.cond_channels:
            draws = f"scorefield.load('{self.out}').sample(n, cond={{'field': ...}}), with {channels} channels,"
        log.info(f"weights in {self.out}: {draws} draws from them")
        return self.out


def written(out: Path, tensors: Mapping[str, Tensor], facts: dict[str, Any], identity: Mapping[str, Any]) -> None:
    """Write the run folder of an imported checkpoint, and read it back, by the same way that it will be used."""
    file = checkpoints.path_of(out / "checkpoints", facts["step"])
    checkpoints.write(file, dict(tensors), facts)
    loading.load(file)
    write_text(out / "config.yaml", yaml.safe_dump(facts["config"], sort_keys=False, default_flow_style=None))
    record_in(out, identity)


def converted(
    checkpoint: Path, config: Path | None, data: Mapping[str, Any] | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a checkpoint of ours, from one of another program; see `Import`.

    Args:
        checkpoint: the file.
        config: the configuration that belongs to it, if the checkpoint holds none or another.
        data: what it was trained on, as the data group of a recipe.

    Raises:
        InputError: what cannot be read safely, does not fit together, or is not supported; the message says which.
    """
    file = diffusers.file_of(checkpoint) if diffusers.is_theirs(checkpoint) else checkpoint
    if diffusers.is_theirs(checkpoint):
        found, config = diffusers.read(checkpoint, config), None
    else:
        found = read(checkpoint)
    settings = _settings(found, checkpoint, config)
    reader = reader_of(found)
    try:
        with limited_to(found.raw.values(), settings.origin):
            net, built = reader.network(settings, found.raw)
            law = reader.law(settings, found.raw)
        raw = reader.rename(found.raw, built)
        averaged = raw if found.averaged is found.raw else reader.rename(found.averaged, built)
        recipe: dict[str, Any] = {"model": _model(settings, found, law, net), "train": _train(settings, law)}
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{settings.origin} is not as its program writes it: {brief(error)}.") from error
    for remark in law.remarks:
        log.warning("%s: %s", checkpoint, remark)
    if found.maps is not None:
        recipe["model"]["net"], built = _located(recipe["model"]["net"], built, found.maps[0])
        raw, averaged = (
            {f"net.{name}": value for name, value in weights.items()} | {"maps": maps}
            for weights, maps in zip((raw, averaged), found.maps, strict=True)
        )
    trained = [name for name, _ in built.named_parameters()]
    fitted = _fit_again(recipe, settings, data) if data is not None else {}
    tensors = {f"net.{name}": value.float() for name, value in raw.items()}
    tensors |= {f"ema.{name}": averaged[name].float().clone() for name in trained}
    tensors |= {f"normaliser.{name}": value for name, value in _normaliser_buffers(settings, found).items()}
    tensors |= fitted
    recipe = renewed(recipe)
    facts = {
        "config": recipe,
        "step": found.step,
        "seed": 0,
        "scaler": {},
        "pending": [0.0, 0],
        "samples": 0,
        "versions": versions(),
        "imported": {"name": checkpoint.resolve().name, "sha256": sha256(file.read_bytes()).hexdigest()},
    }
    return tensors, facts


def read(checkpoint: Path) -> Weights:
    """The weights of a file, with its configuration where it holds one."""
    if snapshots.is_snapshot(checkpoint):
        return edm.found(snapshots.read_snapshot(checkpoint), str(checkpoint))
    return weights.find(pickles.read_checkpoint(checkpoint), str(checkpoint))


def reader_of(found: Weights) -> ModuleType:
    """The reader of such weights."""
    if "unet" in found.config:
        return diffusers
    if "edm" in found.config:
        return edm2 if found.config["edm"]["kind"] == "Precond" else edm
    if diffusion_operators.ours(found.raw):
        return diffusion_operators
    return ncsnv2 if "begin_conv.weight" in found.raw else score_sde


def _located(described_net: dict[str, Any], net: Network, maps: Tensor) -> tuple[dict[str, Any], Network]:
    """A network with maps of the grid in front of it, described and built."""
    arguments = {"maps": len(maps), "grid": list(maps.shape[1:])}
    described_maps = {
        "class_path": "scorefield.nn.LearnedPositionMaps",
        "init_args": {"net": described_net, **arguments},
    }
    return described_maps, LearnedPositionMaps(net, len(maps), tuple(maps.shape[1:]))


def _fit_again(recipe: dict[str, Any], settings: Settings, data: Mapping[str, Any]) -> dict[str, Tensor]:
    """Transforms as the program fits them, written into the recipe, and what they have learnt from the training split."""
    parser = data_parser()
    given = parser.read_object({"data": deepcopy(dict(data))}, "--data")
    train = build(parser, given).data.load("train")
    variables = getattr(train, "variables", ())
    recipe["model"]["normaliser"] = mlde.target_transform(settings, variables)
    recipe["model"]["predictors"] = mlde.input_transform(settings)
    recipe["data"] = yaml.safe_load(parser.written(given))["data"]
    parser = normaliser_parser()
    units = deepcopy(
        {name: recipe["model"][name] for name in ("normaliser", "predictors")}
    )  # a parser changes what it reads
    built = build(parser, parser.read_object(units, "the transforms"))
    batches = Sequential(train)
    built.normaliser.fit(batches)
    built.predictors.fit(Conditions(batches))
    fitted = {f"normaliser.{name}": value for name, value in built.normaliser.state_dict().items()}
    fitted |= {f"predictors.{name}": value for name, value in built.predictors.state_dict().items()}
    return fitted | ({"data.template": train.template} if train.template.numel() else {})


def _settings(found: Weights, checkpoint: Path, config: Path | None) -> Settings:
    if config is not None:
        return Settings(pickles.read_config(config), str(config))
    if not found.config:
        raise InputError(f"{checkpoint} holds no configuration: give the one that it was trained with by --config.")
    return Settings(found.config, f"the configuration in {checkpoint}")


# -------------------------------------------------------------------------------------------------------------- recipe
def _model(settings: Settings, found: Weights, law: CheckpointSpecification, net: Mapping[str, Any]) -> dict[str, Any]:
    """The model group of a recipe."""
    outer = net["init_args"]
    inner = outer["net"]["init_args"] if net["class_path"].endswith("Affine") else outer
    size = settings.get("data.image_size")
    grid = [int(side) for side in size] if isinstance(size, list) else [int(size)] * 2 if size else []
    own = law.model
    return {
        "sde": {"schedule": law.schedule} | ({"noise": own["noise"]} if "noise" in own else {}),
        "net": _plain(net),
        "precondition": law.precondition,
        "normaliser": _normaliser(settings, found),
        "sampler": own.get("sampler") or _sampler(settings, law),
        "shape": own.get("shape") or ([inner["out_channels"], *grid] if grid else []),
    }


def _plain(value: Any) -> Any:
    """Tuples as lists, as YAML has them."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _centred(settings: Settings) -> bool:
    return settings.flag("data.centered") or settings.flag("data.rescaled")


def _is_image(settings: Settings, found: Weights) -> bool:
    return found.images and not settings.flag("data.logit_transform")


def _normaliser(settings: Settings, found: Weights) -> dict[str, Any]:
    if not _is_image(settings, found):
        return {"class_path": "scorefield.data.Identity"}
    return described("data.UnitRange", low=-1.0 if _centred(settings) else 0.0, high=1.0)


def _normaliser_buffers(settings: Settings, found: Weights) -> dict[str, Tensor]:
    """Images from 0 to 255 to [-1, 1] or [0, 1]."""
    if not _is_image(settings, found):
        return {}
    last = "begin_conv.weight" if "begin_conv.weight" in found.raw else None
    channels = found.raw[last].shape[1] if last else int(settings.first("data.num_channels", "data.color_channels"))
    scale = IMAGE_SCALE / 2 if _centred(settings) else IMAGE_SCALE
    shift = scale if _centred(settings) else 0.0
    return {"shift": torch.full((channels,), shift), "scale": torch.full((channels,), scale)}


PREDICTORS = {
    "reverse_diffusion": "ReverseDiffusion",
    "euler_maruyama": "EulerMaruyama",
    "ancestral_sampling": "Ancestral",
}


def _sampler(settings: Settings, law: CheckpointSpecification) -> dict[str, Any]:
    """The original program's own sampler; where it names none, ancestral sampling on a table and reverse diffusion elsewhere."""
    name = str(settings.get("sampling.predictor", default="none")).lower()
    corrector = _corrector(settings)
    alone = corrector is not None and name == "none"
    step = "NoPredictor" if alone else PREDICTORS.get(name, "Ancestral" if law.levels else "ReverseDiffusion")
    exploding = law.schedule["class_path"].endswith(".VE")
    upper = step == "Ancestral" and law.precondition["class_path"].endswith("EpsilonPrediction")
    steps = law.levels or int(settings.get("model.num_scales", default=1000))
    sampler: dict[str, Any] = {
        "steps": steps,
        "step": described(f"samplers.{step}", upper=True) if upper else {"class_path": f"scorefield.samplers.{step}"},
        "grid": described("samplers.UniformGrid", t_min=0.0 if law.levels else 1e-5 if exploding else 1e-3),
        "denoise": bool(settings.get("sampling.noise_removal", "sampling.denoise", default=True)),
    }
    return sampler if corrector is None else sampler | {"corrector": corrector}


def _corrector(settings: Settings) -> dict[str, Any] | None:
    """Langevin steps: score_sde's by name, ncsnv2's by the size of the step at the smallest level."""
    step = settings.get("sampling.step_lr")
    name = "ncsn" if step is not None else str(settings.get("sampling.corrector", default="none")).lower()
    repeats = int(settings.get("sampling.n_steps_each", "sampling.corrector_steps", default=1))
    snr = float(settings.get("sampling.snr", default=0.16))
    return {
        "ncsn": described("samplers.NCSNLangevin", step=float(step or 0), repeats=repeats),
        "langevin": described("samplers.Langevin", snr=snr, repeats=repeats),
        "ald": described("samplers.AnnealedLangevin", snr=snr, repeats=repeats),
    }.get(name)


def _train(settings: Settings, law: CheckpointSpecification) -> dict[str, Any]:
    """How to go on training, as the original program did."""
    time = described("losses.UniformTime", t_min=1e-5)
    if law.levels:
        time = described("losses.UniformLevels", levels=law.levels)
    weight = "Likelihood" if settings.flag("training.likelihood_weighting") else "SNR"
    warmup = described("training.Constant", warmup=int(settings.get("optim.warmup", default=0)))
    optimiser = {
        "lr": float(settings.get("optim.lr", default=2e-4)),
        "beta1": float(settings.get("optim.beta1", default=0.9)),
        "eps": float(settings.get("optim.eps", default=1e-8)),
        "schedule": warmup,
    }
    average = settings.get("model.ema_rate", default=0.9999)
    clip = float(settings.get("optim.grad_clip", default=-1.0))
    return {
        "loss": law.loss
        or described("losses.Denoising", time=time, weight={"class_path": f"scorefield.losses.{weight}"}),
        "optimiser": described("training.Adam", **optimiser),
        "batch_size": int(settings.get("training.batch_size", default=128)),
        "ema": float(average),
        "clip": clip if clip > 0 else None,
    }
