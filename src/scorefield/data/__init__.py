"""Data: where fields come from, how they are normalised, and how a run looks at them first."""

from scorefield.data.arrays import Arrays
from scorefield.data.augment import Augment, Dequantise, DropLabel, Flip
from scorefield.data.batch import Batch
from scorefield.data.channels import Channels
from scorefield.data.climate import Climate
from scorefield.data.crop import CentreCrop, Crop, Square
from scorefield.data.fields import Fields
from scorefield.data.functions import Functions
from scorefield.data.huggingface import HuggingFace
from scorefield.data.images import Images
from scorefield.data.interferograms import Interferograms
from scorefield.data.loader import Loader, Sequential
from scorefield.data.noisy import Measured, Noisy
from scorefield.data.normalise import Centre, Divide, Identity, Normaliser, Standardise, UnitRange
from scorefield.data.source import Digits, Source, Tensors, Wrapped
from scorefield.data.terrain import Terrain
from scorefield.data.volcano import Volcano
from scorefield.data.vorticity import NavierStokes
from scorefield.data.windows import Windows

__all__ = [
    "Arrays",
    "Augment",
    "Batch",
    "Centre",
    "CentreCrop",
    "Channels",
    "Climate",
    "Crop",
    "Dequantise",
    "Digits",
    "Divide",
    "DropLabel",
    "Fields",
    "Flip",
    "Functions",
    "HuggingFace",
    "Identity",
    "Images",
    "Interferograms",
    "Loader",
    "Measured",
    "NavierStokes",
    "Noisy",
    "Normaliser",
    "Sequential",
    "Source",
    "Square",
    "Standardise",
    "Tensors",
    "Terrain",
    "UnitRange",
    "Volcano",
    "Windows",
    "Wrapped",
]
