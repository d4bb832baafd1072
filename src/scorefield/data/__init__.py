"""Data: where fields come from, how they are normalised, and how a run looks at them first."""

from scorefield.data.affine import RandomAffine
from scorefield.data.arrays import Arrays
from scorefield.data.augment import Augment, Dequantise, DropLabel, Flip
from scorefield.data.batch import Batch
from scorefield.data.decode import CentreCrop, Crop, Square
from scorefield.data.fields import FieldDataset
from scorefield.data.functions import Functions
from scorefield.data.huggingface import HuggingFace
from scorefield.data.images import Images
from scorefield.data.loader import Loader, Sequential
from scorefield.data.noisy import Measured, Noisy
from scorefield.data.normalise import Centre, Divide, Identity, Normaliser, Standardise, UnitRange
from scorefield.data.simulations import Simulations
from scorefield.data.source import Source, Tensors, Wrapped

__all__ = [
    "Arrays", "Augment", "Batch", "Centre", "CentreCrop", "Crop", "Dequantise", "Divide", "DropLabel",
    "FieldDataset", "Flip", "Functions", "HuggingFace", "Identity", "Images", "Loader", "Measured", "Noisy",
    "Normaliser", "RandomAffine", "Sequential", "Simulations", "Source", "Square", "Standardise", "Tensors", "UnitRange",
    "Wrapped",
]  # fmt: skip
