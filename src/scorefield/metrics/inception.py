"""Feature networks for images from local files: Inception-v3 and others, on images of 8 bits."""

from __future__ import annotations

import hashlib
import pickle
from abc import ABC
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scorefield.foundation.errors import InputError, brief
from scorefield.metrics.features import Features

KNOWN = {"f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4": "inception-2015-12-05.pt"}
FLAT = 0.02  # of [low, high]: a batch that spans less is not in these units


def quantise(
    x: Float[Tensor, "batch channels height width"], low: float, high: float
) -> UInt8[Tensor, "batch 3 height width"]:
    """Colour images of 8 bits, round(255 (x - low)/(high - low)) within 0 to 255; grey ones have three equal channels.

    Raises:
        InputError: neither grey nor colour, or values that are clearly in other units.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise InputError(f"The feature network needs images of 1 or 3 channels, not {tuple(x.shape[1:])}.")
    if not bool(torch.isfinite(x).all()):
        raise InputError("Some samples are not finite: their features would be without meaning.")
    least, most = (float(value) for value in x.aminmax())
    outside = float(((x < low) | (x > high)).float().mean())
    if most - least < FLAT * (high - low) or outside > 0.5:
        raise InputError(
            f"A batch of images has values from {least:.3g} to {most:.3g}, but {low:g} to {high:g} is expected: "
            "give low and high of the features, the values of black and white (or the images are blank)."
        )
    image = (255 * (x - low) / (high - low)).round().clamp(0, 255).to(torch.uint8)
    return image.expand(-1, 3, -1, -1)


class ImageNetwork(Features, ABC):
    """A network on images of 8 bits, read from a file.

    Args:
        path: the file.
        low: the value of black in data units.
        high: the value of white.
    """

    customary = True

    def __init__(self, path: Path, low: float, high: float) -> None:
        super().__init__()
        if not low < high:
            raise InputError(f"low = {low:g} is not below high = {high:g}: give the values of black and white.")
        self.low, self.high = low, high
        self.preprocessing = (
            f"[{low:g}, {high:g}] rounded to 8 bits, grey repeated to 3 channels, resized by the network"
        )
        self.source = file_hash(Path(path))


class TorchScript(ImageNetwork):
    """A TorchScript network that takes 8-bit images, such as the Inception-v3 of StyleGAN and EDM, inception-2015-12-05.pt.

    It is called as net(images, return_features=True), images (batch, 3, height, width) uint8, and resizes by itself; where it
    knows `no_output_bias`, net(images, no_output_bias=True) are probabilities, as the Inception score is customarily computed.

    TorchScript is a program: it is run only if its SHA-256 is that of a well-known file, or the one that you give.

    Args:
        path: the file, which you have; nothing is downloaded.
        sha256: of the file, to say that you know it.
        low: the value of black in data units.
        high: the value of white.
    """

    def __init__(self, path: Path, sha256: str = "", low: float = 0.0, high: float = 255.0) -> None:
        super().__init__(path, low, high)
        if self.source != sha256.lower() and (sha256 or self.source not in KNOWN):
            raise InputError(
                f"{path} is a program with the SHA-256 {self.source}, which is not {sha256 or 'a known one'}, and is not run: "
                "if the file is your own, give this as sha256 of the features."
            )
        try:
            self.net = torch.jit.load(str(path), map_location="cpu").eval()
            self.arguments = {argument.name for argument in self.net.forward.schema.arguments}
        except (RuntimeError, AttributeError, ValueError) as error:
            raise InputError(f"{path} is no TorchScript network ({brief(error)}): give another file.") from error
        if "return_features" not in self.arguments:
            raise InputError(f"{path} does not take return_features=True: give a network that returns features.")

    def forward(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch dim"]:
        return self.net(quantise(x, self.low, self.high), return_features=True).float()

    def probabilities(
        self, x: Float[Tensor, "batch channels *grid"], features: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch classes"] | None:
        if "no_output_bias" not in self.arguments:
            return None
        return self.net(quantise(x, self.low, self.high), no_output_bias=True).float()


class TorchFidelity(ImageNetwork):
    """Inception-v3 as torch-fidelity converted it, for weights-inception-2015-12-05-6726825d.pth; needs that package.

    Args:
        path: the file with the weights, which you have; nothing is downloaded, and nothing pickled in it is executed.
        low: the value of black in data units.
        high: the value of white.
    """

    def __init__(self, path: Path, low: float = 0.0, high: float = 255.0) -> None:
        super().__init__(path, low, high)
        try:
            torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity itself would run what is in it
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise InputError(f"{path} holds other things than weights: give weights-inception-2015-12-05.") from error
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-not-found]
                FeatureExtractorInceptionV3,
            )
        except ImportError as error:
            raise InputError(f"torch-fidelity cannot be used ({error}): pip install torch-fidelity.") from error
        try:
            self.net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
        except RuntimeError as error:
            raise InputError(f"{path} holds weights of another network: give weights-inception-2015-12-05.") from error

    def forward(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch dim"]:
        return self.net(quantise(x, self.low, self.high))[0]

    def probabilities(
        self, x: Float[Tensor, "batch channels *grid"], features: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch classes"] | None:
        return (features @ self.net.fc.weight.T).softmax(1)  # without the bias, as is customary


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    if not path.is_file():
        raise InputError(f"There is no file {path}: give the path of the feature network's weights.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
