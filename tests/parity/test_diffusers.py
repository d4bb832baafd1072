"""Pipelines of diffusers as they are saved: the same output, x̂ and steps of DDIM as its own, to 2e-5.

`diffusers/` holds pipelines that diffusers 0.42.1 (torch 2.13.0) built with random weights and saved, `expected.safetensors`
what its network and its DDIMScheduler make of noise at five of its times: `ddpm`, in the choices of google/ddpm-cifar10-32;
`classes`, in those of UNet2DModel itself, of three classes on 8 × 12 points; `sample`, which predicts x̂, of x in [0, 1].
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import scorefield
from scorefield.cli import main
from scorefield.core.schedule import Tabulated
from scorefield.core.sde import expand_like
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators

HERE = Path(__file__).with_name("diffusers")
CASES = ("ddpm", "classes", "sample")
# Keys that configurations of 2022 have not, such as those of google/ddpm-cifar10-32.
LATER = (
    "add_attention attn_norm_num_groups class_embed_type downsample_type dropout mid_block_type num_class_embeds "
    "num_train_timesteps resnet_time_scale_shift time_embedding_dim upsample_type"
)
LATER_SCHEDULE = (
    "clip_sample_range dynamic_thresholding_ratio prediction_type rescale_betas_zero_snr sample_max_value steps_offset "
    "thresholding timestep_spacing"
)


def imported(folder: Path, out: Path, *words: str) -> scorefield.Model:
    assert main(["import", str(folder), "--out", str(out), *words]) == 0
    return scorefield.load(out)


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference in parts of the largest value of a sample."""
    return float(((found - expected).flatten(1).abs().amax(1) / expected.flatten(1).abs().amax(1)).max())


def copied(case: str, folder: Path) -> Path:
    shutil.copytree(HERE / case, folder, ignore=shutil.ignore_patterns("expected.*"))
    return folder


def edited(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value != "left out"}))


@pytest.mark.parametrize("case", CASES)
def test_network_x_hat_and_steps_are_theirs(case: str, tmp_path: Path) -> None:
    """A step of DDIM goes from a level of their table to another, and from the last one to x̂."""
    model, expected = imported(HERE / case, tmp_path / "run"), load_file(HERE / case / "expected.safetensors")
    assert isinstance(model.sde.schedule, Tabulated)
    levels = len(model.sde.schedule)
    x, level, t = expected["x"], expected["t"], expected["t"].double() / (levels - 1)
    cond = {"label": expected["label"]} if "label" in expected else {}
    with torch.no_grad():
        output = model.denoiser.net(x, level.float(), cond)
        found = model.denoiser(x, t, cond)
        assert off(output, expected["output"]) < 2e-5
        for time in (t, t.float()):
            assert off(model.denoiser(x, time, cond), expected["denoised"]) < 2e-5
        before = (level - levels // 5).clamp(min=0).double() / (levels - 1)
        previous = []
        for i in range(len(x)):
            one = {name: value[i : i + 1] for name, value in cond.items()}
            generator = Generators([(0, i)])
            step, _ = scorefield.DDIM()(
                model.denoiser, x[i : i + 1], t[i], before[i], one, generator=generator, memory=None
            )
            previous.append(step if level[i] > 0 else found[i : i + 1])
    assert off(torch.cat(previous), expected["previous"]) < 2e-5
    alpha, sigma = model.sde.schedule(t)
    assert off(expand_like(alpha, x) * found + expand_like(sigma, x) * model.sde.epsilon(found, x, t), x) < 1e-4


def test_it_is_drawn_by_their_steps(tmp_path: Path, capsys: Any) -> None:
    """DDPM's with the upper variance over all levels; x̂, which theirs bounds, is not bounded, and that is said."""
    model = imported(HERE / "ddpm", tmp_path / "run")
    assert "clip_sample" in capsys.readouterr().err
    assert model.sampler == scorefield.Sampler(1000, scorefield.Ancestral(upper=True), scorefield.UniformGrid(0.0))
    assert model.shape == (3, 8, 8)
    x = model.sample(2, seed=0, sampler=scorefield.Sampler(3, scorefield.DDIM(), scorefield.UniformGrid(0.0)))
    assert x.shape == (2, 3, 8, 8) and float(x.std()) > 10  # images from 0 to 255
    assert float(model.normaliser(torch.full((1, 3, 8, 8), 255.0)).max()) == 1


def test_a_run_of_classes_asks_for_one_and_is_trained_on(tmp_path: Path) -> None:
    """It never learnt to do without a class, and so is not drawn from without."""
    model = imported(HERE / "classes", tmp_path / "run")
    with pytest.raises(InputError, match="never to do without"):
        model.sample(2)
    drawn = [
        "sample",
        str(tmp_path / "run"),
        "-n",
        "2",
        "--steps",
        "2",
        "--label",
        "2",
        "--out",
        str(tmp_path / "drawn"),
    ]
    assert main(drawn) == 0
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (12, 8, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(12) % 3)
    data = ["--data", "Arrays", "--data.path", str(tmp_path / "d.npz"), "--data.key", "x", "--data.labels", "y"]
    short = [
        "--train.steps",
        "2",
        "--train.batch_size",
        "2",
        "--train.validate_every",
        "0",
        "--train.preview_every",
        "0",
    ]
    assert main(["train", "--init", str(tmp_path / "run"), *data, *short, "--out", str(tmp_path / "more")]) == 0
    flow = ["train", "flow-map", "--init", str(tmp_path / "run"), *data, *short, "--out", str(tmp_path / "map")]
    assert main(flow) == 0


def test_other_layouts_and_older_names_are_the_same(tmp_path: Path) -> None:
    """A folder with all at its top, as google/ddpm-cifar10-32 is, with its keys and names; a .bin; a file with --config."""
    expected = imported(HERE / "ddpm", tmp_path / "run").state_dict()
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        shutil.copy(HERE / "ddpm" / file, flat)
    for name, later in (("config.json", LATER), ("scheduler_config.json", LATER_SCHEDULE)):
        edited(flat / name, **dict.fromkeys(later.split(), "left out"))
    weights = load_file(HERE / "ddpm" / "unet" / "diffusion_pytorch_model.safetensors")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, name in old.items():
        weights = {key.replace(f".{new}.", f".{name}."): value for key, value in weights.items()}
    torch.save(weights, flat / "diffusion_pytorch_model.bin")
    alone = tmp_path / "alone"
    shutil.copytree(HERE / "ddpm" / "unet", alone)
    file, plan = alone / "diffusion_pytorch_model.safetensors", HERE / "ddpm" / "scheduler" / "scheduler_config.json"
    for number, words in enumerate(([str(flat)], [str(file), "--config", str(plan)])):
        out = tmp_path / f"other-{number}"
        assert main(["import", *words, "--out", str(out)]) == 0
        for name, value in scorefield.load(out).state_dict().items():
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_a_table_of_any_kind_is_one_that_falls(kind: str, tmp_path: Path) -> None:
    folder = copied("ddpm", tmp_path / "p")
    edited(folder / "scheduler" / "scheduler_config.json", beta_schedule=kind, num_train_timesteps=50)
    schedule = imported(folder, tmp_path / "run").sde.schedule
    table = schedule.alpha(torch.linspace(0, 1, 50, dtype=torch.float64))
    assert isinstance(schedule, Tabulated) and len(schedule) == 50 and bool((table.diff() < 0).all())
    edited(folder / "scheduler" / "scheduler_config.json", trained_betas=[0.1, 0.2, 0.3], beta_schedule="any")
    schedule = imported(folder, tmp_path / "listed").sde.schedule
    torch.testing.assert_close(
        schedule.alpha(torch.linspace(0, 1, 3)) ** 2, torch.tensor([0.9, 0.72, 0.504]), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        (
            "unet/config.json",
            {"down_block_types": ["SkipDownBlock2D", "AttnDownBlock2D", "DownBlock2D"]},
            "SkipDownBlock2D",
        ),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "time_embedding_type is fourier"),
        ("unet/config.json", {"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift is scale_shift"),
        ("unet/config.json", {"downsample_type": "resnet"}, "downsample_type is resnet"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type is timestep"),
        ("unet/config.json", {"act_fn": "gelu"}, "act_fn is gelu"),
        ("unet/config.json", {"novelty": 3}, "novelty is 3"),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ("unet/config.json", {"in_channels": 6}, "in_channels is 6"),
        ("unet/config.json", {"freq_shift": 0.5}, "freq_shift is 0.5"),
        ("unet/config.json", {"downsample_padding": 2}, "downsample_padding is 2"),
        ("unet/config.json", {"time_embedding_dim": 7}, "time_embedding_dim is 7"),
        ("unet/config.json", {"attention_head_dim": 3}, "heads"),
        ("unet/config.json", {"norm_num_groups": 3}, "3 groups"),
        ("unet/config.json", {"layers_per_block": 2}, "another network's weights"),
        ("unet/config.json", {"layers_per_block": 10**6}, "more"),
        ("unet/config.json", {"block_out_channels": [8, 16]}, "down_block_types"),
        ("unet/config.json", {"block_out_channels": "wide"}, "down_block_types"),
        ("unet/config.json", {"norm_eps": "small"}, "not as its program"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "steep"}, "beta_schedule is steep"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type is flow"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned_range"}, "variance_type is learned_range"),
        ("scheduler/scheduler_config.json", {"_class_name": "ScoreSdeVeScheduler"}, "ScoreSdeVeScheduler"),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "use_karras_sigmas is True"),
        ("scheduler/scheduler_config.json", {"beta_end": 2.0}, "beta_end 2"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "more"),
        ("model_index.json", {"_class_name": "LDMPipeline"}, "LDMPipeline"),
    ],
)
def test_what_is_not_ours_is_refused_by_key_and_value(
    file: str, changes: dict[str, Any], said: str, tmp_path: Path, capsys: Any
) -> None:
    folder = copied("ddpm", tmp_path / "p")
    edited(folder / file, **changes)
    assert main(["import", str(folder), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1, error
    assert not (tmp_path / "run").exists()


def test_a_folder_that_lacks_a_part_says_which(tmp_path: Path, capsys: Any) -> None:
    folder = copied("ddpm", tmp_path / "p")
    command = ["import", str(folder), "--out", str(tmp_path / "run")]
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:5000])
    assert main(command) == 2 and "not a whole safetensors" in capsys.readouterr().err
    tensors = load_file(HERE / "ddpm" / "unet" / weights.name)
    save_file({name: value for name, value in tensors.items() if name != "conv_in.bias"}, str(weights))
    assert main(command) == 2 and "lack conv_in.bias" in capsys.readouterr().err
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert main(command) == 2 and "--config" in capsys.readouterr().err
    weights.unlink()
    assert main(command) == 2 and "diffusion_pytorch_model" in capsys.readouterr().err
