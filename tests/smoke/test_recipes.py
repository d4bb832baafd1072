"""Recipes and real files go through the real command line. (tests/units/test_recipes.py takes a step of every recipe.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import scorefield
from often import rarely, seldom
from scorefield.cli import main

SMALL = ["--model.net.channels=8", "--model.net.blocks=1", "--train.batch_size=4", "--train.validate_on=4"]
SHORT = ["--train.steps=1", "--model.sampler.steps=2", "--train.accelerator=cpu"]


LONGER = [seldom(name) for name in ("cifar10-ncsnpp-ve", "cifar10-ddpm-vp-discrete")]


@pytest.mark.parametrize("name", ["digits", seldom("images"), *LONGER])
def test_a_recipe_trains_and_samples(name: str, tmp_path: Path) -> None:
    data = ["--data=Digits", "--data.valid=8"]
    assert main(["train", name, "--out", str(tmp_path / "run"), *data, *SMALL, *SHORT]) == 0
    assert main(["sample", str(tmp_path / "run"), "-n", "2", "--out", str(tmp_path / "s"), "--chunk", "2"]) == 0
    assert np.load(tmp_path / "s" / "samples.npy").shape == (2, 1, 8, 8)


@pytest.mark.parametrize("name", ["digits-classifier"])
def test_a_classifier_trains_and_is_given_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As logits of its ten classes that change with the noise; and asked to draw samples, it says what it is."""
    out = tmp_path / "run"
    assert main(["train", name, "--out", str(out), "--data=Digits", *SMALL, *SHORT]) == 0
    model = scorefield.load(out, ema=False)
    x = torch.randn(3, 1, 8, 8)
    early, late = (model.denoiser(x, torch.tensor(t)) for t in (0.1, 0.9))
    assert model.classes == 10 and early.shape == (3, 10) and not torch.allclose(early, late)
    assert main(["sample", str(out), "-n", "2", "--out", str(tmp_path / "s")]) == 2
    assert "is a classifier" in capsys.readouterr().err and not (tmp_path / "s").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "path", "shape"),
    [
        ("Arrays", "images/mnist_70k.npz", (1, 28, 28)),
        ("Images", "images/sign_digits_100px_2059.zip", (3, 100, 100)),
    ],
)
def test_real_files(
    source: str,
    path: str,
    shape: tuple[int, ...],
    data_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = [f"--data={source}", f"--data.path={data_folder / path}"]
    command = [
        "train",
        "images",
        "--out",
        str(tmp_path / "run"),
        *data,
        *SMALL,
        *SHORT,
        "--model.net.multipliers=[1,1]",
    ]
    command += ["--model.net.attention=[]", "--train.preview_every=1"]
    assert main(command) == 0
    assert tuple(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["shape"]) == shape
    assert main(["check-data", str(data_folder / path), "--preview", str(tmp_path / "preview.png")]) == 0
    assert "sigma_max" in capsys.readouterr().out and (tmp_path / "preview.png").exists()


@pytest.mark.parametrize(
    "shape", [seldom((24, 3, 17)), (24, 2, 9, 11), seldom((24, 1, 5, 6, 7))], ids=["1-D", "2-D", "3-D"]
)
def test_fields_of_any_rank_size_and_number_of_channels(shape: tuple[int, ...], tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    data = ["--data=Arrays", f"--data.path={tmp_path / 'x.npy'}", "--data.channel_axis=first", "--data.valid=4"]
    net = ["--model.net.multipliers=[1,2]", "--model.net.attention=[1]", "--train.augment=[]"]
    command = ["train", "images", "--out", str(tmp_path / "run"), *data, *net, *SMALL, *SHORT]
    assert main(command) == 0
    assert main(["sample", str(tmp_path / "run"), "-n", "3", "--out", str(tmp_path / "s"), "--chunk", "3"]) == 0
    assert np.load(tmp_path / "s" / "samples.npy").shape == (3, *shape[1:])
    assert main(["evaluate", str(tmp_path / "run"), "-n", "4", "--seeds", "1", "--steps", "2", "--chunk", "4"]) == 0


@pytest.mark.parametrize(
    "name",
    rarely(
        ["volcano-grf", "volcano-indep", "terrain-grf", "navier-stokes-window", "navier-stokes-forecast"],
        ["volcano-grf"],
    ),
)
def test_a_recipe_of_functions_trains_and_samples_on_a_finer_grid(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    size = {"terrain-grf": 32}.get(name, 16)
    data, more = [f"--data.size={size}"], []
    if name == "terrain-grf":
        folder = request.getfixturevalue("data_folder")
        data.append(f"--data.path={folder / 'functions' / 'srtm3_volcano_tiles_dev8.npz'}")
    if name.startswith("navier-stokes"):
        small = {
            "sequences": 8,
            "frames": 3,
            "size": size,
            "spin_up": 0.1,
            "interval": 0.1,
            "cache": tmp_path / "n.npz",
            "valid": 2,
        }
        data = [f"--data.sequences.{key}={value}" for key, value in small.items()]
        more = ["--given", "valid"]
    small = ["--model.net.channels=8", "--model.net.modes=16", "--model.net.sizes=[8]", *SMALL[2:]]
    assert main(["train", name, "--out", str(tmp_path / "run"), *data, *small, *SHORT]) == 0
    draw = ["-n", "2", "--chunk", "2", "--resolution", str(2 * size), *more]
    assert main(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "s"), *draw]) == 0
    assert np.load(tmp_path / "s" / "samples.npy").shape[2:] == (2 * size, 2 * size)
