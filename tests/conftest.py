"""Types and shapes of the whole package are checked while it is under test, and only then."""

import os
import signal
from pathlib import Path

import pytest
from jaxtyping import config, install_import_hook

# The tests' tensors are small: threads cost more than they give, also in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
install_import_hook("scorefield", "checker.check")

import torch  # noqa: E402 - the hook comes before anything that might import the package

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell has it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)


def _folder(variable: str) -> Path:
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} is unset")
    if not Path(path).is_dir():
        pytest.skip(f"{variable}={path} is no folder")
    return Path(path)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data, kept outside the repository."""
    return _folder("SCOREFIELD_DATA")


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """What other implementations computed, kept outside the repository."""
    return _folder("SCOREFIELD_GOLDEN")


@pytest.fixture
def unchecked():
    """For laws that take many thousand steps, which the checks slow down fourfold; they are on everywhere else."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)
