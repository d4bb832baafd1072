"""Data: where fields come from, how they are normalised, and how a run looks at them first."""

from scorefield.data.arrays import Arrays
from scorefield.data.augment import Augment, Dequantise, DropLabel, Flip
from scorefield.data.batch import Batch
from scorefield.data.climate import Climate
from scorefield.data.crop import CentreCrop, Crop, Square
from scorefield.data.fields import Fields
from scorefield.data.huggingface import HuggingFace
from scorefield.data.images import Images
from scorefield.data.loader import Loader, Sequential
from scorefield.data.normalise import Centre, Identity, Normaliser, Standardise, UnitRange
from scorefield.data.source import Digits, Source, Tensors, Wrapped

__all__ = [
    "Arrays",
    "Augment",
    "Batch",
    "Centre",
    "CentreCrop",
    "Climate",
    "Crop",
    "Dequantise",
    "Digits",
    "DropLabel",
    "Fields",
    "Flip",
    "HuggingFace",
    "Identity",
    "Images",
    "Loader",
    "Normaliser",
    "Sequential",
    "Source",
    "Square",
    "Standardise",
    "Tensors",
    "UnitRange",
    "Wrapped",
]
