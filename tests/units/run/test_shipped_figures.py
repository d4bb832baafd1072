"""Models that come with scorefield are worth about what their cards say; that of brain-t1 is in tests/units/mri/test_brain_t1.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield
from scorefield.datasets import Digits
from scorefield.metrics.features import train_classifier
from scorefield.metrics.neighbours import two_sample_accuracy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]


def test_digits_are_hardly_told_from_those_held_out() -> None:
    held = Digits().load("valid")
    truth = held.gather(torch.arange(len(held))).x
    drawn = scorefield.load("digits").sample(len(truth), seed=0)
    found = two_sample_accuracy(drawn.flatten(1), truth.flatten(1).to(drawn))
    assert found.accuracy < 0.63


def test_a_classifier_of_mnist_is_sure_of_what_is_drawn_and_sees_all_digits(data_folder: Path) -> None:
    """Of test images it is sure (above 0.9) of 95 %; of white noise of next to none."""
    with np.load(data_folder / "images/mnist_70k.npz") as file:
        x, labels, held = (torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test"))
    classifier = train_classifier((x[:20000, None].float(), labels[:20000].long()), classes=10, steps=300)
    drawn = scorefield.load("mnist").sample(300, seed=0)

    def sure(images: torch.Tensor) -> tuple[float, int]:
        with torch.no_grad():
            shares = classifier.probabilities(images, classifier(images))
        assert shares is not None
        return float((shares.amax(1) > 0.9).double().mean()), len(shares.argmax(1).unique())

    share, classes = sure(drawn)
    assert classes == 10 and share > sure(held[:1000, None].float())[0] - 0.12
