"""Data sets by name: what comes with a package, what is generated, and what a published file holds."""

from scorefield.datasets.celeba import CelebA
from scorefield.datasets.channels import Channels
from scorefield.datasets.cifar import CIFAR10, CIFAR100
from scorefield.datasets.digits import Digits
from scorefield.datasets.interferograms import Interferograms
from scorefield.datasets.lsun import LSUN
from scorefield.datasets.mnist import MNIST
from scorefield.datasets.terrain import Terrain
from scorefield.datasets.tfrecords import TFRecords
from scorefield.datasets.volcano import Volcano
from scorefield.datasets.vorticity import NavierStokes
from scorefield.datasets.webdataset import WebDataset

__all__ = [
    "CIFAR10", "CIFAR100", "LSUN", "MNIST", "CelebA", "Channels", "Digits", "Interferograms", "NavierStokes",
    "TFRecords", "Terrain", "Volcano", "WebDataset",
]  # fmt: skip
