"""Networks. They know nothing of SDEs, data or configuration."""

from scorefield.nn.blind import Blind
from scorefield.nn.encoder import Encoder
from scorefield.nn.fno import FNO
from scorefield.nn.located import Located
from scorefield.nn.ncsn import NCSN
from scorefield.nn.ncsnpp import NCSNpp
from scorefield.nn.ncsnv2 import NCSNv2
from scorefield.nn.network import Network
from scorefield.nn.unet import UNet
from scorefield.nn.uno import UNO

__all__ = ["FNO", "NCSN", "UNO", "Blind", "Encoder", "Located", "NCSNpp", "NCSNv2", "Network", "UNet"]
