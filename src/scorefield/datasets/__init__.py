"""Data sets by name: what comes with a package, what is generated, and what a published file holds."""

from scorefield.datasets.channels import Channels
from scorefield.datasets.digits import Digits
from scorefield.datasets.interferograms import Interferograms
from scorefield.datasets.terrain import Terrain
from scorefield.datasets.volcano import Volcano
from scorefield.datasets.vorticity import NavierStokes

__all__ = ["Channels", "Digits", "Interferograms", "NavierStokes", "Terrain", "Volcano"]
