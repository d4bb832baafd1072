"""What augmentation has done is told to the network, which does without where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import scorefield
from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.nn import DDPMUNet, NCSNpp, UNet
from scorefield.training.checkpoint import path_of, read

NETWORKS = {
    "NCSNpp": lambda **more: NCSNpp(
        1, 1, channels=8, multipliers=(1, 2), blocks=1, attention=(), init_scale=1.0, **more
    ),
    "classes": lambda **more: NCSNpp(
        1, 1, channels=8, multipliers=(1,), blocks=1, attention=(), init_scale=1.0, labels=2, labels_first=True, **more
    ),
    "UNet": lambda **more: UNet(1, 1, channels=8, multipliers=(1, 2), **more),
    "DDPMUNet": lambda **more: DDPMUNet(1, 1, widths=(8, 16), blocks=1, groups=4, **more),
}


def built(name: str, **more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name](**more).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_at_first_and_without_a_vector_it_is_the_network_that_it_was(name: str) -> None:
    x, label, told = torch.randn(3, 1, 8, 8), torch.rand(3), {"augment": torch.randn(3, 9)}
    plain, net = built(name), built(name, augmentations=9)
    torch.nn.init.normal_(plain.last.weight if name == "UNet" else plain.last.convolution.weight)
    net.load_state_dict(plain.state_dict() | {"augment.weight": net.augment.weight})
    with torch.no_grad():
        assert torch.equal(net(x, label, told), plain(x, label))
        net.augment.weight.normal_()
        for cond in (None, {}, {"augment": torch.zeros(3, 9)}):
            assert torch.equal(net(x, label, cond), plain(x, label))
        assert not torch.allclose(net(x, label, told), plain(x, label))
    with pytest.raises(InputError, match="9 entries"):
        net(x, label, {"augment": torch.zeros(3, 4)})


def trained(out: Path, *words: str) -> dict[str, torch.Tensor]:
    given = [
        "--out",
        str(out),
        "--train.checkpoint_every",
        "3",
        "--train.batch_size",
        "8",
        "--train.validate_every",
        "0",
    ]
    assert main(["train", *words, *given, "--train.preview_every", "0"]) == 0
    return read(path_of(out / "checkpoints", 6)).tensors


CHANGED = ["--train.augment", '[{"class_path": "RandomAffine", "init_args": {"probability": 0.5}}]']


def test_a_run_takes_it_by_itself_and_is_resumed_as_if_never_stopped(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "digits", *CHANGED, "--train.steps", "6")
    assert main(["train", "digits", *CHANGED, "--train.steps", "3", "--train.batch_size", "8", "--out", str(tmp_path / "cut"),
                 "--train.checkpoint_every", "3", "--train.validate_every", "0", "--train.preview_every", "0"]) == 0  # fmt: skip
    resumed = trained(tmp_path / "cut", "--resume", "--train.steps", "6")
    assert whole["net.augment.weight"].shape[1] == 9 and whole["net.augment.weight"].any()
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    model = scorefield.load(tmp_path / "whole")
    assert model.sample(2, seed=0, chunk=2).isfinite().all()


def test_a_run_that_never_had_it_begins_with_it(tmp_path: Path) -> None:
    base = trained(tmp_path / "base", "digits", "--train.steps", "6")
    more = ["--init", str(tmp_path / "base"), *CHANGED, "--train.steps", "6", "--train.optimiser.lr", "1e-12"]
    tuned = trained(tmp_path / "tuned", *more)
    for name in (name for name in base if name.startswith("ema.")):  # what a run is begun with
        torch.testing.assert_close(tuned[name.replace("ema.", "net.", 1)], base[name])


def test_a_network_that_cannot_take_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits", "--model.net", "FNO", *CHANGED, "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "RandomAffine tells the network" in capsys.readouterr().err
    with pytest.raises(InputError, match="conditional"):
        built("NCSNpp", conditional=False, augmentations=9)
