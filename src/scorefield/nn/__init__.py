"""Networks. They know nothing of SDEs, data or configuration."""

from scorefield.nn.ddpm import DDPMUNet
from scorefield.nn.encoder import Encoder
from scorefield.nn.fno import FNO
from scorefield.nn.magnitude import MagnitudeUNet
from scorefield.nn.ncsn import NCSN
from scorefield.nn.ncsnpp import NCSNpp
from scorefield.nn.ncsnv2 import NCSNv2
from scorefield.nn.network import Network
from scorefield.nn.unet import UNet
from scorefield.nn.uno import UNO
from scorefield.nn.wrappers import Deterministic, LearnedPositionMaps

__all__ = [
    "FNO", "NCSN", "UNO", "DDPMUNet", "Deterministic", "Encoder", "LearnedPositionMaps", "MagnitudeUNet", "NCSNpp", "NCSNv2",
    "Network", "UNet",
]  # fmt: skip
