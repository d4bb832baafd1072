"""Networks. They know nothing of SDEs, data or configuration."""

from scorefield.nn.ncsnpp import NCSNpp
from scorefield.nn.network import Network

__all__ = ["NCSNpp", "Network"]
