"""What Lightning Fabric has to know of processes that torchrun or Slurm's srun started."""

from __future__ import annotations

import os

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from scorefield.foundation.launch import Started

PORTS = 15_000  # from here on, one for each step of each job, so that those on one machine do not meet


class Cluster(ClusterEnvironment):
    """Processes that exist; Fabric starts none.

    Args:
        started: which process this is of how many.
    """

    def __init__(self, started: Started) -> None:
        super().__init__()
        self.started = started

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        """Of the first machine."""
        names = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_NODELIST", "127.0.0.1"))
        return os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(names)

    @property
    def main_port(self) -> int:
        job = int(os.environ.get("SLURM_JOB_ID", "0")) + int(os.environ.get("SLURM_STEP_ID", "0"))
        return int(os.environ.get("MASTER_PORT", PORTS + job % 10_000))

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.started.count

    def set_world_size(self, size: int) -> None:
        """It is what it is."""

    def global_rank(self) -> int:
        return self.started.rank

    def set_global_rank(self, rank: int) -> None:
        """It is what it is."""

    def local_rank(self) -> int:
        return self.started.local

    def node_rank(self) -> int:
        return self.started.rank // (self.started.count // self.started.nodes)
