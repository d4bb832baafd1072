"""Feature networks from local files: called as their authors call them, run only if known, fed with 8-bit images."""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.metrics.inception import TorchFidelity, TorchScript, quantise


class Detector(nn.Module):
    """Of the calling convention of StyleGAN's Inception: 8-bit colour images in, features or probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(6, 4)

    def forward(self, img: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        assert img.dtype == torch.uint8 and img.shape[1] == 3
        features = nn.functional.adaptive_avg_pool2d((img.float() - 128) / 128, [2, 1]).flatten(1)
        if return_features:
            return features
        bias = torch.zeros_like(self.output.bias) if no_output_bias else self.output.bias
        return nn.functional.linear(features, self.output.weight, bias).softmax(1)


class Headless(nn.Module):
    def forward(self, img: Tensor, return_features: bool = True) -> Tensor:
        return img.float().flatten(1)


class Other(nn.Module):
    def forward(self, img: Tensor) -> Tensor:
        return img.float().flatten(1)


def scripted(net: nn.Module, path: Path) -> str:
    torch.jit.script(net).save(str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Detector]:
    torch.manual_seed(0)
    path, net = tmp_path_factory.mktemp("net") / "detector.pt", Detector()
    return path, scripted(net, path), net


def images(n: int = 5, channels: int = 3) -> Tensor:
    return torch.randint(256, (n, channels, 8, 6), generator=torch.Generator().manual_seed(0)).float()


def test_values_become_the_nearest_of_256() -> None:
    x = torch.tensor([0.0, 0.49, 0.51, 254.6, 300.0, -5.0]).reshape(1, 1, 2, 3)
    assert quantise(x, 0, 255).flatten().tolist()[:6] == [0, 0, 1, 255, 255, 0]
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        x = images()
        assert torch.equal(quantise(low + (high - low) * x / 255, low, high), x.to(torch.uint8))
    grey = quantise(images(channels=1), 0, 255)
    assert grey.shape == (5, 3, 8, 6) and torch.equal(grey[:, 0], grey[:, 2])


def test_other_units_and_other_shapes_are_named() -> None:
    for x in (images() / 255, images() / 127.5 - 1, 100 * images()):
        with pytest.raises(InputError, match="low and high"):
            quantise(x, 0, 255)
    with pytest.raises(InputError, match="1 or 3 channels"):
        quantise(images(channels=2), 0, 255)
    with pytest.raises(InputError, match="not finite"):
        quantise(images() * torch.nan, 0, 255)


def test_features_and_probabilities_are_the_networks(detector: tuple[Path, str, Detector]) -> None:
    path, sha256, net = detector
    features, x = TorchScript(path, sha256), images()
    found = features(x)
    torch.testing.assert_close(found, net(x.to(torch.uint8), return_features=True))
    torch.testing.assert_close(features.probabilities(x, found), net(x.to(torch.uint8), no_output_bias=True))
    unit = TorchScript(path, sha256.upper(), low=-1, high=1)
    assert torch.equal(unit(x / 127.5 - 1), found)
    assert features.source == sha256 and features.hash == TorchScript(path, sha256).hash != unit.hash
    assert "[-1, 1] rounded to 8 bits" in unit.preprocessing


def test_an_unknown_program_is_not_run(detector: tuple[Path, str, Detector], monkeypatch: pytest.MonkeyPatch) -> None:
    path, sha256, _ = detector
    loaded = []
    monkeypatch.setattr("torch.jit.load", lambda *_, **__: loaded.append(1))
    for claimed in ("", "0" * 64):
        with pytest.raises(InputError, match=sha256):
            TorchScript(path, claimed)
    assert not loaded
    monkeypatch.undo()
    monkeypatch.setattr("scorefield.metrics.inception.KNOWN", {sha256: "detector.pt"})
    assert TorchScript(path).source == sha256
    with pytest.raises(InputError, match=sha256):
        TorchScript(path, "0" * 64)


def test_what_is_no_feature_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match="no TorchScript"):
        TorchScript(tmp_path / "junk.pt", hashlib.sha256(b"junk").hexdigest())
    with pytest.raises(InputError, match="return_features"):
        TorchScript(tmp_path / "other.pt", scripted(Other(), tmp_path / "other.pt"))
    with pytest.raises(InputError, match="no file"):
        TorchScript(tmp_path / "absent.pt")
    with pytest.raises(InputError, match="below"):
        TorchScript(tmp_path / "other.pt", low=1, high=0)
    features = TorchScript(tmp_path / "vgg.pt", scripted(Headless(), tmp_path / "vgg.pt"))
    assert features.probabilities(images(), features(images())) is None


class Extractor(nn.Module):
    """What torch-fidelity's constructor and output look like."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str) -> None:
        super().__init__()
        self.fc = nn.Linear(18, 4)
        self.load_state_dict(torch.load(feature_extractor_weights_path))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        assert x.dtype == torch.uint8
        return (nn.functional.adaptive_avg_pool2d(x.float(), (3, 2)).flatten(1),)


def test_torch_fidelity_is_used_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = nn.Linear(18, 4)
    torch.save({f"fc.{name}": value for name, value in weights.state_dict().items()}, tmp_path / "w.pth")
    for name in ("torch_fidelity", "torch_fidelity.feature_extractor_inceptionv3"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="pip install torch-fidelity"):
        TorchFidelity(tmp_path / "w.pth")
    module = types.SimpleNamespace(FeatureExtractorInceptionV3=Extractor)
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    features, x = TorchFidelity(tmp_path / "w.pth"), images()
    found = features(x)
    torch.testing.assert_close(found, nn.functional.adaptive_avg_pool2d(x, (3, 2)).flatten(1))
    torch.testing.assert_close(features.probabilities(x, found), (found @ weights.weight.T).softmax(1))
    torch.save({"fc.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match="other things than weights"):
        TorchFidelity(tmp_path / "trap.pth")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was executed",))
