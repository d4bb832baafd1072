"""Files are denoised from the command line, by runs that learnt from noisy fields alone and by any others."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield import cli
from scorefield.data import Noisy
from scorefield.data.magnitude import without_bias
from scorefield.data.noisy import estimate_noise
from scorefield.data.single import read_fields
from scorefield.datasets import Digits
from scorefield.foundation.errors import InputError
from scorefield.run import loading

RECIPE = """
base: digits
model:
  normaliser:
    class_path: scorefield.data.Divide
    init_args: {scale: 6.0}
  net:
    init_args: {channels: 16, blocks: 1, attention: []}
data:
  class_path: scorefield.data.Noisy
  init_args:
    noise: 3.0
    source:
      class_path: scorefield.datasets.Digits
train:
  loss:
    class_path: scorefield.losses.Sum
    init_args:
      losses:
        - class_path: scorefield.losses.SURE
          init_args:
            weight: {class_path: scorefield.losses.EDMWeight}
        - class_path: scorefield.losses.Ambient
          init_args:
            time: {class_path: scorefield.losses.LogNormal}
            weight: {class_path: scorefield.losses.EDMWeight}
  optimiser:
    class_path: scorefield.training.Adam
    init_args: {lr: 5.0e-3}
  steps: 150
  batch_size: 32
  ema: 0.9
  validate_every: 75
  validate_on: 64
  log_every: 10
  preview_every: 1000
  checkpoint_every: 150
  precision: bf16-mixed
  accelerator: cpu
"""


def train(folder: Path, *more: str) -> Path:
    (folder / "noisy.yaml").write_text(RECIPE)
    assert cli.main(["train", str(folder / "noisy.yaml"), "--out", str(folder / "run"), *more]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Hardly trained."""
    return train(tmp_path_factory.mktemp("noisy"), "--train.steps", "2", "--train.precision", "32-true")


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Held-out digits, clean and with the noise that the run never saw."""
    rows = torch.arange(64)
    return Digits().load("valid").gather(rows).x, Noisy(Digits(), 3.0, seed=7).load("valid").gather(rows).x


@pytest.mark.slow
def test_a_run_on_noisy_fields_alone_denoises(tmp_path: Path, digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    (clean, noisy), run = digits, train(tmp_path)
    model = loading.load(run)
    error = (model.denoise(noisy, 3.0) - clean).square().mean()
    assert float(error) < 0.6 * 9  # a run of seconds has nearly half the variance of the noise out
    alone = torch.cat([model.denoise(row[None], torch.tensor([3.0])) for row in noisy[:3]])
    torch.testing.assert_close(alone, model.denoise(noisy, torch.full((64,), 3.0))[:3], rtol=1e-4, atol=1e-3)
    log = np.genfromtxt(run / "logs" / "valid.csv", delimiter=",", names=True)
    assert {"noise_nrmse", "image_nrmse"} <= set(log.dtype.names)
    # 64 fields of 64 values, seen through SURE: 3 % and what the two sets of digits differ by
    assert log["noise_nrmse"][-1] == pytest.approx(float((error / 9).sqrt()), rel=0.15)
    assert log["image_nrmse"][-1] == pytest.approx(float((error / clean.square().mean()).sqrt()), rel=0.15)


def test_files_are_denoised(run: Path, digits: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, capsys) -> None:
    _, noisy = digits
    np.save(tmp_path / "many.npy", noisy[:, 0].numpy())
    np.save(tmp_path / "one.npy", noisy[3, 0].numpy())
    files = [str(tmp_path / name) for name in ("many.npy", "one.npy")]
    assert cli.main(["denoise", str(run), *files, "--noise", "3", "--out", str(tmp_path / "out")]) == 0
    many, one = np.load(tmp_path / "out" / "many.npy"), np.load(tmp_path / "out" / "one.npy")
    assert many.shape == (64, 1, 8, 8) and one.shape == (1, 1, 8, 8)
    np.testing.assert_allclose(one[0], many[3], rtol=1e-4, atol=1e-3)
    assert Image.open(tmp_path / "out" / "many.png").width > 100
    record = json.loads((tmp_path / "out" / "denoising.json").read_text())
    assert record["files"]["one"]["noise"] == [3.0] and not record["estimated"]
    assert "64 fields, noise 3 (as given)" in capsys.readouterr().out
    again = ["denoise", str(run), files[0], "--noise", "3", "--out", str(tmp_path / "out")]
    assert cli.main(again) == 2 and "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--noise", "-1"], "--noise is -1.0: give a number above 0"),
        (["--noise", "1e6"], "is no level of the schedule, which has those from"),
        ([], "no noise can be found"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(run: Path, tmp_path: Path, capsys, arguments: list[str], says: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((8, 8), np.float32))
    assert cli.main(["denoise", str(run), str(tmp_path / "x.npy"), "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_fields_are_read_in_every_layout(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 2, 9, 7)).astype(np.float32)
    z = x[:, 0] + 1j * x[:, 1]

    def load(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        np.save(tmp_path / "x.npy", array)
        fields = read_fields(tmp_path / "x.npy", shape)
        return fields.gather(torch.arange(len(fields))).x.numpy()

    for array in (x, np.moveaxis(x, 1, -1), z, z[:, None]):
        np.testing.assert_array_equal(load(array, (2, 192, 224)), x)
    for array in (x[0], np.moveaxis(x[0], 0, -1), z[0]):
        np.testing.assert_array_equal(load(array, (2, 192, 224)), x[:1])
    for array in (x[:, 0], x[:, :1]):
        np.testing.assert_array_equal(load(array, (1, 64, 64)), x[:, :1])
    with pytest.raises(InputError, match="2 channels on grids of 2 axes"):
        load(x[:, 0], (2, 9, 7))


def test_noise_is_estimated_from_fields_with_edges(data_folder: Path) -> None:
    """To 10 % on a real brain slice, whose own finest details count as noise."""
    image = torch.from_numpy(np.load(data_folder / "mri" / "brain7T_512_magnitude_pysap.npy").astype(np.float32))
    image = image[None, None] / image.max()
    for noise in (0.05, 0.1):
        y = image + noise * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        assert float(estimate_noise(y)) == pytest.approx(noise, rel=0.1)
    white = 0.3 * torch.randn(4, 2, 40, 41, generator=torch.Generator().manual_seed(0))
    white[..., :10] = 0  # a margin that was filled up
    torch.testing.assert_close(estimate_noise(white), torch.full((4,), 0.3), rtol=0.1, atol=0)
    assert estimate_noise(torch.zeros(1, 1, 8)).tolist() == [0]


def test_magnitudes_lose_the_bias_of_their_noise(run: Path, tmp_path: Path, capsys) -> None:
    """Their mean by the model, and then the x that has this mean; the noise from the dark part of the image."""
    rng, x = np.random.default_rng(0), np.zeros((16, 8, 8))
    x[:, 4:] = 15.0
    y = np.abs(x + 3.0 * (rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape))).astype(np.float32)
    np.save(tmp_path / "m.npy", y)
    call = ["denoise", str(run), str(tmp_path / "m.npy"), "--magnitudes-of", "1", "--out"]
    assert cli.main([*call, str(tmp_path / "out")]) == 0
    (level,) = set(json.loads((tmp_path / "out" / "denoising.json").read_text())["files"]["m"]["noise"])
    assert level == pytest.approx(3.0, rel=0.2)
    mean = loading.load(run).denoise(torch.from_numpy(y)[:, None], level).clamp(min=0)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "m.npy"), without_bias(mean, level).numpy(), atol=1e-3)
    assert cli.main([*call, str(tmp_path / "b"), "--noise", "3"]) == 0
    said = capsys.readouterr().err
    assert "times what" not in said and "darkest pixels look like noise" not in said
    assert cli.main([*call, str(tmp_path / "c"), "--noise", "9"]) == 0
    assert "--noise is 3 times what its darkest pixels" in capsys.readouterr().err
    rising = np.linspace(4, 50, 64, dtype=np.float32).reshape(8, 8)  # spread as Rayleigh has it, without any noise
    np.save(tmp_path / "m.npy", np.tile(rising, (16, 1, 1)))
    assert cli.main([*call, str(tmp_path / "e")]) == 0
    assert "darkest pixels look like noise" in capsys.readouterr().err
    np.save(tmp_path / "m.npy", y - 5)
    assert cli.main([*call, str(tmp_path / "d")]) == 2 and "holds no magnitudes" in capsys.readouterr().err


def test_noise_that_varies_over_the_field_is_made_even(run: Path, tmp_path: Path, capsys) -> None:
    y = 3 * np.random.default_rng(0).standard_normal((5, 8, 8)).astype(np.float32)
    even, uneven = np.full((8, 8), 3.0), 3.0 * np.linspace(0.5, 1.5, 64).reshape(8, 8)
    for name, values in (
        ("y", y),
        ("even", even),
        ("uneven", uneven),
        ("each", np.stack([uneven] * 5)),
        ("bad", even - 3),
    ):
        np.save(tmp_path / f"{name}.npy", values)

    def denoised(out: str, *options: str) -> np.ndarray:
        call = ["denoise", str(run), str(tmp_path / "y.npy"), "--out", str(tmp_path / out), *options]
        assert cli.main(call) == 0
        return np.load(tmp_path / out / "y.npy")

    as_one = denoised("a", "--noise", "3")
    np.testing.assert_allclose(denoised("b", "--noise-map", str(tmp_path / "even.npy")), as_one, atol=1e-4)
    found = denoised("c", "--noise-map", str(tmp_path / "uneven.npy"))
    np.testing.assert_allclose(denoised("d", "--noise-map", str(tmp_path / "each.npy")), found, atol=1e-4)
    level = float(np.sqrt((uneven**2).mean()))
    relative = torch.from_numpy((uneven / level).astype(np.float32))
    expected = relative * loading.load(run).denoise(torch.from_numpy(y)[:, None] / relative, level)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)
    bad = ["denoise", str(run), str(tmp_path / "y.npy"), "--out", str(tmp_path / "e"), "--noise-map"]
    assert cli.main([*bad, str(tmp_path / "bad.npy")]) == 2 and "standard deviations > 0" in capsys.readouterr().err
    for values in (np.full((8, 8), "3"), np.ones((0, 8)), np.ones((8, 8)) * 1j):
        np.save(tmp_path / "bad.npy", values)
        assert cli.main([*bad, str(tmp_path / "bad.npy")]) == 2
        assert "a standard deviation for every point" in capsys.readouterr().err
    assert cli.main([*bad, str(tmp_path / "even.npy"), "--noise", "3"]) == 2 and not (tmp_path / "e").exists()
