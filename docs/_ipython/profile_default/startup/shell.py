"""Commands in cells, as `!scorefield ...`: from the environment of the kernel, without a terminal, and an error where they fail."""

import os
import subprocess
import sys
from pathlib import Path

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _system(command: str) -> None:
    done = subprocess.run(command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout, end="")
    if done.returncode:
        raise RuntimeError(f"{command!r} ended with code {done.returncode}")


get_ipython().system = _system  # noqa: F821
