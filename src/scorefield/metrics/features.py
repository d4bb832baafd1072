"""Features of samples in data units, by which sets of samples are compared."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import replacing

BATCH = 512  # samples at a time, where a whole set is given


class Features(nn.Module, ABC):
    """A map from samples in data units to vectors.

    Attributes:
        preprocessing: what is done to the values first, to be reported with every figure.
        source: SHA-256 of the file that it was read from, where there is one.
        customary: whether kernel distances are of the vectors as they are, as for networks by which results are published;
            otherwise of vectors less the mean of the data, divided by their spread.
    """

    preprocessing: str = "values in data units"
    customary: bool = False
    source: str = ""

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch dim"]: ...

    @abstractmethod
    def probabilities(
        self, x: Float[Tensor, "batch channels *grid"], features: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch classes"] | None:
        """p(class | x), given x and its features; None where no classes are known."""

    @property
    def hash(self) -> str:
        """SHA-256 of its kind, preprocessing, file and weights, to say in a result what it was computed by."""
        digest = hashlib.sha256(f"{type(self).__name__} {self.preprocessing} {self.source}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Pixels(Features):
    """The values themselves."""

    def forward(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch dim"]:
        return x.flatten(1)

    def probabilities(
        self, x: Float[Tensor, "batch channels *grid"], features: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch classes"] | None:
        return None


def known(x: Tensor) -> Tensor:
    """x with 0 where it is NaN, not known: there fields of one region do not differ."""
    return x.where(~x.isnan(), 0.0)


class Projected(Features):
    """A random projection of the values to few dimensions, the same for the same seed and number of values.

    The values are dealt at random into equal groups; a feature is Σ ±x/√m over the m values of one group, with random
    signs (Charikar et al. 2002). The rows are thus orthonormal without any linear algebra that would differ between
    machines, and need no memory of (outputs, dim). A distance of features is about outputs/dim of that of the values,
    squared, and says nothing of what the rows do not see: compare figures of equal `hash` only. Up to `outputs` values
    are left as they are, and those that are not known, NaN, count as 0.

    Args:
        dim: the number of values of a field, all channels.
        outputs: features at most.
        seed: draws groups and signs.
    """

    group: Tensor
    weight: Tensor

    def __init__(self, dim: int, outputs: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.dim, self.outputs = dim, min(dim, outputs)
        generator = torch.Generator().manual_seed(seed)
        group = torch.randperm(dim, generator=generator) % self.outputs
        sign = 2.0 * torch.randint(2, (dim,), generator=generator) - 1
        weight = sign / group.bincount(minlength=self.outputs)[group].sqrt()
        if dim <= outputs:
            group, weight = torch.arange(dim), torch.ones(dim)
        self.register_buffer("group", group)
        self.register_buffer("weight", weight)

    def forward(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch dim"]:
        values = known(x).flatten(1)
        if values.shape[1] != self.dim:
            raise InputError(f"Fields of {values.shape[1]} values do not fit a projection of {self.dim} values.")
        return values.new_zeros(len(x), self.outputs).index_add_(1, self.group, values * self.weight)

    def probabilities(
        self, x: Float[Tensor, "batch channels *grid"], features: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch classes"] | None:
        return None


class Classifier(Features):
    """A small convolutional network for labelled images of any size; its features are those before the last layer.

    Three stages of two convolutions, each but the first at half the resolution, then the mean over the image. Inputs
    are standardised by buffers that `train_classifier` fills.

    Args:
        channels: of the images.
        classes: the number of labels.
        width: channels of the first stage; the features have 4 × width dimensions.
    """

    mean: Tensor
    std: Tensor
    held_out: Tensor

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.channels, self.classes, self.width = channels, classes, width
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self.register_buffer("held_out", torch.zeros(2, dtype=torch.int64))  # right answers, of how many
        layers: list[nn.Module] = []
        sizes = (channels, width, width, 2 * width, 2 * width, 4 * width, 4 * width)
        for i, (before, after) in enumerate(pairwise(sizes)):
            stride = 2 if i in (2, 4) else 1
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        return self.layers(((x - self.mean) / self.std).to(self.head.weight.dtype)).mean((2, 3))

    def probabilities(
        self, x: Float[Tensor, "batch channels *grid"], features: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch classes"] | None:
        return self.head(features).softmax(1)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Unnormalised log-probabilities of the classes."""
        return self.head(self(x))

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "n channels height width"]) -> Tensor:
        """The likeliest class of each sample, on the CPU."""
        return torch.cat([self.logits(part.to(self.mean.device)).argmax(1).cpu() for part in x.split(BATCH)])

    @property
    def accuracy(self) -> float:
        """The fraction of held-out samples it classified rightly after training; NaN without any."""
        right, n = self.held_out.tolist()
        return right / n if n else float("nan")

    def save(self, path: Path | str) -> None:
        """Write to a .safetensors file, which appears whole or not at all."""
        about = {"channels": self.channels, "classes": self.classes, "width": self.width}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        with replacing(Path(path)) as temporary:
            save_file(tensors, temporary, {"classifier": json.dumps(about)})

    @classmethod
    def load(cls, path: Path | str) -> Classifier:
        """Read what `save` wrote, ready for use."""
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["classifier"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            classifier = cls(about["channels"], about["classes"], about["width"])
            classifier.load_state_dict(tensors, strict=True)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(
                f"{path} does not hold a classifier ({brief(error)}): make it by Classifier.save."
            ) from error
        return classifier.eval().requires_grad_(False)


def train_classifier(
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor] | None = None,
    *,
    classes: int = 0,
    width: int = 32,
    steps: int = 600,
    batch_size: int = 128,
    seed: int = 0,
) -> Classifier:
    """Train a classifier; the same seed, data, machine and number of threads give the same weights.

    Args:
        train: samples (n, channels, height, width) in data units and their labels (n).
        held_out: samples and labels to measure the accuracy on.
        classes: the number of labels; by default one more than the largest.
        width: see `Classifier`.
        steps: of AdamW with one cycle of the learning rate.
        batch_size: samples in a step.
        seed: draws the initial weights and the batches.

    Raises:
        InputError: the samples are not images, or labels do not fit them.
    """
    x, labels = train
    if x.ndim != 4 or len(labels) != len(x):
        raise InputError(f"A classifier needs images (n, channels, height, width) with labels, not {tuple(x.shape)}.")
    classes = classes or int(labels.max()) + 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = Classifier(x.shape[1], classes, width).to(x.device).train()
        std, mean = torch.std_mean(x.double(), dim=(0, 2, 3), correction=0)
        classifier.mean.copy_(mean.reshape(-1, 1, 1))
        classifier.std.copy_(std.clamp(min=1e-12).reshape(-1, 1, 1))
        optimise(classifier, x, labels, steps, batch_size)
    classifier.eval().requires_grad_(False)
    if held_out is not None:
        right = int((classifier.predict(held_out[0]) == held_out[1].cpu()).sum())
        classifier.held_out.copy_(torch.tensor([right, len(held_out[1])]))
    return classifier


def optimise(classifier: Classifier, x: Tensor, labels: Tensor, steps: int, batch_size: int) -> None:
    """Minimise the cross-entropy with smoothed labels, on images shifted at random by up to a tenth of their size."""
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(order) < batch_size:
            order = torch.cat((order, torch.randperm(len(x))))
        chosen, order = order[:batch_size].to(x.device), order[batch_size:]
        logits = classifier.logits(shift(x[chosen]))
        optimiser.zero_grad()
        nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05).backward()
        optimiser.step()
        schedule.step()


def shift(x: Tensor) -> Tensor:
    """Shift a batch as one, by up to a tenth of its height and width; edges are repeated."""
    reach = [max(1, size // 10) for size in x.shape[2:]]
    dy, dx = (int(torch.randint(2 * r + 1, ())) for r in reach)
    padded = nn.functional.pad(x, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    return padded[:, :, dy : dy + x.shape[2], dx : dx + x.shape[3]]
